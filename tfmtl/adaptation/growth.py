"""Growth of a trained model: new values in its vocabularies and new candidates in its corpus."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._checks import require_type
from tfmtl._identity import NO_KEY, keys_of
from tfmtl._keras import tf
from tfmtl.adaptation.grown_rows import grow_network, grow_optimizer
from tfmtl.adaptation.vocabulary import extend_statistics
from tfmtl.data import Preprocessor, encode, to_columns
from tfmtl.data.distinct_candidates import distinct_candidates
from tfmtl.models import Candidates, MultiTaskModel


def extend_vocabularies(
    model: MultiTaskModel, table: Any, *, candidates: Any = None, headroom: float = 0.0
) -> MultiTaskModel:
    """Return a model with the values and candidates of a later table in its vocabularies and corpus.

    Use it to continue training on new data with new users and items; `OnlineLearner` does so for each increment. Old
    indices keep their meaning, so that all weights, slots and row counters of the optimizer, the state of the balancer
    and the streaming counts of retrieval are kept. The row of a new value is a copy of the row of the unknown value,
    which the model used for it before, with empty slots: growth changes no prediction. (A random row or the mean of all
    rows would change predictions before the model has learned about the value.)

    Args:
        model: compiled or not. If its tables have free rows, it is changed in place and returned; otherwise it is not
            changed. Use only the returned model afterwards.
        table: pandas table with the feature columns; see `extend_statistics` for the values that enter.
        candidates: table of the whole corpus from now on, one row per candidate; by default the old corpus and the last
            row in `table` of each candidate that the corpus lacks.
        headroom: free indices for later values, as a share of the vocabulary's size, added when it outgrows its table.
            As long as some are free, new values need no new network and no new trace of the step.

    Raises:
        TypeError: if `model` is no `MultiTaskModel`.
        ValueError: if a column is absent, or a compact table would have to grow.

    Example:
        >>> import pandas as pd
        >>> from tfmtl.data import Categorical, Label, Schema, fit_statistics
        >>> from tfmtl.models import build_network
        >>> from tfmtl.tasks import Regression
        >>> schema = Schema([Categorical("user_id")], [Categorical("movie_id")], labels=[Label("rating")])
        >>> table = pd.DataFrame({"user_id": ["u", "u"], "movie_id": ["m", "n"], "rating": [4.0, 5.0]})
        >>> preprocessor, heads = Preprocessor.fit(schema, table), [Regression("rating")]
        >>> model = MultiTaskModel(build_network(preprocessor, heads), heads, preprocessor)
        >>> grown = extend_vocabularies(model, table.assign(user_id="v"))
        >>> grown.preprocessor.vocabulary("user_id").tolist()
        ['u', 'v']

    Cost: a pass over the table, and new look-up tables; without free rows also a copy of all weights and slots, and a
    trace of the next step, which takes seconds.
    """
    require_type(model, MultiTaskModel, "model")
    schema, before = model.schema, model.preprocessor.statistics
    statistics = extend_statistics(schema, before, table, headroom=headroom)
    preprocessor = type(model.preprocessor)(schema, statistics, name=model.preprocessor.name)
    corpus = _grown_corpus(model.candidates, table, candidates, preprocessor)
    sizes = {name: statistics.size(name) for name in schema.vocabularies}
    if all(size == before.size(name) for name, size in sizes.items()):
        return _changed(model, preprocessor, corpus)
    network, rows = grow_network(model.network, schema, sizes)
    arguments = {**model.arguments(), "preprocessor": preprocessor, "candidates": corpus}
    grown = type(model)(network, **arguments).adopt_state(model)
    if getattr(model, "optimizer", None) is not None:
        tables = {id(v): rows[layer.name] for layer in network.layers if layer.name in rows for v in layer.weights}
        grown_rows = {i: tables[id(v)] for i, v in enumerate(grown.trainable_variables) if id(v) in tables}
        optimizer = grow_optimizer(model.optimizer, model.trainable_variables, grown.trainable_variables, grown_rows)
        grown.compile(optimizer, **model.compile_options)
    return grown


def _changed(model: MultiTaskModel, preprocessor: Preprocessor, corpus: Candidates | None) -> MultiTaskModel:
    """Set the new look-up tables and corpus of a model with enough free rows."""
    drawn = corpus is not model.candidates and any(task.num_extra_negatives for task in model.tasks)
    model.preprocessor, model.candidates = preprocessor, corpus
    if drawn:
        model.retrace()
    return model


def _grown_corpus(corpus: Candidates | None, table: Any, frame: Any, preprocessor: Preprocessor) -> Candidates | None:
    if frame is not None:
        return Candidates.from_frame(frame, preprocessor)
    if corpus is None:
        return None
    schema = preprocessor.schema
    raw = to_columns(table, [schema.features[schema.candidate_id]])[schema.candidate_id]
    keys = keys_of(tf.constant(raw)).numpy()
    _, from_end = np.unique(keys[::-1], return_index=True)
    last = np.sort(len(keys) - 1 - from_end)  # the last row of each candidate
    fresh = last[(corpus.positions(tf.constant(keys[last])).numpy() < 0) & (keys[last] != NO_KEY)]
    if not len(fresh):
        return corpus
    ids, columns = distinct_candidates(table.iloc[fresh], schema)
    encoded = encode(preprocessor, columns)
    features = {name: tf.concat([old, encoded[name]], axis=0) for name, old in corpus.features.items()}
    return Candidates(np.concatenate([corpus.ids, ids]), features)

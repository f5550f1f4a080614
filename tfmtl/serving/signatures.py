"""The table of signatures: a new signature of a served model is one entry."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl._names import weight_input
from tfmtl.data.preprocessor import MISSING_VALUES
from tfmtl.serving.ranker import ROLES, Ranker
from tfmtl.serving.recommender import Recommender
from tfmtl.serving.signature import Answer, FromExamples, Signature

DEFAULT = "serving_default"
"""The signature that a server answers if a request names none."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the table of signatures: a served computation, its inputs and its availability.

    A subclass of `RecommenderExporter` serves a new computation with one more entry in its `entries`.

    Attributes:
        name: the signature's name.
        function: called with the served `Ranker` or `Recommender` and the inputs by name; returns tensors [B, ...] by
            output name.
        inputs: returns the inputs' specifications by name, given the served `Ranker` or `Recommender`.
        examples: returns values of the inputs that are no features, as in `Signature`.
        available: the class that must be served for the signature to exist.
        also_from_examples: the name of a second signature that reads the same inputs from `tf.Example` protos, or None.

    Example:
        >>> def oldest(served, /, *, age):
        ...     return {"oldest": tf.fill(tf.shape(age), tf.reduce_max(age))}
        >>> Entry("oldest", oldest, lambda served: {"age": served.specs("query")["age"]}).name
        'oldest'
    """

    name: str
    function: Callable[..., Answer]
    inputs: Callable[[Any], Mapping[str, tf.TensorSpec]]
    examples: Callable[[Any], Mapping[str, np.ndarray]] = lambda served: {}
    available: type[Ranker] = Ranker
    also_from_examples: str | None = None

    def signatures(self, served: Ranker) -> dict[str, Signature]:
        """Return the signatures of this entry by name; none if `served` is no instance of `available`."""
        if not isinstance(served, self.available):
            return {}
        function, examples = types.MethodType(self.function, served), self.examples(served)
        names = {name: other for name, other in served.input_names.items() if name not in examples}
        plain = Signature(function, self.inputs(served), examples, names)
        if self.also_from_examples is None:
            return {self.name: plain}
        return {self.name: plain, self.also_from_examples: FromExamples.reading(plain)}


def signatures_of(served: Ranker, entries: Iterable[Entry]) -> dict[str, Signature]:
    """Return the available signatures by name; `serving_default` is the very signature named `served.default`.

    Raises:
        ValueError: if two entries have one name, or no entry has the name of the default.
    """
    found: dict[str, Signature] = {}
    for entry in entries:
        own = entry.signatures(served)
        taken = sorted(set(own) & {*found, DEFAULT})
        require(not taken, f"The signatures {taken} exist already; give the new ones other names.", entry=entry.name)
        found |= own
    require(served.default in found, f"The table must hold the default signature {served.default!r}.", names=[*found])
    return {DEFAULT: found[served.default], **found}


def _pair(served: Ranker) -> dict[str, tf.TensorSpec]:
    return served.specs(*ROLES)


def _query(served: Ranker) -> dict[str, tf.TensorSpec]:
    return served.specs("query")


def _candidate(served: Ranker) -> dict[str, tf.TensorSpec]:
    return served.specs("candidate")


def _filtered(served: Recommender) -> dict[str, tf.TensorSpec]:
    names, dtype = ("exclude_ids", "restrict_ids"), served.index.id_dtype
    ids = {name: tf.TensorSpec([None, None], dtype, name) for name in names}
    return {**_query(served), **ids, "k": tf.TensorSpec([None], tf.int32, "k")}


def _filters(served: Recommender) -> dict[str, np.ndarray]:
    last = served.last_ids
    missing = np.full_like(last, MISSING_VALUES[served.index.id_dtype])
    return {
        "exclude_ids": np.stack([last, last[::-1]]),
        "restrict_ids": np.stack([missing, missing, last]),
        "k": np.asarray([-1, served.max_k, 1, 0], np.int32),
    }


def _weighted(served: Recommender) -> dict[str, tf.TensorSpec]:
    names = map(weight_input, served.fusion.weights)
    return {
        **_filtered(served),
        **served.specs("context"),
        **{name: tf.TensorSpec([None], tf.float32, name) for name in names},
    }


def _filters_and_weights(served: Recommender) -> dict[str, np.ndarray]:
    weights = np.asarray([np.nan, 0.0, 2.0], np.float32)
    return {**_filters(served), **dict.fromkeys(map(weight_input, served.fusion.weights), weights)}


ENTRIES = (
    Entry("recommend", Recommender.recommend, _query, available=Recommender),
    Entry(
        "recommend_filtered",
        Recommender.recommend_filtered,
        _weighted,
        _filters_and_weights,
        available=Recommender,
        also_from_examples="recommend_examples",
    ),
    Entry("retrieve", Recommender.retrieve, _query, available=Recommender),
    Entry(
        "retrieve_filtered",
        Recommender.retrieve_filtered,
        _filtered,
        _filters,
        available=Recommender,
        also_from_examples="retrieve_examples",
    ),
    Entry("rank", Ranker.rank, _pair, also_from_examples="rank_examples"),
    Entry(
        "embed_query",
        Recommender.embed_query,
        _query,
        available=Recommender,
        also_from_examples="embed_query_examples",
    ),
    Entry(
        "embed_candidate",
        Recommender.embed_candidate,
        _candidate,
        available=Recommender,
        also_from_examples="embed_candidate_examples",
    ),
)
"""The signatures of `RecommenderExporter`, in the order of the model card."""

EXPLAIN = Entry("explain", Ranker.explain, _pair, also_from_examples="explain_examples")
"""The signature of versions that are exported with `explain`, after the others."""

"""Item-to-item retrieval: the nearest candidates of a candidate, by the embeddings of a retrieval task."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl._keras import tf
from tfmtl._nearest import best_of, unit_rows
from tfmtl.data import keys_of
from tfmtl.data.distinct_candidates import raw_candidate_ids
from tfmtl.data.interchange import as_frame
from tfmtl.evaluation.corpus import embed, positions
from tfmtl.evaluation.counting import FloatArray, IntArray, blocks
from tfmtl.evaluation.ranks import BLOCK_BYTES
from tfmtl.models import Candidates, MultiTaskModel
from tfmtl.models.inputs import require_candidates

Similarity = Literal["cosine", "dot"]
_BYTES_PER_SCORE = 20  # a score, and the positions that sort it


def similar_items(
    model: MultiTaskModel,
    items: Any,
    k: int = 10,
    *,
    task: str | None = None,
    similarity: Similarity = "cosine",
    block_bytes: int = BLOCK_BYTES,
) -> pd.DataFrame:
    """Return the k candidates of the corpus that are nearest to each item.

    Use it for "more like this" and to look at the embeddings that a model has learned. Items with near embeddings are
    retrieved for the same queries. score(i, j) = e_i . e_j / (|e_i| |e_j|), or e_i . e_j with `similarity="dot"`, which
    prefers candidates with long embeddings: often popular ones.

    Args:
        model: model with a retrieval task and `candidates`.
        items: ids of candidates; or a table with the candidate columns of the schema, for items outside the corpus or
            with other features. An item that occurs twice has one list.
        k: length of the lists; the number of other candidates, if they are fewer.
        task: the retrieval task; needed if the model has several.
        similarity: `"cosine"` or `"dot"`.
        block_bytes: bound of the memory for a block of scores of items and all candidates.

    Returns:
        A table with the columns `item`, `rank` from 1, `neighbor` and `score`, ordered by item and rank. No item is its
        own neighbor.

    Raises:
        ValueError: if an id is no candidate, the model has no corpus, a table lacks a column, or the task is unknown.

    Example:
        >>> from tfmtl import Preprocessor, build_network
        >>> from tfmtl.data import Categorical, Schema
        >>> from tfmtl.tasks import Retrieval
        >>> table = pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"]})
        >>> data = Preprocessor.fit(Schema([Categorical("user")], [Categorical("item")]), table)
        >>> tasks = [Retrieval("click")]
        >>> model = MultiTaskModel(build_network(data, tasks), tasks, data)
        >>> similar_items(model, ["x"])[["item", "rank", "neighbor"]].to_numpy().tolist()
        [['x', 1, 'y']]

    Cost: one pass of the candidate tower over the corpus, and one product with it per item.
    """
    require_positive_int(k=k, block_bytes=block_bytes)
    require_known([similarity], ("cosine", "dot"), "similarity", "`similarity`")
    name = _task(model, task)
    corpus = require_candidates(model)
    table = embed(model.tower("candidate"), corpus.features)[name]
    ids, own = _embedded(model, name, items, corpus, table)
    if similarity == "cosine":
        table, own = unit_rows(table), unit_rows(own)
    own_position = _positions(corpus, ids)
    length = min(k, len(corpus))
    found = np.empty([len(ids), length], np.int64)
    scores = np.empty([len(ids), length], np.float32)
    for first, last in blocks(len(ids), max(1, block_bytes // (_BYTES_PER_SCORE * len(corpus)))):
        piece = slice(first, last)
        found[piece], scores[piece] = best_of(own[piece] @ table.T, own_position[piece], length)
    return _as_table(ids, corpus.ids, found, scores)


def _task(model: MultiTaskModel, task: str | None) -> str:
    names = [each.name for each in model.tasks if each.retrieves]
    require(bool(names), "`similar_items` needs a model with a retrieval task.", tasks=[t.name for t in model.tasks])
    require(task is not None or len(names) == 1, f"Name one of the retrieval tasks {names} in `task`.", task=task)
    chosen = names[0] if task is None else task
    require_known([chosen], names, "task", "`task` (the model's retrieval tasks)")
    return chosen


def _embedded(
    model: MultiTaskModel, task: str, items: Any, corpus: Candidates, table: FloatArray
) -> tuple[npt.NDArray[Any], FloatArray]:
    """Return the distinct ids [n] of the items and their embeddings [n, d]."""
    if hasattr(items, "columns"):
        given = Candidates.from_frame(as_frame(items), model.preprocessor)
        return given.ids, embed(model.tower("candidate"), given.features)[task]
    listed = list(dict.fromkeys(raw_candidate_ids(items, model.schema, "items")))
    require(bool(listed), "`items` must hold at least one id.", items=items)
    ids = np.asarray(listed, corpus.ids.dtype)
    where = _positions(corpus, ids)
    unknown = ids[where < 0][:3].tolist()
    cure = "for others give a table with their features"
    require(not unknown, f"`items` must hold ids of candidates; {cure}.", unknown=unknown)
    return ids, table[where]


def _positions(corpus: Candidates, ids: npt.NDArray[Any]) -> IntArray:
    return positions(corpus, keys_of(tf.constant(ids, tf.int64 if ids.dtype.kind == "i" else tf.string)).numpy())


def _as_table(ids: npt.NDArray[Any], candidates: npt.NDArray[Any], found: IntArray, scores: FloatArray) -> pd.DataFrame:
    length = found.shape[1]
    lists = {
        "item": np.repeat(ids, length),
        "rank": np.tile(np.arange(1, length + 1), len(ids)),
        "neighbor": candidates[found.reshape(-1)],
        "score": scores.reshape(-1),
    }
    kept = scores.reshape(-1) > -np.inf
    return pd.DataFrame({name: values[kept] for name, values in lists.items()})

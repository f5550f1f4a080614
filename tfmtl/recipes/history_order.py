"""Whether the order of a history counts for the next candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tfmtl._identity import UNKNOWN
from tfmtl._keras import keras
from tfmtl.data import Preprocessor, to_batch
from tfmtl.evaluation.corpus import positives
from tfmtl.layers import SelfAttentionHistory
from tfmtl.models.inputs import histories_of
from tfmtl.tasks import Task

Ints = npt.NDArray[np.int64]

ORDERED = 1.05
"""Similarity of the latest item to the next one, relative to that of a drawn item, from which attention is used."""
_ROWS_PER_ITEM = 20
"""Rows per candidate below which attention gained nothing beside a recency in EASE, at three times the cost."""
_LEAST_EARLIER = 3
"""Known items of a history below which a row does not count."""
_LEAST_ROWS = 200
_MOST_ROWS = 20_000
_BLOCK, _MOST_ENTRIES = 500, 10_000_000
_DROPOUT = 0.2


class Order(NamedTuple):
    """The similarity of the items of a history to the next one.

    Attributes:
        latest: mean cosine of the latest item with the next one.
        earlier: mean cosine of an item of the history, drawn at random, with the next one.
        rows: number of positive rows per known candidate.
    """

    latest: float
    earlier: float
    rows: float

    @property
    def lift(self) -> float:
        """The ratio of both; 1 if the drawn items have no user in common with the next ones."""
        return self.latest / self.earlier if self.earlier > 0 else 1.0


def history_orders(preprocessor: Preprocessor, tasks: Sequence[Task], train: Any, seed: int = 0) -> dict[str, Order]:
    """Return the order of each history of candidates with enough rows; none without a retrieval task.

    Args:
        preprocessor, tasks, train: as in `fit`.
        seed: seed of the draws.
    """
    schema = preprocessor.schema
    retrieval = [task.name for task in tasks if task.retrieves]
    if not retrieval or schema.query_id not in {feature.name for feature in schema.query}:
        return {}
    found = {name: order_of(preprocessor, retrieval[0], name, train, seed) for name in histories_of(schema)}
    return {name: order for name, order in found.items() if order is not None}


def history_poolings(orders: Mapping[str, Order], seed: int = 0) -> dict[str, keras.layers.Layer]:
    """Return the `poolings` of `build_network`: attention for each history of which the order counts.

    Where the latest item predicts the next one no better than one drawn from the history, or candidates have few rows,
    the mean of a history is as good and costs less.

    Args:
        orders: from `history_orders`.
        seed: seed of the layers.
    """
    return {
        name: SelfAttentionHistory(num_blocks=1, dropout=_DROPOUT, relative=True, seed=seed)
        for name, order in orders.items()
        if order.lift >= ORDERED and order.rows >= _ROWS_PER_ITEM
    }


def order_of(preprocessor: Preprocessor, task: str, history: str, train: Any, seed: int = 0) -> Order | None:
    """Return the similarity of the latest and of a drawn item of a history to the next one.

    cos(i, j) = n_ij / sqrt(n_i n_j), with the users n_i of item i and n_ij of both; the user of the row does not count
    in n_ij. Both means are over the same rows: positive rows with at least three known items in their history and a
    known next item, which is none of the compared ones.

    Args:
        preprocessor: with the schema.
        task: the retrieval task.
        history: a list of the candidate's ids.
        train: table with the history of each row.
        seed: seed of the draw of rows and of earlier items.

    Returns:
        The similarities, or None with fewer than 200 rows.

    Cost: that of the co-occurrences of 20,000 pairs of items.
    """
    schema = preprocessor.schema
    user, item = schema.query_id, schema.candidate_id
    labels = [task] if task in schema.tasks else False
    batch = to_batch(train, preprocessor, labels=labels, features=[user, item, history])
    rows = positives(batch, task)
    users, items, lists = (np.asarray(batch.features[name])[rows] for name in (user, item, history))
    bought = _matrix(users, items)
    chosen = np.flatnonzero(((lists > UNKNOWN).sum(axis=1) >= _LEAST_EARLIER) & (items > UNKNOWN))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(chosen)[:_MOST_ROWS])
    known = lists[chosen] > UNKNOWN
    drawn = np.argmax(np.where(known, rng.random(known.shape), -1.0), axis=1)
    pairs = [lists[chosen, at] for at in (np.argmax(known, axis=1), drawn)]
    kept = np.all([pair != items[chosen] for pair in pairs], axis=0)
    if kept.sum() < _LEAST_ROWS:
        return None
    cosines = [_cosines(bought, users[chosen][kept], pair[kept], items[chosen][kept]) for pair in pairs]
    per_item = float((items > UNKNOWN).sum()) / max(len(np.unique(items[items > UNKNOWN])), 1)
    latest, earlier = (float(values.mean()) for values in cosines)
    return Order(latest, earlier, per_item)


def _matrix(users: Ints, items: Ints) -> sp.csr_matrix:
    """Return whether each known user [rows] had each known item [columns]."""
    known = (users > UNKNOWN) & (items > UNKNOWN)
    shape = int(users.max(initial=0)) + 1, int(items.max(initial=0)) + 1
    found = sp.csr_matrix((np.ones(known.sum(), np.float32), (users[known], items[known])), shape=shape)
    found.data[:] = 1.0
    return found


def _cosines(bought: sp.csr_matrix, users: Ints, left: Ints, right: Ints) -> npt.NDArray[np.float64]:
    """Return the cosine of each pair of items without the user of the row."""
    of_item, inside = bought.tocsc(), left < bought.shape[1]
    counts = np.asarray(bought.sum(axis=0)).ravel()
    found, size = np.zeros(len(left)), int(min(_BLOCK, max(1, _MOST_ENTRIES // max(counts.max(initial=1.0), 1.0))))
    for start in range(0, len(left), size):
        rows = np.flatnonzero(inside[start : start + size]) + start
        if not len(rows):  # no item of the block has a user
            continue
        both = of_item[:, left[rows]].multiply(of_item[:, right[rows]])
        own = np.asarray(bought[users[rows], left[rows]]) * np.asarray(bought[users[rows], right[rows]])
        common = np.asarray(both.sum(axis=0)).ravel() - own.ravel()
        found[rows] = common / np.sqrt(np.maximum(counts[left[rows]] * counts[right[rows]], 1.0))
    return found

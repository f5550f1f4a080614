"""Sampled negatives for tables that hold only the events that happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl._label_graph import LabelGraph
from tfmtl.data.interchange import as_frame, as_rows
from tfmtl.data.schema import Schema

_ROUNDS = 20
"""Draws of a pair that may all be known ones, before the unknown candidates of its user are listed."""

Codes = npt.NDArray[np.int64]


def with_sampled_negatives(
    frame: pd.DataFrame,
    schema: Schema,
    labels: str | LabelGraph,
    *,
    per_row: int = 1,
    known: Any = None,
    power: float = 0.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Return a table of events with sampled negatives after them: candidates that the user did not choose.

    Use it for tasks and label chains with a first event that is 1 in every row: without a 0 they cannot learn it, and
    `EntireSpaceConversion` has no unclicked rows. The predicted probabilities are then those of the sampled table: use
    their order alone, since `per_row` decides on the base rate. A retrieval task needs a label column, since without
    one all rows are its positives.

    A new row has the query and context of an event, another candidate with its features, 0 in the first label and in
    all labels that come after it, and no value in other labels and columns. The candidate is drawn from those of the
    table, and is none of the user's in the table or in `known`; users who had all get no rows.

    Args:
        frame: one row per event, with the columns of the schema.
        schema: names the columns of users, candidates and labels.
        labels: the column of the first event, or the graph of a chain with one first event.
        per_row: new rows for each event with the first label above 0.
        known: further table with the two id columns.
        power, seed: candidates are drawn in proportion to (number of rows)^power, 0 for uniform; seed of the draws.

    Raises:
        ValueError: if a column is absent, an argument is out of range, or the graph has several first events.

    Example:
        >>> from tfmtl.data import Categorical, Label
        >>> schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("click"), Label("buy")])
        >>> clicks = pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "click": [1.0, 1.0], "buy": [1.0, 0.0]})
        >>> made = with_sampled_negatives(clicks, schema, LabelGraph.chain("click", "buy"))
        >>> made.tail(2).values.tolist()
        [['a', 'y', 0.0, 0.0], ['b', 'x', 0.0, 0.0]]

    Cost: one sort of the pairs; a few draws per new row.
    """
    frame = as_rows(frame)
    require_positive_int(per_row=per_row)
    require(np.isfinite(power), "`power` must be a finite number.", power=power)
    first, *after = _in_order(labels)
    user, item = (schema.features[name].column for name in (schema.user("Negative sampling"), schema.candidate_id))
    columns = [*dict.fromkeys(feature.column for feature in schema.candidate)]
    own = [feature.column for feature in (*schema.query, *schema.context)]
    require_known([user, *columns, *own, first, *after], frame.columns, "column", "the table")
    tables = [frame] if known is None else [frame, as_frame(known)]
    require_known([user, item], tables[-1].columns, "column", "`known`")
    pairs = _Pairs.of(tables, user, item)
    source = np.repeat(np.flatnonzero((frame[first] > 0).to_numpy() & (pairs.users >= 0)), per_row)
    drawn = pairs.draw(pairs.users[source], power, np.random.default_rng(seed))
    made = negative_rows(frame, schema, (first, *after), source[drawn >= 0], pairs.example[drawn[drawn >= 0]])
    return pd.concat([frame, made], ignore_index=True)


def negative_rows(
    frame: pd.DataFrame, schema: Schema, labels: Sequence[str], source: Any, example: Any
) -> pd.DataFrame:
    """Return rows with the queries and contexts of some rows, the candidates of others, and 0 in some labels.

    All other columns have no value.

    Args:
        frame: the table.
        schema: names the columns of queries, contexts and candidates.
        labels: columns of the labels that are 0.
        source: rows [n] with the queries.
        example: rows [n] with the candidates.
    """
    columns = [*dict.fromkeys(feature.column for feature in schema.candidate)]
    own = [feature.column for feature in (*schema.query, *schema.context)]
    made = frame.iloc[source].reset_index(drop=True)
    others = frame.columns.difference([*own, *columns, *labels])
    made = made.assign(**{name: made[name].where(np.zeros(len(made), bool)) for name in others})
    made = made.assign(**dict(frame[columns].iloc[example].reset_index(drop=True)))
    return made.assign(**dict.fromkeys(labels, 0.0))


class _Pairs(NamedTuple):
    """Users and candidates of a table as codes.

    Attributes:
        users: code of the user of each row of the table [n]; -1 for a missing one.
        counts: number of rows of each candidate of the table [C].
        example: a row of each candidate [C].
        known: user * C + candidate of the known pairs, ascending.
    """

    users: Codes
    counts: Codes
    example: Codes
    known: Codes

    @classmethod
    def of(cls, tables: Sequence[pd.DataFrame], user: str, item: str) -> _Pairs:
        """Return the codes of the first table, and the known pairs of all tables."""
        rows = len(tables[0])
        users, items = (
            pd.factorize(pd.concat([table[name] for table in tables], ignore_index=True))[0] for name in (user, item)
        )
        own = items[:rows]  # which have the first codes
        codes, example = np.unique(own, return_index=True)
        example = example[codes >= 0]
        inside = (items >= 0) & (items < len(example)) & (users >= 0)
        known = np.unique(users[inside] * len(example) + items[inside])
        return cls(users[:rows], np.bincount(own[own >= 0], minlength=len(example)), example, known)

    def draw(self, users: Codes, power: float, rng: np.random.Generator) -> Codes:
        """Return for each of `users` [n] a candidate that makes no known pair, -1 for users who have all candidates."""
        count = len(self.counts)
        drawn = np.full(len(users), -1)
        if not count:
            return drawn
        shares = self.counts.astype(np.float64) ** power
        bounds, open_rows = np.cumsum(shares / shares.sum()), np.arange(len(users))
        for _ in range(_ROUNDS):
            items = np.minimum(np.searchsorted(bounds, rng.random(len(open_rows)), side="right"), count - 1)
            new = ~np.isin(users[open_rows] * count + items, self.known)
            drawn[open_rows[new]] = items[new]
            open_rows = open_rows[~new]
        for row in open_rows:
            start, end = np.searchsorted(self.known, [users[row] * count, (users[row] + 1) * count])
            left = np.setdiff1d(np.arange(count), self.known[start:end] - users[row] * count)
            if len(left):
                drawn[row] = rng.choice(left, p=shares[left] / shares[left].sum())
        return drawn


def _in_order(labels: str | LabelGraph) -> tuple[str, ...]:
    """Return the column of the first event and those of the events after it."""
    if isinstance(labels, str):
        return (labels,)
    roots = [label for label in labels.order if not labels.parents_of(label)]
    require(len(roots) == 1, "The graph must have one first event, of which negatives are sampled.", first=roots)
    return labels.order

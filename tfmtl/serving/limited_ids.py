"""The candidates that lists leave out, or are restricted to, by query."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfmtl._checks import require
from tfmtl.data import Schema
from tfmtl.data.columns import to_columns
from tfmtl.data.interchange import as_frame


class Limit(NamedTuple):
    """Ids by query, one list after the other.

    Attributes:
        ids: raw ids.
        starts: position of the first id of each query [N].
        sizes: number of ids of each query [N].
    """

    ids: npt.NDArray[Any]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def padded(self, rows: npt.NDArray[np.int64], missing: Any) -> npt.NDArray[Any]:
        """Return the ids of some queries [n, longest], with padding after shorter lists."""
        sizes = self.sizes[rows]
        found = np.full([len(rows), sizes.max(initial=0)], missing, object if self.ids.dtype.kind == "O" else np.int64)
        inside = np.arange(found.shape[1]) < sizes[:, np.newaxis]
        positions = self.starts[rows][:, np.newaxis] + np.arange(found.shape[1])
        found[inside] = self.ids[positions[inside]]
        return found


def limit_of(given: Any, frame: pd.DataFrame, schema: Schema) -> Limit | None:
    """Return the ids that each query of a table leaves out or is restricted to.

    Args:
        given: ids for all queries, a table of pairs of user and candidate, or None.
        frame: the queries.
        schema: its ids of user and candidate are the columns of the pairs.

    Raises:
        ValueError: if a table lacks a column, or the schema has no id of users.
    """
    if given is None:
        return None
    item = schema.features[str(schema.candidate_id)]
    given = as_frame(given)
    count = len(frame)
    if not isinstance(given, pd.DataFrame):
        values = [given] if isinstance(given, str | int) else list(given)
        ids = to_columns(pd.DataFrame({item.column: values}), [item])[item.name] if values else np.zeros(0, np.int64)
        return Limit(ids, np.zeros(count, np.int64), np.full(count, len(ids)))
    require(
        schema.query_id in {feature.name for feature in schema.query},
        "A table of pairs needs the id of users among the query's features; give ids of candidates for all queries.",
    )
    user = schema.features[str(schema.query_id)]
    pairs = given[[user.column, item.column]].drop_duplicates() if {user.column, item.column} <= {*given} else given
    found = to_columns(pairs, [user, item])
    own, names = pd.factorize(to_columns(frame, [user])[user.name])
    group = pd.Index(names).get_indexer(pd.Index(found[user.name]))
    kept = np.flatnonzero(group >= 0)
    kept = kept[np.argsort(group[kept], kind="stable")]
    sizes = np.bincount(group[kept], minlength=len(names))
    return Limit(found[item.name][kept], (np.cumsum(sizes) - sizes)[own], sizes[own])

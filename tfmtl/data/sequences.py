"""Sequences of events: one row holds several events of a user, and their histories are prefixes of one list."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_known
from tfmtl._identity import NO_KEY
from tfmtl._keras import tf
from tfmtl.data.columns import to_columns, to_labels
from tfmtl.data.features import IdSequence
from tfmtl.data.frames import Batch, encode
from tfmtl.data.preprocessor import Preprocessor
from tfmtl.data.schema import Schema

PLACES = "event.places"
"""Key of the positions of the events in the features of a batch; no feature has such a name."""


class Sequences(NamedTuple):
    """Encoded events in the order of time, several per row.

    Give them to `MultiTaskModel.fit` instead of single rows if a history is read by self-attention: the history of an
    event holds the ids up to its position, so one causal pass over a row of length L serves L events. Each event is
    trained as a single row would be.

    Attributes:
        features: [R, L, ...] by feature name, oldest event first; of an `IdSequence` [R, L], the id that joined the
            list just before the event, 0 for none.
        labels: float32 [R, L] by task, NaN where the label is missing.
        weights: float32 [R, L] by task, 0 where the label is missing.
        events: bool [R, L], whether a position holds an event to learn from; the others are padding or history only.
        ids: int64 [R, L] by role, as in `Batch`.
    """

    features: dict[str, tf.Tensor]
    labels: dict[str, tf.Tensor]
    weights: dict[str, tf.Tensor]
    events: tf.Tensor
    ids: dict[str, tf.Tensor]


def to_sequences(
    frame: pd.DataFrame, preprocessor: Preprocessor, time: str, *, overlap: int = 0, labels: bool = True
) -> Sequences:
    """Return a table of events as `Sequences`, user by user.

    A user's events are cut into rows of L, the `max_length` of the histories, from the latest backwards; the history of
    an event holds the user's earlier events in its row, and the last one before the row.

    Args:
        frame: one row an event, with the schema's columns except the histories, the `IdSequence` features, which are
            made here: each holds the values of the column it is `of`.
        preprocessor: the model's preprocessor.
        time: column to order a user's events by; rows of one moment keep the table's order.
        overlap: positions at the start of a row, from 0 to L - 1, that repeat the end of the preceding row, so that
            events have histories of at least about this length. Repeated events fill the history and are not learned
            from twice.
        labels: whether to read label and weight columns.

    Raises:
        ValueError: if the schema has no history, or several of different lengths, a column is absent, or `overlap` is
            out of range.

    Example:
        >>> from tfmtl.data import Categorical, fit_statistics
        >>> schema = Schema([Categorical("user"), IdSequence("recent", of="item", max_length=3)], [Categorical("item")])
        >>> table = pd.DataFrame({"user": ["u"] * 4, "item": ["a", "b", "b", "a"], "day": [1, 2, 3, 4]})
        >>> found = to_sequences(table, Preprocessor.fit(schema, table), "day")
        >>> found.features["item"].numpy().tolist(), found.features["recent"].numpy().tolist()
        ([[2, 0, 0], [3, 3, 2]], [[0, 0, 0], [2, 3, 3]])

    Cost: one sort; L numbers per row and column, even for short rows. An epoch computes one self-attention per row,
    instead of one per event for single rows.
    """
    schema = preprocessor.schema
    length = _length(schema)
    require(0 <= overlap < length, f"`overlap` must be from 0 to {length - 1}.", overlap=overlap)
    kept = [feature for feature in schema.features.values() if not isinstance(feature, IdSequence)]
    order, users = _in_time(frame, schema.features[schema.query_id].column, time)
    ordered = frame.iloc[order]
    columns = to_columns(ordered, kept)
    features = {name: column.numpy() for name, column in encode(preprocessor, columns).items()}
    first = np.r_[True, users[1:] != users[:-1]]
    for name, history in schema.features.items():
        if isinstance(history, IdSequence):
            features[name] = np.where(first, 0, np.roll(features[history.of], 1))
    rows = _rows(np.bincount(users), length, overlap)
    values, weights = to_labels(ordered, schema) if labels else ({}, {})
    return Sequences(
        {name: rows.of(column, 0) for name, column in features.items()},
        {task: rows.of(column, np.nan) for task, column in values.items()},
        {task: rows.of(column, 0) for task, column in weights.items()},
        tf.constant(rows.events),
        {role: rows.of(keys.numpy(), NO_KEY) for role, keys in preprocessor.keys(columns).items()},
    )


def _in_time(frame: pd.DataFrame, user: str, time: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of the rows by user and time, and the users' numbers in that order."""
    require_known([user, time], frame.columns, "column", "the table")
    for name in (user, time):
        missing = int(frame[name].isna().sum())
        require(missing == 0, f"Column {name!r} has {missing} missing values; drop these rows.")
    users, _ = pd.factorize(frame[user])
    order = np.lexsort((frame[time].to_numpy(), users))  # stable: rows of one moment stay as they are
    return order, users[order]


class _Rows(NamedTuple):
    """The event at each position [R, L], whether there is one, and whether it is learned from."""

    row: np.ndarray
    real: np.ndarray
    events: np.ndarray

    def of(self, column: np.ndarray, padding: float) -> tf.Tensor:
        real = self.real.reshape(*self.real.shape, *[1] * (column.ndim - 1))
        return tf.constant(np.where(real, column[self.row], np.asarray(padding, column.dtype)))


def _rows(counts: np.ndarray, length: int, overlap: int) -> _Rows:
    """Cut runs of `counts` events into rows, from their ends backwards."""
    stride = length - overlap
    rows = np.maximum(-(-(counts - overlap) // stride), 1)
    run = np.repeat(np.arange(len(counts)), rows)
    from_end = np.cumsum(rows)[run] - 1 - np.arange(len(run))  # 0 for the last row of a run
    base = np.cumsum(counts) - counts
    end = counts[run] - from_end * stride
    start = np.maximum(end - length, 0)
    learned = np.where(start > 0, start + overlap, 0)  # the row before ends there
    place = start[:, np.newaxis] + np.arange(length)
    real = place < end[:, np.newaxis]
    row = np.where(real, base[run][:, np.newaxis] + place, 0)
    return _Rows(row, real, real & (place >= learned[:, np.newaxis]))


def _length(schema: Schema) -> int:
    lengths = {name: f.max_length for name, f in schema.features.items() if isinstance(f, IdSequence)}
    require(bool(lengths), "Sequences need a history: give the schema an `IdSequence` of the items' ids.")
    require(len(set(lengths.values())) == 1, "Histories of sequences must have one `max_length`.", lengths=lengths)
    return next(iter(lengths.values()))


def events_of(sequences: Sequences, schema: Schema) -> Batch:
    """Return the events of sequences as a batch: columns [n, ...], histories [R, L] and positions `PLACES` [n].

    Args:
        sequences: R rows of length L.
        schema: of the events; its `IdSequence` features are histories.
    """
    places = tf.cast(tf.where(tf.reshape(sequences.events, [-1]))[:, 0], tf.int32)

    def flat(column: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.reshape(column, [-1, *column.shape[2:]]), places)

    features = {
        name: column if isinstance(schema.features[name], IdSequence) else flat(column)
        for name, column in sequences.features.items()
    }
    parts = (sequences.labels, sequences.weights, sequences.ids)
    labels, weights, ids = ({name: flat(column) for name, column in part.items()} for part in parts)
    return Batch({**features, PLACES: places}, labels, weights, ids)


def with_histories(frame: pd.DataFrame, schema: Schema, time: str, *, past: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the table with the history of each row: the ids of the user's earlier rows, most recent first.

    Args:
        frame: one row an event, with the columns of the user and of the items.
        schema: its `IdSequence` features are the new columns, each from the column it is `of`.
        time: column to order by; rows of one moment keep the order of the table, those of `past` before those
            of `frame`.
        past: earlier events that fill histories, such as the training table before test rows.

    Raises:
        ValueError: if the schema has no history or a column is absent.

    Example:
        >>> from tfmtl.data import Categorical
        >>> schema = Schema([Categorical("user"), IdSequence("recent", of="item", max_length=2)], [Categorical("item")])
        >>> table = pd.DataFrame({"user": ["u"] * 4, "item": ["a", "b", "c", "d"], "day": [1, 2, 3, 4]})
        >>> with_histories(table, schema, "day")["recent"].tolist()
        [[], ['a'], ['b', 'a'], ['c', 'b']]

    Cost: one sort, and one list per row.
    """
    histories = [feature for feature in schema.features.values() if isinstance(feature, IdSequence)]
    require(bool(histories), "The schema has no history: give it an `IdSequence` of the items' ids.")
    user = schema.features[schema.query_id].column
    needed = [user, time, *(schema.features[history.of].column for history in histories)]
    tables = [frame] if past is None else [past, frame]
    for table in tables:
        require_known(needed, table.columns, "column", "the table")
    every = pd.concat([table[list(dict.fromkeys(needed))] for table in tables], ignore_index=True)
    order, users = _in_time(every, user, time)
    place = np.argsort(order)[len(every) - len(frame) :]  # of the frame's rows
    begin = np.searchsorted(users, users[place])
    made = {}
    for history in histories:
        ids = every[schema.features[history.of].column].to_numpy()[order][::-1]  # most recent first
        stops = np.minimum(place - begin, history.max_length)
        lists = [ids[len(ids) - p : len(ids) - p + n].tolist() for p, n in zip(place, stops, strict=True)]
        made[history.column] = pd.Series(lists, index=frame.index, dtype=object)
    return frame.assign(**made)

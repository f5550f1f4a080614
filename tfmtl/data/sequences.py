"""Sequences of events: one row holds several events of a user, and their histories are prefixes of one list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_known
from tfmtl._identity import NO_KEY
from tfmtl._keras import tf
from tfmtl.data.columns import to_columns, to_labels
from tfmtl.data.features import IdSequence, NumericSequence
from tfmtl.data.frames import Batch, encode_rows
from tfmtl.data.interchange import as_rows
from tfmtl.data.preprocessor import Preprocessor
from tfmtl.data.schema import Schema
from tfmtl.data.times import column_of, days_of, moments_of

PLACES = "event.places"
"""Key, in the features of a batch, of the positions at which the histories end; no feature has such a name."""


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
        ends: int32 [R, L], the position of the row at which the history of an event ends: the first event of its
            moment, or its own with `same_moment=True`.
    """

    features: dict[str, tf.Tensor]
    labels: dict[str, tf.Tensor]
    weights: dict[str, tf.Tensor]
    events: tf.Tensor
    ids: dict[str, tf.Tensor]
    ends: tf.Tensor


def to_sequences(
    frame: pd.DataFrame,
    preprocessor: Preprocessor,
    time: str,
    *,
    overlap: int = 0,
    same_moment: bool = False,
    labels: bool = True,
) -> Sequences:
    """Return a table of events as `Sequences`, user by user.

    A user's events are cut into rows of L, the `max_length` of the histories, from the latest backwards; the history of
    an event holds the user's earlier events in its row, and the last one before the row, unless the row begins within
    a moment.

    Args:
        frame: one row per event, with the schema's columns except the histories, the `IdSequence` features of the
            candidate's id, which are made here.
        preprocessor: the model's preprocessor.
        time: column to order a user's events by, datetimes or numbers, as in `temporal_split`.
        overlap: positions at the start of a row, from 0 to L - 1, that repeat the end of the preceding row, so that
            events have histories of at least about this length. Repeated events fill the history and are not learned
            from twice.
        same_moment: whether a history also holds the rows of the event's own moment, such as a basket or a day, that
            are earlier in the table. By default they are not known yet, as in the splits, which keep a moment whole.
        labels: whether to read label and weight columns.

    Raises:
        ValueError: if the schema has no history, several of different lengths or a list of other ids, a column is
            absent, or `overlap` is out of range.
        TypeError: if the column of times holds text or other values without an order in time.

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
    frame = as_rows(frame)
    order, users, begins = _in_time([frame], schema.features[schema.user("`to_sequences`")].column, time)
    begins = np.arange(len(users)) if same_moment else begins
    return _sequences(
        frame.iloc[order], users, begins, _rows(np.bincount(users), length, overlap), preprocessor, labels
    )


def _sequences(
    ordered: pd.DataFrame, users: np.ndarray, begins: np.ndarray, rows: _Rows, preprocessor: Preprocessor, labels: bool
) -> Sequences:
    """Lay out events in the order of `_in_time`; `begins` holds the position up to which each history reaches."""
    schema = preprocessor.schema
    kept = [feature for feature in schema.features.values() if not isinstance(feature, IdSequence)]
    encoded, ids = encode_rows(preprocessor, to_columns(ordered, kept))
    features = {name: column.numpy() for name, column in encoded.items()}
    first = np.r_[True, users[1:] != users[:-1]]
    ends = np.maximum(begins[rows.row] - rows.row[:, :1], 0)
    cut = begins[rows.row[:, 0]] < rows.row[:, 0]  # the event before the row belongs to the moment of its first event
    for name, history in schema.features.items():
        if isinstance(history, IdSequence):
            features[name] = np.where(first, 0, np.roll(features[history.of], 1))
    values, weights = to_labels(ordered, schema) if labels else ({}, {})
    made = {name: rows.of(column, 0) for name, column in features.items()}
    for name, history in schema.features.items():
        if isinstance(history, IdSequence):
            made[name][cut, 0] = 0
    return Sequences(
        {name: tf.constant(column) for name, column in made.items()},
        {task: tf.constant(rows.of(column, np.nan)) for task, column in values.items()},
        {task: tf.constant(rows.of(column, 0)) for task, column in weights.items()},
        tf.constant(rows.events),
        {role: tf.constant(rows.of(keys.numpy(), NO_KEY)) for role, keys in ids.items()},
        tf.constant(ends, tf.int32),
    )


def _in_time(
    frames: Sequence[pd.DataFrame], user: str, time: str, basket: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the order of all rows by user and time, the users' numbers in that order, and where their moments begin.

    Rows of one moment stay as they are. The last array holds, for each position, that of the first row of the same user
    and moment.
    """
    users, _ = pd.factorize(pd.concat([column_of(frame, user) for frame in frames], ignore_index=True))
    moments = _of_baskets(moments_of(frames, time), users, frames, basket)
    order = np.lexsort((moments, users))
    users, moments = users[order], moments[order]
    new = np.r_[True, (users[1:] != users[:-1]) | (moments[1:] != moments[:-1])]
    return order, users, np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))


def _of_baskets(times: np.ndarray, users: np.ndarray, frames: Sequence[pd.DataFrame], basket: str | None) -> np.ndarray:
    """Return for each row the first time of its user's basket; rows without a basket keep their own."""
    if basket is None:
        return times
    baskets, _ = pd.factorize(pd.concat([frame[basket] for frame in frames], ignore_index=True))
    key = pd.MultiIndex.from_arrays([users, np.where(baskets < 0, -1 - np.arange(len(baskets)), baskets)])
    return np.asarray(pd.Series(times).groupby(pd.factorize(key)[0]).transform("min"))


class _Rows(NamedTuple):
    """The event at each position [R, L], whether there is one, and whether it is learned from."""

    row: np.ndarray
    real: np.ndarray
    events: np.ndarray

    def of(self, column: np.ndarray, padding: float) -> np.ndarray:
        real = self.real.reshape(*self.real.shape, *[1] * (column.ndim - 1))
        return np.where(real, column[self.row], np.asarray(padding, column.dtype))


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
    lengths = {history.name: history.max_length for history in _histories(schema, None)}
    require(bool(lengths), "Sequences need a history: give the schema an `IdSequence` of the items' ids.")
    others = [name for name, f in schema.features.items() if isinstance(f, IdSequence) and name not in lengths]
    require(not others, f"Sequences hold histories of the candidate's id alone; train {others} on single rows.")
    require(len(set(lengths.values())) == 1, "Histories of sequences must have one `max_length`.", lengths=lengths)
    return next(iter(lengths.values()))


def events_of(sequences: Sequences, schema: Schema) -> Batch:
    """Return the events of sequences as a batch: columns [n, ...], histories [R, L] and positions `PLACES` [n].

    Args:
        sequences: R rows of length L.
        schema: of the events; its `IdSequence` features are histories.
    """
    places = tf.cast(tf.where(tf.reshape(sequences.events, [-1]))[:, 0], tf.int32)
    length = tf.shape(sequences.events)[1]
    ends = places // length * length + tf.gather(tf.reshape(sequences.ends, [-1]), places)

    def flat(column: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.reshape(column, [-1, *column.shape[2:]]), places)

    features = {
        name: column if isinstance(schema.features[name], IdSequence) else flat(column)
        for name, column in sequences.features.items()
    }
    parts = (sequences.labels, sequences.weights, sequences.ids)
    labels, weights, ids = ({name: flat(column) for name, column in part.items()} for part in parts)
    return Batch({**features, PLACES: ends}, labels, weights, ids)


def with_histories(
    frame: pd.DataFrame,
    schema: Schema,
    time: str,
    *,
    past: pd.DataFrame | None = None,
    histories: Sequence[str] | None = None,
    ages: Sequence[str] = (),
    same_moment: bool = False,
    basket: str | None = None,
) -> pd.DataFrame:
    """Return the table with the history of each row: the ids of the user's earlier rows, most recent first.

    Args:
        frame: one row per event, with the columns of the user and of the items.
        schema: its `IdSequence` features of the candidate's id are the new columns; other lists stay as they are.
        time: column to order by, datetimes or numbers, as in `temporal_split`.
        past: earlier events that fill histories, such as the training table before test rows.
        histories: names of the `IdSequence` features to make, each from the column it is `of`; by default those of the
            candidate's id.
        ages: names of `NumericSequence` features of these histories: the age of each event at the row's time, in days
            or in the unit of a column of numbers.
        same_moment: whether a history also holds the rows of the row's own moment, such as a basket or a day, that are
            earlier in the table; those of `past` are earlier than those of `frame`. By default they are not known yet,
            as in the splits, which keep a moment whole.
        basket: column of the order or session of each row; its rows are of one moment, that of the first.

    Raises:
        ValueError: if the schema has no such history, a column is absent, or arguments contradict each other.
        TypeError: if the column of times holds text or other values without an order in time.

    Example:
        >>> from tfmtl.data import Categorical
        >>> schema = Schema([Categorical("user"), IdSequence("recent", of="item", max_length=2)], [Categorical("item")])
        >>> table = pd.DataFrame({"user": ["u"] * 4, "item": ["a", "b", "c", "d"], "day": [1, 2, 3, 4]})
        >>> with_histories(table, schema, "day")["recent"].tolist()
        [[], ['a'], ['b', 'a'], ['c', 'b']]

    Cost: one sort, and one list per row and feature.
    """
    wanted = _histories(schema, histories)
    timed = _ages(schema, ages, wanted)
    user, frame = schema.features[schema.user("`with_histories`")].column, as_rows(frame)
    require(basket is None or not same_moment, "`same_moment` would put rows of a basket into its own history.")
    needed = [user, time, *(schema.features[h.of].column for h in wanted), *([basket] if basket else [])]
    tables = [frame] if past is None else [as_rows(past, "past"), frame]
    for table in tables:
        require_known(needed, table.columns, "column", "the table")
    order, users, begins = _in_time(tables, user, time, basket)
    row = np.argsort(order)[len(order) - len(frame) :]  # the position of each row of the frame
    place = row if same_moment else begins[row]
    earlier = place - np.searchsorted(users, users[row])
    days = _of_baskets(days_of(tables, time), users[np.argsort(order)], tables, basket)[order]
    made: dict[str, list[Any]] = {}
    for history in wanted:
        every = pd.concat([table[schema.features[history.of].column] for table in tables], ignore_index=True)
        sizes = np.minimum(earlier, history.max_length)
        made[history.column] = [ids.tolist() for ids in _before(place, sizes, every.to_numpy()[order])]
        made |= {f.column: _since(days[row], place, sizes, days) for f in timed if f.of == history.name}
    return frame.assign(**{name: pd.Series(lists, index=frame.index, dtype=object) for name, lists in made.items()})


def _before(places: np.ndarray, sizes: np.ndarray, values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the last values before each position, most recent first."""
    latest, end = values[::-1], len(values)
    return (latest[end - place : end - place + size] for place, size in zip(places, sizes, strict=True))


def _since(now: np.ndarray, places: np.ndarray, sizes: np.ndarray, days: np.ndarray) -> list[list[float]]:
    """Return the ages of the last events before each position at the times `now`."""
    return [(time - then).tolist() for time, then in zip(now, _before(places, sizes, days), strict=True)]


def _ages(schema: Schema, names: Sequence[str], histories: Sequence[IdSequence]) -> list[NumericSequence]:
    """Return the named lists of ages, or raise if there is no history or a list belongs to none of them."""
    cure = "give it an `IdSequence` of the items' ids, or name `histories`"
    require(bool(histories), f"The schema has no history: {cure}.")
    made = [history.name for history in histories]
    lists = {n: f for n, f in schema.features.items() if isinstance(f, NumericSequence) and f.of in made}
    require_known(names, lists, "list of ages", f"the `NumericSequence` features of {made}")
    return [lists[name] for name in names]


def _histories(schema: Schema, names: Sequence[str] | None) -> list[IdSequence]:
    """Return the named lists, by default those of the candidate's id; without candidates, those of no user's id."""
    lists = {name: feature for name, feature in schema.features.items() if isinstance(feature, IdSequence)}
    if names is not None:
        require_known(names, lists, "history", "the `IdSequence` features of the schema")
        return [lists[name] for name in names]
    if schema.candidate_id:
        return [feature for feature in lists.values() if feature.of == schema.candidate_id]
    return [feature for feature in lists.values() if feature.of != schema.query_id]

"""The roles of a table's columns, guessed from their names and values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_known

_USERS = re.compile(
    "(user|customer|client|household|member|visitor|reader|reviewer|person|account|buyer|session)s?(id)?|uid"
)
_ITEMS = re.compile(
    "(item|product|movie|film|song|track|article|video|book|sku|asin|business|venue|brand|game|ad|campaign|content|"
    "merchant|coupon|listing|post|story|job|recipe)s?(id)?"
)
_IDS = ("id", "key", "code", "no", "number", "name", "index")
_EVENTS = re.compile(
    "(click|buy|purchas|order|lik|view|watch|play|convert|install|subscrib|respond|visit|sav|shar|follow|recommend)(e?d|e)?|"
    "bought|conversion|response|target|label|event|seen"
)
_UNDESIRED = re.compile(
    "(return|churn|refund|cancel|cancell|dislik|skip|skipp|hid|unsubscrib|complain|report)(ed|e)?|complaint|hidden"
)
_AMOUNTS = re.compile("ratings?|stars?|score|spend|spent|revenue|gmv|duration|dwell|playtime|minutes|seconds|hours")
_AGGREGATES = re.compile("mean|average|avg|count|id|key|code")
_TIMES = re.compile("time|timestamp|date|datetime|day|moment|posted|created")
_FEW, _WORDS, _CONSTANT = 12, 3.0, 0.98


@dataclasses.dataclass(frozen=True)
class Column:
    """A column that the network reads.

    Attributes:
        name: of the column.
        role: `"query"`, `"candidate"` or `"context"`.
        kind: class of the feature.
        arguments: further arguments of the feature.
        reason: the statistic that decided.
    """

    name: str
    role: str
    kind: str
    arguments: dict[str, Any]
    reason: str


@dataclasses.dataclass(frozen=True)
class Guess:
    """The roles of the columns of a table.

    Attributes:
        user, item: columns of the ids.
        time: column of the time of a row, or None.
        columns: the columns that the network reads; the first query and candidate are the ids.
        events: columns of 0 and 1 that are labels.
        amounts: columns of numbers that are labels.
        undesired: those of both that count against a candidate.
        left_out: reason by column.
    """

    user: str
    item: str
    time: str | None
    columns: list[Column]
    events: list[str]
    amounts: list[str]
    undesired: list[str]
    left_out: dict[str, str]


def guess(
    table: Any,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    labels: Sequence[str] | None = None,
) -> Guess:
    """Guess the roles of the columns of a pandas table.

    Args:
        table: the table, or its first rows.
        user, item, time: columns that are known.
        labels: columns of the labels, if they are known.

    Raises:
        ValueError: if a column is unknown, a label holds no numbers, or no column looks like the id of users or items.
    """
    given = [name for name in (user, item, time, *(labels or ())) if name is not None]
    require_known(given, list(table.columns), "column", "the table")
    user = user or _id_of(table, _USERS, "user", given)
    item = item or _id_of(table, _ITEMS, "item", [*given, user])
    time = time or _time_of(table, [*given, user, item])
    others = [name for name in table.columns if name not in (user, item, time)]
    found = list(labels) if labels is not None else [name for name in others if _is_label(table[name], name)]
    for name in found:
        require(_numbers(table[name]), f"The label {name!r} holds no numbers; write it as 0 and 1, or as a number.")
    events = [name for name in found if _is_binary(table[name])]
    columns = [_id(table[user], user, "query"), _id(table[item], item, "candidate")]
    left_out: dict[str, str] = {}
    for name in others:
        if name not in found:
            feature = _feature(table, name, user, item)
            if isinstance(feature, str):
                left_out[name] = feature
            else:
                columns.append(feature)
    amounts = [name for name in found if name not in events]
    undesired = [name for name in found if _any(_UNDESIRED, _tokens(name))]
    return Guess(user, item, time, columns, events, amounts, undesired, left_out)


def _tokens(name: str) -> list[str]:
    """Return the words of a column's name in lower case."""
    return re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name)).lower())


def _any(words: re.Pattern[str], tokens: Sequence[str]) -> bool:
    return any(words.fullmatch(token) for token in tokens)


def _id_of(table: Any, words: re.Pattern[str], what: str, taken: Sequence[str]) -> str:
    """Return the column with the ids of users or items; names that end with `id` come before others."""
    ranked = []
    for position, name in enumerate(table.columns):
        tokens = _tokens(name)
        if (
            _any(words, tokens)
            and name not in taken
            and not _is_list(table[name])
            and table[name].dtype.kind not in "fMmb"
        ):
            last = tokens[-1] in _IDS or tokens[-1].endswith("id")
            ranked.append((not last, len(tokens), position, name))
    require(bool(ranked), f"No column looks like the id of {what}s; name it by `--{what} COLUMN`.", columns=[*table])
    return str(min(ranked)[-1])


def _time_of(table: Any, taken: Sequence[str]) -> str | None:
    for name in table.columns:
        if name not in taken and table[name].dtype.kind == "M" and table[name].notna().all():
            return str(name)
    for name in table.columns:
        number = table[name].dtype.kind in "iuf" and table[name].notna().all() and table[name].nunique() > 1
        if name not in taken and number and _any(_TIMES, _tokens(name)):
            return str(name)
    return None


def _is_label(column: Any, name: str) -> bool:
    tokens = _tokens(name)
    if not _numbers(column) or column.notna().sum() == 0:
        return False
    if _is_binary(column):
        return _any(_EVENTS, tokens) or _any(_UNDESIRED, tokens)
    return _any(_AMOUNTS, tokens) and not _any(_AGGREGATES, tokens)


def _numbers(column: Any) -> bool:
    return column.dtype.kind in "iufb"


def _is_binary(column: Any) -> bool:
    return bool(column.dropna().isin([0, 1]).all())


def _is_list(column: Any) -> bool:
    known = column.dropna()
    return len(known) > 0 and hasattr(known.iloc[0], "__len__") and not isinstance(known.iloc[0], str | bytes)


def _id(column: Any, name: str, role: str) -> Column:
    values = column.nunique()
    return Column(name, role, "Categorical", _dtype(column), f"{values:,} values")


def _dtype(column: Any) -> dict[str, Any]:
    return {"dtype": "int64"} if column.dtype.kind in "iu" else {}


def _feature(table: Any, name: str, user: str, item: str) -> Column | str:
    """Return the feature of a column, or the reason to leave it out."""
    column = table[name]
    if column.dtype.kind in "Mm":
        return "a time; derive numbers from it, such as the hour"
    if column.notna().sum() == 0:
        return "empty"
    if _is_list(column):
        return _of_list(table, name, user, item)
    distinct = column.nunique()
    if distinct < 2:
        return "one value"
    role, reason = _role(table, name, user, item)
    if _numbers(column) and column.dtype.kind != "b" and (distinct > _FEW or column.dtype.kind == "f"):
        return Column(name, role, "Numeric", {}, reason)
    if column.dtype.kind in "iub":
        return Column(name, role, "Categorical", _dtype(column), f"{distinct} values; {reason}")
    words = column.dropna().astype(str).str.split().str.len().mean()
    if words > _WORDS:
        return Column(name, role, "Text", {}, f"{words:.0f} words in the mean; {reason}")
    if distinct > 0.5 * column.notna().sum() and role == "context":
        return "most rows have a value of their own"
    return Column(name, role, "Categorical", {}, f"{distinct:,} values; {reason}")


def _of_list(table: Any, name: str, user: str, item: str) -> Column | str:
    known = table[name].dropna()
    lengths, first = known.map(len), next((value[0] for value in known if len(value)), None)
    role, reason = _role(table.assign(**{name: table[name].astype(str)}), name, user, item)
    if isinstance(first, str):
        return Column(name, role, "MultiValued", {"max_length": min(int(lengths.max()), 20)}, reason)
    if first is not None and lengths.nunique() == 1 and len(known) == len(table):
        return Column(name, role, "Vector", {"size": int(lengths.iloc[0])}, reason)
    return "lists of numbers of several lengths"


def _role(table: Any, name: str, user: str, item: str) -> tuple[str, str]:
    """Return the role of a column: that of the id with which it does not change."""
    for key, role in ((user, "query"), (item, "candidate")):
        several = table.groupby(key)[name].agg(["nunique", "size"])
        several = several[several["size"] > 1]
        if len(several) and (several["nunique"] <= 1).mean() >= _CONSTANT:
            return role, f"one value for each {key}"
    return "context", "changes between the rows of a user and of an item"

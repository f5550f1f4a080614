"""`python -m tfmtl new`: a commented script for a first model on a table, with roles that are guessed."""

from __future__ import annotations

import argparse
import json
import pathlib
import textwrap
from typing import Any, TextIO

from tfmtl._checks import require
from tfmtl._names import serving_names
from tfmtl._table_files import open_table
from tfmtl._table_guess import Column, Guess, guess

_ROWS = 200_000
_ONLY_POSITIVE = "interacted"


def new(chosen: argparse.Namespace, out: TextIO) -> int:
    """Write the script, print its path and the guesses, and return the exit code.

    Args:
        chosen: `path`, `data`, and `user`, `item`, `time` and `labels` or None.
        out: stream of the output.

    Raises:
        ValueError: if the script exists or has no name of Python, or the table has no users, items or such columns.
        FileNotFoundError: if there is no table.
    """
    path: pathlib.Path = chosen.path
    require(path.suffix == ".py", "The script must be a file such as first.py.", path=str(path))
    require(not path.exists(), f"{str(path)!r} exists; choose another name, or remove it.")
    require(path.parent.is_dir(), f"There is no folder {str(path.parent)!r}; make it first.")
    table = open_table(chosen.data).head(_ROWS).to_pandas()
    require(len(table) > 0, f"{str(chosen.data)!r} holds no rows.")
    found = guess(table, chosen.user, chosen.item, chosen.time, chosen.labels)
    path.write_text(script(found, table, chosen.data), encoding="utf-8")
    out.write(f"{path}: users {found.user}, items {found.item}, time {found.time or 'none'}, ")
    out.write(
        f"labels {', '.join([*found.events, *found.amounts]) or _ONLY_POSITIVE}; read its comments, then run it\n"
    )
    return 0


def script(found: Guess, table: Any, data: pathlib.Path) -> str:
    """Return the text of the script."""
    labels, tasks, lines = _tasks(found, table)
    names = serving_names([column.name for column in found.columns], taken=["k", *tasks])
    roles = {role: [c for c in found.columns if c.role == role] for role in ("query", "candidate", "context")}
    reader = "read_parquet" if data.suffix == ".parquet" else "read_csv"
    alone = _positive(found) not in found.events
    made = [f'table["{_ONLY_POSITIVE}"] = 1.0  # each row is an interaction'] if alone else []
    split = f"temporal_split(table, {quoted(found.time)}" if found.time else "random_split(table"
    items = table[found.item].nunique()
    cut = max(1, min(10, (items - 1) // 2))
    parts = [
        '"""A first model, written by `python -m tfmtl new`: read the comments, and change it."""',
        "",
        "import pandas as pd",
        "import tfmtl",
        "from tfmtl import data, evaluation",
        "",
        f"table = pd.{reader}({quoted(str(data))})",
        *made,
        f"train, test = data.{split}, test_fraction=0.1)",
        "",
        "schema = tfmtl.Schema(",
        *_features("query", roles["query"], names),
        *_features("candidate", roles["candidate"], names),
        *_features("context", roles["context"], names),
        "    labels=[",
        *(f"        {label}," for label in labels),
        "    ],",
        ")",
        *_left_out(found),
        "preprocessor = tfmtl.Preprocessor.fit(schema, train)",
        "tasks = [",
        *(f"    {line}" for line in lines),
        "]",
        f"fitted = tfmtl.recipes.fit(preprocessor, tasks, train, epochs=10{_time(found)})",
        "print(fitted)  # each choice and its reason",
        "model = fitted.model",
        f"print(evaluation.evaluate(model, test, seen=train, ks=({cut},)))",
        f"users = test.drop_duplicates({quoted(found.user)}).head(5)",
        f"print(model.recommend(users, k={cut}, exclude=train))  # without `exclude` where people choose again",
        'model.save("first.keras")',
        'tfmtl.export(model, "saved_models/first")',
        "",
    ]
    return "\n".join(parts)


def _time(found: Guess) -> str:
    return f", time={quoted(found.time)}" if found.time else ""


def _tasks(found: Guess, table: Any) -> tuple[list[str], list[str], list[str]]:
    """Return the labels, the names of the tasks, and the tasks, as code."""
    positive = _positive(found)
    columns = [*([] if positive in found.events else [positive]), *found.events, *found.amounts]
    names = serving_names(columns, taken=["ids", "scores", "retrieved"])
    labels = [_label(names[column], column, column not in found.undesired) for column in columns]
    both = positive in found.events and not bool(table[positive].dropna().all())
    lines = [
        f'tfmtl.Retrieval("{"retrieved" if both else names[positive]}"),  # the items with {_one_line(positive)} = 1'
    ]
    for column in columns:
        if column in found.amounts:
            lines.append(f'tfmtl.Regression.from_statistics("{names[column]}", preprocessor.statistics),')
        elif column != positive or both:
            lines.append(f'tfmtl.BinaryClassification("{names[column]}"),')
    return [*([_label("retrieved", positive, True)] if both else []), *labels], [*names.values(), "retrieved"], lines


def _positive(found: Guess) -> str:
    """Return the event that is retrieved: the first desired one, or each row."""
    return next((name for name in found.events if name not in found.undesired), _ONLY_POSITIVE)


def _label(task: str, column: str, desired: bool) -> str:
    """Return a label as code."""
    other = "" if task == column else f", column={quoted(column)}"
    return f'tfmtl.Label("{task}"{other}{"" if desired else ", desired=False"})'


def _features(role: str, columns: list[Column], names: dict[str, str]) -> list[str]:
    if not columns:
        return []
    notes = {"context": "  # of the request: leave out columns that are known only after it"}
    lines = [f"    {role}=[{notes.get(role, '')}"]
    for column in columns:
        name = names[column.name]
        given = {**({} if name == column.name else {"column": column.name}), **column.arguments}
        arguments = "".join(f", {key}={quoted(value)}" for key, value in given.items())
        lines.append(f'        tfmtl.{column.kind}("{name}"{arguments}),  # {_one_line(column.reason)}')
    return [*lines, "    ],"]


def _left_out(found: Guess) -> list[str]:
    reasons = [f"{name!r} ({reason})" for name, reason in found.left_out.items()]
    text = f"Left out: {_one_line('; '.join(reasons))}."
    return [f"# {line}" for line in textwrap.wrap(text, 110)] if reasons else []


def quoted(value: Any) -> str:
    """Return a text or a number as code.

    Example:
        >>> quoted("tea"), quoted(3)
        ('"tea"', '3')
    """
    return json.dumps(value, ensure_ascii=False)


def _one_line(text: str) -> str:
    """Return a text for a comment: a column's name may hold line breaks."""
    return " ".join(str(text).split())

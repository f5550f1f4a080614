"""The form of the file in which a version describes itself: the entries that its readers rely on."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final

_LONGEST: Final = 100_000
_LARGEST: Final = 2**63


@dataclasses.dataclass(frozen=True)
class Plain:
    """The form of a value that holds no others.

    Attributes:
        what: its description in an error.
        holds: function of a value that returns whether it has the form.
    """

    what: str
    holds: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class Each:
    """The form of a mapping from texts to values of one form.

    Attributes:
        form: the form of the values.
        keys: the form of the texts; None for any.
    """

    form: Form
    keys: Plain | None = None


@dataclasses.dataclass(frozen=True)
class Many:
    """The form of a list of values of one form."""

    form: Form


@dataclasses.dataclass(frozen=True)
class Record:
    """The form of a mapping with named entries; entries without a form are allowed, because an exporter may add them.

    Attributes:
        entries: the form of each entry by its name.
        optional: names of the entries that may be absent.
    """

    entries: Mapping[str, Form]
    optional: tuple[str, ...] = ()


Form = Plain | Each | Many | Record

_TEXT: Final = Plain(f"a text of at most {_LONGEST:,} characters", lambda v: isinstance(v, str) and len(v) <= _LONGEST)
_BOOL: Final = Plain("true or false", lambda v: isinstance(v, bool))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_command(value: Any) -> bool:
    """Return whether a text is one call of the server, in which a shell runs nothing else."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        return False
    line = value.replace("\\\n", " ")
    try:
        program, *options = shlex.split(line)
    except ValueError:  # a quote without its end, or no word at all
        return False
    plain = shlex.join([program, *options]).split() == line.split()
    return plain and program == "tensorflow_model_server" and all(option.startswith("--") for option in options)


def _is_inside(name: str) -> bool:
    """Return whether a name is that of a file in the folder of the version, of characters that can be printed."""
    path = pathlib.PurePosixPath(name)
    return name.isprintable() and not path.is_absolute() and ".." not in path.parts and path.name != ""


_NUMBER: Final = Plain("a finite number below 2**63", lambda v: _is_number(v) and math.isfinite(v))
_COUNT: Final = Plain("a whole number from 0 to 2**63 - 1", lambda v: _is_number(v) and isinstance(v, int) and v >= 0)
_MEASURED: Final = Plain("a finite number below 2**63 or null", lambda v: v is None or _NUMBER.holds(v))
_TEXT_OR_NONE: Final = Plain("a text or null", lambda v: v is None or _TEXT.holds(v))
_INSIDE: Final = Plain("the name of a file in the folder of the version", _is_inside)
_COMMAND: Final = Plain("one call of `tensorflow_model_server` with options", _is_command)

_FEATURES: Final = Many(Record({"name": _TEXT, "kind": _TEXT}))
_LABELS: Final = Many(Record({"task": _TEXT, "desired": _BOOL}, ("desired",)))
_SCHEMA: Final = Record(
    {"query": _FEATURES, "candidate": _FEATURES, "context": _FEATURES, "labels": _LABELS, "candidate_id": _TEXT},
    ("labels", "candidate_id"),
)
_CARD: Final = Record(
    {
        "description": _TEXT_OR_NONE,
        "tasks": Each(_TEXT),
        "metrics": Each(Each(_MEASURED)),
        "schema": _SCHEMA,
        "parameters": _COUNT,
        "data": Record({"sha256": _TEXT_OR_NONE, "statistics_sha256": _TEXT}),
        "versions": Each(_TEXT),
        "revision": _TEXT_OR_NONE,
    },
    ("description",),
)
_BUDGET: Final = Record({"what": _TEXT, "measured": _NUMBER, "limit": _NUMBER, "at_most": _BOOL})
_EXPLAIN: Final = Record(
    {"tasks": Many(_TEXT), "features": Many(_TEXT), "lists": Each(_COUNT), "steps": _COUNT, "reasons": _COUNT}
)
_MANIFEST: Final = Record(
    {
        "signatures": Each(Record({"inputs": Each(_TEXT), "outputs": Each(_TEXT)})),
        "foreign_operations": Many(_TEXT),
        "input_names": Each(_TEXT),
        "max_k": _COUNT,
        "rerank_depth": _COUNT,
        "candidates": _COUNT,
        "min_candidates": _COUNT,
        "search": Record({"kind": _TEXT, "library": _TEXT}, ("library",)),
        "fusion_slices": Record({"by": _TEXT, "slices": Each(Each(_NUMBER))}),
        "fusion_policy": Record({"choices": Many(Each(_NUMBER))}),
        "card": _CARD,
        "budget": Many(_BUDGET),
        "explain": _EXPLAIN,
        "serve": _COMMAND,
        "files": Each(Record({"size": _COUNT, "crc32": _TEXT}), _INSIDE),
    },
    (
        "foreign_operations",
        "input_names",
        "max_k",
        "rerank_depth",
        "candidates",
        "min_candidates",
        "search",
        "fusion_slices",
        "fusion_policy",
        "card",
        "budget",
        "explain",
        "serve",
        "files",
    ),
)
_RANKED: Final = Record(
    {"max_k": _COUNT, "rerank_depth": _COUNT, "fusion": Record({"weights": Each(_NUMBER), "chosen": Many(_TEXT)})}
)


def fault_of(manifest: Any) -> str | None:
    """Return the first fault in the description of a version, or None.

    Args:
        manifest: plain values, as JSON gives them.

    Example:
        >>> fault_of({"signatures": {"rank": {"inputs": ["age"], "outputs": {}}}})
        'its entry signatures.rank.inputs must be a mapping'
        >>> fault_of({})
        'its entry signatures is absent'
    """
    ranked = _RANKED if isinstance(manifest, Mapping) and "rerank_depth" in manifest else None
    return _fault(manifest, _MANIFEST, "") or (_fault(manifest, ranked, "") if ranked else None)


def _fault(value: Any, form: Form, path: str) -> str | None:
    if isinstance(form, Plain):
        return None if form.holds(value) else _must(path, form.what)
    if isinstance(form, Many):
        if not isinstance(value, list):
            return _must(path, "a list")
        return _first(_fault(item, form.form, f"{path}[{i}]") for i, item in enumerate(value))
    if not isinstance(value, Mapping):
        return _must(path, "a mapping")
    if isinstance(form, Each):
        keys = form.keys
        wrong = [] if keys is None else [key for key in value if not keys.holds(key)]
        if keys is not None and wrong:
            return _must(_joined(path, wrong[0]), keys.what)
        return _first(_fault(item, form.form, _joined(path, key)) for key, item in value.items())
    absent = [name for name in form.entries if name not in value and name not in form.optional]
    if absent:
        return f"its entry {_joined(path, absent[0])} is absent"
    return _first(
        _fault(value[name], inner, _joined(path, name)) for name, inner in form.entries.items() if name in value
    )


def _first(faults: Any) -> str | None:
    return next((fault for fault in faults if fault), None)


def _joined(path: str, key: str) -> str:
    name = key if key.isidentifier() and key.isascii() else ascii(key[:80])
    return f"{path}.{name}" if path else name


def _must(path: str, what: str) -> str:
    return f"its entry {path} must be {what}" if path else f"it must hold {what}"

"""The packages in which public names are, read from their files: nothing is imported."""

from __future__ import annotations

import difflib
import functools
import pathlib
import re
from collections.abc import Iterable

_EXPORTED = re.compile(r"^from \S+ import \w+ as (\w+)$", re.MULTILINE)


@functools.cache
def directory() -> dict[str, list[str]]:
    """Return the packages that offer each public name.

    Example:
        >>> directory()["PLE"], directory()["load_model"]
        (['layers'], ['models'])
    """
    found: dict[str, list[str]] = {}
    for path in sorted(pathlib.Path(__file__).parent.glob("*/__init__.py")):
        for name in _EXPORTED.findall(path.read_text(encoding="utf-8")):
            found.setdefault(name, []).append(path.parent.name)
    return found


def hint(name: str, top: Iterable[str]) -> str:
    """Return the end of an error about a name: the package that has it, or a name like it; empty if there is none.

    Args:
        name: the unknown name.
        top: the names of the top level.

    Example:
        >>> hint("PLE", []), hint("UpGrad", []), hint("Shema", ["Schema"]), hint("nothing_like_it", [])
        ('; it is `tfmtl.layers.PLE`', '; did you mean `tfmtl.balancing.UPGrad`?', '; did you mean `tfmtl.Schema`?', '')
    """
    known = directory()
    if name in known:
        return f"; it is {' or '.join(f'`tfmtl.{package}.{name}`' for package in known[name])}"
    by_lower = {own.lower(): own for own in [*known, *top]}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.8)
    if not close:
        return ""
    own = by_lower[close[0]]
    return f"; did you mean `tfmtl.{own}`?" if own in top else f"; did you mean `tfmtl.{known[own][0]}.{own}`?"

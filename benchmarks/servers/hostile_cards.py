"""Descriptions of a version that an attacker, or a damaged disk, has changed."""

from __future__ import annotations

import copy
import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

TEXTS = (
    "\x1b[2J\x1b]0;title\x07", "a | b |\n| c", "`rm -rf`", "\n\n# Heading\n", "[x](javascript:alert(1))",
    "<script>x</script>", "\u202egnp.exe", "\ud800", "\x00\x7f\x9b31m", "\r\x08\x08", "```\n", "x" * 200_000, "",
)  # fmt: skip
VALUES = (None, True, -1, 0.5, 2**70, 10**400, float("inf"), float("nan"), [], {}, ["x"], {"x": 1}, [[[]]])


def files(manifest: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of hostile files; the manifest is one that an export wrote."""
    text = json.dumps(manifest)
    yield from _damaged(text)
    yield "huge number in text", text.replace('"max_k": 10', '"max_k": ' + "1" * 5000).encode()
    for path in _paths(manifest):
        for value in (*TEXTS, *VALUES):
            name = f"{'.'.join(map(str, path))} = {ascii(value)[:30]}"
            yield name, json.dumps(_changed(manifest, path, value)).encode()
        yield f"{'.'.join(map(str, path))} absent", json.dumps(_changed(manifest, path, None, absent=True)).encode()
        if isinstance(path[-1], str):
            renamed = _changed(manifest, path, None, absent=True)
            for key in TEXTS[:-2]:
                yield f"{path} renamed", json.dumps(_changed(renamed, (*path[:-1], key), _at(manifest, path))).encode()


def is_plain(text: str) -> bool:
    """Return whether a text moves no cursor, and each of its tables has the same number of cells in all rows."""
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in text.replace("\n", "")):
        return False
    cells = 0
    for line in text.split("\n"):
        count = line.replace("\\\\", "").replace("\\|", "").count("|") if line.startswith("|") else 0
        if cells and count and count != cells:
            return False
        cells = count
    prose = re.sub(r"`[^`\n]*`", "", text.replace("\\`", ""))
    return "<script" not in prose.replace("\\<", "") and "](" not in prose.replace("\\](", "")


def _damaged(text: str) -> Iterator[tuple[str, bytes]]:
    yield from {
        "empty": b"", "space": b" \n", "no JSON": b"card", "cut": text[:200].encode(), "list": b"[]", "text": b'"card"',
        "null": b"null", "number": b"7", "not UTF-8": b'{"signatures": "\xff\xfe"}', "UTF-16": text.encode("utf-16"),
        "nested": b"[" * 100_000, "nested entries": b'{"a":' * 500 + b"1" + b"}" * 500,
        "nested and closed": b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}",
        "twice": text[:-1].encode() + b', "signatures": {}}', "zeros": bytes(1000),
        "many digits": b'{"a": ' + b"9" * 10_000 + b"}",
        "trailing": text.encode() + b"}", "comment": b"// card\n" + text.encode(), "NaN alone": b"NaN",
    }.items()  # fmt: skip


def _paths(value: Any, path: tuple[Any, ...] = (), depth: int = 5) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all entries, and of one entry of mappings that hold many like `signatures`."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    few = items[:2] if path[:1] in (("signatures",), ("largest_difference_after_reload",)) else items
    for key, inner in few:
        yield (*path, key)
        if isinstance(inner, dict | list) and depth:
            yield from _paths(inner, (*path, key), depth - 1)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _changed(manifest: Any, path: tuple[Any, ...], value: Any, absent: bool = False) -> Any:
    changed = copy.deepcopy(manifest)
    parent = _at(changed, path[:-1])
    if absent:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return changed

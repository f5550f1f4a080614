"""The document of results: a section for each benchmark, replaced one at a time."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping

HEADER = """\
# Results

Written by `python benchmarks/run.py`, with one section for each entry; see [CONTRIBUTING.md](../CONTRIBUTING.md).
Sections are measured on different days: each names its command, its machine and its versions. FOLDER holds the data,
which are not part of the repository; `.peers/` holds the environments of other libraries. Compare only figures of one
section.
"""
_MARK = re.compile(r"^<!-- entry: (\S+) -->$", flags=re.MULTILINE)
_NOTE = "> "


@dataclasses.dataclass(frozen=True)
class Section:
    """The section of a benchmark: the output of its last good run, and a note on a later run that failed."""

    body: str
    note: str = ""

    def render(self, name: str) -> str:
        """Return the section as Markdown."""
        note = f"{_NOTE}{self.note}\n\n" if self.note else ""
        return f"<!-- entry: {name} -->\n## {name}\n\n{note}{self.body.strip()}\n"


def read(path: pathlib.Path) -> dict[str, Section]:
    """Return the sections of a document by name; empty if there is no file."""
    if not path.exists():
        return {}
    _, *parts = _MARK.split(path.read_text(encoding="utf-8"))
    return {name: _parsed(text) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _parsed(text: str) -> Section:
    body = text.strip().partition("\n")[2].strip()  # after the heading
    if not body.startswith(_NOTE):
        return Section(body)
    note, _, body = body.partition("\n")
    return Section(body.strip(), note.removeprefix(_NOTE))


def write(path: pathlib.Path, sections: Mapping[str, Section], order: Iterable[str]) -> None:
    """Write the sections with names in `order`; the old file is replaced in one step."""
    texts = [HEADER, *(sections[name].render(name) for name in order if name in sections)]
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}")
    try:
        new.write_text("\n".join(texts), encoding="utf-8")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def markdown(printed: str) -> str:
    """Return the output of a script as Markdown: tables and headings unchanged, all other text as code."""
    # A progress bar overwrites its line: only the last text, which a terminal shows in the end, is kept.
    lines = [re.split("[\r\b]+", line.rstrip("\r\b "))[-1] for line in printed.split("\n")]
    groups = itertools.groupby(_kinds(lines), key=lambda pair: pair[0])
    blocks = [_block(kind, [line for _, line in pairs]) for kind, pairs in groups]
    return "\n\n".join(block for block in blocks if block)


def _kinds(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each line with its kind; a table is a line with bars, a line of dashes, and further lines with bars."""
    rows = False
    for line, following in itertools.zip_longest(lines, lines[1:], fillvalue=""):
        rows = line.startswith("|") and (rows or re.fullmatch(r"\|[ :|-]+\|", following) is not None)
        heading = re.match(r"#+ ", line) is not None
        yield ("table" if rows else "heading" if heading else "text"), line


def _block(kind: str, lines: list[str]) -> str:
    if kind == "table":
        return "\n".join(lines)
    if kind == "heading":
        return "\n\n".join(f"### {line.lstrip('# ')}" for line in lines)
    text = "\n".join(lines).strip("\n")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}" if text.strip() else ""


def hidden(text: str, names: Mapping[str, str]) -> str:
    """Return the text with each path of the keys replaced by its name, also where it is the start of a longer path.

    An empty name removes the path and the slash after it, so that a path below it becomes relative.
    """
    for path in sorted(names, key=len, reverse=True):
        name = names[path]
        below = rf"{re.escape(path)}(?=[/\s'\"`,:;)\]}}]|$)"
        text = re.sub(below if name else below + "/?", lambda _, name=name: name, text)  # type: ignore[misc]
    return text

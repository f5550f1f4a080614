"""Rules that no linter checks: sizes of files and functions, which methods have docstrings, which imports users see."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("tfmtl", "tests", "examples", "benchmarks")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_file_and_its_functions_are_small(path: pathlib.Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert not functions or "from __future__ import annotations" in text
    sizes = {function.name: (function.end_lineno or 0) - function.lineno + 1 for function in functions}
    assert {name: size for name, size in sizes.items() if size > 60} == {}


OVERRIDES = {
    "build", "call", "connect", "disturb", "from_config", "get_config", "get_prunable_weights", "search_space",
}  # fmt: skip
"""Methods that follow the contract of Keras or of the base class; a docstring is welcome where it adds to that."""


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "tfmtl")], ids=lambda p: str(p.name))
def test_public_methods_have_docstrings(path: pathlib.Path) -> None:
    classes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ClassDef) and n.name[0] != "_"]
    methods = [(c.name, m) for c in classes for m in c.body if isinstance(m, ast.FunctionDef) and m.name[0] != "_"]
    bare = [(c, m) for c, m in methods if m.name not in OVERRIDES and not ast.get_docstring(m)]
    assert [f"{c}.{m.name}" for c, m in bare if not any(".setter" in ast.unparse(d) for d in m.decorator_list)] == []


SHOWN = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *(path for folder in ("docs", "examples", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))),
]
"""Files that users read and copy from."""


def private_names(text: str) -> list[str]:
    """Return the imports of names of the package with a leading underscore, and uses of such names."""
    imports = re.findall(r"from tfmtl[\w.]* import (?:\([^)]*\)|[^\n]*)", text)
    listed = [line for line in imports if re.search(r"\b_[a-z]", line.partition(" import ")[2])]
    return [*re.findall(r"\btfmtl[\w.]*\._[a-z]\w*", text), *listed]


@pytest.mark.parametrize("path", SHOWN, ids=[str(path.relative_to(ROOT)) for path in SHOWN])
def test_users_see_only_public_names(path: pathlib.Path) -> None:
    assert private_names(path.read_text()) == []


def test_private_names_are_found() -> None:
    lines = [
        "from tfmtl._keras import keras",
        "from tfmtl import _keras",
        "from tfmtl.data import (\n    a,\n    _b,\n)",
    ]
    assert [len(private_names(line)) for line in [*lines, "import tfmtl._checks", "from tfmtl import keras"]] == [
        1, 1, 1, 1, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("path", [p for p in SHOWN if p.suffix == ".py"], ids=lambda path: str(path.name))
def test_scripts_import_modules_that_exist(path: pathlib.Path) -> None:
    """Peers' workers run in environments of their own; only the modules of this repository are checked there."""
    imports = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {n.module or "" for n in imports if isinstance(n, ast.ImportFrom)}
    names |= {alias.name for n in imports if isinstance(n, ast.Import) for alias in n.names}
    folders = (ROOT, ROOT / "examples", ROOT / "benchmarks", path.parent)

    def exists(name: str) -> bool:
        part = name.replace(".", "/")
        if any((folder / f"{part}.py").exists() or (folder / part).is_dir() for folder in folders):
            return True
        top = name.split(".")[0]
        return top != "tfmtl" and (top in sys.stdlib_module_names or importlib.util.find_spec(top) is not None)

    assert path.parent.name == "peers" or [name for name in sorted(names) if not exists(name)] == []

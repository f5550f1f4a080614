"""Rules that no linter checks: files up to 400 lines, functions up to 60, and which methods need a docstring."""

from __future__ import annotations

import ast
import pathlib

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

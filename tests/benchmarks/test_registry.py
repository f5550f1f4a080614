"""Every script is in the registry, and its parser, rebuilt from its source, takes the registry's arguments."""

from __future__ import annotations

import argparse
import ast
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import registry

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
HELPERS = {"census", "entry", "environments", "machine", "paired", "peer", "ranking_sets", "registry", "results"}
"""Modules that are not programs."""
EVERYWHERE = {name: f"/data/{name}" for name in (*registry.DATA, *registry.ENVIRONMENTS)}
TYPES = {"int": int, "float": float, "pathlib.Path": pathlib.Path}


class RefusedError(Exception):
    pass


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise RefusedError(message)


def options(tree: ast.AST, loop: ast.For | None = None) -> Iterator[tuple[list[str], ast.Call]]:
    """Yield the names of options and the call that adds them; a name made in a loop means all keys of the loop."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "parser.add_argument":
            name = node.args[0]
            if isinstance(name, ast.Constant):
                yield [name.value], node
            else:
                assert loop is not None
                assert ast.unparse(name) == "f'--{name}'"
                keys = ast.literal_eval(ast.unparse(loop.iter).removesuffix(".items()"))
                yield [f"--{key}" for key in keys], node
        yield from options(node, node if isinstance(node, ast.For) else loop)


def rebuilt(source: str) -> Parser:
    """Return the parser of a script's source, without defaults and choices that are not literals."""
    parser = Parser()
    for names, call in options(ast.parse(source)):
        literal: dict[str, Any] = {}
        for keyword in call.keywords:
            if keyword.arg == "type":
                literal["type"] = TYPES[ast.unparse(keyword.value)]
            elif keyword.arg in ("nargs", "action", "required"):
                literal[keyword.arg] = ast.literal_eval(keyword.value)
        for name in names:
            parser.add_argument(name, **literal)
    return parser


def accept(entry: registry.Entry, arguments: list[str]) -> argparse.Namespace | None:
    source = (FOLDER / entry.script).read_text()
    if "argparse" in source:
        return rebuilt(source).parse_args(arguments)
    assert not any(argument.startswith("-") for argument in arguments)
    assert not arguments or "sys.argv" in source
    return None


def programs() -> set[str]:
    return {path.stem for path in FOLDER.glob("*.py") if '__name__ == "__main__"' in path.read_text()}


def test_every_program_is_in_the_registry() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} - programs() == HELPERS
    assert {pathlib.Path(entry.script).stem for entry in registry.ENTRIES} == programs() - {"run", "lifecycle"}


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("entry", registry.ENTRIES, ids=lambda entry: entry.name)
def test_scripts_take_their_arguments(entry: registry.Entry, quick: bool) -> None:
    found = accept(entry, entry.command(EVERYWHERE, quick=quick))
    assert (found is None) == ("argparse" not in (FOLDER / entry.script).read_text())
    least = {name: path for name, path in EVERYWHERE.items() if name in (*entry.needs(quick=quick), *entry.peers)}
    accept(entry, entry.command(least, quick=quick))


def test_wrong_arguments_are_noticed() -> None:
    def entry(*arguments: str) -> registry.Entry:
        return registry.Entry("name", "A question?", "architectures.py", arguments)

    for arguments in ((), ("--census",), ("--census", "x", "--sedes", "1"), ("--census", "x", "--seeds", "many")):
        with pytest.raises(RefusedError):
            accept(entry(*arguments), list(arguments))
    assert rebuilt((FOLDER / "distribution.py").read_text()).parse_args(["--batch", "3"]).batch == 3


def test_last_arguments_win() -> None:
    entry = next(entry for entry in registry.ENTRIES if entry.name == "balancing_speed_census")
    found = accept(entry, entry.command(EVERYWHERE, quick=True))
    assert found is not None
    assert (found.rounds, found.only) == (2, ["PCGrad"])


def test_names_are_unique_and_questions_are_sentences() -> None:
    names = [entry.name for entry in registry.ENTRIES]
    assert len(set(names)) == len(names)
    for entry in registry.ENTRIES:
        assert entry.question[0].isupper()
        assert entry.question.endswith("?")
        assert "\n" not in entry.question


def test_needs_and_peers_are_the_names_in_braces() -> None:
    arguments = ("--a", "{ml_1m}", "b={deepctr}", "--c", "{census_income}/x")
    entry = registry.Entry("name", "A question?", "a.py", arguments, ("--data", "{ml_100k}"), ("{hillstrom}",))
    assert entry.needs() == ("ml_1m", "census_income")
    assert entry.needs(quick=True) == ("ml_1m", "census_income", "hillstrom")
    assert entry.peers == ("deepctr",)
    assert entry.command({"ml_1m": "M", "deepctr": "D", "census_income": "C"}) == ["--a", "M", "b=D", "--c", "C/x"]
    assert entry.command(EVERYWHERE, quick=True)[-3:] == ["--data", "/data/ml_100k", "/data/hillstrom"]


def test_places_are_the_folders_that_exist(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ml_1m").mkdir()
    (tmp_path / "hillstrom").touch()
    found = registry.places(tmp_path, pathlib.Path("/project"))
    assert found.pop("ml_1m") == str(tmp_path / "ml_1m")
    assert set(found) == set(registry.ENVIRONMENTS)
    assert registry.places(None, pathlib.Path("/project"))["keras-rs"] == "/project/.peers/keras-rs/bin/python"

"""The mutants of a module, and whether tests notice one."""

from __future__ import annotations

import pathlib

import mutations  # type: ignore[import-not-found]
import pytest


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("x = a + 1", ["a + 1 -> a - 1", "a + 1 -> a + 2"]),
        ("x = 0.0", ["x = 0.0 -> x = 1.0"]),
        ("f(a, 3, b=5)", ["f(a, 3, b=5) -> f(a, 4, b=5)", "b=5 -> b=6"]),
        ("x = (1, 2)", ["(1, 2) -> (2, 2)", "(1, 2) -> (1, 3)"]),
        ("x = -a", ["-a -> +a"]),
        ("x = a < b and c", ["a < b and c -> a < b or c", "a < b -> a >= b"]),
        ("x = a == b", ["a == b -> a != b"]),
        ("x = True", ["x = True -> x = False"]),
        ('def f(a: tuple[int, 3] = 2) -> "T":\n    """One 1."""\n    return a', ["2 -> 3"]),
        ("raise ValueError(1)", []),
        ("require(a > 1, 'more than 1')", []),
        ("x = f'{a + 1}'", []),
    ],
)
def test_mutants_are_changes_of_numbers_signs_and_operators(source: str, changes: list[str]) -> None:
    found = list(mutations.mutants(source))
    assert [mutant.change for mutant in found] == changes
    assert len({mutant.apply(source) for mutant in found} | {source}) == len(changes) + 1


def test_nearest_tests_come_first(tmp_path: pathlib.Path) -> None:
    files = {
        "tfmtl/a/one.py": "class Thing: ...",
        "tests/test_checks.py": "from tfmtl import _checks",
        "tests/a/test_about.py": "",
        "tests/a/test_last.py": "Thing()",
        "tests/a/test_one.py": "",
        "tests/a/deep/test_two.py": "something",
        "tests/b/test_three.py": "from tfmtl.a.one import Thing",
        "tests/b/test_four.py": "from tfmtl.a.one_more import Thing",
        "tests/api/test_names.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert mutations.nearest_tests("a/one.py", tmp_path) == [
        "tests/a/test_one.py",
        "tfmtl/a/one.py",
        "tests/b/test_three.py",
        "tests/a/test_last.py",
        "tests/api/test_names.py",
        "tests/a/deep/test_two.py",
        "tests/a/test_about.py",
    ]
    assert mutations.nearest_tests("a/one.py", tmp_path, near=True) == [
        "tests/a/test_one.py",
        "tfmtl/a/one.py",
        "tests/b/test_three.py",
        "tests/a/test_last.py",
        "tests/api/test_names.py",
    ]
    assert mutations.nearest_tests("a/none/x.py", tmp_path)[-1] == "tests/a/test_one.py"
    assert mutations.nearest_tests("_checks.py", tmp_path) == [
        "tests/test_checks.py",
        "tfmtl/_checks.py",
        "tests/api/test_names.py",
    ]


@pytest.fixture
def project(tmp_path: pathlib.Path) -> pathlib.Path:
    test = "import pathlib\ndef test_fine(): assert '2 * 3' in pathlib.Path('tfmtl/one.py').read_text()"
    files = {"pyproject.toml": "[tool.pytest.ini_options]\nmarkers = ['slow']", "tests/api/test_names.py": ""}
    for name, text in {**files, "tfmtl/one.py": "USED = 2 * 3", "tests/test_one.py": test}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_mutant_is_killed_in_a_fork(project: pathlib.Path) -> None:
    trial = mutations.Trial(project, timeout=60.0)
    mutant = next(m for m in mutations.mutants("USED = 2 * 3", "one.py") if m.change == "2 * 3 -> 3 * 3")
    assert trial.killer(mutant) == "tests/test_one.py::test_fine"
    assert trial.broken == []
    assert (project / "tfmtl/one.py").read_text() == "USED = 2 * 3"


class Scripted(mutations.Trial):
    """Runs no tests: they fail by the source."""

    def _first_failure(self, tests: list[str], classes: str = "") -> str | None:
        source = (self.tree / "tfmtl/one.py").read_text()
        if source.startswith("raise"):
            return "import"
        if "--collect-only" in tests:
            return None
        failing = {"always", "sometimes"} if source != "USED = 2 * 3" else {"always"}
        given = failing & set(tests) if len(tests) == 1 else failing
        return min(given - set(self.broken), default=None)


class Written(mutations.Mutant):
    """A change that replaces the whole source."""

    def apply(self, source: str) -> str:
        return self.change


@pytest.mark.parametrize(
    ("source", "killer", "broken"),
    [
        ("USED = 3 * 3", "sometimes", ["always"]),
        ("USED = 2 * 3", None, ["always"]),
        ("raise ValueError", "import", []),
    ],
)
def test_a_test_that_fails_anyway_kills_no_mutant(
    project: pathlib.Path, source: str, killer: str | None, broken: list[str]
) -> None:
    trial = Scripted(project, timeout=60.0)
    for _ in range(2):
        assert trial.killer(Written("one.py", 1, source)) == killer
        assert trial.broken == broken
    assert (project / "tfmtl/one.py").read_text() == "USED = 2 * 3"


def test_equivalent_mutants_are_read_without_their_reasons(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "known.txt"
    file.write_text("# a note\n\na/one.py: 1 -> 2 # any number will do\n")
    assert mutations.known_equivalent(file) == {"a/one.py: 1 -> 2"}


def test_report_counts_the_killed() -> None:
    mutant = mutations.Mutant("a.py", 3, "a | b -> a")
    text = mutations.report([(mutant, True), (mutant, False)])
    assert "| a.py | 3 | `a \\| b -> a` | survived |" in text
    assert text.endswith("1 of 2 mutants killed (50%).")

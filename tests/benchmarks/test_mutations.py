"""Which changes of a module are mutants, and whether one is noticed."""

from __future__ import annotations

import pathlib

import mutations  # type: ignore[import-not-found]
import pytest


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("x = a + 1", ["a + 1 -> a - 1", "1 -> 2"]),
        ("x = 0.0", ["0.0 -> 1.0"]),
        ("x = -a", ["-a -> +a"]),
        ("x = a < b and c", ["a < b and c -> a < b or c", "a < b -> a >= b"]),
        ("x = a == b", ["a == b -> a != b"]),
        ("x = True", ["True -> False"]),
        ('def f(a: tuple[int, 3] = 2) -> "T":\n    """One 1."""\n    return a', ["2 -> 3"]),
        ("raise ValueError(1)", []),
        ("require(a > 1, 'more than 1')", []),
        ("x = f'{a + 1}'", []),
    ],
)
def test_mutants_are_changes_of_numbers_signs_and_operators(source: str, changes: list[str]) -> None:
    assert [mutant.change for mutant in mutations.mutants(source)] == changes


def test_nearest_tests_come_first(tmp_path: pathlib.Path) -> None:
    for name in ("tests/test_checks.py", "tests/a/test_one.py", "tests/a/test_other.py", "tests/a/deep/test_two.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert mutations.tests_of("a/one.py", tmp_path) == [
        ["tests/a/test_one.py", "tfmtl/a/one.py"],
        ["tests/a/deep/test_two.py", "tests/a/test_other.py"],
    ]
    assert mutations.tests_of("a/none/x.py", tmp_path)[1][-1] == "tests/a/test_other.py"
    assert mutations.tests_of("_checks.py", tmp_path) == [["tests/test_checks.py", "tfmtl/_checks.py"]]


def test_equivalent_mutants_are_read_without_their_reasons(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "known.txt"
    file.write_text("# a note\n\na/one.py: 1 -> 2 # any number will do\n")
    assert mutations.known_equivalent(file) == {"a/one.py: 1 -> 2"}


def test_report_counts_the_killed() -> None:
    mutant = mutations.Mutant("a.py", 3, "a | b -> a", "")
    text = mutations.report([(mutant, True), (mutant, False)])
    assert "| a.py | 3 | `a \\| b -> a` | survived |" in text
    assert text.endswith("1 of 2 mutants killed (50%).")

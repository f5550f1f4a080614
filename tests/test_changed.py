"""Which tests `make check` chooses for changed files."""

from __future__ import annotations

import pathlib

import pytest

from tests.changed import ALWAYS, ROOT, choose


@pytest.fixture
def project(tmp_path: pathlib.Path) -> pathlib.Path:
    files = {
        "tfmtl/a/one.py": "",
        "tfmtl/a/deep/two.py": "",
        "tfmtl/_gate.py": "",
        "tests/test_gate_of_all.py": "",
        "tests/test_house_rules.py": "",
        "tests/api/test_names.py": "",
        "tests/a/conftest.py": "",
        "tests/a/cases.py": "",
        "tests/a/test_one.py": "from tests.a import cases",
        "tests/a/test_one_slowly.py": "",
        "tests/a/test_other.py": "import tests.a.cases",
        "tests/b/test_far.py": "from tests.a.cases import CASES",
        "tests/b/test_none.py": "cases = 1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ([], []),
        (["tfmtl/a/one.py"], ["tests/a/test_one.py", "tests/a/test_one_slowly.py", "tfmtl/a/one.py"]),
        (["tfmtl/a/gone.py"], ["tests/a/test_one.py", "tests/a/test_one_slowly.py", "tests/a/test_other.py"]),
        (["tfmtl/_gate.py"], ["tests/test_gate_of_all.py", "tfmtl/_gate.py"]),
        (["tests/b/test_none.py", "docs/x.md"], ["tests/b/test_none.py"]),
        (["tests/a/cases.py"], ["tests/a/test_one.py", "tests/a/test_other.py", "tests/b/test_far.py"]),
        (["tests/a/conftest.py"], ["tests/a/test_one.py", "tests/a/test_one_slowly.py", "tests/a/test_other.py"]),
        (["tests/api/test_names.py"], []),
    ],
)
def test_a_change_is_tested_by_the_choose_its_name(
    project: pathlib.Path, changed: list[str], expected: list[str]
) -> None:
    assert choose(changed, project) == sorted({*ALWAYS, *expected})


def test_a_package_inside_a_package_has_its_tests_in_the_nearest_folder(project: pathlib.Path) -> None:
    chosen = choose(["tfmtl/a/deep/two.py"], project)
    assert {"tests/a/test_one.py", "tests/a/test_other.py", "tfmtl/a/deep/two.py"} <= set(chosen)


def test_every_choice_for_the_project_exists() -> None:
    modules = [path for path in (ROOT / "tfmtl").rglob("*.py") if path.stem != "__init__"]
    for module in (path.relative_to(ROOT).as_posix() for path in modules):
        chosen = choose([module], ROOT)
        assert module in chosen
        assert len(chosen) > len(ALWAYS) + 1, f"no test is chosen for {module}"

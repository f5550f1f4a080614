from __future__ import annotations

import importlib

import pytest

from tests.api.public_names import FOLDER, golden, public_names


@pytest.mark.parametrize(("file", "lines"), golden().items())
def test_names_defaults_and_search_spaces_are_the_golden_files(file: str, lines: list[str]) -> None:
    """A change of these lines is a decision: rewrite the files with `python tests/api/public_names.py`."""
    assert lines == (FOLDER / file).read_text().splitlines()


@pytest.mark.parametrize("name", public_names())
def test_public_name_exists_and_says_what_it_is(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute)
    if callable(value):
        assert (value.__doc__ or "").strip()


def test_no_two_public_things_share_a_name() -> None:
    """The same object may be offered twice, such as a flagship; two objects of one name would be confused."""
    found: dict[str, set[int]] = {}
    for full in public_names():
        module, _, name = full.rpartition(".")
        found.setdefault(name, set()).add(id(getattr(importlib.import_module(module), name)))
    assert {name for name, objects in found.items() if len(objects) > 1} == set()

"""The lists of methods follow the registry: the page in docs, and the names in the README."""

from __future__ import annotations

import importlib.util
import pathlib
import re
from types import ModuleType

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def methods() -> ModuleType:
    spec = importlib.util.spec_from_file_location("methods", ROOT / "docs" / "methods.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_matches_the_docstrings(methods: ModuleType) -> None:
    """After a change of a first sentence or a reference: `python docs/methods.py`."""
    assert methods.page() == methods.PAGE.read_text()


@pytest.mark.parametrize("kind", ["Trunks", "Tasks", "Gramian balancers", "Gradient balancers", "Loss weighting"])
def test_readme_names_every_method(methods: ModuleType, kind: str) -> None:
    named = set(re.findall(r"\b[A-Z]\w+\b", (ROOT / "README.md").read_text()))
    assert {member.__name__ for member in methods.classes()[kind]} - named == set()

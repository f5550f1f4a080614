"""Fixtures of the tests of models."""

from __future__ import annotations

import pytest

from tests.models import small
from tfmtl.models import MultiTaskModel


@pytest.fixture(scope="session")
def worker() -> MultiTaskModel:
    """A compiled model, traced once; tests may train it, so that no test may rely on its weights."""
    return small.model()

"""What the tests of adaptation share."""

from __future__ import annotations

import pytest

from tests.models import small
from tfmtl.models import MultiTaskModel


@pytest.fixture(scope="session")
def worker() -> MultiTaskModel:
    """A compiled model that is traced once; tests may train it, so none may rely on its weights."""
    return small.model()

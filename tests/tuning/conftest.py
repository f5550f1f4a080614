from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

collect_ignore = ["parallel.py"]  # a program that a test starts in processes of its own: importing it would search


@pytest.fixture(autouse=True, scope="package")
def _imported_modules_are_not_garbage() -> Iterator[None]:
    """A tuner collects garbage before each trial; looking through TensorFlow's modules takes most of these tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()

"""What every test shares: quiet TensorFlow, one seed, hypothesis without time limits."""

from __future__ import annotations

import gc
import os
import pathlib
import sys
from collections.abc import Iterator

# The scripts' folder is no package: its modules find each other as neighbours of the script that is run.
sys.path.append(str(pathlib.Path(__file__).parents[1] / "benchmarks"))

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read at TensorFlow's import
# What tests compile with XLA runs a few times only: compiling it less thoroughly takes two thirds less time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false",
)

import hypothesis
import pytest

# Derandomised: a red test is red for everybody. No deadline: the first example pays for TensorFlow's tracing.
hypothesis.settings.register_profile("tfmtl", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("tfmtl")


def pytest_collection_finish() -> None:
    """Look for cyclic garbage rarely: graphs are millions of objects, and the search takes a quarter of the time."""
    gc.collect()
    gc.freeze()  # modules and collected tests live until the end
    gc.set_threshold(100_000, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True, scope="session")
def quick_tracing() -> None:
    """See `trace_quickly`; imported here, since pytest-xdist's own process loads this file and needs no TensorFlow."""
    from tests.tracing import trace_quickly

    trace_quickly()


@pytest.fixture(scope="module")
def eager_steps() -> Iterator[None]:
    """See `tests.tracing.eager_steps`; for a whole module with `pytest.mark.usefixtures`."""
    from tests.tracing import eager_steps

    with eager_steps():
        yield


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed Python, NumPy and TensorFlow, so that a test does not depend on those run before it."""
    from tfmtl._keras import keras  # here for the same reason

    keras.utils.set_random_seed(20)
    return 20

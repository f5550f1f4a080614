"""Layers in float32 under any global policy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tfmtl._keras import keras


@contextlib.contextmanager
def float32_policy() -> Iterator[None]:
    """Create layers in float32 inside this context, under any global policy.

    TFRS tasks have no argument `dtype`, and in half precision they fail or round labels.
    """
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("float32")
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(policy)

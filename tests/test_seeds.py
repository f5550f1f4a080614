"""Seeds of parts and siblings: golden values, so that a seed draws the same in every version."""

from __future__ import annotations

import pytest

from tfmtl._keras import keras, seed_of, spawn


@pytest.mark.parametrize(
    ("name", "seed", "expected"),
    [
        ("gate", 0, 942_381_204),  # CRC-32 of "gate" modulo 2^31
        ("gate", 7, 949_381_225),  # 7 x 1,000,003 more
    ],
)
def test_the_seed_of_a_part(name: str, seed: int, expected: int) -> None:
    assert seed_of(name, seed) == expected


@pytest.mark.parametrize(
    ("own", "index", "seed", "expected"), [(5, 0, 1, 5), (5, 3, 1, 5 + 3 * 7919), (None, 2, 11, 11 + 2 * 7919)]
)
def test_the_seed_of_a_sibling(own: int | None, index: int, seed: int, expected: int) -> None:
    initializer = keras.initializers.GlorotUniform(seed=own)
    assert spawn(initializer, index, seed).get_config()["seed"] == expected
    assert initializer.get_config()["seed"] == own

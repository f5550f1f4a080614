"""A published model keeps its answers in every later version of TensorFlow and of this library."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from tests.serving.wire import Flat
from tfmtl._keras import tf
from tfmtl.serving import compressed_size
from tfmtl.serving.verification import foreign_operations

MODEL = pathlib.Path(__file__).parents[2] / "saved_models" / "golden" / "1"
ANSWERS = MODEL.parent / "answers.json"


@pytest.fixture(scope="module")
def golden() -> list[dict[str, Any]]:
    return json.loads(ANSWERS.read_text())


def tensor(flat: Flat) -> tf.Tensor:
    return tf.reshape(tf.constant(flat["values"], flat["dtype"]), flat["shape"])


def test_golden_export_still_answers_the_same(golden: list[dict[str, Any]]) -> None:
    signatures = tf.saved_model.load(str(MODEL)).signatures
    assert {call["signature"] for call in golden} < set(signatures)
    for call in golden:
        answer = signatures[call["signature"]](**{name: tensor(flat) for name, flat in call["inputs"].items()})
        assert set(answer) == set(call["answer"])
        for name, flat in call["answer"].items():
            check = np.testing.assert_array_equal if flat["dtype"] == "string" else close
            check(answer[name].numpy(), tensor(flat).numpy())


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_golden_export_is_small_and_stock() -> None:
    assert sum(path.stat().st_size for path in MODEL.parent.rglob("*") if path.is_file()) < 500_000
    assert compressed_size(MODEL) < 110_000
    assert foreign_operations(MODEL) == []


def test_filters_hold_in_the_golden_answers(golden: list[dict[str, Any]]) -> None:
    """By hand: i1 and i2 are excluded from every query; k is 3, missing (10), 0, too large, 1, 10, 2.

    The fourth query is restricted to i1, i3 and i4.
    """
    for call in golden:
        if call["signature"].endswith("_filtered"):
            ids = np.reshape(call["answer"]["ids"]["values"], call["answer"]["ids"]["shape"])
            assert not {"i1", "i2"} & set(ids.reshape(-1))
            assert (ids != "").sum(axis=1).tolist() == [3, 10, 0, 2, 1, 10, 2]

from __future__ import annotations

import gc
import pathlib

import numpy as np
import pytest
from servers.models import build

from tfmtl._keras import tf
from tfmtl.serving import recommender as module
from tfmtl.serving.on_load import ComputedOnLoad
from tfmtl.serving.recommender import Recommender


def save(path: pathlib.Path) -> tf.Module:
    module = tf.Module()
    module.weights = tf.Variable(np.arange(6, dtype=np.float32).reshape(3, 2))
    module.matrix = ComputedOnLoad(lambda: {"matrix": 10.0 * module.weights})
    module.rows = tf.function(lambda: {"rows": module.matrix.value("matrix")}, input_signature=[])
    tf.saved_model.save(module, str(path), signatures=module.rows.get_concrete_function())
    return module


def rows(loaded: tf.Module) -> list[list[float]]:
    return loaded.signatures["serving_default"]()["rows"].numpy().tolist()


def test_nothing_is_stored_and_the_loaded_model_computes_it(tmp_path: pathlib.Path) -> None:
    save(tmp_path)
    listed = dict(tf.train.list_variables(str(tmp_path / "variables" / "variables")))
    assert [shape for shape in listed.values() if shape] == [[3, 2]]
    assert rows(tf.saved_model.load(str(tmp_path))) == [[0, 10], [20, 30], [40, 50]]


def test_it_keeps_its_value_when_the_original_changes_or_goes(tmp_path: pathlib.Path) -> None:
    module = save(tmp_path)
    first = tf.saved_model.load(str(tmp_path))
    module.weights.assign(tf.zeros([3, 2]))
    assert module.matrix.value("matrix").numpy().tolist() == [[0, 10], [20, 30], [40, 50]]
    second = tf.saved_model.load(str(tmp_path))
    del module, first
    gc.collect()
    assert rows(second) == [[0, 10], [20, 30], [40, 50]]


@pytest.mark.parametrize("block", [1, 4, 7, 29, 30, 31])
def test_the_corpus_is_embedded_block_by_block(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """30 candidates: blocks of one, a last block that reaches beyond the end, a single block."""
    model, _ = build()
    expected = model.tower("candidate")(model.candidates.features)["seen"]
    monkeypatch.setattr(module, "ROWS", block)
    recommender = Recommender(model, max_k=3)
    np.testing.assert_allclose(recommender._embed_corpus(), expected, rtol=1e-5, atol=1e-6)

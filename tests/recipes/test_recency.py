"""EASE of a history in which the latest candidates count more: its entries, its choice, saved and served."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.recipes.test_history_order import SCHEMA as WALKS
from tests.recipes.test_history_order import walks
from tfmtl._keras import keras, tf
from tfmtl.data import Preprocessor, to_batch
from tfmtl.models import Candidates, MultiTaskModel, build_network, load_model, save_model
from tfmtl.recipes import EaseParts, EaseSettings, join_ease
from tfmtl.recipes.ease_part import EasePart
from tfmtl.recipes.join_ease import _recent
from tfmtl.serving import export
from tfmtl.tasks import Retrieval


def _walked() -> tuple[MultiTaskModel, pd.DataFrame]:
    """Return a model that is not trained, and walks over a ring of candidates."""
    table = walks()
    preprocessor = Preprocessor.fit(WALKS, table)
    tasks = [Retrieval("bought")]
    network = build_network(preprocessor, tasks, embedding_dim=4, tower_units=(4,), seed=0)
    model = MultiTaskModel(network, tasks, preprocessor, candidates=Candidates.from_frame(table, preprocessor))
    model.compile("sgd")
    return model, table


def test_only_the_best_history_is_tried_with_recency() -> None:
    chosen = EaseSettings("log", "history", (20.0,))
    others = [EaseSettings("log", "user", (20.0,)), EaseSettings("binary", "history", (20.0,))]
    less, more = (chosen._replace(regularizations=(value,)) for value in (10.0, 50.0))
    part = EasePart("bought", "history", *(np.ones([3, 2], np.float32),) * 2, popularity=np.ones(3, np.float32))
    found = _recent(dict.fromkeys([chosen, less, more, *others], part), chosen)
    assert sorted(found) == sorted(s._replace(recency=r) for s in (chosen, more) for r in (0.5, 1.0))
    assert all(part.recency == settings.recency for settings, part in found.items())


@pytest.mark.parametrize("recency", [0.0, 0.5, 1.0])
def test_the_latest_of_a_history_weigh_most(recency: float) -> None:
    model, table = _walked()
    batch = to_batch(table, model.preprocessor, labels=["bought"])
    parts = EaseParts(model.preprocessor, "bought", rank=8, seed=0)
    part = parts.fit([batch], EaseSettings("binary", "recent", (20.0,), recency=recency))
    history = np.asarray(batch.features["recent"])
    weights = [(1 + j) ** -recency for j in range(history.shape[1])]
    wanted = sum(weight * part.query[history[:, j]] for j, weight in enumerate(weights))
    np.testing.assert_allclose(part.queries(batch.features), wanted, rtol=1e-5, atol=1e-6)
    joined = dataclasses.replace(part, weights=(0.0, 1.0, 0.0)).join(model)
    features = {name: batch.features[name] for name in ("user", "recent")}
    found = joined.tower("query")(features)["bought"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_order_of_events_chooses_recent_entries(tmp_path: pathlib.Path) -> None:
    model, table = _walked()
    found = join_ease(model, table[table["day"] < 9], table[table["day"] >= 9], regularizations=(20.0, 50.0))
    assert (found.settings.source, found.settings.recency) == ("recent", 1.0)
    assert "(1 + position)^-1 in a history" in str(found)
    request = {"user": tf.constant(["new"]), "recent": tf.constant([["i3", "i2", "i1"] + [""] * 5])}
    save_model(found.model, tmp_path / "saved")
    version = export(found.model, tmp_path / "served", max_k=3)
    served = tf.saved_model.load(str(version)).signatures["retrieve"](**request)
    query = found.model.preprocessor(request)
    kept = load_model(tmp_path / "saved")
    scores = [each.tower("query")(query)["bought"] @ tf.transpose(_corpus(each)) for each in (found.model, kept)]
    np.testing.assert_array_equal(*scores)
    np.testing.assert_allclose(served["scores"], np.sort(scores[0])[:, ::-1][:, :3], rtol=1e-5, atol=1e-6)


def _corpus(model: MultiTaskModel) -> Any:
    assert model.candidates is not None
    return model.tower("candidate")(model.candidates.features)["bought"]


def test_half_precision_reads_recent_entries() -> None:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model, table = _walked()
        found = join_ease(model, table[table["day"] < 9], table[table["day"] >= 9], regularizations=(20.0,))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert found.settings.recency == 1.0
    assert found.values["mixture"] > 0.1

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
from tfmtl.data import Categorical, Label, Preprocessor, Schema, to_batch
from tfmtl.evaluation import evaluate
from tfmtl.models import Candidates, MultiTaskModel, build_network, load_model, save_model
from tfmtl.recipes import EaseParts, EaseSettings, fit, join_ease
from tfmtl.recipes.ease_part import EasePart
from tfmtl.recipes.join_ease import _recent
from tfmtl.serving import export
from tfmtl.tasks import Retrieval


def _untrained(schema: Schema, table: pd.DataFrame) -> MultiTaskModel:
    preprocessor = Preprocessor.fit(schema, table)
    tasks = [Retrieval("bought")]
    network = build_network(preprocessor, tasks, embedding_dim=4, tower_units=(4,), seed=0)
    model = MultiTaskModel(network, tasks, preprocessor, candidates=Candidates.from_frame(table, preprocessor))
    model.compile("sgd")
    return model


def _walked() -> tuple[MultiTaskModel, pd.DataFrame]:
    """Return a model that is not trained, and walks over a ring of candidates."""
    table = walks()
    return _untrained(WALKS, table), table


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
    seen = table[table["day"] < 9] if found.excludes_seen else None
    report = evaluate(model, table[table["day"] >= 9], seen=seen, ks=10)
    assert found.values["network"] == pytest.approx(report["bought", "ndcg@10"], abs=1e-6)


def _fading_rows() -> pd.DataFrame:
    """Return rows of users who choose the candidates of the week."""
    rng = np.random.default_rng(3)
    days = np.repeat(np.arange(60), 20)
    items = (days // 6 * 3 + rng.integers(0, 4, len(days))) % 30
    users = rng.integers(0, 200, len(days))
    names = {"user": [f"u{user}" for user in users], "item": [f"i{item}" for item in items]}
    return pd.DataFrame({**names, "day": days, "bought": 1.0}).drop_duplicates(["user", "item"])


def test_fit_gives_its_times_to_the_popularity(monkeypatch: pytest.MonkeyPatch) -> None:
    table = _fading_rows()
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("bought")])
    preprocessor = Preprocessor.fit(schema, table)
    found = fit(preprocessor, [Retrieval("bought")], table, time="day", epochs=1, verbose=0)
    assert found.joined is not None
    assert found.joined.settings.half_life > 0
    assert "popularity with a half-life of" in str(found)
    monkeypatch.setattr(MultiTaskModel, "fit", None)  # a wrong time is named before the training
    late = table[table["day"] >= 54]
    with pytest.raises(ValueError, match="week"):
        fit(preprocessor, [Retrieval("bought")], table, validation=late, time="week", verbose=0)
    with pytest.raises(TypeError, match="day"):
        fit(preprocessor, [Retrieval("bought")], table, validation=late.assign(day="monday"), time="day", verbose=0)


@pytest.mark.parametrize("fades", [True, False])
def test_popularity_fades_where_interest_does(fades: bool) -> None:
    table = _fading_rows()
    if not fades:
        table["day"] = np.random.default_rng(0).permutation(table["day"].to_numpy())
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("bought")])
    model = _untrained(schema, table)
    train, validation = table[table["day"] < 54], table[table["day"] >= 54]
    found = join_ease(model, train, validation, regularizations=(20.0,), time="day")
    plain = join_ease(model, train, validation, regularizations=(20.0,))
    assert plain.settings.half_life == 0.0
    assert (found.settings.half_life > 0) == fades
    assert ("popularity with a half-life of" in str(found)) == fades
    assert (found.values["popularity"] > 1.5 * plain.values["popularity"]) == fades


def test_fading_popularity_is_its_definition() -> None:
    schema = Schema([Categorical("user", min_count=2)], [Categorical("item", min_count=2)], labels=[Label("bought")])
    rows = [("a", "x", 1, 1.0), ("b", "x", 3, 1.0), ("a", "y", 3, 1.0), ("b", "y", 9, 0.0), ("c", "x", 4, 1.0)]
    table = pd.DataFrame([*rows, ("a", "z", 4, 1.0)], columns=["user", "item", "day", "bought"])
    preprocessor = Preprocessor.fit(schema, table)
    batches = [to_batch(part, preprocessor, labels=["bought"]) for part in (table[:2], table[2:])]
    parts = EaseParts(preprocessor, "bought", 2, 0, [np.array([1, 3]), np.array([3, 9, 4, 4])])
    found = parts.fading(batches, half_life=0.25)
    # Of five positive rows four are newer than the first, and two than those of day 3. The user c and the item z occur
    # once, and have no row of their own.
    x, y = np.log1p(2.0 ** (-0.8 / 0.25) + 2.0 ** (-0.4 / 0.25)), np.log1p(2.0 ** (-0.4 / 0.25))
    of_item = dict(zip(preprocessor.vocabulary("item"), found[2:], strict=True))
    assert of_item == pytest.approx({"x": x, "y": y})
    np.testing.assert_array_equal(found[:2], 0)

"""A model of classes from outside the package passes through every stage of its life."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tfmtl
from tests.extending.classes import (
    Absolute,
    Bias,
    CrossedBottom,
    Gate,
    LossScale,
    MaskedMax,
    MeanRate,
    Poisson,
    SumFusion,
    SummedGradients,
    UnitGradients,
    deviance,
)
from tfmtl.adaptation import warm_start
from tfmtl.balancing import Balancer
from tfmtl.compression import distil, prune_model
from tfmtl.data import Categorical, IdSequence, Label, Numeric, Preprocessor, Schema, Split, to_batch
from tfmtl.ensembling import ensemble, fit_weights, stack
from tfmtl.evaluation import evaluate, trivial_baseline
from tfmtl.models import Candidates, MultiTaskModel, Regularization, build_network, load_model, save_model
from tfmtl.tasks import BinaryClassification, Retrieval

ROWS, USERS, ITEMS = 36, 5, 6
ON_PAIRS = ["visits", "delay", "liked"]
SCHEMA = Schema(
    query=[Categorical("user"), IdSequence("recent", of="item", max_length=2)],
    candidate=[Categorical("item"), Numeric("price")],
    labels=[Label("seen"), Label("visits"), Label("delay"), Label("liked")],
)


@functools.cache
def table() -> pd.DataFrame:
    """Return a table in which a sixth of the visits and a quarter of the delays are missing."""
    rng = np.random.default_rng(4)
    row, user, item = np.arange(ROWS), rng.integers(0, USERS, ROWS), rng.integers(0, ITEMS, ROWS)
    return pd.DataFrame(
        {
            "user": [f"u{k}" for k in user],
            "recent": [[f"i{(k + 1) % ITEMS}", f"i{(k + 4) % ITEMS}"][: k % 3] for k in user],
            "item": [f"i{k}" for k in item],
            "price": 1.0 + item,
            "seen": 1.0,
            "visits": np.where(row % 6 == 0, np.nan, rng.poisson(1.0 + user)),
            "delay": np.where(row % 4 == 0, np.nan, 1.0 + item),
            "liked": (user + item) % 2 * 1.0,
        }
    )


def model(seed: int = 0, balancer: Balancer | None = None, units: int = 4) -> MultiTaskModel:
    tfmtl.keras.utils.set_random_seed(seed)  # layers outside the package may draw from the global generator
    preprocessor = Preprocessor.fit(SCHEMA, table())
    tasks = [
        Retrieval("seen"),
        Poisson("visits", max_rate=1e6, extra_metrics=[Bias()]),
        Absolute("delay"),
        BinaryClassification("liked"),
    ]
    network = build_network(
        preprocessor, tasks, CrossedBottom(units=units), embedding_dim=3, tower_units=[3], seed=seed,
        poolings={"recent": MaskedMax()}, fusion={"candidate": SumFusion({"price": ["price"]}, units=3, seed=seed)},
        interactions=[Gate()], regularization=Regularization(unknown_rate=0.0),
    )  # fmt: skip
    candidates = Candidates.from_frame(table(), preprocessor)
    built = MultiTaskModel(network, tasks, preprocessor, balancer, candidates, seed=seed)
    built.compile(tfmtl.LazyAdam(0.02), run_eagerly=True)  # tracing would take longer than the few steps
    return built


def trained(seed: int, balancer: Balancer, epochs: int = 6) -> MultiTaskModel:
    built = model(seed, balancer)
    built.fit(table(), batch_size=ROWS, epochs=epochs, verbose=0)
    return built


@pytest.fixture(scope="module")
def members() -> list[MultiTaskModel]:
    """Return one trained model for each kind of balancer; no test changes them."""
    return [trained(0, LossScale(0.5)), trained(1, UnitGradients(), 1), trained(2, SummedGradients(), 1)]


@pytest.fixture(scope="module")
def one(members: list[MultiTaskModel]) -> MultiTaskModel:
    return members[0]


@pytest.fixture
def untraced() -> Iterator[None]:
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def served(of: MultiTaskModel) -> dict[str, np.ndarray]:
    return of.predict(table(), verbose=0)


def assert_alike(one: MultiTaskModel, other: MultiTaskModel) -> None:
    assert [type(task) for task in other.tasks] == [Retrieval, Poisson, Absolute, BinaryClassification]
    for name, values in served(one).items():
        np.testing.assert_allclose(served(other)[name], values, rtol=1e-4, atol=1e-5)


def test_fit_learns_the_tasks_and_logs_their_metrics(one: MultiTaskModel) -> None:
    log = one.history.history
    for task in ON_PAIRS:
        assert log[f"{task}_loss"][-1] < log[f"{task}_loss"][0]
    layers = [type(layer) for layer in one.network.layers]
    for kind in (CrossedBottom, MaskedMax, SumFusion, Gate):
        assert kind in layers
    assert log["delay_weight"][-1] == pytest.approx(float(1 / one.balancer.means[2]), rel=0.3)
    found = one.evaluate(table(), verbose=0, return_dict=True)["visits_bias"]
    known = table()["visits"].notna()
    assert found == pytest.approx((served(one)["visits"] - table()["visits"])[known].mean(), rel=1e-4)


def test_the_report_has_the_metrics_of_each_task(one: MultiTaskModel) -> None:
    report = evaluate(one, table(), ks=[2])
    labels = {name: table()[name].to_numpy() for name in ("visits", "delay")}
    known = {name: ~np.isnan(values) for name, values in labels.items()}
    rates, delays = (served(one)[name][known[name]] for name in ("visits", "delay"))
    ones = np.ones(known["visits"].sum())
    assert report["visits", "deviance"] == pytest.approx(deviance(labels["visits"][known["visits"]], rates, ones))
    errors = delays - labels["delay"][known["delay"]]
    assert report["delay", "rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)
    assert {("seen", "ndcg@2"), ("liked", "auc")} <= set(report.index)
    baseline = trivial_baseline(one, table(), table(), ks=[2])
    mean = np.full(len(ones), labels["visits"][known["visits"]].mean())
    assert baseline["visits", "deviance"] == pytest.approx(deviance(labels["visits"][known["visits"]], mean, ones))
    assert baseline["delay", "r2"] == pytest.approx(0, abs=1e-9)


def test_an_ensemble_pools_by_the_rule_of_each_task(members: list[MultiTaskModel]) -> None:
    both = ensemble(members[:2], {"visits": [3, 1], "": [1, 1]})
    assert isinstance(both.network.get_layer("visits_pool"), MeanRate)
    parts, found = [served(member) for member in members[:2]], served(both)
    visits = np.stack([part["visits"] for part in parts])  # all below the largest rate
    np.testing.assert_allclose(found["visits"], np.array([0.75, 0.25]) @ visits, rtol=1e-4)
    np.testing.assert_allclose(found["delay"], (parts[0]["delay"] + parts[1]["delay"]) / 2, rtol=1e-4, atol=1e-5)


def test_weights_are_fitted_to_the_loss_of_each_task(members: list[MultiTaskModel]) -> None:
    weights = fit_weights(members[:2], table())
    combined = ensemble(members[:2], weights)
    batch = to_batch(table(), combined.preprocessor)
    losses = [{n: float(v[0]) for n, v in m.compute_losses(batch, False).items()} for m in (combined, *members[:2])]
    for task in ("visits", "delay"):
        assert losses[0][task] <= min(loss[task] for loss in losses[1:]) + 1e-4


def test_stacking_takes_the_weights_of_least_loss(members: list[MultiTaskModel]) -> None:
    recipes = [lambda train, of=of: of for of in members[:2]]
    stacked = stack(recipes, table(), [Split(table()[:18], table()[18:])])
    shares = fit_weights(members[:2], table()[18:])["visits"]
    kept = [share for share in shares if share]
    np.testing.assert_allclose(stacked.network.get_layer("visits_pool").shares, kept, rtol=1e-4)


@pytest.mark.usefixtures("untraced")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config")  # data sets are traced all the same
def test_a_student_learns_from_the_teacher_alone(one: MultiTaskModel) -> None:
    def distance(of: MultiTaskModel) -> dict[str, float]:
        return {n: float(np.mean((served(of)[n] - values) ** 2)) for n, values in served(one).items()}

    student = model(3, units=3)
    before = distance(student)
    distilled = distil(one, student, table(), alpha=1.0, batch_size=ROWS, epochs=6, verbose=0)
    after = distance(distilled)
    assert all(after[name] < before[name] for name in ("visits", "delay"))


@pytest.mark.usefixtures("untraced")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config")  # data sets are traced all the same
def test_pruning_zeroes_the_weights_of_ones_own_layers(one: MultiTaskModel) -> None:
    pruned = prune_model(one, table(), 0.5, epochs=2, batch_size=ROWS, verbose=0)
    assert [type(task) for task in pruned.tasks] == [type(task) for task in one.tasks]
    trunk = next(layer for layer in pruned.network.layers if isinstance(layer, CrossedBottom))
    for kernel in trunk.get_prunable_weights():
        assert np.mean(kernel.numpy() == 0) == pytest.approx(0.5, abs=0.05)
    assert np.isfinite(evaluate(pruned, table(), ks=[2])).all()


def test_a_warm_start_copies_ones_own_layers(one: MultiTaskModel) -> None:
    fresh = model(5)
    report = warm_start(fresh, one)
    assert not report.fresh
    assert_alike(one, fresh)


def test_a_saved_model_is_loaded_with_its_classes_and_its_state(one: MultiTaskModel, tmp_path: pathlib.Path) -> None:
    loaded = load_model(save_model(one, tmp_path / "one"))
    assert_alike(one, loaded)
    assert isinstance(loaded.balancer, LossScale)
    assert loaded.balancer.decay == 0.5
    np.testing.assert_array_equal(loaded.balancer.means, one.balancer.means)
    assert loaded.tasks[1].max_rate == 1e6
    assert isinstance(loaded.tasks[1].extra_metrics[0], Bias)


def test_an_export_answers_as_the_model_predicts(one: MultiTaskModel, tmp_path: pathlib.Path) -> None:
    signatures = tf.saved_model.load(str(tfmtl.export(one, tmp_path / "served", max_k=3))).signatures
    rows = table()[:4]
    query: dict[str, Any] = {
        "user": tf.constant(rows["user"].tolist()),
        "recent": tf.constant([[*ids, "", ""][:2] for ids in rows["recent"]]),
    }
    pair = {"item": tf.constant(rows["item"].tolist()), "price": tf.constant(rows["price"], tf.float32)}
    answer = signatures["rank"](**query, **pair)
    for name, values in served(one).items():
        np.testing.assert_allclose(answer[name], values[:4], rtol=1e-4, atol=1e-5)
    recommended = signatures["recommend"](**query)
    assert recommended["visits"].shape == recommended["delay"].shape == recommended["ids"].shape == [4, 3]

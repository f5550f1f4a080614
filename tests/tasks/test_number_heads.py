"""Tasks of numbers in one model: missing labels, a balancer, reports, baselines, teachers, ensembles and exports."""

from __future__ import annotations

import functools
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tfmtl
from tfmtl._keras import keras, tf
from tfmtl.balancing import Uncertainty
from tfmtl.baselines import GradientBoosting
from tfmtl.compression import distil
from tfmtl.data import Categorical, Label, Preprocessor, Schema
from tfmtl.ensembling import ensemble
from tfmtl.evaluation import evaluate, trivial_baseline
from tfmtl.models import Candidates, MultiTaskModel, build_network, load_model, save_model
from tfmtl.recipes import ranking_inputs
from tfmtl.tasks import (
    HuberRegression,
    NumberTask,
    OrdinalRegression,
    PoissonRegression,
    QuantileRegression,
    Retrieval,
    Task,
    TweedieRegression,
    ZeroInflatedLognormal,
)
from tfmtl.training import LazyAdam

ROWS = 60
KINDS: dict[str, type[Any]] = {
    "watched": QuantileRegression,
    "plays": PoissonRegression,
    "spend": TweedieRegression,
    "stars": HuberRegression,
    "value": ZeroInflatedLognormal,
}
NAMES = [*KINDS, "levels"]
SCHEMA = Schema(
    [Categorical("user")], [Categorical("item")],
    labels=[Label("seen"), *(Label(name, sample_weight="trust" if name == "stars" else None) for name in NAMES)],
)  # fmt: skip
FRESH = """
import sys
import numpy as np
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["rank"]
answer = served(user=tf.constant(["u0", "u3"]), item=tf.constant(["i1", "i0"]))
np.savez(sys.argv[2], **{name: value.numpy() for name, value in answer.items()})
assert "tfmtl" not in sys.modules
"""


@functools.cache
def table() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    row, user, item = np.arange(ROWS), rng.integers(0, 5, ROWS), rng.integers(0, 6, ROWS)
    rate = np.exp(user / 4 + item / 6)
    return pd.DataFrame(
        {
            "user": [f"u{k}" for k in user],
            "item": [f"i{k}" for k in item],
            "seen": 1.0,
            "trust": row % 2,
            "stars": np.where(row % 5 == 0, np.nan, 1 + (user + item) % 5),
            "watched": np.where(row % 3 == 0, np.nan, rate * rng.exponential(size=ROWS)),
            "plays": np.where(row % 4 == 0, np.nan, rng.poisson(rate)),
            "levels": np.where(row % 6 == 0, np.nan, 1 + (user + item) % 5 / 2),
            "value": np.where(rng.random(ROWS) < 0.4, 0.0, np.exp(rng.normal(user / 2, 1.0))),
            "spend": np.where(rng.random(ROWS) < 0.5, 0.0, rate * rng.exponential(size=ROWS)),
        }
    )


@functools.cache
def preprocessor() -> Preprocessor:
    return Preprocessor.fit(SCHEMA, table())


def model(seed: int = 0, units: int = 4) -> MultiTaskModel:
    heads: list[Task] = [Retrieval("seen")]
    heads += [OrdinalRegression("levels", [1, 1.5, 2, 2.5, 3])]
    heads += [kind.from_statistics(name, preprocessor().statistics) for name, kind in KINDS.items()]
    network = build_network(preprocessor(), heads, embedding_dim=3, tower_units=[units], seed=seed)
    candidates = Candidates.from_frame(table(), preprocessor())
    built = MultiTaskModel(network, heads, preprocessor(), Uncertainty(), candidates, seed=seed)
    built.compile(LazyAdam(0.03))
    return built


@functools.cache
def trained() -> MultiTaskModel:
    """Return a trained model, which no test changes."""
    built = model()
    built.fit(table(), batch_size=20, epochs=20, verbose=0)
    return built


def served(of: MultiTaskModel) -> dict[str, np.ndarray]:
    return {name: of.predict(table(), verbose=0)[name] for name in NAMES}


@pytest.fixture
def untraced() -> Iterator[None]:
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def test_they_learn_with_missing_labels_and_a_balancer() -> None:
    log = trained().history.history
    for name in NAMES:
        assert np.isfinite(log[f"{name}_loss"]).all()
        assert log[f"{name}_loss"][-1] < log[f"{name}_loss"][0]
        assert log[f"{name}_loss"][0] < 5, "the first loss is that of the best constant, near 1"


def test_a_report_and_that_of_the_best_constant_have_the_same_metrics() -> None:
    found, constant = evaluate(trained(), table(), ks=[2]), trivial_baseline(trained(), table(), table(), ks=[2])
    assert set(found.index) == set(constant.index)
    assert constant["plays", "calibration"] == pytest.approx(1)
    assert constant["watched", "coverage_0.5"] == pytest.approx(0.5)
    for task, metric in (
        ("watched", "pinball"),
        ("plays", "deviance"),
        ("spend", "deviance"),
        ("stars", "mae"),
        ("levels", "rmse"),
    ):
        assert found[task, metric] < constant[task, metric]
    assert found["value", "gini"] > 0.3 > abs(constant["value", "gini"])
    assert found["levels", "kappa"] > 0.3
    assert (np.diff(served(trained())["watched"], axis=1) >= 0).all()


def test_baselines_predict_a_number_of_each() -> None:
    for task in trained().tasks[1:]:
        assert isinstance(task, NumberTask)
        predicted = GradientBoosting(max_iter=2).fit(SCHEMA, task, table()).predict(table())
        labels = table()[task.name].to_numpy(float)
        rows = np.flatnonzero(~np.isnan(labels))
        report = task.report(labels[rows], predicted[rows], np.ones(len(rows)))
        assert np.isfinite(list(report.values())).all()


def test_the_rates_of_categories_include_their_means() -> None:
    rates = ranking_inputs(preprocessor(), trained().tasks, table())
    assert all(f"mean of {name}" in str([layer.get_config() for layer in rates]) for name in NAMES)


def test_half_precision_has_nearly_the_same_losses_and_learns() -> None:
    expected = model().evaluate(table(), batch_size=ROWS, verbose=0, return_dict=True)
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        half = model()
        half.compile(keras.mixed_precision.LossScaleOptimizer(LazyAdam(0.03)))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    before = half.evaluate(table(), batch_size=ROWS, verbose=0, return_dict=True)
    log = half.fit(table(), batch_size=20, epochs=8, verbose=0).history
    for name in NAMES:
        assert half.network.output[name].dtype == tf.float32
        assert before[f"{name}_loss"] == pytest.approx(expected[f"{name}_loss"], rel=0.02)
        assert log[f"{name}_loss"][-1] < log[f"{name}_loss"][0]


@pytest.mark.usefixtures("untraced")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config")  # data sets are traced all the same
def test_a_student_and_an_ensemble_keep_the_kinds_of_served_values() -> None:
    student = model(3)
    before, teacher = served(student), served(trained())
    after = served(distil(trained(), student, table(), alpha=1.0, batch_size=20, epochs=15, verbose=0))
    for name in NAMES:
        assert np.square(after[name] - teacher[name]).mean() < np.square(before[name] - teacher[name]).mean()
    pooled = served(ensemble([trained(), model(5)]))
    assert {name: values.shape for name, values in pooled.items()} == {n: v.shape for n, v in teacher.items()}
    assert (np.diff(pooled["watched"], axis=1) >= 0).all()
    other, largest = served(model(5))["plays"], table()["plays"].max()
    inside = np.maximum(teacher["plays"], other) < largest  # served means are cut at the largest label
    assert inside.sum() > 20
    expected = np.sqrt(teacher["plays"] * other)
    np.testing.assert_allclose(pooled["plays"][inside], expected[inside], rtol=1e-4)


def test_a_saved_model_and_its_export_in_a_fresh_process_answer_alike(tmp_path: pathlib.Path) -> None:
    loaded = load_model(save_model(trained(), tmp_path / "model"))
    assert [task.get_config() for task in loaded.tasks] == [task.get_config() for task in trained().tasks]
    for name, values in served(trained()).items():
        np.testing.assert_array_equal(served(loaded)[name], values)
    weights = dict.fromkeys(
        ("seen", "plays", "spend", "stars", "value", "levels"), 1.0
    )  # not "watched": it has several values
    path = tfmtl.export(trained(), tmp_path / "served", max_k=2, fusion_weights=weights)
    subprocess.run([sys.executable, "-c", FRESH, str(path), str(tmp_path / "answer.npz")], check=True)
    rows = pd.DataFrame({"user": ["u0", "u3"], "item": ["i1", "i0"]})
    expected, answer = trained().predict(rows, verbose=0), np.load(tmp_path / "answer.npz")
    assert answer["watched"].shape == (2, 3)
    for name in NAMES:
        np.testing.assert_allclose(answer[name], expected[name], rtol=1e-5)
    signatures = tf.saved_model.load(str(path)).signatures
    assert signatures["recommend"](user=tf.constant(["u0"]))["watched"].shape == [1, 2, 3]
    inputs = signatures["recommend_filtered"].structured_input_signature[1]
    assert {name for name in inputs if name.startswith("weight")} == {f"weight_{name}" for name in weights}

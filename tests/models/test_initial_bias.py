"""The first predictions of a network are those of the best constant."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl import data
from tfmtl._keras import keras, tf
from tfmtl._label_graph import LabelGraph
from tfmtl.models import build_network
from tfmtl.tasks import (
    BinaryClassification,
    ChainedRegression,
    EntireSpaceConversion,
    HeadInputs,
    MultiClassClassification,
    Regression,
    Task,
)

ROWS = 200
ROW = np.arange(ROWS)
CLICK, BUY = ROW % 10 == 0, ROW % 50 == 0  # rates 0.1 and 0.02
TABLE = pd.DataFrame(
    {
        "user": [f"u{k % 7}" for k in ROW],
        "click": CLICK.astype(float),
        "buy": BUY.astype(float),
        "spend": np.where(BUY, 30.0 + ROW / 50, 0.0),  # 30 to 33, mean 31.5
        "shelf": ROW % 4 // 2 + (ROW % 4 == 3),  # 0, 0, 1, 2
        "stars": 3.0 + ROW % 2,
    }
)
TASKS = ("click", "buy", "spend", "shelf", "stars")
SCHEMA = data.Schema([data.Categorical("user")], labels=[data.Label(task) for task in TASKS])
STATISTICS = data.fit_statistics(SCHEMA, TABLE)


def first_values(tasks: list[Task], labels: Any = STATISTICS.labels) -> dict[str, np.ndarray]:
    """Return the served values of the heads on a representation of zeros."""
    inputs = keras.Input([3])
    outputs: dict[str, Any] = {}
    for task in tasks:
        logits = {other.name: other.event_logit(outputs[other.name]) for other in tasks if other.name in outputs}
        logits = {name: logit for name, logit in logits.items() if logit is not None}
        encodings = HeadInputs(inputs, None, {t.name: inputs for t in tasks}, 0, logits, labels)
        outputs[task.name] = task.connect(encodings)
    found = keras.Model(inputs, outputs)(tf.zeros([1, 3]))
    return {task.name: np.asarray(task.predict(found[task.name])[0]) for task in tasks}


def test_first_predictions_are_the_rates_and_means_of_the_training_labels() -> None:
    tasks = [
        BinaryClassification("click", units=[4]),
        EntireSpaceConversion("buy", after="click"),
        ChainedRegression("spend", after="buy", scale=2.0, offset=20.0),
        MultiClassClassification("shelf", num_classes=3),
        Regression("stars"),
    ]
    found = first_values(tasks)
    assert found["click"] == pytest.approx(0.1, rel=1e-5)
    assert found["buy"] == pytest.approx(0.02, rel=1e-5)
    assert found["spend"] == pytest.approx(31.5 * 0.02, rel=1e-5)
    np.testing.assert_allclose(found["shelf"], [0.5, 0.25, 0.25], rtol=1e-5)
    assert found["stars"] == pytest.approx(3.5, rel=1e-5)


def test_labels_that_are_missing_without_the_event_have_the_same_first_prediction() -> None:
    masked = data.mask_unreached(TABLE, LabelGraph.chain("click", "buy", "spend"))
    tasks = [
        BinaryClassification("click"),
        EntireSpaceConversion("buy", after="click"),
        ChainedRegression("spend", after="buy", transform="log1p"),
    ]
    plain = first_values(tasks)
    assert first_values(tasks, data.fit_statistics(SCHEMA, masked).labels)["buy"] == pytest.approx(0.02, rel=1e-5)
    only_spend = {**STATISTICS.labels, "spend": data.fit_statistics(SCHEMA, masked).labels["spend"]}
    found = first_values(tasks, only_spend)["spend"]
    assert found == pytest.approx(plain["spend"], rel=1e-5)
    assert found == pytest.approx(0.02 * np.expm1(np.log1p([30, 31, 32, 33]).mean()), rel=1e-5)


def test_without_statistics_the_bias_is_zero() -> None:
    found = first_values([BinaryClassification("click"), MultiClassClassification("shelf", num_classes=3)], {})
    assert found["click"] == 0.5
    np.testing.assert_allclose(found["shelf"], 1 / 3)


def test_a_class_without_labels_counts_half_a_label() -> None:
    found = first_values([MultiClassClassification("shelf", num_classes=4)])["shelf"]
    assert found[3] == pytest.approx(0.5 / ROWS / (1 + 0.5 / ROWS), rel=1e-4)


def test_a_network_starts_near_the_rate() -> None:
    preprocessor = data.Preprocessor(SCHEMA, STATISTICS)
    network = build_network(preprocessor, [BinaryClassification("buy")])
    encoded = data.to_batch(TABLE, preprocessor, labels=False).features
    found = tf.sigmoid(network(encoded)["buy"])
    np.testing.assert_allclose(found, 0.02, rtol=0.5)
    assert network.get_layer("buy_output").bias.numpy() == pytest.approx(np.log(0.02 / 0.98), rel=1e-5)


@pytest.mark.parametrize(("labels", "size"), [(1000.0 * ROW, "3.3e+09"), (1e-4 * (ROW % 2), "2.5e-09")])
def test_a_regression_that_is_not_scaled_is_warned_of(labels: np.ndarray, size: str) -> None:
    preprocessor = data.Preprocessor.fit(SCHEMA, TABLE.assign(stars=labels))
    sentence = (
        f"The loss of task 'stars' starts near {size}, losses of other tasks near 1; use "
        "`Regression.from_statistics('stars', preprocessor.statistics, ...)`, which scales the labels."
    )
    with pytest.warns(UserWarning, match=re.escape(sentence)):
        build_network(preprocessor, [Regression("stars")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_network(preprocessor, [Regression.from_statistics("stars", preprocessor.statistics)])

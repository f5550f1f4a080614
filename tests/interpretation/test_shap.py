"""Our attributions beside the package `shap`; these tests run where it is installed."""

from __future__ import annotations

import io
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from tests.interpretation import planted
from tests.interpretation.test_gradients import spread
from tfmtl.interpretation import Attributions, shapley_values
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification, Regression

shap: Any = pytest.importorskip("shap")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the other package

NAMES = [f"x{i}" for i in range(8)]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    made = planted.table(np.random.default_rng(0).normal(size=[8, 2]), 60, seed=1)
    return made.assign(second=(made["second"] > 0).astype(float))


@pytest.fixture(scope="module")
def model(frame: pd.DataFrame) -> MultiTaskModel:
    heads: list[Any] = [Regression("first"), BinaryClassification("second")]
    fitted = planted.preprocessor(frame)
    return spread(MultiTaskModel(build_network(fitted, heads, tower_units=[8, 4]), heads, fitted))


@pytest.fixture(scope="module")
def ours(model: MultiTaskModel, frame: pd.DataFrame) -> Attributions:
    return shapley_values(model, frame.head(4), frame.tail(20), samples=400)


@pytest.mark.parametrize("task", planted.TASKS)
def test_sampled_values_are_near_those_of_the_exact_explainer(
    model: MultiTaskModel, frame: pd.DataFrame, ours: Attributions, task: str
) -> None:
    def value(x: np.ndarray) -> np.ndarray:
        served = np.asarray(model.predict(pd.DataFrame(x, columns=NAMES), verbose=0)[task], np.float64).reshape(-1)
        return served if task == "first" else np.log(served / (1 - served))

    masker = shap.maskers.Independent(frame.tail(20)[NAMES].to_numpy(), max_samples=20)
    exact = shap.explainers.Exact(value, masker)(frame.head(4)[NAMES].to_numpy())
    k = planted.TASKS.index(task)
    assert ours.errors is not None
    ratio = np.abs(ours.values[..., k] - exact.values) / ours.errors[..., k]
    assert ratio.max() < 4
    np.testing.assert_allclose(exact.values.sum(axis=1) + exact.base_values, ours.output[:, k], atol=1e-3)


@pytest.mark.parametrize("task", planted.TASKS)
def test_explanations_are_those_of_the_task(ours: Attributions, task: str) -> None:
    k, found = planted.TASKS.index(task), ours.to_shap(task)
    np.testing.assert_array_equal(found.values, ours.values[..., k])
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base_values, ours.output[:, k], atol=1e-5)
    assert list(found.feature_names) == NAMES


@pytest.mark.parametrize("plot", ["bar", "beeswarm", "waterfall", "heatmap"])
def test_plots_draw_explanations(ours: Attributions, plot: str) -> None:
    found = ours.to_shap("first")
    getattr(shap.plots, plot)(found[0] if plot == "waterfall" else found, show=False)
    texts = {text.get_text() for axis in plt.gcf().axes for text in axis.get_yticklabels()}
    file = io.BytesIO()
    plt.savefig(file, format="png")
    plt.close("all")
    assert file.getvalue().startswith(b"\x89PNG")
    assert any(ours.order("first")[0] in text for text in texts)

from __future__ import annotations

import importlib.util
import re
from typing import Any

import numpy as np
import pytest

from tests.interpretation import planted
from tests.models import small
from tfmtl import layers, tasks
from tfmtl._keras import tf
from tfmtl.data import Label, Preprocessor, Schema, to_batch
from tfmtl.interpretation import gradient_times_input, integrated_gradients
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.models.path_gradients import path_weights

WEIGHTS = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, -3.0]])


def spread(model: MultiTaskModel, seed: int = 0) -> MultiTaskModel:
    """Give every trainable weight a random value, so that a trunk is far from linear, and return the model."""
    rng = np.random.default_rng(seed)
    for variable in model.network.trainable_variables:
        scale = 0.7 if "embedding" in variable.name else 1.0 / np.sqrt(max(variable.shape[0], 1))
        variable.assign(rng.normal(size=variable.shape, scale=scale))
    return model


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    return spread(small.model())


def test_a_linear_model_has_w_times_the_difference() -> None:
    frame = planted.table(WEIGHTS, 60, seed=1)
    model = planted.linear_model(frame, WEIGHTS)
    found = integrated_gradients(model, frame.head(7), frame.tail(30), steps=1)
    z = np.stack([to_batch(frame, model.preprocessor).features[f"x{i}"].numpy()[:, 0] for i in range(3)], axis=1)
    scales = [task.scale for task in model.tasks]
    expected = (z[:7] - z[-30:].mean(axis=0))[..., np.newaxis] * WEIGHTS * scales
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    np.testing.assert_allclose(found.gap, 0, atol=1e-5)
    assert found.order("second") == ["x2", "x1", "x0"]
    product = gradient_times_input(model, frame.head(7))
    np.testing.assert_allclose(product.values, z[:7, :, np.newaxis] * WEIGHTS * scales, atol=1e-5)
    assert (product.base == 0).all()


def test_a_sample_of_rows_is_the_mean_over_its_rows(model: MultiTaskModel) -> None:
    frame = small.table()
    found = integrated_gradients(model, frame.head(5), frame.tail(2), sample=2, steps=8)
    apart = [
        integrated_gradients(model, frame.head(5), frame.tail(2).iloc[i : i + 1], sample=1, steps=8) for i in (0, 1)
    ]
    np.testing.assert_allclose(found.values, np.mean([a.values for a in apart], axis=0), atol=1e-4)
    np.testing.assert_allclose(found.base, np.mean([a.base for a in apart], axis=0), atol=1e-4)


def test_positions_of_a_history_add_up_to_its_part(model: MultiTaskModel) -> None:
    found = integrated_gradients(model, small.table(), small.table(), steps=8)
    parts = found.history("recent")
    assert parts.shape == (small.ROWS, 2, 4)
    np.testing.assert_allclose(parts.sum(axis=1), found.values[:, found.features.index("recent")], atol=1e-5)
    padded = to_batch(small.table(), small.preprocessor()).features["recent"].numpy() == 0
    assert (parts[padded] == 0).all()
    assert (parts[~padded] != 0).any()
    assert list(found.to_frame().index.names) == ["row", "feature", "task"]


def assert_complete(model: MultiTaskModel) -> None:
    """Compare the mean gap of each task with its mean difference from the baseline."""
    found = integrated_gradients(model, small.table(), small.table(), steps=64)
    size = np.abs(found.output - found.base).mean(axis=0)
    assert (size > 1e-4).all()
    np.testing.assert_array_less(np.abs(found.gap).mean(axis=0) / size, 0.01)


TASKS = small.ON_PAIRS
INNER: Any = {"num_experts": 3, "units": [4]}
TRUNKS: dict[str, Any] = {
    "SharedBottom": lambda: layers.SharedBottom(TASKS, units=[4]),
    "MMoE": lambda: layers.MMoE(TASKS, **INNER),
    "OMoE": lambda: layers.OMoE(TASKS, **INNER),
    "CGC": lambda: layers.CGC(TASKS, units=[4]),
    "PLE": lambda: layers.PLE(TASKS, num_levels=2, units=[4]),
    "HoME": lambda: layers.HoME(TASKS, groups={"x": [TASKS[0]], "y": [TASKS[1]]}, num_experts=2, units=[16]),
    "AdaTT": lambda: layers.AdaTT(TASKS, units=[4]),
    "CrossStitch": lambda: layers.CrossStitch(TASKS, units=[4]),
    "MTAN": lambda: layers.MTAN(TASKS, units=[4]),
    "DSelectK": lambda: layers.DSelectK(TASKS, 3, 2, units=[4]),
    "AITM": lambda: layers.AITM(layers.MMoE(TASKS, **INNER), {TASKS[1]: TASKS[0]}),
    "BayesianRelations": lambda: layers.BayesianRelations(layers.MMoE(TASKS, **INNER), {TASKS[1]: [TASKS[0]]}),
    "LearningToBranch": lambda: layers.LearningToBranch(TASKS, units=[4]),
    "PEPNet": lambda: layers.PEPNet(TASKS, units=[4], domain=["position"], personal=["user"]),
    "STEM": lambda: layers.STEM(TASKS, units=[4]),
}


def test_every_trunk_is_in_this_list() -> None:
    kinds = {
        kind for kind in vars(layers).values() if isinstance(kind, type) and issubclass(kind, layers.MultiTaskLayer)
    }
    named = {kind.__name__ for kind in kinds if not kind.__abstractmethods__}
    assert named <= set(TRUNKS)


@pytest.mark.parametrize("name", TRUNKS)
def test_attributions_through_every_trunk_are_complete(name: str) -> None:
    assert_complete(spread(small.model(trunk=TRUNKS[name]())))


def every_head() -> MultiTaskModel:
    """Return a model with a task of every kind, each with a label of its own."""
    rng = np.random.default_rng(3)
    frame = small.table()[["user", "age", "recent", "item", "price"]].copy()
    click = rng.integers(0, 2, small.ROWS)
    numbers = ["huber", "poisson", "tweedie", "quantile", "amount", "watch", "span", "stars"]
    events = ["entire", "propensity", "robust"]
    labels = {"click": click, **{name: click * rng.integers(0, 2, small.ROWS) for name in events}}
    labels |= {name: rng.gamma(2.0, size=small.ROWS) for name in numbers}
    labels |= {"spend": np.where(click > 0, rng.gamma(2.0, size=small.ROWS), np.nan), "seen": np.ones(small.ROWS)}
    labels |= {"level": rng.integers(0, 3, small.ROWS), "mood": rng.integers(0, 3, small.ROWS)}
    frame = frame.assign(**labels)
    schema = Schema(small.SCHEMA.query, small.SCHEMA.candidate, labels=[Label(name) for name in labels])
    fitted = Preprocessor.fit(schema, frame)
    kinds: list[Any] = [
        tasks.Retrieval("seen", num_interests=2, units=[8], temperature=0.5),
        tasks.BinaryClassification("click"),
        tasks.EntireSpaceConversion("entire", "click"),
        tasks.InversePropensityConversion("propensity", "click", serve="conditional"),
        tasks.DoublyRobustConversion("robust", "click"),
        tasks.ChainedRegression("spend", "click"),
        tasks.Regression("stars", transform="log1p"),
        tasks.HuberRegression("huber", scope="query"),
        tasks.PoissonRegression("poisson"),
        tasks.TweedieRegression("tweedie"),
        tasks.QuantileRegression("quantile", quantiles=[0.25, 0.75]),
        tasks.ZeroInflatedLognormal("amount"),
        tasks.WatchTime("watch"),
        tasks.DurationQuantiles("span", "age", [22.0], [[0, 1, 3], [0, 2, 9], [0, 2, 8]]),
        tasks.OrdinalRegression("level", [0, 1, 2]),
        tasks.MultiClassClassification("mood", num_classes=3),
    ]
    network = build_network(fitted, kinds, embedding_dim=3, tower_units=[4, 4], regularization=small.NO_NOISE)
    return MultiTaskModel(network, kinds, fitted)


def test_attributions_of_every_kind_of_task_are_complete() -> None:
    model = every_head()
    known = {kind for kind in vars(tasks).values() if isinstance(kind, type) and issubclass(kind, tasks.Task)}
    assert {k.__name__ for k in known if not k.__abstractmethods__} <= {type(task).__name__ for task in model.tasks}
    assert_complete(spread(model))


def test_the_parts_are_those_of_a_fine_sum(model: MultiTaskModel) -> None:
    coarse, fine = (integrated_gradients(model, small.table(), small.table(), steps=n) for n in (64, 2048))
    sizes = np.abs(fine.values).sum(axis=1, keepdims=True)
    assert (np.abs(coarse.values - fine.values) / sizes).max() < 0.01


def test_one_kink_between_two_points_is_exact() -> None:
    # max(0, x - 1/4) from 0 to 1: slopes 0 and 1, change 3/4, so that the right end has the weight 3/4.
    weights = path_weights(tf.constant([[0.0], [0.75]]), tf.constant([[0.0], [1.0]]), tf.constant([0.0, 1.0]))
    np.testing.assert_allclose(weights[:, 0], [0.25, 0.75])


def test_interactions_read_encodings_too() -> None:
    inputs = [layers.TargetAttention("recent"), layers.CrossNetwork(), layers.HistoryMatch("recent")]
    poolings = {"recent": layers.SelfAttentionHistory(1)}
    assert_complete(spread(small.model(interactions=inputs, poolings=poolings)))


def test_isolated_tasks_have_their_own_encodings() -> None:
    assert_complete(spread(small.model(isolate=[["rating"]], trunk=layers.MMoE(num_experts=2, units=[4]))))


def test_hostile_rows_have_finite_parts(model: MultiTaskModel) -> None:
    row = small.table().head(1).assign(user=None, item="never seen", age=np.nan, recent=[[]])
    found = integrated_gradients(model, row, small.table())
    assert np.isfinite(found.values).all()
    assert (np.abs(found.gap) < 0.01 * np.abs(found.output - found.base).max()).all()


def test_the_class_can_be_chosen(model: MultiTaskModel) -> None:
    both = [
        integrated_gradients(model, small.table(), small.table(), tasks=["mood"], classes={"mood": c}) for c in (0, 1)
    ]
    np.testing.assert_allclose(both[0].output + both[1].output, 1, atol=1e-5)
    np.testing.assert_allclose(both[0].values, -both[1].values, atol=1e-5)
    largest = integrated_gradients(model, small.table(), small.table(), tasks=["mood"])
    np.testing.assert_allclose(largest.output, np.maximum(both[0].output, both[1].output))


def test_wrong_arguments_are_named(model: MultiTaskModel) -> None:
    rows = small.table().head(2)
    with pytest.raises(ValueError, match="Unknown task"):
        integrated_gradients(model, rows, rows, tasks=["like"])
    with pytest.raises(ValueError, match="price"):
        integrated_gradients(model, rows, rows.drop(columns="price"))
    with pytest.raises(TypeError, match="`baseline` must hold rows"):
        integrated_gradients(model, rows, 0)
    with pytest.raises(ValueError, match=re.escape("The class of task 'mood' must be one of its 2 served values")):
        integrated_gradients(model, rows, rows, classes={"mood": 2})
    with pytest.raises(ValueError, match="`baseline` has 2 rows"):
        integrated_gradients(model, rows, rows, sample=3)
    with pytest.raises(ValueError, match="`steps` must be a positive integer"):
        integrated_gradients(model, rows, rows, steps=0)
    found = integrated_gradients(model, rows, rows, steps=1)
    with pytest.raises(ValueError, match="Unknown list of ids"):
        found.history("item")


def test_a_model_without_histories_has_no_positions() -> None:
    frame = planted.table(WEIGHTS, 60, seed=1)
    found = gradient_times_input(planted.linear_model(frame, WEIGHTS), frame)
    with pytest.raises(ValueError, match=re.escape("The model has no list of ids, so that 'recent' has no positions.")):
        found.history("recent")


def test_shap_is_optional(model: MultiTaskModel) -> None:
    found = gradient_times_input(model, small.table())
    if importlib.util.find_spec("shap"):
        np.testing.assert_array_equal(found.to_shap("liked").values, found.values[..., 2])
    else:
        with pytest.raises(ImportError, match="pip install shap"):
            found.to_shap("liked")


def test_training_still_stops_gradients() -> None:
    """The override of stopped gradients ends with the attribution."""
    x = tf.constant([2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = x * tf.stop_gradient(x)
    np.testing.assert_allclose(tape.gradient(y, x), [2.0])

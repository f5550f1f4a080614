"""The explanations in a graph are those of `interpretation.integrated_gradients`, for hostile rows and any model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.interpretation import planted
from tests.models import small
from tfmtl import layers
from tfmtl._keras import keras, tf
from tfmtl.compression import prune
from tfmtl.data import Categorical, IdSequence, Label, Preprocessor, Schema, to_batch
from tfmtl.interpretation import integrated_gradients
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.recipes import calibrate
from tfmtl.serving import Explanations
from tfmtl.serving.explainer import Explainer
from tfmtl.tasks import BinaryClassification, Regression

STEPS = 8
TASKS = ["rating", "liked", "mood"]


def spread(model: MultiTaskModel) -> MultiTaskModel:
    """Give every trainable weight a random value, so that attributions differ, and return the model."""
    rng = np.random.default_rng(0)
    for variable in model.network.trainable_variables:
        scale = 0.7 if "embedding" in variable.name else 1.0 / np.sqrt(max(variable.shape[0], 1))
        variable.assign(rng.normal(size=variable.shape, scale=scale))
    return model


def rows() -> pd.DataFrame:
    """Return known rows, a row of unknown ids, and one of missing values with an empty history."""
    table = small.table().head(4).drop(columns=list(small.SCHEMA.tasks))
    unknown = table.head(1).assign(user="never seen", item="never seen", recent=[["never seen"]], price=1e9)
    missing = table.head(1).assign(user=None, item=None, age=np.nan, price=np.nan, position=np.nan, recent=[[]])
    return pd.concat([table, unknown, missing], ignore_index=True)


def check_as_in_process(model: MultiTaskModel, tasks: list[str] | None = None) -> dict[str, np.ndarray]:
    """Compare the outputs for hostile rows with the attributions in process, and return them."""
    batch = to_batch(rows(), model.preprocessor, labels=False)
    settings = Explanations(small.table(), tasks=tasks, steps=STEPS)
    answer = {n: t.numpy() for n, t in Explainer(model, settings).explain(batch.features).items()}
    found = integrated_gradients(model, batch, small.table(), steps=STEPS, tasks=tasks or TASKS)
    assert {tuple(names) for names in answer["features"].astype(str).tolist()} == {tuple(found.features)}
    for k, task in enumerate(found.tasks):
        expected = {"attributions": found.values[..., k], "base": found.base[:, k], "output": found.output[:, k]}
        expected |= {"gap": found.gap[:, k], "recent_positions": found.positions["recent"][..., k]}
        scale = max(1.0, float(np.abs(found.output[:, k]).max()))
        for name, value in expected.items():
            np.testing.assert_allclose(answer[f"{task}_{name}"], value, atol=1e-5 * scale, err_msg=f"{task}_{name}")
        assert np.abs(found.values[:-2, :, k]).max() > 1e-3
    return answer


def test_hostile_rows_are_explained_as_in_process() -> None:
    model = spread(small.model())
    answer = check_as_in_process(model)
    served = {task.name: task for task in model.tasks}
    batch = to_batch(rows(), model.preprocessor, labels=False)
    outputs = model(batch.features)
    np.testing.assert_allclose(tf.sigmoid(answer["liked_output"]), served["liked"].predict(outputs["liked"]), atol=1e-5)
    np.testing.assert_array_equal(answer["mood_class"], np.argmax(served["mood"].predict(outputs["mood"]), axis=1))
    assert (answer["liked_recent_positions"][-1] == 0).all()
    assert "rating_class" not in answer


def calibrated() -> MultiTaskModel:
    return calibrate(spread(small.model()), method="prior", rate=0.5, tasks=["liked"])


def pruned() -> MultiTaskModel:
    model = spread(small.model())
    return model.with_network(prune(model.network, 0.5, end_step=3))


KINDS: dict[str, Callable[[], MultiTaskModel]] = {
    "stopped gradients": lambda: spread(
        small.model(trunk=layers.PEPNet(small.ON_PAIRS, units=[4], domain=["position"], personal=["user"]))
    ),
    "isolated tasks": lambda: spread(small.model(isolate=[["rating"]], trunk=layers.MMoE(num_experts=2, units=[4]))),
    "learnt branches": lambda: spread(small.model(trunk=layers.LearningToBranch(small.ON_PAIRS, units=[4]))),
    "target attention": lambda: spread(small.model(interactions=[layers.TargetAttention("recent")])),
    "calibrated": calibrated,
    "pruned": pruned,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_is_explained_as_in_process(name: str) -> None:
    check_as_in_process(KINDS[name](), ["liked"])


def test_blocks_of_rows_and_no_rows() -> None:
    """Five rows in blocks of two are those of one block; no rows have no explanations."""
    model = spread(small.model())
    batch = to_batch(rows().head(5), model.preprocessor, labels=False)
    explainer = Explainer(model, Explanations(small.table(), ["liked"], steps=STEPS))
    whole = explainer.explain(batch.features)
    explainer._rows = 2
    for name, value in explainer.explain(batch.features).items():
        check = np.testing.assert_array_equal if value.dtype == tf.string else close
        check(value.numpy(), whole[name].numpy())
    nothing = explainer.explain({name: column[:0] for name, column in batch.features.items()})
    assert {name: value.shape[0] for name, value in nothing.items()} == dict.fromkeys(whole, 0)
    assert nothing["liked_attributions"].shape == (0, 6)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_reasons_are_the_greatest_positive_parts() -> None:
    model = spread(small.model())
    batch = to_batch(rows(), model.preprocessor, labels=False)
    explainer = Explainer(model, Explanations(small.table(), steps=STEPS, reasons=99))
    answer = {n: t.numpy() for n, t in explainer.explain(batch.features).items()}
    reasons = {n: t.numpy() for n, t in explainer.reasons(batch.features).items()}
    assert set(reasons) == {f"{task}_{end}" for task in small.ON_PAIRS for end in ("reasons", "reason_parts")}
    names = answer["features"][0].astype(str).tolist()
    for task in small.ON_PAIRS:
        for i in range(len(rows())):
            parts = dict(zip(names, answer[f"{task}_attributions"][i], strict=True))
            del parts["recent"]
            parts |= {f"recent[{j}]": value for j, value in enumerate(answer[f"{task}_recent_positions"][i])}
            order = sorted((name for name in parts if parts[name] > 0), key=lambda name: -parts[name])
            assert len(reasons[f"{task}_reasons"][i]) == len(parts)
            assert [r.decode() for r in reasons[f"{task}_reasons"][i] if r] == order
            np.testing.assert_allclose(
                reasons[f"{task}_reason_parts"][i][: len(order)], [parts[name] for name in order], rtol=1e-4, atol=1e-6
            )
            assert (reasons[f"{task}_reason_parts"][i][len(order) :] == 0).all()


def test_a_model_without_histories_has_w_times_the_difference() -> None:
    """Two linear tasks of three numbers: the part of a number is its weight times its distance from the mean."""
    weights = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, -3.0]])
    frame = planted.table(weights, 60, seed=1)
    model = planted.linear_model(frame, weights)
    features = to_batch(frame, model.preprocessor).features
    explainer = Explainer(model, Explanations(frame.tail(30), ["second"], steps=1))
    answer = {n: t.numpy() for n, t in explainer.explain(features).items()}
    assert sorted(answer) == ["features", "second_attributions", "second_base", "second_gap", "second_output"]
    numbers = answer["features"][0].astype(str).tolist()
    z = np.stack([features[f"x{i}"].numpy()[:, 0] for i in range(3)], axis=1)
    expected = (z - z[-30:].mean(axis=0)) * weights[:, 1] * model.tasks[1].scale
    found = answer["second_attributions"][:, [numbers.index(f"x{i}") for i in range(3)]]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(answer["second_gap"], 0, atol=1e-5)


def test_outputs_of_two_meanings_are_refused() -> None:
    frame = small.table().assign(x=[["i1"]] * small.ROWS, own_x=[["i2"]] * small.ROWS)
    schema = Schema(
        query=[IdSequence("x", of="item", max_length=1), IdSequence("own_x", of="item", max_length=1)],
        candidate=[Categorical("item")],
        labels=[Label("liked"), Label("liked_own", column="rating")],
    )
    preprocessor = Preprocessor.fit(schema, frame)
    heads: list[Any] = [BinaryClassification("liked"), Regression("liked_own")]
    network = build_network(preprocessor, heads, embedding_dim=2, regularization=small.NO_NOISE)
    with pytest.raises(ValueError, match=r"The outputs \['liked_own_x_positions'\] of `explain` would have two"):
        Explainer(MultiTaskModel(network, heads, preprocessor), Explanations(frame, steps=1))


def test_the_network_is_not_changed() -> None:
    model = spread(small.model())
    before = [(len(layer.inbound_nodes), len(layer.outbound_nodes)) for layer in model.network.layers]
    Explainer(model, Explanations(small.table(), steps=1))
    assert [len(layer.inbound_nodes) for layer in model.network.layers] == [inbound for inbound, _ in before]
    assert isinstance(keras.models.clone_model(model.network), keras.Model)

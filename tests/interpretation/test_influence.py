from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.interpretation import planted
from tests.interpretation.test_gradients import TRUNKS, every_head, spread
from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.data import Batch, to_batch
from tfmtl.interpretation import influence_of_rows, influential_rows
from tfmtl.models import MultiTaskModel, save_model
from tfmtl.models.encodings import LOOK_UPS
from tfmtl.models.explained import rows_at
from tfmtl.tasks import BinaryClassification, GroupLoss

WEIGHTS = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, -3.0]])


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    return spread(small.model())


def by_rows(model: MultiTaskModel, rows: Batch, variables: dict[str, list[Any]]) -> dict[str, np.ndarray]:
    """Return by task the gradients [N, d] of the weighted losses of rows, each by a batch of its own."""
    found: dict[str, list[np.ndarray]] = {task: [] for task in variables}
    for i in range(len(rows.features["user"])):
        batch = Batch(*(rows_at(columns, [i]) for columns in rows))
        with tf.GradientTape(persistent=True) as tape:
            losses = model.compute_losses(batch, training=False)
            totals = {task: losses[task][0] * tf.stop_gradient(losses[task][1]) for task in variables}
        for task, own in variables.items():
            slopes = tape.gradient(totals[task], own, unconnected_gradients="zero")
            found[task].append(np.concatenate([tf.convert_to_tensor(slope).numpy().reshape(-1) for slope in slopes]))
    return {task: np.stack(part).astype(np.float64) for task, part in found.items()}


def dense(model: MultiTaskModel) -> list[Any]:
    tables = {id(v) for layer in model.network.submodules if isinstance(layer, LOOK_UPS) for v in layer.weights}
    return [v for v in model.network.trainable_variables if id(v) not in tables]


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert (np.abs(expected) > 1e-6).any()
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("task", ["rating", "liked", "mood"])
def test_influence_is_that_of_a_gradient_per_row(model: MultiTaskModel, task: str) -> None:
    train = small.table().head(12)
    chosen = np.flatnonzero(train[task].notna())[:3]
    rows = to_batch(train, model.preprocessor)
    head = model.network.get_layer(f"{task}_output").trainable_variables
    for kind, variables in (("head", head), ("dense", dense(model))):
        gradients = by_rows(model, rows, {task: variables})[task]
        found = influence_of_rows(model, train, train.iloc[chosen], task, variables=kind)  # type: ignore[arg-type]
        assert_close(found, gradients[chosen] @ gradients.T)


def test_every_kind_of_task_has_the_influence_of_a_gradient_per_row() -> None:
    model = spread(every_head())
    click = np.array([0, 1, 1, 1])
    frame = small.table()[["user", "age", "recent", "item", "price"]].head(4).assign(click=click)
    for task in model.tasks:
        if task.name != "click":
            frame[task.name] = [0, 1, 0, 1] if task.name in ("entire", "propensity", "robust") else 1.0
    frame["spend"] = np.where(click > 0, 2.0, np.nan)
    rows = to_batch(frame, model.preprocessor)
    layers = {task.name: [f"{task.name}_output"] for task in model.tasks if not task.retrieves}
    layers |= {name: [*layers[name], "click_output"] for name in ("entire", "propensity", "robust", "spend")}
    layers["robust"].append("robust_imputation_output")
    heads = {
        name: [v for layer in names for v in model.network.get_layer(layer).trainable_variables]
        for name, names in layers.items()
    }
    for name, gradients in by_rows(model, rows, heads).items():
        found = influence_of_rows(model, frame, frame.iloc[[1, 3]], name)
        assert_close(found, gradients[[1, 3]] @ gradients.T)


@pytest.mark.parametrize("name", ["CrossStitch", "DSelectK", "HoME"])
def test_gradients_go_through_trunks(name: str) -> None:
    model, train = spread(small.model(trunk=TRUNKS[name]())), small.table().head(6)
    gradients = by_rows(model, to_batch(train, model.preprocessor), {"rating": dense(model)})["rating"]
    found = influence_of_rows(model, train, train.head(2), "rating", variables="dense")
    assert_close(found, gradients[:2] @ gradients.T)


def test_linear_regression_by_hand() -> None:
    # L = (w . z + b - t)^2 with t the standardized label, so that grad L = 2 e [z, 1] with the error e:
    # I(z, z') = 4 e e' (z . z' + 1).
    frame = planted.table(WEIGHTS, 40, seed=1, noise=1.0)
    model = planted.linear_model(frame, WEIGHTS)
    rows = to_batch(frame, model.preprocessor)
    z = np.stack([rows.features[f"x{i}"].numpy()[:, 0] for i in range(3)], axis=1).astype(np.float64)
    task: Any = model.tasks[0]
    error = z @ WEIGHTS[:, 0] - (frame["first"].to_numpy() - task.offset) / task.scale
    expected = 4 * np.outer(error, error) * (z @ z.T + 1)
    assert_close(influence_of_rows(model, frame, frame.head(3), "first"), expected[:3])


def test_rows_with_the_weight_0_have_no_influence_and_weights_count(model: MultiTaskModel) -> None:
    train = small.table().head(12)
    example = train.loc[[1]]
    once, twice = (influence_of_rows(model, rows, example, "rating") for rows in (train, train.assign(trust=2.0)))
    np.testing.assert_allclose(twice[0], once[0] * 2.0 / train["trust"], rtol=1e-4)
    absent = influence_of_rows(model, train, example, "liked")[0]
    assert (absent[train["liked"].isna()] == 0).all()
    assert (absent[train["liked"].notna()] != 0).all()


def test_the_copy_of_a_row_has_positive_influence_and_a_contrary_label_a_negative_one(model: MultiTaskModel) -> None:
    example = small.table().loc[[1]]
    contrary = example.assign(liked=1.0 - example["liked"])
    train = pd.concat([example, contrary], ignore_index=True)
    for kind in ("head", "dense"):
        same, other = influence_of_rows(model, train, example, "liked", variables=kind)[0]
        assert same > 0 > other


def test_checkpoints_add_up_with_their_rates_and_the_model_stays(tmp_path: pathlib.Path) -> None:
    model, train = small.model(eager=True), small.table()
    stages, files = [], [tmp_path / "folder", tmp_path / "new.weights.h5", tmp_path / "tensorflow"]
    for file in files:
        model.fit(train, batch_size=25, verbose=0)
        stages.append(model.network.get_weights())
        save_model(model, file) if file.name == "folder" else model.save_weights(str(file))
    before = [array.copy() for array in model.get_weights()]
    iterations, example = int(model.optimizer.iterations), train.loc[[1]]
    apart = [influence_of_rows(model, train, example, "liked", checkpoints=[stage]) for stage in stages]
    assert np.abs(apart[0] - apart[1]).max() > 1e-6
    for given in (stages, files):
        found = influence_of_rows(model, train, example, "liked", checkpoints=given, rates=[1.0, 0.5, 2.0])
        np.testing.assert_allclose(found, apart[0] + 0.5 * apart[1] + 2.0 * apart[2], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(influence_of_rows(model, train, example, "liked"), apart[2], rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="A checkpoint must hold the arrays"):
        influence_of_rows(model, train, example, "liked", checkpoints=[stages[0], stages[1][:-1]])
    with pytest.raises(TypeError, match=re.escape("`checkpoints[...]`")):
        influence_of_rows(model, train, example, "liked", checkpoints=[stages[0], 3])
    for own, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(own, kept)
    assert int(model.optimizer.iterations) == iterations


def test_the_files_of_a_callback_are_checkpoints(tmp_path: pathlib.Path) -> None:
    model, train = small.model(eager=True), small.table()
    saver = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.weights.h5"), save_weights_only=True)
    model.fit(train, epochs=2, batch_size=25, verbose=0, callbacks=[saver])
    last = influence_of_rows(model, train, train.loc[[1]], "liked")
    found = influence_of_rows(model, train, train.loc[[1]], "liked", checkpoints=[tmp_path / "2.weights.h5"])
    np.testing.assert_allclose(found, last, rtol=1e-5, atol=1e-7)
    first = influence_of_rows(model, train, train.loc[[1]], "liked", checkpoints=[tmp_path / "1.weights.h5"])
    assert np.abs(first - last).max() > 1e-6


def test_the_table_holds_proponents_and_opponents_of_the_training_table(model: MultiTaskModel) -> None:
    train = small.table().head(20).set_axis([f"row {i}" for i in range(20)])
    example = small.table().loc[[25]]
    values = pd.Series(influence_of_rows(model, train, example, "liked")[0], train.index)
    found = influential_rows(model, train, example, "liked", k=3)
    assert list(found) == ["influence", *train]
    ordered = values.sort_values(ascending=False)
    assert found.index.tolist() == [*ordered.index[:3], *ordered.index[-3:]]
    np.testing.assert_allclose(found["influence"], values[found.index])
    assert found["item"].tolist() == train.loc[found.index, "item"].tolist()
    whole = influential_rows(model, train, example, "liked", k=100)
    assert whole.index.tolist() == ordered[ordered != 0].index.tolist()  # rows without a label are absent
    encoded = influential_rows(model, to_batch(train, model.preprocessor), example, "liked", k=3)
    assert encoded.index.tolist() == [int(name.split()[1]) for name in found.index]
    assert list(encoded) == ["influence"]


def test_wrong_arguments_are_named(model: MultiTaskModel) -> None:
    train, example = small.table(), small.table().loc[[1]]
    with pytest.raises(ValueError, match="Unknown task"):
        influential_rows(model, train, example, "like")
    with pytest.raises(ValueError, match="'seen' is a retrieval"):
        influential_rows(model, train, example, "seen")
    with pytest.raises(ValueError, match="Unknown kind of parameters"):
        influential_rows(model, train, example, "liked", variables="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one rate for each of 1 checkpoints"):
        influence_of_rows(model, train, example, "liked", rates=[1.0, 2.0])
    with pytest.raises(ValueError, match="`checkpoints` must hold at least one"):
        influence_of_rows(model, train, example, "liked", checkpoints=[])
    with pytest.raises(ValueError, match=re.escape("`examples` needs a label in every row. Received: row=0")):
        influence_of_rows(model, train, train.loc[[0, 1]], "liked")
    with pytest.raises(ValueError, match="`example` must have one row"):
        influential_rows(model, train, train.loc[[1, 2]], "liked")
    with pytest.raises(ValueError, match="has a column 'influence'"):
        influential_rows(model, train.assign(influence=0), example, "liked")
    with pytest.raises(ValueError, match="`k` must be a positive integer"):
        influential_rows(model, train, example, "liked", k=0)
    heads = [
        t if t.name != "liked" else BinaryClassification("liked", extra_losses=[GroupLoss("logistic", "user")])
        for t in small.tasks()
    ]
    with pytest.raises(ValueError, match="'liked' has `extra_losses`"):
        influence_of_rows(small.model(heads=heads), train, example, "liked")

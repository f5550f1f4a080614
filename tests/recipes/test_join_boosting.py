"""Boosted trees beside a network: equal to scikit-learn's, chosen by the loss on validation, in one SavedModel."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models.small import NO_NOISE
from tfmtl import adaptation, compression, recipes, serving
from tfmtl._keras import keras, tf
from tfmtl.compression.sparsity import prunable_weights
from tfmtl.data import (
    Categorical,
    IdSequence,
    Label,
    MultiValued,
    Numeric,
    Preprocessor,
    Schema,
    Text,
    Vector,
    random_split,
    to_batch,
)
from tfmtl.models import MultiTaskModel, build_network, load_model, save_model
from tfmtl.recipes import JoinedBoosting, calibrate, join_boosting
from tfmtl.recipes.boosted_part import EncodedBoosting
from tfmtl.recipes.join_boosting import BoostedTask, _can, losses_of
from tfmtl.tasks import (
    BinaryClassification,
    EntireSpaceConversion,
    MultiClassClassification,
    Regression,
    Retrieval,
    Task,
)
from tfmtl.training import LazyAdam

ROWS = 600
SCHEMA = Schema(
    [
        Categorical("user"),
        Numeric("age"),
        MultiValued("tags", max_length=4, separator="|"),
        Text("words", max_length=3),
    ],
    [
        Categorical("item", dtype="int64"),
        Vector("spot", size=2),
        IdSequence("similar", "item", 3, dtype="int64"),
    ],
    context=[Numeric("paid", transform="log1p")],
    labels=[Label(name) for name in ("click", "stars", "kind", "old")],
)
TASKS = ("click", "stars", "kind", "old")


@functools.cache
def table() -> pd.DataFrame:
    """Labels with steps in numbers and rates by item, which trees find at once."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 30, ROWS), rng.integers(0, 20, ROWS)
    age = (20.0 + user % 7 * 6).astype(float)
    paid, spot = rng.exponential(size=ROWS) * 10, rng.normal(size=[ROWS, 2])
    spot[rng.random(ROWS) < 0.2] = np.nan
    step = (paid > 6) ^ (item % 3 == 0)
    found = pd.DataFrame(
        {
            "user": [f"u{i}" for i in user],
            "age": np.where(user % 5 == 0, np.nan, age),
            "tags": ["a|b|c"[: 2 * (i % 3) + 1] for i in item],
            "words": "some words",
            "item": item,
            "spot": list(spot),
            "similar": [[i % 4 + 1, 3][: i % 3] for i in item],
            "paid": np.where(rng.random(ROWS) < 0.1, np.nan, paid),
            "click": (rng.random(ROWS) < np.where(step, 0.85, 0.15)).astype(float),
            "stars": np.where(step, 4.0, 1.5) + np.nan_to_num(spot[:, 0] > 0) + rng.normal(size=ROWS) * 0.1,
            "kind": (item % 3).astype(float),
            "old": (age > 40).astype(float),
        }
    )
    found.loc[rng.random(ROWS) < 0.1, "click"] = np.nan
    return found


@functools.cache
def halves() -> tuple[pd.DataFrame, pd.DataFrame]:
    train, validation = random_split(table(), test_fraction=0.3, seed=1)
    return train, validation


def _tasks() -> list[Task]:
    heads = [Regression("stars", offset=2.5, scale=1.25, clip=(0.0, 6.0)), MultiClassClassification("kind", 4)]
    return [BinaryClassification("click"), *heads, BinaryClassification("old", scope="query")]


def _model(heads: list[Task] | None = None, train: pd.DataFrame | None = None) -> MultiTaskModel:
    heads = heads or _tasks()
    preprocessor = Preprocessor.fit(SCHEMA, halves()[0] if train is None else train)
    network = build_network(preprocessor, heads, embedding_dim=4, tower_units=(4,), regularization=NO_NOISE)
    model = MultiTaskModel(network, heads, preprocessor)
    model.compile(LazyAdam(0.02))
    return model


@functools.cache
def joined() -> tuple[MultiTaskModel, JoinedBoosting]:
    model = _model()
    return model, join_boosting(model, *halves(), rounds=20, refit=False)


def _raw(model: MultiTaskModel, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the network's outputs."""
    features = to_batch(frame, model.preprocessor, labels=False).features
    return {name: value.numpy() for name, value in model.network(dict(features)).items()}


@functools.cache
def boosted(name: str) -> EncodedBoosting:
    task = next(task for task in _tasks() if task.name == name)
    found = EncodedBoosting(joined()[0].preprocessor, max_iter=20)
    return found.fit(joined()[0].schema, task, halves()[0])


def _new_rows() -> pd.DataFrame:
    """Rows with new ids and without any value."""
    new = (
        table()
        .head(4)
        .assign(user=["new", "", "u1", "u2"], item=[999, -1, 3, 4], age=np.nan, paid=[1e9, -5, 0, np.nan])
    )
    return pd.concat([halves()[1], new], ignore_index=True)


@pytest.mark.parametrize("name", TASKS)
def test_trees_in_the_network_are_equal_to_scikit_learn(name: str) -> None:
    model, frame = joined()[0], _new_rows()
    fitted = boosted(name)
    task = next(task for task in _tasks() if task.name == name)
    part = fitted.part(task)
    found = part.values(to_batch(frame, model.preprocessor, labels=False).features)
    matrix = fitted._encoder.transform(fitted._columns(frame, fitted._features))
    wanted = fitted._estimator.predict(matrix) if name == "stars" else fitted._estimator.decision_function(matrix)
    found = found[:, :3] if name == "kind" else found[:, 0]
    np.testing.assert_allclose(found, wanted, atol=2e-6, rtol=1e-6)
    assert np.ptp(wanted) > 0.5


def test_features_of_each_scope_are_read() -> None:
    parts = {task.name: boosted(task.name).part(task) for task in _tasks()}
    assert {name: (sorted(part.tables), sorted(part.fills)) for name, part in parts.items()} == {
        **dict.fromkeys(("click", "stars", "kind"), (["item", "user"], ["age", "paid", "similar", "spot", "tags"])),
        "old": ([], ["age", "tags"]),
    }


def test_codes_have_the_order_of_the_values() -> None:
    part = boosted("click").part(BinaryClassification("click"))
    items = np.asarray(joined()[0].preprocessor.vocabulary("item"))
    codes = part.tables["item"][2:, 0]
    seen = codes > 0
    assert (np.diff(codes[seen][np.argsort(items[seen])]) > 0).all()
    assert part.tables["item"][1, :2].tolist() == [0, 0]  # an unknown value has no code and no rows


def test_outputs_are_the_weighted_sum_of_network_and_trees() -> None:
    model, found = joined()
    frame = _new_rows()
    own, got = _raw(model, frame), _raw(found.model, frame)
    features = to_batch(frame, model.preprocessor, labels=False).features
    for task in _tasks():
        choice, part = found.tasks[task.name], boosted(task.name).part(task)
        network, trees = choice.weights
        assert trees > 0
        assert network + trees == pytest.approx(1)
        wanted = network * own[task.name] + trees * part.values(features)
        np.testing.assert_allclose(got[task.name], wanted, atol=1e-5, rtol=1e-5)


def test_an_untrained_network_is_joined_by_trees_that_predict() -> None:
    model, found = joined()
    for name, task in found.tasks.items():
        assert task.values["mixture"] <= task.values["network"]
        assert task.rounds <= 20
        assert f"{name}: {task.mixture}; loss on validation: network" in str(found)
    before, after = (m.evaluate(halves()[1], verbose=0, return_dict=True) for m in (model, found.model))
    for name in TASKS:
        assert after[f"{name}_loss"] == pytest.approx(found.tasks[name].values["mixture"], rel=1e-3)
        assert before[f"{name}_loss"] == pytest.approx(found.tasks[name].values["network"], rel=1e-3)
    assert after["click_auc"] > before["click_auc"] + 0.15


def test_losses_are_those_of_the_tasks() -> None:
    assert losses_of(BinaryClassification("y"), np.array([1.0, 0.0]), np.array([[0.0], [2.0]])) == pytest.approx(
        [np.log(2), np.log(1 + np.exp(2))]
    )
    regression = Regression("y", offset=1.0, scale=2.0)
    assert losses_of(regression, np.array([4.0]), np.array([[1.0]])) == pytest.approx([0.25])  # (1 - 1.5)^2
    classes = losses_of(MultiClassClassification("y", 2), np.array([1.0]), np.array([[0.0, np.log(3)]]))
    assert classes == pytest.approx([-np.log(0.75)])


def test_saved_and_exported_models_answer_alike(tmp_path: pathlib.Path) -> None:
    found, frame = joined()[1].model, _new_rows().head(40)
    wanted = found.predict(frame, verbose=0)
    save_model(found, tmp_path / "saved")
    again = load_model(tmp_path / "saved").predict(frame, verbose=0)
    served = tf.saved_model.load(str(serving.export(found, tmp_path / "served"))).signatures["rank"]
    schema = found.schema
    raw = {name: tf.constant(feature.read(frame[feature.column])) for name, feature in schema.features.items()}
    answer = served(**{name: tf.cast(value, schema.features[name].raw_spec.dtype) for name, value in raw.items()})
    for name in TASKS:
        np.testing.assert_array_equal(again[name], wanted[name])
        np.testing.assert_allclose(answer[name].numpy(), wanted[name], rtol=1e-5, atol=1e-6)


def test_recommendations_beside_a_retrieval_have_trees(tmp_path: pathlib.Path) -> None:
    schema = Schema([Categorical("user")], [Categorical("item", dtype="int64")], labels=[Label("click"), Label("kind")])
    train, validation = (part[["user", "item", "click", "kind"]].fillna({"click": 1.0}) for part in halves())
    preprocessor, heads = Preprocessor.fit(schema, train), [Retrieval("click"), Regression("kind")]
    model = MultiTaskModel(build_network(preprocessor, heads, embedding_dim=4, tower_units=(4,)), heads, preprocessor)
    model.compile(LazyAdam(0.02))
    found = join_boosting(model, train, validation, rounds=10)
    assert list(found.tasks) == ["kind"]
    served = tf.saved_model.load(str(serving.export(found.model, tmp_path, max_k=5))).signatures["recommend"]
    answer = served(user=tf.constant(["u1", "new"]))
    items = answer["ids"].numpy()
    pairs = pd.DataFrame({"user": np.repeat(["u1", "new"], 5), "item": items.ravel()})
    wanted, before = (m.predict(pairs, verbose=0)["kind"].reshape(items.shape) for m in (found.model, model))
    np.testing.assert_allclose(answer["kind"].numpy(), wanted, rtol=1e-5)
    assert np.abs(wanted - before).max() > 0.1


def test_growth_changes_no_prediction() -> None:
    found, frame = joined()[1].model, _new_rows().tail(20)
    before = found.predict(frame, verbose=0)
    grown = adaptation.extend_vocabularies(found, frame)
    assert grown.preprocessor.statistics.size("user") > found.preprocessor.statistics.size("user")
    after = grown.predict(frame, verbose=0)
    for name in TASKS:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6)


def test_training_pruning_and_quantization_leave_the_trees_as_they_are() -> None:
    found = joined()[1].model
    fixed = [layer.name for layer in found.network.layers if layer.name.startswith("trees_")]
    assert len(fixed) >= 4 * 4

    def weights(network: keras.Model) -> list[np.ndarray]:
        return [weight for name in fixed for weight in network.get_layer(name).get_weights()]

    assert all(not prunable_weights(found.network.get_layer(name)) for name in fixed)
    pruned = compression.strip(compression.prune(found.network, 0.5, end_step=10))
    for network in (pruned, compression.quantize(found.network)):
        for ours, theirs in zip(weights(found.network), weights(network), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    trained = found.with_network(keras.models.clone_model(found.network))
    trained.network.set_weights(found.network.get_weights())
    trained.compile(LazyAdam(0.02))
    trained.fit(halves()[0], epochs=1, verbose=0)
    for ours, theirs in zip(weights(found.network), weights(trained.network), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    student = compression.distil(found, _model(), halves()[0], epochs=1, verbose=0)
    assert [task.name for task in student.tasks] == list(TASKS)


def test_a_refit_reads_both_tables_with_the_same_number_of_trees() -> None:
    model, found = joined()
    again = join_boosting(model, *halves(), tasks=["click"], rounds=20)
    assert again.tasks == {"click": found.tasks["click"]}
    frame = halves()[1]
    assert not np.allclose(_raw(again.model, frame)["click"], _raw(found.model, frame)["click"])
    np.testing.assert_array_equal(_raw(again.model, frame)["stars"], _raw(model, frame)["stars"])
    sizes = [m.network.get_layer("trees_click").trees for m in (found.model, again.model)]
    assert sizes[0] == sizes[1] == found.tasks["click"].rounds


def test_a_task_keeps_its_network_if_trees_do_not_help() -> None:
    train, validation = halves()
    opposite = validation.assign(click=1 - validation["click"])
    model = _model()
    for layer in model.network.layers:  # a constant of 1/2, which trees of other labels do not exceed
        if layer.name.startswith("click"):
            layer.set_weights([0 * weight for weight in layer.get_weights()])
    found = join_boosting(model, train, opposite, tasks=["click"], rounds=20)
    assert found.tasks["click"].weights == (1.0, 0.0)
    assert found.model is model
    assert "network alone" in str(found)


def test_weights_near_the_best_are_averaged() -> None:
    assert BoostedTask((0.75, 0.25), 7, {"network": 0.5}).mixture == "0.75 network + 0.25 trees (7 rounds)"
    found = joined()[1].tasks["click"].weights[1]
    assert found * 4 * 12 == pytest.approx(round(found * 4 * 12))  # a mean of 1 to 4 quarters


def test_chains_and_other_losses_stay_as_they_are() -> None:
    heads = [
        BinaryClassification("click"),
        BinaryClassification("old", after="click", order_penalty=0.5),
        EntireSpaceConversion("kind", "click"),
        Regression("stars"),
    ]
    parts = [part.assign(kind=part["old"]) for part in halves()]
    model = _model(heads, parts[0])
    found = join_boosting(model, *parts, rounds=3)
    assert list(found.tasks) == ["stars"]
    with pytest.raises(ValueError, match=r"Trees can join only the tasks \['stars'\]"):
        join_boosting(model, *halves(), tasks=["click"])
    assert [_can(BinaryClassification("click", focal_gamma=gamma)) for gamma in (0, 2)] == [True, False]


def test_trees_replace_a_calibration_and_join_once() -> None:
    model, (train, validation) = _model(), halves()
    calibrated = calibrate(model, method="prior", rate=0.5, tasks=["click"])
    found = join_boosting(calibrated, train, validation, tasks=["click"], rounds=5, refit=False)
    plain = join_boosting(model, train, validation, tasks=["click"], rounds=5, refit=False)
    assert found.tasks == plain.tasks
    assert found.tasks["click"].weights[1] > 0
    features = to_batch(validation, model.preprocessor, labels=[]).features
    np.testing.assert_array_equal(found.model.network(features)["click"], plain.model.network(features)["click"])
    again = calibrate(found.model, validation, tasks=["click"])
    assert [layer.name for layer in again.network.layers].count("click_calibration") == 1
    with pytest.raises(ValueError, match="have trees already"):
        join_boosting(found.model, train, validation)


def test_a_wrong_label_of_the_validation_rows_is_named() -> None:
    train, validation = halves()
    wrong = validation.assign(click=[7.0, *validation["click"].iloc[1:]])
    with pytest.raises(ValueError, match="click"):
        join_boosting(_model(), train, wrong)


def test_a_task_with_few_labels_to_choose_by_keeps_its_network() -> None:
    train, validation = halves()
    few = validation.assign(click=np.where(np.arange(len(validation)) < 19, validation["click"], np.nan))
    assert "click" not in join_boosting(_model(), train, few, rounds=5).tasks


def test_wrong_arguments_are_named() -> None:
    model = _model()
    with pytest.raises(RuntimeError, match="`join_boosting` needs a compiled model"):
        join_boosting(model.with_network(model.network), *halves())
    with pytest.raises(ValueError, match="`rounds`"):
        join_boosting(model, *halves(), rounds=0)


def test_the_recipe_joins_trees_unless_it_is_told_not_to() -> None:
    schema = Schema([Categorical("user")], [Categorical("item", dtype="int64")], labels=[Label("click")])
    arguments: dict[str, Any] = {"epochs": 1, "verbose": 0}
    preprocessor = Preprocessor.fit(schema, table())
    found = recipes.fit(preprocessor, [BinaryClassification("click")], table(), **arguments)
    assert found.boosted is not None
    assert found.model is found.boosted.model
    choice = next(choice for choice in found.choices if choice.name == "trees")
    assert choice.value == found.boosted.tasks["click"].mixture
    assert choice.reason.startswith("click, loss on held-out rows: network 0.")
    without = recipes.fit(preprocessor, [BinaryClassification("click")], table(), boosting=False, **arguments)
    assert without.boosted is None
    assert not any(choice.name == "trees" for choice in without.choices)


def test_validation_rows_choose_the_number_of_trees() -> None:
    train, validation = halves()
    task, options = BinaryClassification("click"), {"max_iter": 60}
    chosen = {
        name: EncodedBoosting(joined()[0].preprocessor, validation=rows, **options).fit(SCHEMA, task, train).part(task)
        for name, rows in (("alike", validation), ("noise", validation.assign(click=1 - validation["click"])))
    }
    rounds = {name: part.rounds for name, part in chosen.items()}
    assert rounds["noise"] == 10  # no tree helps: the ten that scikit-learn waits for an improvement
    assert rounds["alike"] > rounds["noise"]


@pytest.mark.parametrize("name", TASKS)
def test_outputs_by_scikit_learn_are_those_of_the_layers(name: str) -> None:
    fitted, frame = boosted(name), _new_rows()
    part = fitted.part(next(task for task in _tasks() if task.name == name))
    features = to_batch(frame, joined()[0].preprocessor, labels=False).features
    np.testing.assert_allclose(fitted.outputs(frame), part.values(features), atol=2e-6, rtol=1e-6)


def test_an_id_may_have_another_type_in_the_validation_table() -> None:
    numbers = [part.assign(user=part["user"].str[1:].astype(int)) for part in halves()]
    texts = numbers[1].assign(user=numbers[1]["user"].astype(str))
    model = _model(train=numbers[0])
    found, wanted = (
        join_boosting(model, numbers[0], rows, tasks=["kind"], rounds=3).model for rows in (texts, numbers[1])
    )
    np.testing.assert_array_equal(_raw(found, texts)["kind"], _raw(wanted, texts)["kind"])

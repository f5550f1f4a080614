"""Training with a teacher."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.compression import models
from tfmtl._keras import keras, tf
from tfmtl.balancing import PCGrad
from tfmtl.compression import DistilledModel, distil
from tfmtl.data import Preprocessor, to_batch
from tfmtl.layers import MultiTaskLayer
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import LossInputs, Regression
from tfmtl.training import LazyAdam

FIT: dict[str, Any] = {"batch_size": 60, "verbose": 0}


def assert_same_weights(one: keras.Model, other: keras.Model, **tolerance: float) -> None:
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, **(tolerance or {"rtol": 0, "atol": 0}))


def served(model: MultiTaskModel) -> dict[str, np.ndarray]:
    return model.predict(models.table(), verbose=0)


def divergence(model: MultiTaskModel) -> float:
    """How far the retrieval scores of the table's pairs are from the teacher's."""
    batch = to_batch(models.table(), models.preprocessor())
    own, taught = (m(batch.features)["seen"] for m in (model, models.teacher()))
    return float(model.tasks[0].distillation_loss(own, taught, batch.weights["seen"], LossInputs({}), 1.0))


def few_labels() -> pd.DataFrame:
    """The table with an eighth of the labels of the ranking tasks."""
    table = models.table()
    return table.assign(
        **{name: table[name].where(np.arange(len(table)) % 8 == 0) for name in ("rating", "liked", "mood")}
    )


@pytest.mark.slow
def test_student_with_few_labels_learns_from_the_teacher_what_it_cannot_learn_alone() -> None:
    alone, student = models.model(4, seed=1), models.model(4, seed=1)
    alone.fit(few_labels(), epochs=30, **FIT)
    distilled = distil(models.teacher(), student, few_labels(), alpha=0.5, epochs=30, **FIT)
    assert divergence(distilled) < 0.9 * divergence(alone)
    taught, without, with_teacher = (served(model) for model in (models.teacher(), alone, distilled))
    for task in ("rating", "liked", "mood"):
        far, near = (np.mean(np.abs(each[task] - taught[task])) for each in (without, with_teacher))
        assert near < 0.8 * far, task


@pytest.mark.usefixtures("eager")
def test_distil_returns_a_plain_compiled_student_with_its_history() -> None:
    distilled = distil(models.teacher(), models.model(3), models.table(), epochs=2, **FIT)
    assert type(distilled) is MultiTaskModel
    assert len(distilled.history.history["seen_loss"]) == 2
    assert "rating_rmse" in distilled.evaluate(models.table(), verbose=0, return_dict=True)
    # The balancer and the counts of the retrieval task went on from where training left them.
    assert np.all(distilled.balancer.log_variances.numpy() != 0)
    assert float(distilled.tasks[0]._counts.total) == 2 * models.table().seen.notna().sum()


@pytest.mark.usefixtures("eager")
def test_teacher_is_neither_changed_nor_part_of_the_student(tmp_path: pathlib.Path) -> None:
    teacher = models.teacher()
    before = [value.copy() for value in teacher.get_weights()]
    model = DistilledModel.of(models.model(3), teacher, embedding_weight=1.0, precompute=False)
    model.compile("adam")
    model.fit(models.table(), epochs=2, **FIT)
    assert all(np.array_equal(a, b) for a, b in zip(before, teacher.get_weights(), strict=True))
    theirs = {id(variable) for variable in teacher.variables}
    assert not theirs & {id(variable) for variable in model.variables}
    model.save_weights(str(tmp_path / "weights"))
    saved = [tuple(shape) for _, shape in tf.train.list_variables(str(tmp_path / "weights"))]
    tables = [tuple(m.network.get_layer("item_id_embedding").embeddings.shape) for m in (model, teacher)]
    assert [table in saved for table in tables] == [True, False]


@pytest.mark.usefixtures("eager")
def test_without_a_teachers_share_training_is_plain_training_bit_for_bit() -> None:
    plain, model = models.model(3), DistilledModel.of(models.model(3), models.teacher(), alpha=0.0)
    model.compile(type(plain.optimizer).from_config(plain.optimizer.get_config()))
    for each in (plain, model):
        each.fit(models.table(), epochs=2, **FIT)
    assert_same_weights(plain.network, model.network)


@pytest.mark.usefixtures("eager")
def test_asking_the_teacher_beforehand_or_in_each_step_is_the_same() -> None:
    networks = []
    for precompute in (True, False):
        model = DistilledModel.of(models.model(3), models.teacher(), precompute=precompute)
        model.compile("adam")
        model.fit(models.table(), epochs=1, **FIT)
        networks.append(model.network)
    assert_same_weights(*networks, rtol=1e-4, atol=1e-5)


def test_losses_are_the_stated_mixture() -> None:
    model = DistilledModel.of(models.model(3), models.teacher(), alpha=0.25, temperature=3.0)
    batch = to_batch(models.table(), models.preprocessor())
    mixed = model.compute_losses(batch, training=True)
    hard = model.losses_of(batch, model(batch.features), training=True)
    own, taught = (m(batch.features) for m in (model, models.teacher()))
    squared = np.mean((own["rating"] - taught["rating"]) ** 2)
    assert float(mixed["rating"][0]) == pytest.approx(0.75 * float(hard["rating"][0]) + 0.25 * squared, rel=1e-4)
    p, q = (1 / (1 + np.exp(-x["liked"].numpy().astype(float) / 3)) for x in (taught, own))
    divergence = 9 * np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))  # over all rows, labelled or not
    assert float(mixed["liked"][0]) == pytest.approx(0.75 * float(hard["liked"][0]) + 0.25 * divergence, rel=1e-4)


def test_a_step_of_one_task_leaves_the_heads_of_the_others() -> None:
    """After a step of all tasks the optimizer has momentum, which a gradient of 0 would apply."""
    student = models.model(3)
    model = DistilledModel(
        student.network, **{**student.arguments(), "balancer": PCGrad()}, teacher=models.teacher(), alpha=0.5
    )
    model.compile("adam")
    model.build_optimizer()
    batch = to_batch(models.table(), models.preprocessor())
    model.make_step(batch)
    before = {v.name: v.numpy() for v in model.network.trainable_variables}
    model.make_step(batch, ["rating"])
    moved = {v.name for v in model.network.trainable_variables if not np.array_equal(v.numpy(), before[v.name])}
    assert any(name.startswith("rating") for name in moved)
    assert not any(name.startswith("liked") for name in moved)


def test_rows_without_a_label_teach_unless_told_otherwise() -> None:
    unlabelled = models.table().assign(liked=np.nan)
    batch = to_batch(unlabelled, models.preprocessor())
    everywhere = DistilledModel.of(models.model(3), models.teacher(), alpha=0.5)
    loss, weight = everywhere.compute_losses(batch, training=True)["liked"]
    assert float(loss) > 0
    assert float(weight) == len(unlabelled)  # the balancer must count the task as observed
    labelled = DistilledModel.of(models.model(3), models.teacher(), alpha=0.5, unlabelled_rows=False)
    loss, weight = labelled.compute_losses(batch, training=True)["liked"]
    assert (float(loss), float(weight)) == (0.0, 0.0)


@pytest.mark.usefixtures("eager")
def test_validation_reports_the_losses_of_the_labels() -> None:
    student = models.model(3)
    model = DistilledModel.of(student, models.teacher(), alpha=1.0)
    model.compile("adam")
    own, plain = (m.evaluate(models.table(), verbose=0, return_dict=True) for m in (model, student))
    assert own == pytest.approx(plain)


def test_embedding_term_pulls_projected_embeddings_to_the_teachers() -> None:
    model = DistilledModel.of(models.model(3), models.teacher(), alpha=0.0, embedding_weight=5.0)
    model.compile("adam")
    batch = to_batch(models.table(), models.preprocessor())
    extra = len(model.trainable_variables) - len(model.network.trainable_variables)
    assert extra == 2 + 1  # a projection for each tower, and the balancer's log variances
    hard = model.losses_of(batch, model(batch.features), training=True)["seen"][0]
    distance = (model.compute_losses(batch, training=True)["seen"][0] - hard) / 5.0
    own, taught = (m(batch.features)["seen"] for m in (model, models.teacher()))
    rows = batch.weights["seen"].numpy() > 0
    expected = 0.0
    for side, projection in model._projections["seen"].items():
        a, b = taught[side].numpy()[rows], (own[side].numpy() @ projection.kernel.numpy())[rows]
        expected += np.mean(1 - np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    assert float(distance) == pytest.approx(expected, rel=1e-4)


def test_each_task_may_have_its_own_share_and_temperature() -> None:
    alpha, temperature = {"liked": 1.0, "": 0.25}, {"liked": 3.0, "seen": 1.5, "": 2.0}
    model = DistilledModel.of(models.model(3), models.teacher(), alpha=alpha, temperature=temperature)
    batch = to_batch(models.table(), models.preprocessor())
    mixed = model.compute_losses(batch, training=True)
    for task in model.tasks:
        share, heat = alpha.get(task.name, 0.25), temperature.get(task.name, 2.0)
        one = DistilledModel.of(models.model(3), models.teacher(), alpha=share, temperature=heat)
        expected = one.compute_losses(batch, training=True)[task.name]
        np.testing.assert_allclose(mixed[task.name], expected, rtol=1e-5)
    copy = model.with_network(models.model(4).network)
    assert (copy.alpha, copy.temperature) == (alpha, temperature)


def hidden_layer(network: keras.Model, task: str, features: Any) -> np.ndarray:
    """What the trunk hands to a task."""
    trunk = next(layer for layer in network.layers if isinstance(layer, MultiTaskLayer))
    return keras.Model(network.input, trunk.output[task])(features).numpy()


def test_representation_term_is_the_distance_of_what_the_trunks_hand_to_the_task() -> None:
    arguments: dict[str, Any] = {"alpha": 0.5, "representation_weight": 3.0}
    arguments["embedding_distance"] = keras.losses.mean_squared_error
    model = DistilledModel.of(models.model(3), models.teacher(), **arguments)
    without = DistilledModel.of(models.model(3), models.teacher(), alpha=0.5)
    batch = to_batch(models.table(), models.preprocessor())
    extra = len(model.trainable_variables) - len(model.network.trainable_variables)
    assert extra == 3 + 1  # a map for each task of the trunk, and the balancer's log variances
    losses, plain = (m.compute_losses(batch, training=True) for m in (model, without))
    features = {name: batch.features[name] for name in model.network.input}
    for task in ("rating", "liked", "mood"):
        own, taught = (hidden_layer(m.network, task, features) for m in (model, models.teacher()))
        expected = np.mean(np.mean((taught - own @ model._maps[task].kernel.numpy()) ** 2, axis=1))
        assert float(losses[task][0] - plain[task][0]) == pytest.approx(3.0 * expected, rel=1e-3), task
    np.testing.assert_allclose(losses["seen"], plain["seen"])  # retrieval has no part in the trunk


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("precompute", [True, False])
def test_representations_come_nearer_and_the_student_is_plain(precompute: bool) -> None:
    options: dict[str, Any] = {"alpha": 0.0, "representation_weight": 20.0, "precompute": precompute}
    model = DistilledModel.of(models.model(3), models.teacher(), **options)
    model.compile(LazyAdam(0.02))
    batch = to_batch(models.table(), models.preprocessor())

    def excess() -> float:
        mixed, hard = model.compute_losses(batch, training=True), model.losses_of(batch, model(batch.features), True)
        return sum(float(mixed[task.name][0] - hard[task.name][0]) for task in model.tasks)

    before = excess()
    model.fit(models.table(), epochs=5, **FIT)
    assert excess() < 0.7 * before
    assert sorted(model.without_teacher().network.output) == sorted(task.name for task in model.tasks)


def test_embedding_distance_may_be_a_keras_loss_function() -> None:
    options = {"embedding_weight": 1.0, "embedding_distance": keras.losses.mean_squared_error}
    model = DistilledModel.of(models.model(3), models.teacher(), **options)
    batch = to_batch(models.table(), models.preprocessor())
    assert np.isfinite(float(model.compute_losses(batch, training=True)["seen"][0]))


def test_copy_with_another_network_keeps_the_teacher_and_the_state() -> None:
    model = DistilledModel.of(models.model(3), models.teacher(), alpha=0.3)
    model.balancer.log_variances.assign([1.0, 2.0, 3.0, 4.0])
    copy = model.with_network(models.model(4).network)
    assert isinstance(copy, DistilledModel)
    assert (copy.alpha, copy.teacher) == (0.3, model.teacher)
    assert copy.balancer is not model.balancer
    assert copy.balancer.log_variances.numpy().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "`alpha` must lie between 0 .labels only. and 1 .teacher only.. Received: alpha=1.5"),
        ({"temperature": 0.0}, "`temperature` must be above 0"),
        ({"embedding_weight": -1.0}, "`embedding_weight` must be 0 or more"),
        ({"representation_weight": -1.0}, "`representation_weight` must be 0 or more"),
        ({"alpha": {"liked": 0.5}}, r"`alpha` names no value for the tasks \['seen', 'rating', 'mood'\]; add them"),
        ({"alpha": {"lked": 0.5, "": 1.0}}, "Unknown task .*lked"),
        ({"temperature": {"liked": 0.0, "": 1.0}}, "`temperature` must be above 0"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistilledModel.of(models.model(3), models.teacher(), **options)


def test_teacher_that_does_not_fit_is_refused() -> None:
    rating = Regression("rating")
    other = MultiTaskModel(build_network(models.preprocessor(), [rating]), [rating], models.preprocessor())
    with pytest.raises(ValueError, match=r"Unknown task \['seen', 'liked', 'mood'\] in the student"):
        DistilledModel.of(models.model(3), other)
    few = Preprocessor.fit(models.SCHEMA, models.table()[:20])
    tasks = models.tasks()
    network = build_network(few, tasks)
    stranger = MultiTaskModel(network, tasks, few)
    with pytest.raises(ValueError, match="must encode features alike"):
        DistilledModel.of(models.model(3), stranger)
    with pytest.raises(TypeError, match="`teacher` must be MultiTaskModel"):
        DistilledModel.of(models.model(3), models.teacher().network)
    scaled = [Regression("rating", scale=2.0) if task.name == "rating" else task for task in models.tasks()]
    taught = MultiTaskModel(build_network(models.preprocessor(), scaled), scaled, models.preprocessor())
    with pytest.raises(
        ValueError, match=r"measure task 'rating' on different scales; .* Received: arguments=\['.*scale"
    ):
        DistilledModel.of(models.model(3), taught)
    own = models.model(3)
    with pytest.raises(ValueError, match=r"Teacher and student must be two networks, but share \d+ variables, such as"):
        distil(own, own, models.table())

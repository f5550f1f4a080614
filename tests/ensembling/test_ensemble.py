from __future__ import annotations

import functools
import pathlib
from typing import Any

import numpy as np
import pytest

from tests.ensembling.members import members
from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.compression import distil
from tfmtl.data import Preprocessor, fit_statistics, to_batch, to_columns
from tfmtl.ensembling import ensemble
from tfmtl.models import MultiTaskModel
from tfmtl.serving import export

WEIGHTS = [0.5, 0.2, 0.3]


@functools.cache
def combined() -> MultiTaskModel:
    return ensemble(members(), WEIGHTS)


def predictions(model: MultiTaskModel) -> dict[str, Any]:
    """Return the result of `predict`, without the cost of tracing."""
    outputs = model.network(_encoded(model))
    return {task.name: task.predict(outputs[task.name]).numpy() for task in model.tasks}


def test_served_values_are_the_weighted_means() -> None:
    found, apart = predictions(combined()), [predictions(model) for model in members()]
    clip = small.tasks()[1].clip
    raw = [model.network(_encoded(model))["rating"] for model in members()]
    for task in ("seen", "liked", "mood"):
        expected = sum(w * each[task] for w, each in zip(WEIGHTS, apart, strict=True))
        np.testing.assert_allclose(found[task], expected, rtol=1e-5, atol=1e-6)
    mean = small.tasks()[1].predict(tf.constant(sum(w * z for w, z in zip(WEIGHTS, raw, strict=True))))
    np.testing.assert_allclose(found["rating"], mean, rtol=1e-5)
    assert found["rating"].min() >= clip[0]


def _encoded(model: MultiTaskModel) -> dict[str, tf.Tensor]:
    return {name: to_batch(small.table(), model.preprocessor).features[name] for name in model.network.input}


def test_towers_of_each_side_give_the_weighted_sum_of_every_score() -> None:
    model = combined()
    batch = _encoded(model)
    scores = [
        np.matmul(*(tower if side == 0 else np.transpose(tower) for side, tower in enumerate(_towers(m, batch))))
        for m in [model, *members()]
    ]
    expected = sum(w * score for w, score in zip(WEIGHTS, scores[1:], strict=True))
    np.testing.assert_allclose(scores[0], expected, rtol=1e-4, atol=1e-5)


def _towers(model: MultiTaskModel, batch: dict[str, tf.Tensor]) -> list[np.ndarray]:
    towers = [model.tower(side) for side in ("query", "candidate")]
    return [tower({name: batch[name] for name in tower.input})["seen"].numpy() for tower in towers]


def test_evaluation_sums_the_losses_and_reports_each_task() -> None:
    combined().compile(run_eagerly=True)
    logs = combined().evaluate(small.table(), verbose=0, return_dict=True)
    batch = to_batch(small.table(), small.preprocessor())
    apart = [model.compute_losses(batch, training=False) for model in members()]
    for task in ("rating", "liked", "mood"):  # Jensen: the loss of the mean is at most the mean of the losses
        mean = sum(w * float(x[task][0]) for w, x in zip(WEIGHTS, apart, strict=True))
        assert 0 < logs[f"{task}_loss"] < mean
    assert np.isfinite(logs["seen_loss"])
    assert logs["rating_rmse"] > 0


def test_members_are_copied_and_one_without_weight_is_left_out() -> None:
    one, other, _ = members()
    before = predictions(one)
    alone = ensemble([one, other], {"": [1, 0]})
    assert alone.count_params() == one.count_params()
    for variable in alone.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    for task, values in predictions(one).items():
        np.testing.assert_array_equal(values, before[task])


def test_weights_by_task_and_an_ensemble_of_ensembles() -> None:
    one, other, third = members()
    nested = ensemble([ensemble([one, other], {"": [1, 1], "liked": [1, 0]}), third], [2, 1])
    apart = [predictions(model)["liked"] for model in members()]
    np.testing.assert_allclose(predictions(nested)["liked"], (2 * apart[0] + apart[2]) / 3, rtol=1e-5)
    flat = ensemble(members(), [1, 1, 1])
    np.testing.assert_allclose(predictions(nested)["mood"], predictions(flat)["mood"], rtol=1e-5)


def test_it_can_be_trained_and_cloned_like_any_model() -> None:
    model = ensemble(members()[:2])
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    log = model.fit(small.table(), epochs=3, batch_size=50, verbose=0).history["loss"]
    assert log[-1] < log[0]
    clone = model.with_network(keras.models.clone_model(model.network))
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(predictions(clone)["seen"], predictions(model)["seen"], rtol=1e-6)


def test_state_of_the_tasks_is_the_first_members() -> None:
    one, other = small.model(seed=1), small.model(seed=2)
    one.tasks[0].weights[0].assign_add(tf.range(float(one.tasks[0].weights[0].shape[0])))
    model = ensemble([one, other])
    np.testing.assert_array_equal(model.tasks[0].weights[0], one.tasks[0].weights[0])


def test_a_student_learns_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MultiTaskModel, "run_eagerly", property(lambda self: True))
    student = small.model(seed=9, tower_units=[2])
    apart = lambda: np.mean(np.abs(predictions(student)["liked"] - predictions(combined())["liked"]))  # noqa: E731
    before = apart()
    distil(combined(), student, small.table(), alpha=1.0, temperature=1.0, epochs=6, batch_size=25, verbose=0)
    assert apart() < 0.9 * before


def test_it_exports_as_one_saved_model(tmp_path: pathlib.Path) -> None:
    path = export(combined(), tmp_path, max_k=3)
    loaded = tf.saved_model.load(str(path))
    frame = small.table().iloc[:4]
    columns = to_columns(frame, small.SCHEMA.features.values())
    answer = loaded.signatures["rank"](**{name: tf.constant(values) for name, values in columns.items()})
    for task, values in predictions(combined()).items():
        np.testing.assert_allclose(answer[task], values[:4], rtol=1e-4, atol=1e-5)
    query = {name: tf.constant(columns[name]) for name in ("user", "age", "recent")}
    found = loaded.signatures["retrieve"](**query)
    scores = np.matmul(*_all_scores(combined(), frame))
    np.testing.assert_allclose(found["scores"], -np.sort(-scores, axis=1)[:, :3], rtol=1e-4)


def _all_scores(model: MultiTaskModel, frame: Any) -> tuple[np.ndarray, np.ndarray]:
    features = to_batch(frame, model.preprocessor).features
    query, candidate = model.tower("query"), model.tower("candidate")
    corpus = model.candidates.features
    left = query({name: features[name] for name in query.input})["seen"].numpy()
    return left, candidate({name: corpus[name] for name in candidate.input})["seen"].numpy().T


def _few_tasks() -> MultiTaskModel:
    return small.model(heads=small.tasks()[:3])


def _other_encoding() -> MultiTaskModel:
    statistics = fit_statistics(small.SCHEMA, small.table().iloc[:30])
    model = small.model()
    return MultiTaskModel(
        model.network, small.tasks(), Preprocessor(small.SCHEMA, statistics), candidates=small.candidates()
    )


def _other_scale() -> MultiTaskModel:
    heads = small.tasks()
    heads[1] = type(heads[1])("rating", offset=9.0)
    return small.model(heads=heads)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (_few_tasks, r"tasks of models\[1\] .* differ from those of models\[0\]"),
        (_other_encoding, r"models\[1\] encodes features differently"),
        (_other_scale, r"The tasks \['rating'\] of models\[1\] have other arguments"),
    ],
)
def test_members_that_do_not_fit_are_named(other: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ensemble([members()[0], other()])


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0], "`weights` of task 'seen' must be 2 numbers, one for each member"),
        ([1.0, -1.0], "must be 0 or more"),
        ([0.0, 0.0], "one above 0"),
        ([float("nan"), 1.0], "must be 0 or more"),
        ({"liked": [1, 1]}, r"has none for the tasks \['seen', 'rating', 'mood'\]"),
        ({"": [1, 1], "like": [1, 1]}, "Did you mean 'liked'"),
    ],
)
def test_weights_that_do_not_fit_are_named(weights: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ensemble(members()[:2], weights)


def test_nothing_and_no_model_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one model"):
        ensemble([])
    with pytest.raises(TypeError, match=r"models\[0\].*must be MultiTaskModel"):
        ensemble([members()[0].network])

"""Losses between the rows of a group: plain loops, groups without an order, and tasks that have one."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from tests.models.small import NO_NOISE
from tfmtl._identity import NO_KEY
from tfmtl._keras import tf
from tfmtl.data import Categorical, Label, Numeric, Preprocessor, Schema, to_batch
from tfmtl.evaluation import GroupedAUC
from tfmtl.layers.noise.mixup import MixupPairs
from tfmtl.models import MultiTaskModel, build_network, load_model, save_model
from tfmtl.models.mixup import mixup_loss
from tfmtl.recipes import join_boosting
from tfmtl.tasks import (
    BinaryClassification,
    GroupLoss,
    LossInputs,
    MultiClassClassification,
    QuantileRegression,
    Regression,
    Retrieval,
    Task,
)
from tfmtl.tasks.batch_loss import batch_loss
from tfmtl.tasks.group_loss import GroupKind
from tfmtl.training import LazyAdam

KINDS = get_args(GroupKind)


def _rows(seed: int = 0, levels: int = 3) -> tuple[np.ndarray, ...]:
    """Scores, labels, weights and groups of 24 rows: one group of one row, one of equal labels, some rows left out."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([5, 9, 2, 7, 3], [8, 1, 6, 4, 5])
    labels = rng.integers(0, levels, len(groups)).astype(float)
    labels[groups == 7] = 1.0
    weights = rng.choice([0.0, 0.5, 1.0, 2.0], len(groups))
    order = rng.permutation(len(groups))
    return tuple(column[order] for column in (rng.normal(size=len(groups)) * 2, labels, weights, groups))


def _of_pairs(kind: str, rows: list[int], s: np.ndarray, y: np.ndarray, w: np.ndarray) -> list[tuple[float, float]]:
    gaps = [(w[i] * w[j], s[i] - s[j]) for i in rows for j in rows if y[i] > y[j]]
    if kind == "logistic":
        return [(weight, math.log(1 + math.exp(-gap))) for weight, gap in gaps]
    return [(weight, max(0.0, 1 - gap)) for weight, gap in gaps]


def _of_list(kind: str, rows: list[int], s: np.ndarray, y: np.ndarray, w: np.ndarray) -> list[tuple[float, float]]:
    if kind == "softmax":
        total = sum(math.exp(s[k]) for k in rows)
        return [(w[i] * y[i], -math.log(math.exp(s[i]) / total)) for i in rows]
    above = [i for i in rows if any(y[k] < y[i] for k in rows)]
    return [(w[i], math.log(sum(math.exp(s[k]) for k in rows if y[k] <= y[i])) - s[i]) for i in above]


def _of_ndcg(rows: list[int], s: np.ndarray, y: np.ndarray, w: np.ndarray, t: float) -> list[tuple[float, float]]:
    gain = {i: w[i] * (2 ** y[i] - 1) for i in rows}
    rank = {i: 1 + sum(1 / (1 + math.exp((s[i] - s[k]) / t)) for k in rows if k != i) for i in rows}
    dcg = sum(gain[i] / math.log2(1 + rank[i]) for i in rows)
    best = sorted(rows, key=lambda i: (-y[i], i))
    return [(1.0, 1 - dcg / sum(gain[i] / math.log2(2 + position) for position, i in enumerate(best)))]


def _reference(kind: str, s: np.ndarray, y: np.ndarray, w: np.ndarray, g: np.ndarray, temperature: float) -> float:
    """Return the loss by loops over groups and their rows."""
    terms: list[tuple[float, float]] = []
    for group in np.unique(g):
        rows = [int(i) for i in np.flatnonzero(g == group) if w[i] > 0]
        if len({y[i] for i in rows}) < 2:
            continue
        if kind in ("logistic", "hinge"):
            terms += _of_pairs(kind, rows, s, y, w)
        elif kind == "approx_ndcg":
            terms += _of_ndcg(rows, s, y, w, temperature)
        else:
            terms += _of_list(kind, rows, s, y, w)
    return sum(weight * loss for weight, loss in terms) / sum(weight for weight, _ in terms)


def _loss(loss: GroupLoss, *rows: np.ndarray) -> tf.Tensor:
    return loss.of_rows(*(tf.constant(column, tf.float32) for column in rows[:3]), tf.constant(rows[3]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_that_of_loops(kind: GroupKind, seed: int) -> None:
    rows = _rows(seed)
    found = float(_loss(GroupLoss(kind, "user", temperature=0.5), *rows))
    assert found == pytest.approx(_reference(kind, *rows, temperature=0.5), rel=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "hinge"])
def test_the_gradient_is_that_of_differences(kind: GroupKind) -> None:
    rows = _rows(1)
    scores = tf.constant(rows[0], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        value = _loss(GroupLoss(kind, "user", temperature=0.5), scores, *rows[1:])
    found = tf.convert_to_tensor(tape.gradient(value, scores)).numpy()
    for i in range(len(rows[0])):
        moved = [_reference(kind, rows[0] + d * (np.arange(len(rows[0])) == i), *rows[1:], 0.5) for d in (1e-4, -1e-4)]
        assert found[i] == pytest.approx((moved[0] - moved[1]) / 2e-4, abs=1e-5)


def test_list_mle_of_binary_labels_is_the_softmax() -> None:
    rows = _rows(levels=2)
    first, second = (float(_loss(GroupLoss(kind, "user"), *rows)) for kind in ("list_mle", "softmax"))
    assert first == pytest.approx(second, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_do_not_count_change_nothing(kind: GroupKind) -> None:
    rows = _rows()
    loss = GroupLoss(kind, "user")
    kept = rows[2] > 0
    assert float(_loss(loss, *(column[kept] for column in rows))) == pytest.approx(float(_loss(loss, *rows)), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0.0, 1e4])
def test_groups_without_an_order_and_huge_scores_are_finite(kind: GroupKind, size: float) -> None:
    loss = GroupLoss(kind, "user")
    scores = tf.Variable([size, -size, size, -size, 0.0])
    labels = tf.constant([0.0, 1.0, 1.0, 1.0, 0.0])
    for weights, groups in (([1.0] * 5, [1, 1, 2, 2, 3]), ([1.0] * 5, [1, 2, 3, 4, 5]), ([0.0] * 5, [1, 1, 1, 1, 1])):
        with tf.GradientTape() as tape:
            value = loss.of_rows(scores, labels, tf.constant(weights), tf.constant(groups))
        gradient = tf.convert_to_tensor(tape.gradient(value, scores)).numpy()
        assert np.isfinite(float(value))
        assert np.isfinite(gradient).all()
        if len(set(groups)) != 3:
            assert float(value) == 0
            assert not gradient.any()
    empty = loss.of_rows(tf.zeros([0]), tf.zeros([0]), tf.zeros([0]), tf.zeros([0], tf.int64))
    assert float(empty) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_against_the_gradient_moves_the_better_row_up(kind: GroupKind) -> None:
    scores = tf.Variable([0.0, 0.1, 0.0])
    with tf.GradientTape() as tape:
        value = GroupLoss(kind, "user", temperature=1.0).of_rows(
            scores, tf.constant([1.0, 0.0, 1.0]), tf.ones(3), tf.constant([4, 4, 8])
        )
    gradient = tf.convert_to_tensor(tape.gradient(value, scores)).numpy()
    assert gradient[0] < 0 < gradient[1]
    assert gradient[2] == 0


def test_the_approximate_ndcg_is_near_the_ndcg() -> None:
    rows = _rows(3)
    found = float(_loss(GroupLoss("approx_ndcg", "user", temperature=0.001), *rows))
    exact = _reference("approx_ndcg", *rows, temperature=0.01)
    assert found == pytest.approx(exact, abs=0.01)


def _table() -> pd.DataFrame:
    """Users with rates that differ much; within a user `x` decides, which explains little of the click rate."""
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(20), 20)
    x = rng.normal(size=len(user))
    clicks = rng.random(len(user)) < 1 / (1 + np.exp(-(3 * (user % 2) - 1.5 + x)))
    return pd.DataFrame(
        {"user": user, "item": rng.integers(0, 9, len(user)), "x": x, "click": clicks * 1.0, "stars": x + user % 2}
    )


def _model(tasks: list[Task]) -> MultiTaskModel:
    schema = Schema(
        [Categorical("user", dtype="int64")],
        [Categorical("item", dtype="int64")],
        context=[Numeric("x")],
        labels=[Label("click"), Label("stars")],
    )
    preprocessor = Preprocessor.fit(schema, _table())
    network = build_network(preprocessor, tasks, embedding_dim=4, tower_units=(4,), regularization=NO_NOISE)
    model = MultiTaskModel(network, tasks, preprocessor)
    model.compile(LazyAdam(0.02))
    return model


def test_a_model_trains_the_sum_of_both_losses_and_keeps_it(tmp_path: Any) -> None:
    grouped = GroupLoss("softmax", "user", weight=0.5)
    task = BinaryClassification("click", extra_losses=[grouped], extra_metrics=[GroupedAUC("user")])
    model = _model([task])
    table = _table()
    before = model.evaluate(table, batch_size=len(table), verbose=0, return_dict=True)
    outputs = model.predict(table, verbose=0)["click"]
    scores = np.log(outputs) - np.log1p(-outputs)
    rows = (scores, table["click"].to_numpy(), np.ones(len(table)), table["user"].to_numpy())
    wanted = before["click_log_loss"] + 0.5 * _reference("softmax", *rows, temperature=1.0)
    assert before["click_loss"] == pytest.approx(wanted, rel=1e-3)
    model.fit(table, epochs=5, batch_size=100, verbose=0)
    after = model.evaluate(table, batch_size=len(table), verbose=0, return_dict=True)
    assert after["click_gauc"] > before["click_gauc"] + 0.02
    save_model(model, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.tasks[0].extra_losses == (grouped,)  # type: ignore[attr-defined]
    assert again.evaluate(table, batch_size=len(table), verbose=0, return_dict=True)["click_loss"] == pytest.approx(
        after["click_loss"], rel=1e-6
    )


def test_missing_labels_do_not_count() -> None:
    task = Regression("stars", extra_losses=[{"kind": "hinge", "group": "user"}])
    labels = tf.constant([2.0, float("nan"), 1.0])
    inputs = LossInputs({}, keys={"user": tf.constant([1, 1, 1], tf.int64)})
    outputs, weights = tf.constant([[0.5], [9.0], [0.0]]), tf.constant([1.0, 0.0, 1.0])
    loss, total = batch_loss(task, labels, outputs, weights, inputs)
    alone, _ = task.compute_loss(labels, outputs, weights, inputs)
    assert float(loss - alone) == pytest.approx(0.5)  # max(0, 1 - 0.5): the only pair
    assert float(total) == 2


def test_rows_without_a_user_are_no_group() -> None:
    task = BinaryClassification("click", extra_losses=[GroupLoss("hinge", "user")])
    inputs = LossInputs({}, keys={"user": tf.constant([NO_KEY, NO_KEY, 5], tf.int64)})
    labels, outputs, weights = tf.constant([1.0, 0.0, 1.0]), tf.constant([[0.0], [1.0], [0.0]]), tf.ones([3])
    loss, _ = batch_loss(task, labels, outputs, weights, inputs)
    alone, _ = task.compute_loss(labels, outputs, weights, inputs)
    assert float(loss) == float(alone)


@pytest.mark.parametrize("kind", ["softmax", "approx_ndcg"])
def test_labels_without_a_gain_are_refused(kind: GroupKind) -> None:
    tasks: list[Task] = [Regression("stars", extra_losses=[GroupLoss(kind, "user")])]
    with pytest.raises(ValueError, match=f"the kind '{kind}' needs labels from 0 to .* take 'logistic'"):
        _model(tasks)  # the labels are numbers of both signs


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"kind": "bpr"}, "`kind` must be one of"),
        ({"group": ""}, "`group` must be the name of a feature"),
        ({"weight": 0}, "`weight` of a `GroupLoss` must be a finite number above 0"),
        ({"temperature": float("nan")}, "`temperature` of a `GroupLoss` must be a finite number above 0"),
    ],
)
def test_bad_attributes_have_one_sentence(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupLoss(**{"kind": "hinge", "group": "user", **attributes})


def test_groups_must_be_ids_and_scores_one_number() -> None:
    loss = GroupLoss("hinge", "x")
    with pytest.raises(ValueError, match=r"Unknown feature of ids .*the `GroupLoss` of task 'click'"):
        _model([BinaryClassification("click", extra_losses=[loss])])
    grouped: Any = {"extra_losses": [dataclasses.replace(loss, group="user")]}
    several: list[Task] = [MultiClassClassification("click", 2, **grouped), QuantileRegression("stars", **grouped)]
    for task in several:
        with pytest.raises(ValueError, match="ranks rows by one number"):
            _model([task])
    with pytest.raises(TypeError):
        Retrieval("click", **grouped)


def test_a_table_without_two_rows_of_one_group_is_refused() -> None:
    model = _model([BinaryClassification("click", extra_losses=[GroupLoss("hinge", "user")])])
    with pytest.raises(ValueError, match="ranks the rows of one 'user', and no two rows have the same"):
        model.fit(_table().drop_duplicates("user"), verbose=0)
    assert np.isfinite(model.evaluate(_table().drop_duplicates("user"), verbose=0, return_dict=True)["click_loss"])


def test_trees_leave_a_task_with_a_group_loss_as_it_is() -> None:
    model = _model([BinaryClassification("click", extra_losses=[GroupLoss("hinge", "user")]), Regression("stars")])
    assert list(join_boosting(model, _table(), _table(), rounds=2).tasks) == ["stars"]


def test_rows_that_mixup_leaves_whole_have_the_group_loss() -> None:
    task = BinaryClassification("click", extra_losses=[GroupLoss("hinge", "user")])
    model = _model([task])
    batch = to_batch(_table().head(40), model.preprocessor)
    output = tf.constant(np.random.default_rng(0).normal(size=[40, 1]), tf.float32)
    pairs = MixupPairs(tf.range(40)[::-1], tf.ones([40]))
    found, total = mixup_loss(model.loss_arguments, task, batch, output, pairs)
    labels, weights, inputs = model.loss_arguments(task, batch, training=True)
    alone = float(task.compute_loss(labels, output, weights, inputs)[0])
    scores, users = output.numpy()[:, 0], _table()["user"].head(40).to_numpy()
    between = _reference("hinge", scores, labels.numpy(), np.ones(40), users, temperature=1.0)
    assert float(total) == 40
    assert between > 0.1
    assert float(found) == pytest.approx(alone + between, rel=1e-5)

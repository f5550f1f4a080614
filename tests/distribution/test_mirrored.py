from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.distribution.processes import answers
from tests.tasks.losses import ids_of, loss_of
from tfmtl._keras import tf
from tfmtl.tasks import LossInputs, Retrieval

RNG = np.random.default_rng(3)
IDS = [2, 3, 2, 5, 7, 3, 2]
USERS = [4, 5, 4, 4, 6, -1, 5]
WEIGHTS = [1.0, 2.0, 0.5, 1.0, 1.0, 3.0, 0.0]
LABELS = [1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]  # the third and the last row are no positives
ROWS: dict[str, list[Any]] = {
    "query": RNG.normal(size=(7, 3)).astype("float32").tolist(),
    "candidate": RNG.normal(size=(10, 3)).astype("float32")[IDS].tolist(),
    "ids": IDS,
    "users": USERS,
    "weights": WEIGHTS,
    "labels": LABELS,
}
# Parts of 2 and 5 rows, of 6 and 1 (which is no positive), of 0 and 7; and 2 and 5 rows that do not see each other:
# each with a column of logits for each distinct candidate, and for each row.
CUTS = [([2], True), ([6], True), ([0], True), ([2], False)]
PARTS = [(*cut, distinct) for distinct in (True, False) for cut in CUTS]
# Losses with further parts, each compared with that of one device.
FURTHER: list[dict[str, Any]] = [
    {"explicit_negatives": 2.0},
    {"explicit_negatives": 2.0, "share_explicit_negatives": True, "distinct_candidates": False},
    {"query_key": "user", "explicit_negatives": 2.0, "share_explicit_negatives": True},
    {"query_key": "user", "joint_positives": True, "distinct_candidates": False},
    {"query_key": "user", "num_queued_negatives": 7, "explicit_negatives": 2.0},
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    parts: list[Any] = [
        (cuts, {"gather_negatives": gather, "distinct_candidates": distinct}) for cuts, gather, distinct in PARTS
    ]
    parts += [(cuts, arguments) for arguments in FURTHER for cuts in ([2], [6], [0])]
    given = {"rows": ROWS, "parts": parts, "folder": str(tmp_path_factory.mktemp("export"))}
    [printed] = answers("tests.distribution.mirrored", arguments=[json.dumps(given)], seconds=600)
    return dict(printed)


def softmax_loss(rows: list[int], weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the summed loss of some rows of the batch over each other's candidates, and its gradients.

    l_i = -log softmax_i(s_i), s_ii = u_i v_i, s_ij = u_i v_j - log lambda_j, without j of the same item as i;
    lambda_j = (B - 1) n_j / n for B rows and the shares n_j / n after this batch, in which item 3 occurs twice and 2, 5
    and 7 once. dl_i/du_i = sum_j (p_ij - [i = j]) v_j and
    dl_i/dv_j = (p_ij - [i = j]) u_i.
    """
    share = {2: 1 / 5, 3: 2 / 5, 5: 1 / 5, 7: 1 / 5}
    query, candidate = (np.array(ROWS[side])[rows] for side in ("query", "candidate"))
    ids = np.array(IDS)[rows]
    scores = query @ candidate.T
    scores -= np.log([(len(rows) - 1) * share[item] for item in ids]) * ~np.eye(len(rows), dtype=bool)
    hidden = (ids[:, None] == ids) & ~np.eye(len(rows), dtype=bool)
    scores = np.where(hidden, -np.inf, scores)
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    change = weights[:, None] * (chances - np.eye(len(rows)))
    of_query, of_candidate = np.zeros((7, 3)), np.zeros((7, 3))
    of_query[rows], of_candidate[rows] = change @ candidate, change.T @ query
    return float(-(weights * np.log(np.diag(chances))).sum()), of_query, of_candidate


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(PARTS)))
def test_gathered_loss_and_gradient_are_those_of_the_whole_batch(found: dict[str, Any], case: int) -> None:
    positives, (_, gathered, distinct) = [0, 1, 3, 4, 5], PARTS[case]
    whole = [positives] if gathered else [[0, 1], [3, 4, 5]]
    summed = [softmax_loss(rows, np.array(WEIGHTS)[rows]) for rows in whole]
    weight = sum(WEIGHTS[row] for row in positives)
    part = found["parts"][case]
    assert np.mean(part["losses"]) == pytest.approx(sum(loss for loss, _, _ in summed) / weight, rel=1e-5)
    for place, side in ((1, "query"), (2, "candidate")):
        expected, actual = sum(gradients[place] for gradients in summed) / weight, np.array(part[side])
        assert np.abs(expected[positives]).max(axis=1).min() > 1e-3
        if distinct and side == "candidate":  # which of a candidate's rows it reaches is the table's business
            expected, actual = (np.eye(10)[:, IDS] @ values for values in (expected, actual))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    assert part["counts"] == [0, 0, 1, 2, 0, 1, 0, 1, 0, 0]  # on every replica those of the whole batch


@pytest.mark.slow
@pytest.mark.parametrize("case", range(3 * len(FURTHER)))
def test_loss_and_gradient_of_two_replicas_are_those_of_one_device(found: dict[str, Any], case: int) -> None:
    task, part = Retrieval("t", **FURTHER[case // 3]), found["parts"][len(PARTS) + case]
    task.prepare(10)
    task.prepare_output({"candidate": tf.zeros([1, 3])})
    outputs = {side: ROWS[side] for side in ("query", "candidate")}
    inputs = LossInputs({}, ids_of(IDS), training=True, keys={"user": tf.constant(USERS, tf.int64)})
    for _ in range(2 if task.num_queued_negatives else 1):  # a queue is empty in the first step
        loss, _, gradient = loss_of(task, LABELS, outputs, WEIGHTS, inputs)
    assert np.mean(part["losses"]) == pytest.approx(loss, rel=1e-5)
    assert part["counts"] == task._counts.known.numpy().tolist()
    np.testing.assert_allclose(part["query"], gradient["query"], rtol=1e-4, atol=1e-6)
    by_item = np.eye(10)[:, IDS]
    np.testing.assert_allclose(by_item @ part["candidate"], by_item @ gradient["candidate"], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_batch_without_positives_adds_nothing_to_the_queues_of_replicas(found: dict[str, Any]) -> None:
    """TensorFlow ends the process where all gathered tensors are empty."""
    part = found["without_positives"]
    assert part["losses"] == [0, 0]
    assert not np.any(part["query"])
    assert not np.any(part["counts"])


@pytest.mark.slow
def test_two_replicas_train_as_one_device(found: dict[str, Any]) -> None:
    """Logs, metrics, weights, the state of balancers, counts and queues, though labels are missing unevenly.

    The last batch of an epoch has two rows.
    """
    assert len(found["differences"]) == 5
    assert max(found["differences"].values()) < 1e-4, found


@pytest.mark.slow
def test_a_model_of_two_replicas_is_exported(found: dict[str, Any]) -> None:
    assert found["signatures"] > 10

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from tests.ensembling.members import members
from tests.models import small
from tfmtl._keras import tf
from tfmtl.data import to_batch
from tfmtl.ensembling import ensemble, fit_weights, select_weights
from tfmtl.ensembling.evidence import Objective, blocks
from tfmtl.ensembling.weighting import simplex_weights

TASKS = ["seen", "rating", "liked", "mood"]
GRID = [np.array([1 - s, s]) for s in np.linspace(0, 1, 11)]


@functools.cache
def objectives(count: int = 2, batch_size: int = 4096) -> dict[str, Objective]:
    found = blocks(members()[:count], small.table(), batch_size)
    return {name: Objective(part) for name, part in found.items()}


def test_the_objective_is_the_validation_loss_of_the_ensemble() -> None:
    shares = [0.25, 0.75]
    batch = to_batch(small.table(), small.preprocessor())
    losses = ensemble(members()[:2], shares).compute_losses(batch, training=False)
    for name, objective in objectives().items():
        assert objective(np.array(shares))[0] == pytest.approx(float(losses[name][0]), rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_the_gradient_is_that_of_the_loss_which_is_convex(task: str) -> None:
    objective = objectives()[task]
    values = np.array([objective(shares)[0] for shares in GRID])
    slopes = np.array([objective(shares)[1] @ [-1, 1] for shares in GRID])
    np.testing.assert_allclose(np.diff(values) * 10, (slopes[1:] + slopes[:-1]) / 2, rtol=0.05, atol=5e-3)
    assert (np.diff(values, 2) > -1e-6).all()


@pytest.mark.parametrize("task", TASKS[1:])  # the retrieval loss depends on the candidates of a block
def test_blocks_weigh_by_their_labels(task: str) -> None:
    whole, parts = objectives()[task], objectives(batch_size=7)[task]
    for one, other in zip(whole(GRID[3]), parts(GRID[3]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_fitted_weights_are_the_best_of_a_grid_of_weights() -> None:
    weights = fit_weights(members()[:2], small.table())
    for task, objective in objectives().items():
        assert sum(weights[task]) == pytest.approx(1)
        best = min(objective(shares)[0] for shares in GRID)
        assert objective(np.array(weights[task]))[0] <= best + 1e-5


def test_weights_of_numbers_against_their_normal_equation() -> None:
    batch = to_batch(small.table(), small.preprocessor())
    one, other = (
        model.network({name: batch.features[name] for name in model.network.input})["rating"].numpy()[:, 0]
        for model in members()[:2]
    )
    target = small.tasks()[1].targets(batch.labels["rating"]).numpy()
    weight, spread = batch.weights["rating"].numpy(), one - other
    share = np.sum(weight * spread * (target - other)) / np.sum(weight * spread**2)
    found = fit_weights(members()[:2], small.table())["rating"][0]
    assert found == pytest.approx(np.clip(share, 0, 1), abs=2e-3)


def test_a_member_that_is_right_takes_all_and_equal_ones_share() -> None:
    (block,) = blocks(members()[:1], small.table(), 1024)["rating"]
    right = block.task.targets(block.labels)[:, tf.newaxis]
    wrong = right + 50.0
    found = simplex_weights(Objective([dataclasses.replace(block, outputs=[wrong, right, wrong])]))
    assert found == pytest.approx([0, 1, 0], abs=2e-3)
    assert simplex_weights(Objective([dataclasses.replace(block, outputs=[right] * 3)])) == pytest.approx([1 / 3] * 3)


def test_selection_starts_at_the_best_member_and_never_gets_worse() -> None:
    first = select_weights(members(), small.table(), rounds=1)
    more = select_weights(members(), small.table(), rounds=4)
    for task, objective in objectives(3).items():
        alone = [objective(shares)[0] for shares in np.eye(3)]
        assert first[task] == np.eye(3)[int(np.argmin(alone))].tolist()
        assert objective(np.array(more[task]))[0] <= min(alone) + 1e-9
        counts = [np.array(more[task]) * n for n in range(1, 5)]
        assert any(np.allclose(count, np.round(count)) for count in counts)


@pytest.mark.parametrize("verb", [fit_weights, select_weights])
def test_a_task_without_labels_is_named(verb: object) -> None:
    with pytest.raises(ValueError, match="No row has a label of task 'liked'"):
        verb(members()[:2], small.table().assign(liked=np.nan))  # type: ignore[operator]


def test_one_member_has_all_the_weight() -> None:
    assert fit_weights(members()[:1], small.table()) == {task: [1.0] for task in TASKS}

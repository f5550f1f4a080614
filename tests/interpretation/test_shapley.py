from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tests.interpretation import planted
from tests.models import small
from tfmtl.data import to_batch
from tfmtl.interpretation import shapley_values
from tfmtl.interpretation.shapley import _pair
from tfmtl.models.explained import Floats

WEIGHTS = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, -3.0]])


def exact(game: dict[frozenset[int], float], count: int) -> np.ndarray:
    """Return the Shapley values of a game by enumeration of all sets."""
    parts = np.zeros(count)
    for f in range(count):
        for size in range(count):
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for others in itertools.combinations([g for g in range(count) if g != f], size):
                parts[f] += weight * (game[frozenset((*others, f))] - game[frozenset(others)])
    return parts


def test_an_additive_model_has_w_times_the_difference() -> None:
    frame = planted.table(WEIGHTS, 60, seed=1)
    model = planted.linear_model(frame, WEIGHTS)
    found = shapley_values(model, frame.head(6), frame.tail(1), samples=2)
    z = np.stack([to_batch(frame, model.preprocessor).features[f"x{i}"].numpy()[:, 0] for i in range(3)], axis=1)
    scales = [task.scale for task in model.tasks]
    np.testing.assert_allclose(found.values, (z[:6] - z[-1:])[..., np.newaxis] * WEIGHTS * scales, atol=1e-5)
    np.testing.assert_allclose(found.gap, 0, atol=1e-6)


def test_sampled_values_lie_within_the_interval_of_the_exact_ones_on_8_features() -> None:
    rng = np.random.default_rng(4)
    sets = [frozenset(s) for size in range(9) for s in itertools.combinations(range(8), size)]
    value = dict(zip(sets, rng.normal(size=len(sets)).cumsum(), strict=True))

    def game(present: np.ndarray) -> Floats:
        return np.array([[value[frozenset(np.flatnonzero(row).tolist())]] for row in present])

    draws = rng.permuted(np.tile(np.arange(8), (2000, 1)), axis=1)
    parts = _pair(game, draws)[0][..., 0]
    error = parts.std(axis=0, ddof=1) / np.sqrt(len(parts))
    assert (np.abs(parts.mean(axis=0) - exact(value, 8)) < 3.5 * error).all()
    np.testing.assert_allclose(parts.sum(axis=1), value[sets[-1]] - value[sets[0]])


def test_values_of_a_network_are_near_the_exact_ones() -> None:
    model = small.model()
    row, other = small.table().iloc[[3]], small.table().iloc[[11]]
    names = list(model.network.input)
    table = {}
    for size in range(len(names) + 1):
        for chosen in itertools.combinations(range(len(names)), size):
            mixed = other.reset_index(drop=True).copy()
            for k in chosen:
                mixed[names[k]] = row[names[k]].reset_index(drop=True)
            table[frozenset(chosen)] = float(model.predict(mixed, verbose=0)["rating"][0])
    found = shapley_values(model, row, other, samples=400, tasks=["rating"])
    assert found.errors is not None
    difference = np.abs(found.values[0, :, 0] - exact(table, len(names)))
    assert (difference <= 3.5 * found.errors[0, :, 0] + 1e-6).all()
    assert list(found.to_frame()) == ["value", "error"]


def test_parts_add_up_and_seeds_repeat() -> None:
    model = small.model()
    groups = {"both": ["age", "price"]}
    once, twice = (shapley_values(model, small.table(), small.table(), samples=3, groups=groups, seed=2) for _ in "ab")
    np.testing.assert_array_equal(once.values, twice.values)
    assert once.features == ["user", "both", "recent", "item", "position"]
    np.testing.assert_allclose(once.gap, 0, atol=1e-6)


def test_hostile_rows_and_wrong_arguments() -> None:
    model = small.model()
    row = small.table().head(1).assign(user=None, item="never seen", age=np.nan, recent=[[]])
    found = shapley_values(model, row, row, samples=2)
    np.testing.assert_allclose(found.values, 0, atol=1e-6)
    with pytest.raises(ValueError, match="Unknown task"):
        shapley_values(model, row, row, tasks=["like"])
    with pytest.raises(ValueError, match="price"):
        shapley_values(model, row, row.drop(columns="price"))
    with pytest.raises(TypeError, match="`background` must hold rows"):
        shapley_values(model, row, None)
    with pytest.raises(ValueError, match="`samples` must be a positive integer"):
        shapley_values(model, row, row, samples=0)

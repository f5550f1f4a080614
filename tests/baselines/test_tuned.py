"""Baselines with chosen arguments: the held-out pairs, their ranks, and the choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl.baselines import EASE, Interactions, ItemKNN, Popularity, RetrievalBaseline, Tuned, ease
from tfmtl.baselines.tuned import _HeldOut, grids


class Fixed(RetrievalBaseline):
    """Gives all users the same scores."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = np.asarray(scores)
        self.fits = 0

    def _fit(self, interactions: Interactions) -> None:
        self.fits += 1

    def _scores(self, rows: Any) -> Any:
        return np.tile(self.scores, (len(rows), 1))


def timed() -> Interactions:
    """Return 20 interactions: user 5 has candidate 2 and last 0, user 6 has 1 and last 1 again and 2."""
    users = [9] * 16 + [5, 6, 5, 6]
    items = [3] * 16 + [2, 1, 0, 2]
    return Interactions(users, items, 4, times=list(range(20)))


def test_the_newest_tenth_is_ranked_without_seen_candidates() -> None:
    held_out = _HeldOut.of(timed(), keep_seen=False, seed=0)
    assert held_out is not None
    assert held_out.users.tolist() == [5, 6]
    assert held_out.positives.tolist() == [[0, 1], [0, 2]]
    assert len(np.asarray(held_out.rest.users)) == 18
    # Order 2, 1, 0, 3. User 5 has seen 2: 0 is second, 1 / log2(3). User 6 has seen 1: 2 is first.
    assert held_out.value(Fixed([1.0, 2.0, 3.0, 0.0])) == pytest.approx((1 / np.log2(3) + 1) / 2)


def test_seen_candidates_stay_where_they_repeat() -> None:
    held_out = _HeldOut.of(timed(), keep_seen=True, seed=0)
    assert held_out is not None
    # User 5: 0 is third, 1 / log2(4). User 6: 2 is first.
    assert held_out.value(Fixed([1.0, 2.0, 3.0, 0.0])) == pytest.approx((1 / 2 + 1) / 2)


def test_repeated_pairs_are_left_out_unless_they_stay() -> None:
    again = Interactions([9] * 18 + [9, 6], [3] * 18 + [3, 2], 4, times=list(range(20)))
    without, with_repeats = (_HeldOut.of(again, keep_seen=keep, seed=0) for keep in (False, True))
    assert without is not None
    assert with_repeats is not None
    assert without.positives.tolist() == [[0], [2]]
    assert with_repeats.positives.tolist() == [[0, 1], [2, 3]]


def test_users_without_an_id_are_not_ranked() -> None:
    nameless = Interactions([9] * 18 + [-1, -1], [3] * 18 + [0, 1], 4, times=list(range(20)))
    assert _HeldOut.of(nameless, keep_seen=True, seed=0) is None
    first = Fixed([1.0, 0.0, 0.0, 0.0])
    assert Tuned([first, Fixed([0.0, 1.0, 0.0, 0.0])]).fit(nameless).chosen is first


def test_equal_times_leave_nothing_to_hold_out() -> None:
    at_once = Interactions([1, 2, 3], [0, 1, 2], 4, times=[5.0, 5.0, 5.0])
    assert _HeldOut.of(at_once, keep_seen=True, seed=0) is None


def test_the_best_option_is_fitted_to_all_interactions() -> None:
    worse, best = Fixed([0.0, 3.0, 1.0, 2.0]), Fixed([3.0, 0.0, 2.0, 1.0])
    tuned = Tuned([worse, best]).fit(timed())
    assert tuned.chosen is best
    assert (worse.fits, best.fits) == (1, 2)
    assert tuned.name == "Fixed"
    np.testing.assert_array_equal(tuned.scorer([5, 77])(np.array([0])), [[3.0, 0.0, 2.0, 1.0]])
    strangers = tuned.scorer([5, 77])(np.array([1]))
    np.testing.assert_array_equal(strangers, Popularity().fit(timed()).scorer([77])(np.array([0])))


def test_a_single_option_is_not_ranked() -> None:
    only = Fixed([0.0, 3.0, 1.0, 2.0])
    Tuned([only]).fit(timed())
    assert only.fits == 1


def test_random_pairs_are_held_out_without_times_and_follow_the_seed() -> None:
    rng = np.random.default_rng(3)
    many = Interactions(rng.integers(0, 50, 400), rng.integers(0, 30, 400), 30)
    parts = [_HeldOut.of(many, keep_seen=False, seed=seed) for seed in (0, 0, 1)]
    positives = [part.positives.tolist() for part in parts if part is not None]
    assert positives[0] == positives[1] != positives[2]
    assert 20 <= len(positives[0][0]) <= 60


def test_regularizations_share_a_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(ease, "_MOST_EXACT", 1)
    monkeypatch.setattr(ease, "decompose", lambda *args: calls.append(args) or _decompose(*args))
    rng = np.random.default_rng(3)
    many = Interactions(rng.integers(0, 50, 400), rng.integers(0, 30, 400), 30)
    values = [EASE(value).fit(many).scorer([0])(np.array([0])) for value in (1.0, 1.0, 50.0)]
    assert len(calls) == 1
    np.testing.assert_array_equal(values[0], values[1])
    assert not np.allclose(values[0], values[2])


_decompose = ease.decompose


def test_grids_compare_weightings_where_pairs_repeat() -> None:
    once, again = (grids(repeated, seed=0) for repeated in (False, True))
    assert [type(options[0]) for options in once][:2] == [ItemKNN, EASE]
    assert {option.weighting for option in once[1] if isinstance(option, EASE)} == {"binary"}
    assert {option.weighting for option in again[1] if isinstance(option, EASE)} == {"binary", "log"}


@pytest.mark.parametrize("options", [[], [EASE(), ItemKNN()]])
def test_options_of_one_class_are_required(options: list[RetrievalBaseline]) -> None:
    with pytest.raises(ValueError, match="must hold baselines of one class"):
        Tuned(options)

"""Critics of sessions: sums by hand, a planted error, weights and their controls, files and wrong input."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl._keras import tf
from tfmtl.allocation import SessionCritics
from tfmtl.allocation.discounted_sums import discounted_sums
from tfmtl.allocation.regressor import Regressor
from tfmtl.allocation.row_losses import RowReader
from tfmtl.allocation.session_critics import row_weights
from tfmtl.data import Batch, to_batch
from tfmtl.models import MultiTaskModel

NAMES = ("rating", "liked", "mood")


def table() -> pd.DataFrame:
    """The small table, five rows in each session; one row has no session."""
    rows = small.table()
    visit = np.arange(len(rows)) // 5
    return rows.assign(visit=np.where(visit == 9, np.nan, visit), at=np.arange(len(rows))[::-1])


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    return small.model()


@pytest.fixture(scope="module")
def critics(model: MultiTaskModel) -> SessionCritics:
    return SessionCritics(model, session="visit", time="at", units=(8,), seed=3).fit(table(), epochs=3, batch_size=16)


def test_sums_by_hand() -> None:
    """Session 0 has rows 2, 0, 3 in order of time: 4 + 1/2 (1 + 1/2 * 8), 1 + 1/2 * 8, 8."""
    losses = [[1.0, 0.0], [2.0, 2.0], [4.0, 0.0], [8.0, 6.0], [3.0, 1.0], [5.0, 1.0]]
    sums = discounted_sums(losses, [0, 1, 0, 0, -1, -1], [20, 1, 10, 30, 1, 2], 0.5)
    assert sums.tolist() == [[5.0, 3.0], [2.0, 2.0], [6.5, 1.5], [8.0, 6.0], [3.0, 1.0], [5.0, 1.0]]


@pytest.mark.parametrize(("discount", "expected"), [(0.0, [1.0, 2.0, 4.0]), (1.0, [7.0, 6.0, 4.0])])
def test_rows_of_one_moment_keep_their_order(discount: float, expected: list[float]) -> None:
    assert discounted_sums([[1.0], [2.0], [4.0]], [0, 0, 0], [7, 7, 7], discount)[:, 0].tolist() == expected


def test_losses_of_rows_are_those_of_the_rows_alone(model: MultiTaskModel) -> None:
    """Weights 0.5 and 1.5 of "rating" do not count; a task's mean over a table of one row is the loss of that row."""
    found = RowReader(model, NAMES)(to_batch(table(), model.preprocessor)).losses
    for row in (0, 1, 7):
        one = model.compute_losses(to_batch(table().iloc[[row]], model.preprocessor), training=False)
        expected = [float(loss) if weight > 0 else np.nan for loss, weight in (one[name] for name in NAMES)]
        np.testing.assert_allclose(found[row], expected, rtol=1e-4)
    assert (np.isnan(found) == np.isnan(table()[["rating", "liked"]].assign(mood=_missing("mood")))).all(axis=None)


def _missing(name: str) -> pd.Series:
    return table()[name].isna().map({True: np.nan, False: 0.0})


def test_regression_recovers_a_planted_future_error() -> None:
    """An error of 2 follows each row with x > 0 in the same session, so that y = 1 + gamma 2 [x > 0]."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=[2000, 3])
    losses = np.zeros([4000, 1])
    losses[::2, 0], losses[1::2, 0] = 1.0, 2.0 * (x[:, 0] > 0)
    sums = discounted_sums(losses, np.arange(4000) // 2, np.arange(4000), 0.5)[::2]
    regressor = Regressor.of(x, sums, units=(16,), seed=0)
    assert regressor.predict(x)[:, 0] == pytest.approx(sums.mean())  # untrained, the mean
    regressor.fit(x, sums, epochs=40, batch_size=100, learning_rate=0.01, seed=0)
    fresh = rng.normal(size=[500, 3])
    values, planted = regressor.predict(fresh)[:, 0], 1.0 + (fresh[:, 0] > 0)
    assert np.square(values - planted).mean() < 0.1 * planted.var()
    assert 1.0 <= values.min() < values.max() <= 2.0


def test_missing_targets_teach_nothing() -> None:
    x = np.random.default_rng(0).normal(size=[64, 2])
    both = np.stack([x[:, 0], np.where(np.arange(64) % 2, 5.0, np.nan)], axis=1)
    regressor = Regressor.of(x, both, units=(), seed=0)
    regressor.fit(x, both, epochs=20, batch_size=8, learning_rate=0.05, seed=0)
    np.testing.assert_allclose(regressor.predict(x), np.stack([x[:, 0], np.full(64, 5.0)], axis=1), atol=0.05)


def test_weights_by_hand() -> None:
    """1 + 0.5 Q is 1, 2 and 3 with the mean 2."""
    np.testing.assert_allclose(row_weights(np.array([0.0, 2.0, 4.0]), 0.5), [0.5, 1.0, 1.5])


def test_weights_follow_the_values_and_have_the_mean_one(critics: SessionCritics) -> None:
    plain, weighed = to_batch(table(), critics.model.preprocessor), critics.weigh(table(), 2.0)
    values = critics.values(table())
    assert critics.task_names == tuple(values) == NAMES
    for name in NAMES:
        own, found = plain.weights[name].numpy(), weighed.weights[name].numpy()
        kept = own > 0
        expected = 1 + 2.0 * values[name][kept]
        np.testing.assert_allclose(found[kept] / own[kept], expected / expected.mean(), rtol=1e-5)
        assert (found[~kept] == 0).all()
        assert np.ptp(found[kept] / own[kept]) > 0.001
    assert bool(tf.reduce_all(weighed.weights["seen"] == plain.weights["seen"]))


def test_critics_see_sessions_in_order_of_time(model: MultiTaskModel, critics: SessionCritics) -> None:
    """By hand: `at` falls, so that the later row is the one above; rows 45 to 49 are sessions of their own."""
    rows = RowReader(model, NAMES)(to_batch(table(), model.preprocessor))
    losses = np.nan_to_num(rows.losses[:, 0].astype(float))
    expected = losses.copy()
    for row in range(45):
        expected[row] += 0.9 * expected[row - 1] if row % 5 else 0.0
    np.testing.assert_allclose(critics._rows(table())[1][:, 0], expected, rtol=1e-6)
    assert set(critics.score(table())) == set(NAMES)


def test_strength_zero_is_the_base_model_to_the_bit(critics: SessionCritics) -> None:
    def trained(data: Any) -> list[np.ndarray]:
        fresh = small.model()
        fresh.fit(data, batch_size=16, epochs=2, verbose=0)
        return fresh.get_weights()

    base = trained(table())
    pairs = [(trained(critics.weigh(table(), strength)), same) for strength, same in ((0.0, True), (5.0, False))]
    for found, same in pairs:
        assert all(np.array_equal(one, other) for one, other in zip(base, found, strict=True)) == same


def _factors(weighed: Batch, plain: Batch, name: str) -> np.ndarray:
    own = plain.weights[name].numpy()
    return weighed.weights[name].numpy()[own > 0] / own[own > 0]


def test_shuffled_weights_are_the_same_numbers_in_other_rows(critics: SessionCritics) -> None:
    plain = to_batch(table(), critics.model.preprocessor)
    first, again, other = (critics.weigh(table(), 2.0, shuffle_seed=seed) for seed in (0, 0, 1))
    for name in NAMES:
        found, dealt = (_factors(batch, plain, name) for batch in (critics.weigh(table(), 2.0), first))
        np.testing.assert_allclose(np.sort(found), np.sort(dealt), rtol=1e-6)
        assert not np.allclose(found, dealt)
        assert np.array_equal(dealt, _factors(again, plain, name))
        assert not np.allclose(dealt, _factors(other, plain, name))


def test_one_seed_gives_one_critic(model: MultiTaskModel, critics: SessionCritics) -> None:
    values = critics.values(table())
    for seed, same in ((3, True), (4, False)):
        other = SessionCritics(model, session="visit", time="at", units=(8,), seed=seed)
        found = other.fit(table(), epochs=3, batch_size=16).values(table())
        assert all(np.array_equal(found[name], values[name]) for name in NAMES) == same


def test_saved_critics_give_the_same_weights(critics: SessionCritics, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "critics.npz"
    critics.save(path)
    loaded = SessionCritics.load(path, critics.model)
    names = ("session", "time", "discount", "units", "seed", "task_names")
    assert [getattr(loaded, name) for name in names] == [getattr(critics, name) for name in names]
    values = critics.values(table())
    assert all(np.array_equal(found, values[name]) for name, found in loaded.values(table()).items())
    with pytest.raises(ValueError, match="other weights of it"):
        SessionCritics.load(path, small.model(seed=1))
    path.write_text("{}")
    with pytest.raises(ValueError, match="holds no session critics"):
        SessionCritics.load(path, critics.model)


def test_a_model_trained_further_needs_new_critics() -> None:
    trained = small.model(heads=small.tasks()[1:3], eager=True)
    critics = SessionCritics(trained, session="visit", time="at", units=())
    with pytest.raises(ValueError, match="call `fit` first"):
        critics.weigh(table())
    critics.fit(table(), epochs=1)
    trained.fit(table(), epochs=1, verbose=0)
    for method in (critics.values, critics.weigh, critics.score):
        with pytest.raises(ValueError, match="trained after its critics"):
            method(table())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discount": 1.5}, "`discount` must be a number from 0 to 1"),
        ({"discount": True}, "`discount` must be a number from 0 to 1"),
        ({"units": (0,)}, "`units` must be a positive integer"),
        ({"units": "8"}, "`units` must be a list"),
    ],
)
def test_wrong_arguments(model: MultiTaskModel, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SessionCritics(model, **{"session": "visit", "time": "at", **change})
    with pytest.raises(TypeError, match="`session` must be str"):
        SessionCritics(model, session=None, time="at")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="that is no retrieval"):
        SessionCritics(small.model(heads=small.tasks()[:1], trunk=None), session="visit", time="at")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (table().drop(columns="visit"), r"Unknown column \['visit'\] in the table"),
        (table().drop(columns="at"), r"Unknown column \['at'\] in the table"),
        (table().assign(at=np.nan), "Column 'at' has 50 missing values"),
        (table().assign(liked=np.nan), r"The table has no label of the tasks \['liked'\]"),
        (table().drop(columns="rating"), r"lacks the columns \['rating'\]"),
        (table().iloc[:0], "The table is empty"),
    ],
)
def test_wrong_tables(model: MultiTaskModel, rows: pd.DataFrame, message: str) -> None:
    critics = SessionCritics(model, session="visit", time="at")
    with pytest.raises(ValueError, match=message):
        critics.fit(rows)
    with pytest.raises(ValueError, match="call `fit` first"):
        critics.values(table())


@pytest.mark.parametrize("strength", [-0.1, np.inf, np.nan, "1", True])
def test_wrong_strengths(critics: SessionCritics, strength: Any) -> None:
    with pytest.raises(ValueError, match="`strength` must be a number of 0 or more"):
        critics.weigh(table(), strength)


def test_wrong_rows_and_negative_losses() -> None:
    with pytest.raises(ValueError, match="one entry for each row"):
        discounted_sums([[1.0], [2.0]], [0, 0, 0], [1, 2], 0.5)
    with pytest.raises(ValueError, match="Negative losses of task 'spend'"):
        row_weights(np.array([-3.0, 1.0]), 0.5, "spend")
    assert len(row_weights(np.empty(0), 0.5)) == 0

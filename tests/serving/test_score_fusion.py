from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.data import LabelStatistics, Statistics
from tfmtl.serving import ScoreFusion
from tfmtl.serving.index import Hits

HITS = Hits(
    tf.zeros([1, 2], tf.int32),
    tf.constant([[6.0, 2.0]]),
    tf.ones([1, 2], tf.bool),
    tf.constant([[2.0]]),
    tf.constant([[4.0]]),
)
VALUES = {"seen": HITS.scores, "rating": tf.constant([[3.0, 5.0]])}
FUSION = ScoreFusion({"seen": 1.0, "rating": 0.5}, {"rating": 4.0}, {"rating": 2.0}, "seen")


def statistics() -> Statistics:
    rating = LabelStatistics(9, 4.0, 2.0, 0.0, 1.0, 1.0, 5.0, {})
    return Statistics({}, {}, {}, {"seen": rating, "rating": rating}, 9)


def test_golden() -> None:
    """Seen: (6 - 2) / 4 = 1, (2 - 2) / 4 = 0; rating: (3 - 4) / 2 = -0.5, (5 - 4) / 2 = 0.5, times the weight 0.5."""
    np.testing.assert_allclose(FUSION(VALUES, HITS), [[1 - 0.25, 0 + 0.25]])


@pytest.mark.parametrize(
    ("rating", "expected"),
    [
        (2.0, [0.0, 1.0]),
        (-3.0, [2.5, -1.5]),
        (float("nan"), [0.75, 0.25]),
        (float("inf"), [0.75, 0.25]),
        (1e30, [1 - 5e5, 5e5]),
        (-1e30, [1 + 5e5, -5e5]),
    ],
)
def test_weights_of_the_request(rating: float, expected: list[float]) -> None:
    """With weight w: 1 - w / 2 and w / 2; NaN and infinity mean the default 0.5, others are cut to a million."""
    weights = {"seen": tf.constant([1.0]), "rating": tf.constant([rating])}
    np.testing.assert_allclose(FUSION(VALUES, HITS, weights), [expected])


def test_a_task_without_moments_counts_as_it_is() -> None:
    plain = ScoreFusion({"seen": 1.0, "rating": 0.5}, {}, {}, "seen")
    np.testing.assert_allclose(plain(VALUES, HITS), [[1 + 1.5, 0 + 2.5]])


@pytest.mark.parametrize("task", ["seen", "rating"])
def test_score_grows_with_each_value(task: str) -> None:
    higher = {**VALUES, task: VALUES[task] + 0.1}
    assert (FUSION(higher, HITS).numpy() > FUSION(VALUES, HITS).numpy()).all()


def test_equal_scores_of_a_corpus_do_not_count() -> None:
    flat = HITS._replace(scores=tf.fill([1, 2], 2.0), deviation=tf.zeros([1, 1]))
    np.testing.assert_allclose(FUSION({**VALUES, "seen": flat.scores}, flat), [[-0.25, 0.25]])


@pytest.mark.parametrize(
    ("given", "undesired", "weights", "defaults"),
    [
        (None, [], {"seen": 1.0, "rating": 1.0}, {"seen": 1.0, "rating": 1.0}),
        ({}, ["rating"], {"seen": 1.0, "rating": -1.0}, {"seen": 1.0, "rating": -1.0}),
        ({"seen": 3}, ["rating"], {"seen": 3.0, "rating": -1.0}, {"rating": -1.0}),
        ({"rating": -0.5}, [], {"seen": 1.0, "rating": -0.5}, {"seen": 1.0}),
        ({"rating": 0.5, "seen": 0}, ["rating"], {"seen": 0.0, "rating": 0.5}, {}),
    ],
)
def test_unlisted_task_weighs_one_by_its_sign(
    given: dict[str, float] | None, undesired: list[str], weights: dict[str, float], defaults: dict[str, float]
) -> None:
    fusion = ScoreFusion.of(["seen", "rating"], statistics(), "seen", given, undesired)
    assert fusion == ScoreFusion(weights, {"rating": 4.0}, {"rating": 2.0}, "seen", tuple(sorted(given or {}))[::-1])
    assert fusion.defaults == defaults


def test_the_weight_of_a_single_task_is_no_choice() -> None:
    assert ScoreFusion.of(["seen"], statistics(), "seen").defaults == {}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"seen": 0.0, "rating": 0},
            "At least one fusion weight must differ from 0. Received: fusion_weights={'seen': 0.0, 'rating': 0.0}",
        ),
        ({"seen": float("nan")}, "The fusion weight of task 'seen' must be a finite number. Received: weight=nan"),
        ({"seen": "1"}, "The fusion weight of task 'seen' must be a finite number"),
    ],
)
def test_bad_weights(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScoreFusion.of(["seen", "rating"], statistics(), "seen", weights)

"""Weights by the embedding of the query: the policy that is found, the lists that it serves, and errors."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from servers.models import MAX_K, build, raw

from tests.serving.reference import FUSED, Reference, check_equal
from tfmtl.recipes import FoundPolicy, contextual_weights
from tfmtl.recipes.choice_policy import predicted
from tfmtl.serving.recommender import Recommender

CHOICES = [{"seen": 1.0, "rating": 0.0, "clicked": 0.0}, {"rating": 2.0}, {"seen": -1.0}]
BOTH = [{**dict.fromkeys(FUSED, 1.0), **own} for own in CHOICES]


@functools.cache
def embedded() -> tuple[pd.DataFrame, np.ndarray]:
    """Return one row per user, and the first value of its embedding, larger than the median or not."""
    model, frame = build()
    users = frame.drop_duplicates("user_id").reset_index(drop=True)
    vectors = Recommender(model, MAX_K).embed_query(**raw(model, users, query=True))["embedding"].numpy()
    return users, vectors[:, 0] > np.median(vectors[:, 0])


def log(seed: int = 0, copies: int = 40) -> pd.DataFrame:
    """Return logged choices: choice 1 is right for queries with a large first value, choice 0 for the others."""
    users, large = embedded()
    rng = np.random.default_rng(seed)
    table = users.loc[np.tile(np.arange(len(users)), copies)]
    drawn = rng.choice(3, len(table), p=[0.5, 0.25, 0.25])
    right = np.tile(large.astype(int), copies) == drawn
    return table.assign(
        choice=drawn, reward=right.astype(float), propensity=np.asarray([0.5, 0.25, 0.25])[drawn]
    ).reset_index(drop=True)


def found(table: Any = None, **arguments: Any) -> FoundPolicy:
    given = {"choices": CHOICES, "folds": 4, **arguments}
    return contextual_weights(build()[0], log() if table is None else table, given.pop("choices"), **given)


def test_the_policy_serves_each_query_its_choice() -> None:
    model, frame = build()
    result = found()
    assert result.gain[1] > 0
    assert result.verdict.startswith("The policy is better than the best single choice: the reward by SNIPS changes")
    assert result.shares[2] < 0.2
    assert (result.rows, result.users) == (800, 20)
    assert sorted(result.effective_rows) == ["by context", "logged", "single choice"]
    text = str(result)
    assert text.splitlines()[0].split()[:3] == ["policy", "estimator", "reward"]
    assert text.endswith(result.verdict)
    users, _ = embedded()
    query = raw(model, users[:7], query=True)
    vectors = Recommender(model, MAX_K).embed_query(**query)["embedding"].numpy()
    chosen = predicted(np.asarray(result.weights.coefficients), vectors).argmax(axis=1)
    assert len(set(chosen.tolist())) > 1
    weights = {name: np.asarray([BOTH[i][name] for i in chosen], np.float32) for name in FUSED}
    served = Recommender(model, MAX_K, 30, fusion_weights=result.weights).recommend(**query)
    answer = {name: value.numpy() for name, value in served.items()}
    answer["ids"] = answer["ids"].astype(str)
    check_equal(answer, Reference(model, frame, query).recommend(MAX_K, weights=weights))


def test_chance_is_no_gain() -> None:
    table = log()
    result = found(table.assign(reward=np.random.default_rng(1).random(len(table))))
    assert result.gain[1] <= 0
    assert "better than the best single choice: the reward by SNIPS" in result.verdict
    assert not result.verdict.startswith("The policy is better")


ERRORS: list[tuple[Any, dict[str, Any], str]] = [
    (None, {"reward": "gain"}, r"Unknown column \['gain'\] in the log; known: "),
    (None, {"folds": 1}, "`folds` must be at least 2"),
    (None, {"choices": CHOICES[:1]}, "`choices` must hold the weights of at least two choices"),
    (None, {"choices": [{}, {"likes": 1.0}, {}]}, r"Unknown task \['likes'\] in choice 1 of `choices`"),
    ({"propensity": 0.0}, {}, r"propensities in the log must be above 0 and at most 1; .* Received: found=\[0.0, "),
    ({"propensity": float("nan")}, {}, "propensities in the log must be above 0"),
    ({"reward": "much"}, {}, "The column 'reward' of the log must hold numbers. Received: 'much'"),
    ({"reward": float("inf")}, {}, r"The rewards in the log must be finite. Received: found=\[inf, "),
    ({"choice": 3}, {}, r"The choices in the log must be the numbers from 0 to 2. Received: found=\[3.0, "),
    ({"choice": 1}, {}, r"Each choice must have at least one row in the log. Received: without_rows=\[0, 2\]"),
    ({"user_id": "u1"}, {}, "The log must have rows of at least two users. Received: users=1"),
]


@pytest.mark.parametrize(("columns", "arguments", "message"), ERRORS, ids=[message[:40] for *_, message in ERRORS])
def test_errors_are_one_sentence(columns: Any, arguments: dict[str, Any], message: str) -> None:
    table = log(copies=4) if columns is None else log(copies=4).assign(**columns)
    with pytest.raises(ValueError, match=message):
        found(table, **arguments)

"""Every stage after the first training, on 8,000 real ratings ordered by time."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from tests.life_cycle import movielens
from tfmtl import adaptation, data, ensembling, evaluation, layers, models, tuning

EARLY, LATE = 0.8, 0.9


@pytest.fixture(scope="module")
def past() -> pd.DataFrame:
    return movielens.halves()[0]


@pytest.fixture(scope="module")
def future(past: pd.DataFrame) -> pd.DataFrame:
    """Later rows of users and movies that occur earlier."""
    later = movielens.halves()[1]
    return later[later["userId"].isin(past["userId"]) & later["movieId"].isin(past["movieId"])]


@pytest.fixture(scope="module")
def members(past: pd.DataFrame) -> list[models.MultiTaskModel]:
    return ensembling.member_seeds(lambda seed: movielens.trained(past, seed), 2)


def predicted(model: models.MultiTaskModel, table: pd.DataFrame) -> dict[str, np.ndarray]:
    return {name: values.reshape(-1) for name, values in model.predict(table, verbose=0).items()}


def squared_error(model: models.MultiTaskModel, table: pd.DataFrame) -> float:
    return float(np.mean((predicted(model, table)["rating"] - table["rating"].to_numpy()) ** 2))


def test_metrics_of_slices_and_models_are_scikit_learns(
    members: list[models.MultiTaskModel], past: pd.DataFrame, future: pd.DataFrame
) -> None:
    liked, users = future["liked"].to_numpy(), future["userId"].to_numpy()
    answers = [predicted(member, future)["liked"] for member in members]
    report = evaluation.evaluate(members[0], future)
    assert report["liked", "auc"] == pytest.approx(sklearn.metrics.roc_auc_score(liked, answers[0]), abs=1e-6)
    active = evaluation.activity(users, past["userId"], edges=(1, 60))
    found = evaluation.by_slice(evaluation.binary_metrics, {"ratings": active}, liked, answers[0])
    most = np.asarray(active) == "60+"
    assert found.loc[("ratings", "60+"), "rows"] == most.sum() > 100
    expected = sklearn.metrics.log_loss(liked[most], answers[0][most].astype(float))
    assert found.loc[("ratings", "60+"), "log_loss"] == pytest.approx(expected, rel=1e-5)

    def auc(values: np.ndarray) -> Callable[[np.ndarray], dict[str, float]]:
        return lambda weights: {"auc": float(sklearn.metrics.roc_auc_score(liked, values, sample_weight=weights))}

    table = evaluation.bootstrap_comparison(
        {"first": auc(answers[0]), "second": auc(answers[1]), "guess": auc(np.zeros(len(liked)))}, users, samples=50
    )
    low, high = table.loc[("guess", "auc"), ["difference_low", "difference_high"]]
    assert low < high < 0  # both models are better than no model, for any users
    low, high = table.loc[("second", "auc"), ["difference_low", "difference_high"]]
    assert low < 0 < high  # of two seeds, neither is better


def test_noise_is_off_in_predictions(past: pd.DataFrame, future: pd.DataFrame) -> None:
    noise = models.Regularization(
        l2=1e-5, dropout=0.2, embedding_dropout=0.2, feature_dropout=0.2, expert_dropout=0.2, mixup=0.2
    )
    trunk = layers.MMoE(num_experts=2, units=[8])
    noisy = movielens.trained(past, regularization=noise, trunk=trunk)
    first, again = predicted(noisy, future), predicted(noisy, future)
    assert all((first[name] == again[name]).all() for name in first)
    mean = past["rating"].mean()
    assert squared_error(noisy, future) < np.mean((future["rating"] - mean) ** 2)


def test_folds_roll_forward_and_nothing_of_the_future_is_learned(past: pd.DataFrame) -> None:
    span = int(past["timestamp"].max() - past["timestamp"].min()) // 10
    vocabularies = []

    def recipe(train: pd.DataFrame) -> models.MultiTaskModel:
        vocabularies.append(set(train["movieId"]))
        return movielens.trained(train, epochs=1)

    def judged(model: models.MultiTaskModel, test: pd.DataFrame) -> dict[str, float]:
        assert set(model.preprocessor.statistics.vocabularies["movieId"]) == vocabularies[-1]
        return {"mse": squared_error(model, test)}

    folds = data.rolling_origin(past, "timestamp", folds=2, horizon=span)
    found = tuning.cross_validate(recipe, folds, evaluate=judged)
    assert len(found.scores) == 2
    assert found.mean()["mse"] < 1.2
    assert vocabularies[0] <= vocabularies[1]


def test_a_new_head_on_an_old_trunk_learns_from_few_labels(past: pd.DataFrame, future: pd.DataFrame) -> None:
    """With 200 labels; the other model was trained on watched movies and 6,000 ratings."""
    source = movielens.trained(past, epochs=4, names=["watched", "rating"])
    few = past.sample(200, random_state=1)
    found = {}
    for name in ("scratch", "warm"):
        target = movielens.model(past, seed=5, names=["liked"])
        if name == "warm":
            report = adaptation.warm_start(target, source)
            assert report.aligned["userId"] == (past["userId"].nunique(),) * 2
            adaptation.freeze(target, ["embeddings", "towers"])
        target.fit(few, batch_size=50, epochs=10, verbose=0)
        found[name] = evaluation.evaluate(target, future)["liked", "auc"]
    assert found["warm"] > found["scratch"] + 0.03, found


def test_reptile_adapts_to_users_it_has_not_seen(past: pd.DataFrame) -> None:
    users = past["userId"].value_counts()
    users = users.index[users >= 40]
    known, new = users[: len(users) // 2], users[len(users) // 2 :]
    base = movielens.trained(past[past["userId"].isin(known)])
    learner = adaptation.Reptile(base, 0.1, 3, adapt="all")
    table = past[past["userId"].isin(known)]
    learner.fit(table.assign(user=table["userId"]), "user", support=10, query=20, epochs=1, seed=0)
    before, after = [], []
    for user in new[:15]:
        rows = past[(past["userId"] == user) & past["movieId"].isin(table["movieId"])]
        support, rest = rows.head(20), rows.iloc[20:]
        before.append(squared_error(base, rest))
        with learner.adapted_to(support) as adapted:
            after.append(squared_error(adapted, rest))
    assert np.mean(after) < np.mean(before)
    assert squared_error(base, rest) == before[-1]  # the model itself is unchanged


def test_it_continues_training_with_new_users_and_movies(tmp_path: pathlib.Path) -> None:
    table = movielens.ratings()
    cuts = [int(share * len(table)) for share in (EARLY, LATE, 1.0)]
    base = table.iloc[: cuts[0]]
    learner = adaptation.OnlineLearner(movielens.trained(base), tmp_path, replay=base, batch_size=256)
    assert len(learner.replay or []) == len(base)
    for number, (start, end) in enumerate(itertools.pairwise(cuts)):
        rows = table.iloc[start:end]
        before = learner.evaluate(rows)
        known = set(learner.model.preprocessor.statistics.vocabularies["userId"])
        done = learner.step(rows, f"part {number}", candidates=table.iloc[:end])
        assert done.metrics == before  # tested before training
        assert done.grown["userId"] == len(set(rows["userId"]) - known) > 0
        assert learner.evaluate(rows)["rating_rmse"] < before["rating_rmse"]
    resumed = adaptation.OnlineLearner.resume(tmp_path)
    assert [increment.name for increment in resumed.increments] == ["part 0", "part 1"]
    rows = table.iloc[-100:]
    for name, values in predicted(learner.model, rows).items():
        np.testing.assert_array_equal(predicted(resumed.model, rows)[name], values)


def test_the_mean_of_two_is_better_than_one_of_them(members: list[models.MultiTaskModel], future: pd.DataFrame) -> None:
    both = ensembling.ensemble(members)
    apart = [squared_error(member, future) for member in members]
    assert squared_error(both, future) < np.mean(apart)  # Jensen: squares are convex, and the members differ
    weights = ensembling.fit_weights(members, future)
    fitted = squared_error(ensembling.ensemble(members, weights), future)
    assert fitted <= min([*apart, squared_error(both, future)]) + 1e-5

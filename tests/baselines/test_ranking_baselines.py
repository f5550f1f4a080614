"""Baselines of ranking tasks: known answers, rates against a plain loop, and labels that nothing predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tfmtl.baselines import GradientBoosting, RankingBaseline, TfidfLinear
from tfmtl.baselines.ranking_baseline import Target
from tfmtl.baselines.tabular_features import TabularFeatures
from tfmtl.data import Categorical, IdSequence, Label, Numeric, Schema, Text, Vector
from tfmtl.tasks import BinaryClassification, MultiClassClassification, Regression, Retrieval

SCHEMA = Schema(
    query=[Categorical("user", dtype="int64"), Numeric("hour"), IdSequence("history", of="item", max_length=4)],
    candidate=[Categorical("item"), Vector("mix", size=2), Text("title")],
    labels=[Label("liked"), Label("stars", sample_weight="trust"), Label("mood", classes=("sad", "calm", "glad"))],
)
LIKED, STARS, MOOD = BinaryClassification("liked"), Regression("stars"), MultiClassClassification("mood", 3)
WORDS = {"good": 1.0, "bad": 0.0, "fine": 1.0, "awful": 0.0}


def table(rows: int, seed: int) -> pd.DataFrame:
    """Return rows in which the item decides the rate of `liked`, the hour the stars, a word of the title the mood."""
    generator = np.random.default_rng(seed)
    item, hour = generator.integers(0, 40, rows), generator.uniform(0, 24, rows)
    words = generator.choice(list(WORDS), rows)
    frame = pd.DataFrame(
        {
            "user": generator.integers(0, 50, rows),
            "hour": hour,
            "history": [[f"i{h}" for h in generator.integers(0, 40, 2)] for _ in range(rows)],
            "item": [f"i{i}" for i in item],
            "mix": list(generator.normal(size=(rows, 2))),
            "title": [f"a {word} thing {n}" for word, n in zip(words, generator.integers(0, 9, rows), strict=True)],
            "rate": (item + 1) / 41,
            "trust": generator.uniform(0.5, 2, rows),
        }
    )
    frame["liked"] = (generator.uniform(size=rows) < frame["rate"]).astype(float)
    frame["stars"] = 1 + 4 * (hour > 12)
    frame["mood"] = np.where([WORDS[word] for word in words], "glad", "sad")
    return frame


TRAIN, TEST = table(3000, 1), table(2000, 2)


def test_gradient_boosting_finds_the_rates_of_items() -> None:
    found = GradientBoosting(max_iter=100).fit(SCHEMA, LIKED, TRAIN).predict(TEST)
    best = roc_auc_score(TEST["liked"], TEST["rate"])
    assert best > 0.8
    assert best - 0.04 < roc_auc_score(TEST["liked"], found) < best + 0.01
    assert found.min() >= 0
    assert found.max() <= 1


def test_gradient_boosting_finds_the_hour() -> None:
    found = GradientBoosting(max_iter=100).fit(SCHEMA, STARS, TRAIN).predict(TEST)
    near = np.abs(TEST["hour"] - 12) < 0.25  # a bin of the histogram is a tenth of an hour
    assert (np.abs(found - TEST["stars"])[~near] < 0.2).mean() > 0.99
    assert found.max() <= 5


def test_tfidf_finds_the_word() -> None:
    found = TfidfLinear().fit(SCHEMA, MOOD, TRAIN).predict(TEST)
    assert found.shape == (2000, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found[:, 1] == 0).all()  # no training row is calm
    assert (found.argmax(axis=1) == TEST["mood"].map({"sad": 0, "glad": 2})).all()
    report = MOOD.report(TEST["mood"].map({"sad": 0.0, "glad": 2.0}).to_numpy(), found, np.ones(2000))
    assert report["accuracy"] == report["macro_auc"] == 1
    stars = TEST.assign(stars=TEST["title"].str.contains("good|fine") * 2.0)
    ridge = TfidfLinear(strength=10.0).fit(SCHEMA, STARS, TRAIN.assign(stars=TRAIN["mood"].eq("glad") * 2.0))
    np.testing.assert_allclose(ridge.predict(stars), stars["stars"], atol=0.25)


@pytest.mark.parametrize("baseline", [GradientBoosting(max_iter=30), TfidfLinear()], ids=["boosting", "tfidf"])
def test_labels_that_nothing_predicts_are_not_predicted(baseline: RankingBaseline) -> None:
    # Each user has about three rows: a rate with the row's own label would give an AUC near 1 in training.
    generator = np.random.default_rng(5)
    users = {"user": generator.integers(0, 1000, 3000), "liked": generator.integers(0, 2, 3000).astype(float)}
    random, other = TRAIN.assign(**users), TEST.assign(liked=generator.integers(0, 2, 2000).astype(float))
    found = baseline.fit(SCHEMA, LIKED, random).predict(other)
    assert abs(roc_auc_score(other["liked"], found) - 0.5) < 0.04
    if isinstance(baseline, GradientBoosting):
        features = [SCHEMA.features["user"]]
        target = Target(users["liked"], np.ones(3000), np.arange(3000), 2)
        matrix = TabularFeatures(features, 1.0, 5, 0).fit_transform({"user": users["user"]}, target, np.arange(3000))
        assert abs(roc_auc_score(users["liked"], matrix[:, 2]) - 0.5) < 0.06


def encoder(values: list[Any], labels: list[float], weights: list[float], groups: list[int], classes: int) -> Any:
    """Return fitted features of one category with smoothing 2, the matrix of the training rows, and their folds."""
    feature = Categorical("item")
    target = Target(np.array(labels), np.array(weights), np.array(groups), classes)
    features = TabularFeatures([feature], 2.0, 2, 3)
    matrix = features.fit_transform({"item": np.array(values, object)}, target, np.arange(len(values)))
    fold = np.random.default_rng(3).integers(0, 2, len(set(groups)))[np.array(groups)]
    return features, matrix, fold


def test_rates_are_those_of_other_folds() -> None:
    values, labels, weights = list("aabbab"), [1.0, 0.0, 1.0, 1.0, 1.0, 0.0], [1.0, 2.0, 1.0, 1.0, 0.5, 1.0]
    features, matrix, fold = encoder(values, labels, weights, [0, 1, 2, 3, 4, 4], 2)
    assert len(set(fold)) == 2
    assert fold[4] == fold[5]
    for row, value in enumerate(values):
        others = [i for i in range(6) if fold[i] != fold[row]]
        mean = np.average([labels[i] for i in others], weights=[weights[i] for i in others])
        own = [i for i in others if values[i] == value]
        total = sum(weights[i] for i in own)
        rate = (sum(weights[i] * labels[i] for i in own) + 2 * mean) / (total + 2)
        np.testing.assert_allclose(matrix[row], ["ab".index(value), 2, rate])  # two other rows have the value
    # New rows use all rows: a has 1.5 of 3.5, b 2 of 3, all 3.5 of 6.5; "z" is new.
    mean = 3.5 / 6.5
    wanted = [[0, 3, (1.5 + 2 * mean) / 5.5], [1, 3, (2 + 2 * mean) / 5], [np.nan, 0, mean]]
    np.testing.assert_allclose(features.transform({"item": np.array(["a", "b", "z"], object)}), wanted)


def test_classes_have_a_rate_each_and_a_missing_category_is_a_category() -> None:
    features, matrix, _ = encoder(["a", "", "a", ""], [0.0, 1.0, 2.0, 1.0], [1.0] * 4, [0, 1, 2, 3], 3)
    assert matrix.shape == (4, 5)
    np.testing.assert_array_equal(matrix[:, 0], [1, 0, 1, 0])
    np.testing.assert_allclose(matrix[:, 2:].sum(axis=1), 1)
    new = features.transform({"item": np.array([""], object)})[0]
    np.testing.assert_allclose(new[2:], [0.5 / 4, (2 + 1) / 4, 0.5 / 4])  # (sum + 2 mean) / (2 + 2)


def test_a_query_task_reads_no_id_of_the_user_and_no_candidate() -> None:
    task = BinaryClassification("liked", scope="query")
    assert [feature.name for feature in GradientBoosting.features(SCHEMA, task)] == ["hour", "history"]
    assert TfidfLinear.features(SCHEMA, task) == []
    names = [feature.name for feature in TfidfLinear.features(SCHEMA, LIKED)]
    assert names == ["user", "item", "title"]
    labelled = TRAIN.assign(liked=(TRAIN["user"] % 2).astype(float))  # each user has one label, which no feature shows
    found = GradientBoosting(max_iter=30).fit(SCHEMA, task, labelled).predict(TEST)
    assert abs(roc_auc_score(TEST["user"] % 2, found) - 0.5) < 0.05
    # Held-out rows of the same users would choose hundreds of trees, which memorize users; new users stop them.
    profile = TRAIN.assign(hour=TRAIN["user"] + 0.5, liked=(TRAIN["user"] * 7919 % 13 > 6).astype(float))
    baseline = GradientBoosting(max_iter=100).fit(SCHEMA, task, profile)
    assert baseline._estimator.n_iter_ < 20


def test_rows_without_a_label_or_a_weight_do_not_count() -> None:
    noise = TRAIN.assign(stars=np.nan)
    lightless = TRAIN.assign(stars=1000.0, trust=0.0)
    plain = GradientBoosting(max_iter=5).fit(SCHEMA, STARS, TRAIN).predict(TEST)
    found = GradientBoosting(max_iter=5).fit(SCHEMA, STARS, pd.concat([TRAIN, noise, lightless])).predict(TEST)
    np.testing.assert_array_equal(found, plain)


def test_equal_labels_are_predicted_and_few_rows_suffice() -> None:
    ones = GradientBoosting().fit(SCHEMA, LIKED, TRAIN.assign(liked=1.0)).predict(TEST)
    np.testing.assert_array_equal(ones, np.ones(2000))
    glad = TfidfLinear().fit(SCHEMA, MOOD, TRAIN.assign(mood="glad")).predict(TEST[:2])
    np.testing.assert_allclose(glad, [[0, 0, 1], [0, 0, 1]], atol=1e-9)
    two = TRAIN[:2].assign(liked=[0.0, 1.0], title="")
    for baseline in (GradientBoosting(), TfidfLinear()):
        assert np.isfinite(baseline.fit(SCHEMA, LIKED, two).predict(TEST)).all()


def test_numbers_that_are_mostly_or_always_missing_are_numbers() -> None:
    features = TabularFeatures([Numeric("none"), Numeric("few"), Numeric("most")], 1.0, 2, 0)
    nan = np.nan
    columns = {"none": np.full(4, nan), "few": np.array([nan, nan, -3.0, nan]), "most": np.array([1.0, 2.0, nan, 3.0])}
    target = Target(np.arange(4.0), np.ones(4), np.arange(4), 0)
    matrix = features.fit_transform(columns, target, np.arange(4))
    np.testing.assert_array_equal(matrix, [[0, -6, 1], [0, -6, 2], [0, -3, nan], [0, -6, 3]])
    np.testing.assert_array_equal(features.transform({name: np.array([nan]) for name in columns}), [[0, -6, nan]])
    absent = TRAIN.assign(hour=np.nan, item=None)
    absent.loc[7, "hour"] = 3.0
    assert np.isfinite(GradientBoosting(max_iter=3).fit(SCHEMA, LIKED, absent).predict(TEST)).all()


def test_max_rows_bounds_the_fit_and_the_seed_chooses_the_rows() -> None:
    sizes = []
    for seed in (0, 0, 1):
        baseline = GradientBoosting(max_iter=3, max_rows=500, seed=seed).fit(SCHEMA, LIKED, TRAIN)
        sizes.append(baseline.predict(TEST))
    np.testing.assert_array_equal(sizes[0], sizes[1])
    assert not np.array_equal(sizes[0], sizes[2])
    target = Target(np.zeros(9), np.ones(9), np.arange(9), 0)
    assert len(set(target.sample(4, 0))) == 4
    np.testing.assert_array_equal(target.sample(9, 0), np.arange(9))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GradientBoosting().fit(SCHEMA, Retrieval("liked"), TRAIN), TypeError, "`task` must be Binary"),
        (lambda: GradientBoosting().fit(SCHEMA, LIKED, TRAIN.assign(liked=np.nan)), ValueError, "no label of the task"),
        (lambda: GradientBoosting().predict(TEST), ValueError, "Call `fit` of GradientBoosting"),
        (lambda: TfidfLinear().fit(Schema([Numeric("hour")], labels=[Label("liked")]), LIKED, TRAIN), ValueError,
         "no feature that TfidfLinear uses"),
        (lambda: GradientBoosting(folds=1), ValueError, "`folds` must be at least 2"),
        (lambda: GradientBoosting(max_rows=0), ValueError, "`max_rows` must be a positive integer"),
        (lambda: GradientBoosting(smoothing=0), ValueError, "`smoothing` must be above 0"),
        (lambda: TfidfLinear(strength=0), ValueError, "`strength` must be above 0"),
    ],
)  # fmt: skip
def test_refuses(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()

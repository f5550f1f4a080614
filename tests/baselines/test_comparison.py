"""A model beside its baselines: the metrics of `evaluate`, the choice of baselines, and the sentence."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl import baselines, evaluation
from tfmtl.baselines import ALS, comparison
from tfmtl.data import Categorical, Label, Numeric, Preprocessor, Schema, Text
from tfmtl.evaluation.reports.outcomes import Outcome, judged_by
from tfmtl.models import Candidates, MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification, MultiClassClassification, Regression, Retrieval

SCHEMA = Schema(
    query=[Categorical("user", min_count=2), Numeric("hour")],
    candidate=[Categorical("item"), Text("title")],
    labels=[Label("bought"), Label("liked"), Label("stars"), Label("mood", classes=("sad", "glad"))],
)
COLUMNS = ["user", "item", "bought", "day"]
# "eve" and "fay" occur once and share the unknown index; each of them bought one item twice.
ROWS = [
    ("ann", "a", 1, 1), ("ann", "a", 1, 2), ("ann", "b", 1, 3), ("bob", "a", 1, 1), ("bob", "c", 1, 5),
    ("bob", "b", 0, 5), ("eve", "d", 1, 6), ("fay", "e", 1, 7), ("cem", "b", 1, 2), ("cem", "a", 1, 3),
]  # fmt: skip


def filled(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """Return a table with the other columns of the schema."""
    frame = pd.DataFrame(rows, columns=COLUMNS)
    number = np.arange(len(frame))
    return frame.assign(
        hour=number % 5,
        title="the " + frame["item"],
        liked=number % 2,
        stars=number % 4,
        mood=["sad", "glad"] * (len(frame) // 2),
    )


TRAIN = filled(ROWS)
TEST = filled([("ann", "b", 1, 9), ("eve", "d", 1, 9), ("fay", "e", 1, 9), ("new", "a", 1, 9)])


@functools.cache
def model() -> MultiTaskModel:
    preprocessor = Preprocessor.fit(SCHEMA, TRAIN)
    tasks = [
        Retrieval("bought"),
        BinaryClassification("liked"),
        Regression("stars"),
        MultiClassClassification("mood", 2),
    ]
    network = build_network(preprocessor, tasks, embedding_dim=2, tower_units=[2])
    built = MultiTaskModel(network, tasks, preprocessor, candidates=Candidates.from_frame(TRAIN, preprocessor))
    built.compile("sgd", run_eagerly=True)
    return built


@functools.cache
def compared() -> baselines.Comparison:
    return baselines.compare(model(), TRAIN, TEST, ks=(1, 3), time="day")


def test_columns_are_the_model_and_the_baselines_that_apply() -> None:
    table = compared().table
    retrieval = ["Popularity", "RecentPopularity", "PersonalFrequency", "ItemKNN", "EASE"]
    assert [n for n in table.columns if n != "ALS"] == [
        "model",
        *retrieval,
        "Constant",
        "GradientBoosting",
        "TfidfLinear",
    ]
    assert ("ALS" in table) == ALS.installed()
    own = evaluation.evaluate(model(), TEST, ks=(1, 3))
    pd.testing.assert_series_equal(table["model"], own, check_names=False)
    assert table.loc["bought", retrieval].notna().all(axis=None)
    assert table.loc["bought", ["Constant", "GradientBoosting"]].isna().all(axis=None)
    assert table.loc["stars", ["Constant", "GradientBoosting", "TfidfLinear"]].notna().all(axis=None)


def test_tuned_baselines_have_the_names_of_their_classes() -> None:
    table = baselines.compare(model(), TRAIN, TEST, tasks=["bought"], ks=(1, 3), tune=True).table
    assert [n for n in table.columns if n != "ALS"] == ["model", "Popularity", "PersonalFrequency", "ItemKNN", "EASE"]
    assert table.notna().all(axis=None)


def test_metrics_are_those_of_evaluate() -> None:
    table = compared().table
    trivial = evaluation.trivial_baseline(model(), TRAIN, TEST, ks=(1, 3))
    for task, baseline in {
        "bought": "Popularity",
        "liked": "Constant",
        "stars": "Constant",
        "mood": "Constant",
    }.items():
        expected = trivial[trivial.index.get_level_values("task") == task]
        pd.testing.assert_series_equal(table[baseline].loc[expected.index], expected, check_names=False)


def test_ids_outside_the_vocabulary_keep_their_own_history() -> None:
    # eve has d and fay has e at rank 0, although both are encoded as the unknown user; new has the popular a at rank 0;
    # ann has b at rank 1, behind a.
    assert compared().table.loc[("bought", "recall@1"), "PersonalFrequency"] == 3 / 4
    assert compared().table.loc[("bought", "recall@3"), "PersonalFrequency"] == 1


def test_seen_candidates_are_removed_and_baselines_that_do_not_apply_are_left_out() -> None:
    once = TRAIN.drop_duplicates(["user", "item"])
    test = filled([("ann", "c", 1, 9), ("bob", "b", 1, 9), ("new", "a", 1, 9), ("new", "b", 1, 9)])
    found = baselines.compare(model(), once, test, tasks=["bought"], seen=TRAIN, ks=1).table
    assert not {"PersonalFrequency", "RecentPopularity", "Constant"} & set(found.columns)
    # Without their own items: c ties with d and e for ann, b is first for bob, and new has a first and b second.
    assert found.loc[("bought", "recall@1"), "Popularity"] == 1 / 2
    pd.testing.assert_series_equal(
        found["Popularity"],
        evaluation.trivial_baseline(model(), once, test, seen=TRAIN, ks=1).loc[["bought"]],
        check_names=False,
    )


def test_new_users_are_given_popular_candidates() -> None:
    test = filled([("new", "a", 1, 9), ("other", "b", 1, 9)])
    found = baselines.measure(model(), TRAIN, test, tasks=["bought"], ks=(1, 2))
    values = [report.tolist() for report in found.values()]
    assert all(value == values[0] for value in values)


def test_progress_counts_baselines() -> None:
    seen: list[tuple[int, int]] = []
    found = baselines.measure(model(), TRAIN, TEST, tasks=["stars"], progress=lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert list(found) == ["Constant", "GradientBoosting", "TfidfLinear"]


def frame(**values: list[float]) -> pd.DataFrame:
    names = [("bought", "ndcg@10"), ("bought", "ndcg@100"), ("stars", "rmse"), ("liked", "auc")]
    return pd.DataFrame(values, pd.MultiIndex.from_tuples(names, names=["task", "metric"]))


def outcome(metric: str, *values: float) -> Outcome:
    """Return the outcome with one value for each user, of which the metric is the mean."""
    rows = np.asarray(values)
    return Outcome(
        {metric: float(rows.mean())}, lambda w: {metric: float(np.average(rows, weights=w))}, np.arange(len(rows))
    )


def test_sentence_judges_each_task_by_its_first_metric_with_an_interval() -> None:
    found = comparison.compared(
        {
            "model": {
                "bought": outcome("ndcg@10", 0.1, 0.3),
                "stars": outcome("rmse", 0.9, 0.9),
                "liked": outcome("auc", 0.7, 0.5),
                "mood": outcome("loss", 1.0),
            },
            "ALS": {"bought": outcome("ndcg@10", 0.2, 0.4)},
            "Constant": {
                "bought": outcome("ndcg@10", 0.1, 0.1),
                "stars": outcome("rmse", 1.0, 1.0),
                "liked": outcome("auc", 0.5, 0.75),
            },
        }
    )
    assert found.sentence == (
        "bought: the model's ndcg@10 0.2 is worse than ALS 0.3, the best of 2 baselines (by -0.1, in 95 % of samples "
        "-0.1 to -0.1): the network is not worth it yet; "
        "stars: the model's rmse 0.9 is better than Constant 1, the only baseline (by +0.1, in 95 % of samples +0.1 to "
        "+0.1); "
        "liked: the model's auc 0.6 is level with Constant 0.625, the only baseline (by -0.025, in 95 % of samples "
        "-0.25 to +0.2): the network is not worth it yet; "
        "mood: there is nothing to compare with."
    )
    assert found.best == {"bought": "ALS", "stars": "Constant", "liked": "Constant"}
    assert found.gains["bought"].verdict == "worse"
    for text in (str(found), repr(found), found._repr_html_()):
        assert found.sentence in text


def test_gains_are_differences_of_the_table() -> None:
    """Two methods with the same lists differ by exactly 0, and a gain is that of the table."""
    table, gains, best = compared().table, compared().gains, compared().best
    assert set(gains) == set(best)
    for task, metric, sign in (("bought", "ndcg@1", 1), ("stars", "rmse", -1)):
        own, other = table.loc[(task, metric), ["model", best[task]]]
        assert gains[task].value == pytest.approx(sign * (own - other))
        assert gains[task].low <= gains[task].value <= gains[task].high


def test_strongest_ignores_reports_without_a_value() -> None:
    nan = float("nan")
    table = frame(a=[nan, 0.9, 2.0, nan], b=[0.1, 0.1, 3.0, nan])
    reports = {name: table[name] for name in table}
    assert [baselines.strongest(reports, task) for task in ("bought", "stars", "liked", "none")] == [
        "b",
        "a",
        None,
        None,
    ]
    assert judged_by(table["a"], "bought") == "ndcg@10"


def test_quantiles_are_judged_by_their_pinball_loss() -> None:
    found = comparison.compared(
        {"model": {"watch": outcome("pinball", 1.0)}, "GBT": {"watch": outcome("pinball", 2.0)}}
    )
    assert found.best == {"watch": "GBT"}
    assert found.gains["watch"].value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: baselines.measure(model(), TRAIN, TEST, tasks=["buys"]), "Unknown task .'buys'. in `tasks`"),
        (
            lambda: baselines.measure(model(), TRAIN.assign(bought=0), TEST),
            "no positive of the retrieval task 'bought'",
        ),
        (lambda: baselines.measure(model(), TRAIN.assign(item="zzz"), TEST), "No positive interaction is inside"),
        (lambda: baselines.measure(model(), TRAIN, TEST, time="daytime"), "Unknown column .'daytime'."),
    ],
)
def test_refuses(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_forgotten_seen_rows_are_named_where_nothing_repeats() -> None:
    fresh = filled([("ann", "c", 1, 9), ("bob", "b", 1, 9), ("new", "a", 1, 9), ("new", "b", 1, 9)])
    hint = "only 0.0% of the test positives are such pairs; pass `seen=train`"
    assert hint in baselines.compare(model(), TRAIN, fresh, tasks=["bought"], ks=1).sentence
    assert "seen" not in baselines.compare(model(), TRAIN, fresh, tasks=["bought"], ks=1, seen=TRAIN).sentence
    assert "seen" not in baselines.compare(model(), TRAIN, fresh, tasks=["stars"]).sentence
    assert "seen" not in compared().sentence  # three of four pairs repeat
    strangers = filled([("new", "a", 1, 9), ("newer", "b", 1, 9)])
    assert "seen" not in baselines.compare(model(), TRAIN, strangers, tasks=["bought"], ks=1).sentence

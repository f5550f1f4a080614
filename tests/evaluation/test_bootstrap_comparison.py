"""Slices and comparisons: sums over parts, coverage of intervals, paired differences, signs of gains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl import evaluation
from tfmtl.evaluation import activity, as_table, bootstrap_comparison, by_slice, delta_m, popularity_tiers, quantiles


def test_slices_are_measured_on_their_rows_alone() -> None:
    rng = np.random.default_rng(0)
    labels, predictions, weights = rng.normal(size=50), rng.normal(size=50), rng.random(50)
    part = rng.choice(["x", "y"], 50)
    found = by_slice(evaluation.regression_metrics, {"kind": part}, labels, predictions, weights)
    for name in ("x", "y"):
        own = part == name
        expected = evaluation.regression_metrics(labels[own], predictions[own], weights[own])
        assert found.loc[("kind", name)].to_dict() == pytest.approx({"rows": own.sum(), **expected})
    assert found.loc[("all", ""), "rows"] == 50 == found.loc["kind", "rows"].sum()


def test_parts_without_a_label_are_nan_and_missing_parts_none() -> None:
    found = by_slice(evaluation.retrieval_metrics, {"a": ["p", None, "q"]}, [0.0, 1.0, 2.0], [1, 2, 3], ks=(1,))
    assert found.index.tolist() == [("all", ""), ("a", "p"), ("a", "q")]
    assert found["recall@1"].tolist() == pytest.approx([1 / 3, 1, 0])
    one_class = by_slice(evaluation.binary_metrics, {"a": ["p", "p", "q"]}, [0, 1, 1], [0.1, 0.2, 0.3])
    assert np.isnan(one_class.loc[("a", "q"), "auc"])


@pytest.mark.parametrize("slices", [{"a": ["p"]}, {"a": ["p"] * 4}])
def test_a_slice_of_another_length_is_refused(slices: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="Slice 'a' must have a part for each of the 3 rows"):
        by_slice(evaluation.regression_metrics, slices, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])


def test_makers_of_slices() -> None:
    train = ["a"] * 20 + ["b"] * 5 + ["c"]
    assert list(activity(["a", "b", "c", "d"], train)) == ["20+", "5-19", "1-4", "0"]
    # Of 26 rows a has 77 %, at least one half: it alone is the head. b begins at 77 %, c at 96 %.
    assert list(popularity_tiers(["a", "b", "c", "d"], train)) == ["head", "middle", "tail", "tail"]
    assert quantiles(np.arange(8.0)).codes.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(ValueError, match="ascend"):
        activity(["a"], train, edges=(5, 2))


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(100):
        values = np.random.default_rng(seed).normal(1.0, 2.0, 60)
        models = {"m": lambda w, v=values: {"mean": float(np.average(v, weights=w))}}
        row = bootstrap_comparison(models, np.arange(60), samples=200, level=0.9, seed=seed).loc[("m", "mean")]
        covered += row["low"] <= 1.0 <= row["high"]
    assert 80 <= covered <= 97  # 90 of 100 within three deviations


def test_users_are_drawn_whole() -> None:
    # One user has all rows except one. Her rows are drawn together, so that the mean is 0, 9/11 or 1.
    labels, users = np.array([1.0] * 9 + [0.0]), ["u"] * 9 + ["v"]
    drawn: list[float] = []

    def mean(weights: np.ndarray) -> dict[str, float]:
        drawn.append(float(np.average(labels, weights=weights)))
        return {"mean": drawn[-1]}

    bootstrap_comparison({"m": mean}, users, samples=50)
    assert set(np.round(drawn, 6)) == {0.0, 0.9, 1.0}


def test_differences_are_paired() -> None:
    values = np.random.default_rng(0).normal(0, 10, 40)
    models = {
        name: (lambda w, s=shift: {"mean": float(np.average(values + s, weights=w))})
        for name, shift in (("old", 0.0), ("new", 0.1))
    }
    row = bootstrap_comparison(models, np.arange(40), baseline="old", samples=100).loc[("new", "mean")]
    assert row["high"] - row["low"] > 3  # each mean alone is uncertain, their difference is not
    assert [row["difference"], row["difference_low"], row["difference_high"]] == pytest.approx([0.1] * 3)


def test_the_same_seed_gives_the_same_table() -> None:
    models = {"m": lambda w: {"share": float(w[0] / w.sum())}}
    tables = [bootstrap_comparison(models, list("abcdefghij"), samples=20, seed=seed) for seed in (1, 1, 2)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0].equals(tables[2])
    assert as_table(tables[0]).loc["m", "share"].startswith("0.1000 (")


@pytest.mark.parametrize(
    ("models", "options", "sentence"),
    [
        ({}, {}, "at least one model"), ({"m": dict}, {"baseline": "n"}, "baseline"),
        ({"m": dict}, {"samples": 0}, "samples"),
    ],
)  # fmt: skip
def test_bad_comparisons_are_named(models: dict, options: dict, sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        bootstrap_comparison(models, ["u"], **options)


def test_delta_m_has_the_sign_of_what_is_better() -> None:
    # AUC 0.8 to 0.88 is +10 %, RMSE 1.0 to 1.1 is -10 %: Delta_m 0; each metric alone has its sign.
    values, single = {"auc": 0.88, "rmse": 1.1}, {"auc": 0.8, "rmse": 1.0}
    assert delta_m(values, single, {"auc": "max", "rmse": "min"}) == pytest.approx(0)
    assert delta_m(values, single, {"auc": "max"}) == pytest.approx(0.1)
    assert delta_m(values, single, {"rmse": "min"}) == pytest.approx(-0.1)
    with pytest.raises(ValueError, match="direction"):
        delta_m(values, single, {"auc": "up"})
    with pytest.raises(ValueError, match="single-task value"):
        delta_m(values, {"auc": 0.0}, {"auc": "max"})


def test_the_picture_shows_each_model_and_its_interval() -> None:
    plots = pytest.importorskip("tfmtl.evaluation.plots")
    models = {n: (lambda w, k=k: {"a": float(w[k] / w.sum()), "b": 1.0}) for k, n in enumerate(("old", "new"))}
    compared = bootstrap_comparison(models, list("abcdefghij"), samples=30)
    figure = plots.intervals(compared, ["a"])
    (panel,) = figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["old", "new"]
    points = panel.lines[0].get_xdata()
    rows = compared.xs("a", level="metric")
    assert points.tolist() == pytest.approx(rows["value"].tolist())
    (bars,) = panel.containers[0].lines[2]
    ends = np.array([segment[:, 0] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, rows[["low", "high"]], rtol=1e-6)
    assert figure.get_size_inches().tolist() == pytest.approx([3.2, 0.4 * 2 + 1])
    with pytest.raises(ValueError, match="none of the metrics"):
        plots.intervals(compared, ["c"])


@pytest.mark.parametrize("train", [["7", "7", "8"], [b"7", b"7", b"8"], [7, 7, 8], pd.Series([7, 7, 8], dtype="Int64")])
@pytest.mark.parametrize("own", [["7", "8", "9"], [b"7", b"8", b"9"], [7, 8, 9]])
def test_one_id_is_the_same_in_every_type(own: Any, train: Any) -> None:
    assert list(activity(own, train, edges=(1, 2))) == ["2+", "1", "0"]
    assert list(popularity_tiers(own, train, shares=(0.6, 0.9))) == ["head", "middle", "tail"]


def test_rows_without_an_id_are_no_user() -> None:
    assert list(activity(["a", None, ""], ["a", None, None], edges=(1, 2))) == ["1", "0", "0"]

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from servers.models import MAX_K, build

from tests.serving.exports import Exports
from tfmtl.evaluation import retained_margin
from tfmtl.serving import Budget, BudgetExceeded, ModelCard, compressed_size, export
from tfmtl.serving.budget import Line, table
from tfmtl.serving.warm_up import read_requests, tensor

GOLDEN = pathlib.Path(__file__).parents[2] / "saved_models" / "golden" / "1"
CARD_METRICS = {"rating": {"rmse": 0.5}, "clicked": {"auc": 0.7}, "mood": {"accuracy": None}}
CARD = ModelCard(metrics={("rating", "rmse"): 0.5, ("clicked", "auc"): 0.7, ("mood", "accuracy"): math.nan})


def report(**values: float) -> pd.Series:
    keys = [tuple(name.split("__")) for name in values]
    return pd.Series(list(values.values()), pd.MultiIndex.from_tuples(keys, names=["task", "metric"]))


def test_bounds_are_the_share_of_the_margin_in_the_direction_that_is_better() -> None:
    teacher, trivial = report(rating__rmse=0.9, clicked__auc=0.8), report(rating__rmse=1.1, clicked__auc=0.5)
    metrics = {"rating": "rmse", "clicked": "auc"}
    budget = Budget.keeping(0.75, teacher, trivial, metrics, size=10)
    assert budget.at_most == {("rating", "rmse"): pytest.approx(0.95)}  # 1.1 - 0.75 * 0.2
    assert budget.at_least == {("clicked", "auc"): pytest.approx(0.725)}  # 0.5 + 0.75 * 0.3
    assert budget.size == 10
    bounds = report(rating__rmse=0.95, clicked__auc=0.725)
    np.testing.assert_allclose(retained_margin(bounds, teacher, trivial, metrics), 0.75)


def test_manifest_and_card_hold_the_measurements(exports: Exports) -> None:
    path = exports.described()
    lines = json.loads((path / "assets.extra" / "tfmtl.json").read_text())["budget"]
    assert [line["what"] for line in lines] == [
        "size [kB]", "rank [ms, 3 rows]", "retrieve [ms, 3 rows]", "rating rmse", "clicked auc",
    ]  # fmt: skip
    assert lines[0]["measured"] == pytest.approx(compressed_size(path) / 1000, rel=0.02)
    assert all(line["measured"] > 0 for line in lines)
    assert "| rating rmse | 0.5 | at most 0.5 |" in (path / "assets.extra" / "model_card.md").read_text()


@pytest.mark.parametrize(
    ("budget", "missed"),
    [
        ({"size": 1.0}, "size [kB]"),
        ({"latency": {"rank": 1e-6}}, "rank [ms, 1 rows]"),
        ({"at_most": {("rating", "rmse"): 0.4999}}, "rating rmse"),
        ({"at_least": {("clicked", "auc"): 0.7001}}, "clicked auc"),
        ({"at_least": {("mood", "accuracy"): 0.1}}, "mood accuracy"),
        ({"at_least": {("mood", "log_loss"): 0.1}}, "mood log_loss"),
    ],
)
def test_message_names_the_missed_limit(budget: dict[str, Any], missed: str) -> None:
    requests = {n: {i: tensor(v) for i, v in stored.items()} for n, stored in read_requests(GOLDEN).items()}
    with pytest.raises(BudgetExceeded) as refused:
        Budget(**budget).check(GOLDEN, requests, CARD_METRICS)
    message = str(refused.value)
    assert message.startswith(f"The version misses its budget in {missed}; nothing was published.")
    assert message.count("| missed |") == 1


def test_version_beyond_its_budget_is_not_published(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "model"
    with pytest.raises(BudgetExceeded, match=r"misses its budget in size \[kB\], clicked auc; nothing was published"):
        export(build()[0], folder, max_k=MAX_K, card=CARD, budget=Budget(size=1, at_least={("clicked", "auc"): 0.7001}))
    assert not folder.exists()


def test_table_marks_missed_and_unmeasured_limits() -> None:
    lines = [Line("a", 1.0, 2.0, True), Line("b", 1.0, 2.0, False), Line("c", math.nan, 2.0, True)]
    assert [line.kept for line in lines] == [True, False, False]
    assert table(lines).splitlines()[2:] == [
        "| a | 1 | at most 2 |  |",
        "| b | 1 | at least 2 | missed |",
        "| c | not measured | at most 2 | missed |",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "`size` must be a positive number. Received: received=0"),
        ({"latency": {"rank": math.inf}}, r"`latency\['rank'\]` must be a positive number"),
        ({"at_most": {"rating": 0.4}}, r"Bounds of metrics must be finite numbers by \(task, metric\)"),
        ({"at_least": {("rating", "rmse"): math.nan}}, "Bounds of metrics must be finite numbers"),
        ({"rows": 0}, "`rows` must be a positive integer"),
    ],
)
def test_impossible_limits_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Budget(**arguments)


def test_limits_of_unknown_signatures_and_metrics_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`latency` limits the signatures \['rnak'\]; the version has \['rank'\]"):
        Budget(latency={"rnak": 1.0}).check(GOLDEN, {"rank": {}}, {})
    with pytest.raises(ValueError, match="The reports must have 'auc' of task 'rating'"):
        Budget.keeping(0.9, report(rating__rmse=1.0), report(rating__rmse=2.0), {"rating": "auc"})
    with pytest.raises(ValueError, match="Reference and baseline agree in 'rmse' of task 'rating'"):
        Budget.keeping(0.9, report(rating__rmse=1.0), report(rating__rmse=1.0), {"rating": "rmse"})

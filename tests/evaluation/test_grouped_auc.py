"""AUC within groups: scikit-learn on each group, and values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tfmtl.evaluation.grouped_auc import grouped_auc
from tfmtl.tasks.label_metrics import binary_metrics

NAN = float("nan")


def test_grouped_auc_is_the_average_of_the_groups() -> None:
    rng = np.random.default_rng(2)
    labels, scores = rng.integers(0, 2, 80).astype(float), rng.integers(0, 6, 80) / 5
    labels[::7] = NAN
    groups = rng.integers(0, 12, 80)
    aucs, sizes = [], []
    for group in range(12):
        own = (groups == group) & ~np.isnan(labels)
        if len(set(labels[own])) == 2:
            aucs.append(sklearn_metrics.roc_auc_score(labels[own], scores[own]))
            sizes.append(own.sum())
    assert 2 < len(aucs) < 12  # some groups have one class and do not count
    assert grouped_auc(labels, scores, groups.astype(str)) == pytest.approx(np.average(aucs, weights=sizes))


def test_grouped_auc_ignores_differences_between_groups() -> None:
    labels, scores, groups = np.array([1, 0, 1, 0]), np.array([0.2, 0.1, 0.9, 0.8]), np.array([0, 0, 1, 1])
    assert grouped_auc(labels, scores, groups) == 1
    assert binary_metrics(labels, scores)["auc"] == 0.75
    assert math.isnan(grouped_auc([1, 0], [0.5, 0.5], [0, 1]))
    assert math.isnan(grouped_auc([], [], []))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grouped_auc([0, 1], [0.1, 0.2], [1]), "`groups` must name one group"),
        (lambda: grouped_auc([0, 3], [0.1, 0.2], [1, 1]), "labels must be 0, 1 or NaN"),
    ],
)
def test_refuses(call, message: str) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=message):
        call()

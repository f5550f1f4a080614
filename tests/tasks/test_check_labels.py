from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
import pytest

from tfmtl.data import Categorical, Label, LabelStatistics, Schema, fit_statistics
from tfmtl.tasks import BinaryClassification, MultiClassClassification, Regression, Retrieval, Task


def summary(values: Sequence[float]) -> LabelStatistics:
    schema = Schema([Categorical("user")], labels=[Label("t")])
    return fit_statistics(schema, pd.DataFrame({"user": "u", "t": values})).labels["t"]


@pytest.mark.parametrize(
    ("task", "values"),
    [
        (BinaryClassification("t"), [0, 1, 1]),
        (MultiClassClassification("t", 3), [0, 2]),
        (MultiClassClassification("t", 2000), range(2000)),
        (Regression("t"), [-5, 5]),
        (Regression("t", transform="log1p"), [-0.5, 5]),
        (Retrieval("t"), [1, 1]),
        (Retrieval("t"), [0, 1]),
    ],
)
def test_labels_that_teach_are_accepted(task: Task, values: Sequence[float]) -> None:
    task.check_labels(summary(values))


@pytest.mark.parametrize(
    ("task", "values", "sentence"),
    [
        (
            BinaryClassification("t"),
            [1, 1],
            "Binary task 't' needs training labels 0 and 1, and both. Received: labels=[1.0].",
        ),
        (BinaryClassification("t"), [0, 1, 2], "Received: labels=[0.0, 1.0, 2.0]."),
        (BinaryClassification("t"), [-1, 1], "Received: labels=[-1.0, 1.0]."),
        (BinaryClassification("t"), range(2000), "Received: labels=[0.0, 1999.0]."),
        (
            MultiClassClassification("t", 3),
            [1, 1],
            "Every training label of task 't' is the same class. Received: label=1.0.",
        ),
        (
            MultiClassClassification("t", 3),
            [0, 3],
            "Task 't' needs integer labels from 0 to 2; see `Label.classes` for others.",
        ),
        (MultiClassClassification("t", 3), [-1, 2], "Received: labels=[-1.0, 2.0]."),
        (MultiClassClassification("t", 3), [0, 0.5], "Received: labels=[0.0, 0.5]."),
        (Regression("t"), [3, 3], "Every training label of regression task 't' is the same. Received: label=3.0."),
        (
            Regression("t", transform="log1p"),
            [-1, 3],
            "Task 't' with transform='log1p' needs labels above -1. Received: minimum=-1.0.",
        ),
        (Retrieval("t"), [0, 0], "Retrieval task 't' needs rows with a label above 0. Received: maximum=0.0."),
    ],
)
def test_labels_that_teach_nothing_are_named(task: Task, values: Sequence[float], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        task.check_labels(summary(values))


def test_a_task_of_ones_own_accepts_any_label() -> None:
    Task.check_labels(Regression("t"), summary([3, 3]))


def test_regression_takes_its_scale_from_the_labels() -> None:
    labels = summary([0, 8])
    plain = Regression.from_statistics("t", labels, units=[3])
    assert (plain.offset, plain.scale, plain.clip, plain.units) == (4, 4, (0, 8), (3,))
    logarithm = Regression.from_statistics("t", labels, transform="log1p", clip=None)
    # log 1 = 0 and log 9: mean and deviation are both log 9 / 2 = log 3.
    assert (logarithm.offset, logarithm.scale) == pytest.approx((1.0986123, 1.0986123))
    assert logarithm.clip is None


def test_the_statistics_of_all_labels_are_taken_by_name() -> None:
    schema = Schema([Categorical("user")], labels=[Label("t"), Label("other")])
    statistics = fit_statistics(schema, pd.DataFrame({"user": "u", "t": [1.0, 3.0], "other": [5.0, 9.0]}))
    assert Regression.from_statistics("t", statistics).get_config() == (
        Regression.from_statistics("t", statistics.labels["t"]).get_config()
    )
    assert Regression.from_statistics("t", statistics).offset == 2.0
    with pytest.raises(ValueError, match=r"Unknown task \['tt'\] in the labels of the statistics.*Did you mean 't'"):
        Regression.from_statistics("tt", statistics)

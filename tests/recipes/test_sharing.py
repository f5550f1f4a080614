"""The tasks that the recipe trains apart: retrieval and rare tasks, with the tasks that depend on them."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from tfmtl.data import Categorical, Label, Schema, Statistics, fit_statistics
from tfmtl.recipes.sharing import RARE, apart
from tfmtl.tasks import BinaryClassification, EntireSpaceConversion, Regression, Retrieval, Task

ROWS = 4 * RARE
POSITIVES = {"click": 2 * RARE, "like": RARE, "buy": RARE - 1, "return": 7, "kept": ROWS - 7}


@functools.cache
def statistics() -> Statistics:
    rows = np.arange(ROWS)
    labels = {name: (rows < count).astype(float) for name, count in POSITIVES.items()}
    table = pd.DataFrame({"user": "u", "item": "i", "seen": 1.0, "stars": rows % 5 + 0.0, **labels})
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label(name) for name in list(table)[2:]])
    return fit_statistics(schema, table)


def _groups(*tasks: Task) -> list[list[str]]:
    return [group.tasks for group in apart(tasks, statistics())]


def _binary(*names: str) -> list[Task]:
    return [BinaryClassification(name) for name in names]


def test_retrieval_is_apart_and_frequent_tasks_share() -> None:
    assert _groups(Retrieval("seen"), Regression("stars"), *_binary("click", "like")) == [["seen"]]
    assert _groups(Regression("stars"), *_binary("click", "like")) == []
    assert _groups(Retrieval("seen"), Retrieval("click"), *_binary("like")) == [["seen", "click"]]


def test_a_task_with_few_examples_of_either_class_is_apart() -> None:
    assert _groups(*_binary("click", "like", "buy", "return", "kept")) == [["buy"], ["return"], ["kept"]]
    reasons = {group.tasks[0]: group.reason for group in apart(_binary("click", "buy", "kept"), statistics())}
    assert reasons["buy"] == f"rare: {RARE - 1:,} labels of the rarer class, fewer than {RARE:,}"
    assert reasons["kept"].startswith("rare: 7 labels")


def test_a_chain_is_apart_only_if_all_of_it_is_rare() -> None:
    click, like = _binary("click", "like")
    assert _groups(click, EntireSpaceConversion("buy", after="click"), like) == []
    buy = BinaryClassification("buy")
    assert _groups(click, EntireSpaceConversion("return", after="buy"), buy, like) == [["return", "buy"]]


def test_nothing_is_apart_from_nothing() -> None:
    assert _groups(Retrieval("seen")) == []
    assert _groups(Retrieval("seen"), Retrieval("click")) == []
    assert _groups(*_binary("buy")) == []

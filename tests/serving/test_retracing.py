"""Exports of one process, such as those of an online learner, trace each part of a model once per export."""

from __future__ import annotations

import collections
import dataclasses
import logging
import pathlib
from typing import Any

import pandas as pd
import pytest

from tfmtl._keras import tf
from tfmtl.data import Categorical, Label, Preprocessor, Schema
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.serving import RecommenderExporter
from tfmtl.serving.recommender import Recommender
from tfmtl.serving.signatures import ENTRIES
from tfmtl.tasks import BinaryClassification, Retrieval

PARTS = ("_embed_corpus", "_predict", "_embed_candidates", "_embed_query")


class Few(RecommenderExporter):
    """Serves few signatures, each of which costs time, with all parts."""

    entries = tuple(
        dataclasses.replace(entry, also_from_examples=None)
        for entry in ENTRIES
        if entry.name in ("recommend", "retrieve", "rank")
    )


def shop() -> MultiTaskModel:
    """Return the smallest model that retrieves and ranks."""
    frame = pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "bought": [1.0, 1.0], "liked": [0.0, 1.0]})
    labels = [Label("bought"), Label("liked")]
    schema = Schema([Categorical("user")], [Categorical("item")], labels=labels)
    tasks = [Retrieval("bought"), BinaryClassification("liked")]
    preprocessor = Preprocessor.fit(schema, frame)
    network = build_network(preprocessor, tasks, embedding_dim=2, tower_units=[2])
    return MultiTaskModel(network, tasks, preprocessor)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """The number of calls of each part in Python, which are those of its traces."""
    counts: collections.Counter[str] = collections.Counter()

    def counted(name: str) -> Any:
        plain = getattr(Recommender, name)

        def count(self: Recommender, *args: Any) -> Any:
            counts[name] += 1
            return plain(self, *args)

        return count

    for part in PARTS:
        monkeypatch.setattr(Recommender, part, counted(part))
    return counts


@pytest.fixture
def logged() -> Any:
    """The messages of TensorFlow."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger = tf.get_logger()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    yield records
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.mark.slow
def test_eight_exports_trace_each_part_once_each(
    traces: collections.Counter[str], logged: list[str], tmp_path: pathlib.Path
) -> None:
    """TensorFlow warns from the fifth of the last calls on that a function traced again."""
    model = shop()
    for version in range(1, 9):
        Few(max_k=1).export(model, tmp_path / "shop")
        assert traces == dict.fromkeys(PARTS, version)
    assert [text for text in logged if "retracing" in text] == []


def test_a_retracing_warning_would_be_seen(logged: list[str]) -> None:
    @tf.function
    def traced_again(value: int) -> tf.Tensor:
        return tf.constant(value)

    for value in range(8):
        traced_again(value)
    assert "retracing" in logged[0]

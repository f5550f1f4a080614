from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies

from tests.data.every_kind import LARGE, SCHEMA, table, vocabulary
from tfmtl.data.features import Categorical, IdSequence, MultiValued, Numeric, Text, Vector
from tfmtl.data.schema import Label, Schema
from tfmtl.data.statistics import Statistics, fit_statistics


@dataclasses.dataclass
class Pieces:
    """A source of pieces of given sizes."""

    frame: pd.DataFrame
    sizes: list[int]

    def chunks(self, columns: Iterable[str] | None = None) -> Iterator[pd.DataFrame]:
        assert columns is not None
        start = 0
        for size in [*self.sizes, len(self.frame)]:
            if start < len(self.frame):
                yield self.frame[list(columns)].iloc[start : start + size]
            start += size


def labels_of(values: list[Any], weights: list[float] | None = None) -> Any:
    frame = pd.DataFrame({"user": "u", "y": values, "w": weights if weights else 1.0})
    return fit_statistics(Schema([Categorical("user")], labels=[Label("y", sample_weight="w")]), frame).labels["y"]


def test_vocabularies_are_ordered_by_count_then_value() -> None:
    frame = table()
    statistics = fit_statistics(SCHEMA, frame)
    for name, feature in SCHEMA.vocabularies.items():
        expected = vocabulary(feature, frame[name].tolist())
        assert statistics.vocabularies[name].tolist() == expected, name
    assert statistics.vocabularies["user"].tolist() == ["ann", "bob", "Ünï"]
    assert statistics.counts["user"].tolist() == [3, 2, 1]
    assert statistics.vocabularies["item"].tolist() == [7, 8, LARGE]
    assert statistics.vocabularies["city"].tolist() == ["x", "y"]  # "z" is as frequent as "y", "once" too rare
    assert statistics.vocabularies["genres"].tolist() == ["a", "b", "c"]
    assert statistics.size("user") == 5
    assert statistics.rows == 8


@hypothesis.given(strategies.lists(strategies.sampled_from(["a", "b", "c", "", None]), min_size=1), strategies.data())
def test_pieces_give_the_vocabulary_of_the_whole(values: list[str | None], data: strategies.DataObject) -> None:
    schema = Schema([Categorical("a", min_count=2, max_size=2)])
    frame = pd.DataFrame({"a": pd.Series(values, dtype=object)})
    sizes = data.draw(strategies.lists(strategies.integers(1, 5), max_size=5))
    assert fit_statistics(schema, Pieces(frame, sizes)).get_config() == fit_statistics(schema, frame).get_config()


@pytest.mark.parametrize("sizes", [[1] * 8, [3], [5, 2]])
def test_pieces_give_the_statistics_of_the_whole(sizes: list[int]) -> None:
    frame = table()
    whole, pieces = fit_statistics(SCHEMA, frame), fit_statistics(SCHEMA, Pieces(frame, sizes))
    assert pieces.rows == whole.rows
    for name in whole.vocabularies:
        assert pieces.vocabularies[name].tolist() == whole.vocabularies[name].tolist()
        assert pieces.counts[name].tolist() == whole.counts[name].tolist()
    for name, moments in whole.moments.items():
        np.testing.assert_allclose(pieces.moments[name].mean, moments.mean, rtol=1e-12)
        np.testing.assert_allclose(pieces.moments[name].deviation, moments.deviation, rtol=1e-9)
    for task, summary in whole.labels.items():
        found, expected = dataclasses.asdict(pieces.labels[task]), dataclasses.asdict(summary)
        assert found.pop("frequencies") == pytest.approx(expected.pop("frequencies"))
        assert found == pytest.approx(expected)


def moments_of(values: list[float], transform: Any = "standardize") -> tuple[float, float]:
    schema = Schema([Categorical("user"), Numeric("x", transform=transform)])
    moments = fit_statistics(schema, pd.DataFrame({"user": "u", "x": values})).moments["x"]
    return moments.mean[0], moments.deviation[0]


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e6, 1e30])
def test_moments_at_every_scale(scale: float) -> None:
    # Values 1, 2 and 6 with a missing one: mean 3, variance (4 + 1 + 9) / 3.
    mean, deviation = moments_of([1 * scale, 2 * scale, math.nan, 6 * scale])
    assert mean == pytest.approx(3 * scale, rel=1e-6)
    assert deviation == pytest.approx(math.sqrt(14 / 3) * scale, rel=1e-6)


def test_moments_of_logarithms() -> None:
    # sign(x) log(1 + |x|) of e - 1 and 1 - e: 1 and -1.
    assert moments_of([math.e - 1, 1 - math.e], "log1p") == pytest.approx((0, 1), abs=1e-6)


@pytest.mark.parametrize("constant", [0.0, 3.0, 0.1, -1e30, 1e-20])
def test_a_constant_column_has_deviation_one(constant: float) -> None:
    mean, deviation = moments_of([constant] * 7)
    assert mean == pytest.approx(constant)
    assert deviation == 1


def test_a_column_without_a_value_is_standardized_to_itself() -> None:
    assert moments_of([math.nan, math.nan]) == (0, 1)


def test_vectors_have_moments_by_place_over_the_known_values() -> None:
    schema = Schema([Categorical("user"), Vector("v", size=2)])
    frame = pd.DataFrame({"user": "u", "v": pd.Series([[1, 10], None, [3, 30]], dtype=object)})
    moments = fit_statistics(schema, frame).moments["v"]
    assert moments.mean == (2, 20)
    assert moments.deviation == (1, 10)


def test_label_summary() -> None:
    # Weights 1 and 3 on labels 0 and 4: mean 3, variance 1/4 9 + 3/4 1 = 3; logs 0 and log 5.
    summary = labels_of([0, 4, math.nan, 9], [1, 3, 1, 0])
    assert (summary.count, summary.mean, summary.minimum, summary.maximum) == (2, 3, 0, 4)
    assert summary.deviation == pytest.approx(math.sqrt(3))
    assert summary.log_mean == pytest.approx(3 / 4 * math.log(5))
    assert summary.log_deviation == pytest.approx(math.sqrt(3) / 4 * math.log(5))
    assert summary.frequencies == {0: 0.25, 4: 0.75}


def test_label_below_minus_one_has_no_logarithm() -> None:
    summary = labels_of([-2, 4])
    assert (summary.log_mean, summary.log_deviation) == (0, 1)


def test_label_with_many_values_has_no_frequencies() -> None:
    assert labels_of(list(range(1001))).frequencies == {}
    assert len(labels_of(list(range(1000))).frequencies) == 1000


@pytest.mark.parametrize(
    ("values", "weights"), [([math.nan, math.nan], [1, 1]), ([1, 2], [0, 0])], ids=["all missing", "no weight"]
)
def test_a_task_without_a_label_is_named(values: list[float], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="Every label of task 'y' is missing in the training table; drop the task"):
        labels_of(values, weights)


def test_a_source_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="The training table is empty; at least one row is needed"):
        fit_statistics(SCHEMA, Pieces(table()[:0], []))
    with pytest.raises(ValueError, match="The table is empty"):
        fit_statistics(SCHEMA, table()[:0])


@pytest.mark.parametrize("column", ["user", "click", "trust", "slot", "image"])
def test_an_absent_column_is_named(column: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"The table lacks the columns ['{column}']")):
        fit_statistics(SCHEMA, table().drop(columns=column))


def test_unknown_vocabulary() -> None:
    with pytest.raises(ValueError, match=re.escape("Unknown vocabulary ['usr'] in the statistics; known: ['user',")):
        fit_statistics(SCHEMA, table()).size("usr")


def test_config_survives_json() -> None:
    config = fit_statistics(SCHEMA, table()).get_config()
    assert Statistics.from_config(json.loads(json.dumps(config))).get_config() == config


def test_words_of_a_text_are_counted_once_each_time() -> None:
    schema = Schema([Categorical("user"), Text("t"), MultiValued("g", separator=","), IdSequence("s", of="user")])
    frame = pd.DataFrame({"user": "u", "t": ["a b a", "B c"], "g": ["x,x", "y"], "s": [["u"], ["v"]]})
    statistics = fit_statistics(schema, frame)
    assert statistics.vocabularies["t"].tolist() == ["a", "b"]  # "c" is below min_count=2
    assert statistics.counts["g"].tolist() == [2, 1]
    assert "s" not in statistics.vocabularies
    assert statistics.vocabularies["user"].tolist() == ["u"]  # a sequence adds nothing to the vocabulary it shares

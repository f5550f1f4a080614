"""Every check passes valid values and names the fault, the argument, the value received and the cure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from tfmtl._checks import (
    require,
    require_fraction,
    require_known,
    require_positive_int,
    require_several,
    require_type,
)
from tfmtl.data import Categorical, Label, Preprocessor, Schema, with_histories
from tfmtl.data.frames import to_batch
from tfmtl.evaluation import retrieval_metrics
from tfmtl.evaluation.plots import learning_curves
from tfmtl.layers import MMoE
from tfmtl.training import GroupedOptimizer, LazyAdam


def message_of(error: type[Exception], check: Callable[..., None], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(error) as caught:
        check(*args, **kwargs)
    assert type(caught.value) is error
    return str(caught.value)


def test_require() -> None:
    require(True, "never said")
    assert message_of(ValueError, require, False, "A rule.") == "A rule."
    assert message_of(ValueError, require, False, "A rule.", a=1, b="x") == "A rule. Received: a=1, b='x'."


def test_a_long_value_is_shortened() -> None:
    message = message_of(ValueError, require, False, "A rule.", rows=list(range(1000)))
    assert re.fullmatch(r"A rule\. Received: rows=\[0, 1, .*\.\.\.\.", message)
    assert len(message) == len("A rule. Received: rows=.") + 80


def test_require_type() -> None:
    require_type(1, int, "count")
    require_type("a", (int, str), "name")
    assert message_of(TypeError, require_type, "1", int, "count") == "`count` must be int. Received: count='1'."
    message = message_of(TypeError, require_type, None, (int, str), "name", "Give a column's name.")
    assert message == "`name` must be int or str. Received: name=None. Give a column's name."


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_require_positive_int_refuses(value: Any) -> None:
    message = message_of(ValueError, require_positive_int, good=2, units=value)
    assert message == f"`units` must be a positive integer. Received: units={value!r}."


@pytest.mark.parametrize("value", [1, 10**9])
def test_require_positive_int_accepts(value: int) -> None:
    # The complaint is about the bad neighbour alone: the value itself has passed.
    message = message_of(ValueError, require_positive_int, units=value, bad=0)
    assert message == "`bad` must be a positive integer. Received: bad=0."


@pytest.mark.parametrize("value", [-1e-9, 1, 1.0, float("nan"), float("inf"), "0.5", None])
def test_require_fraction_refuses(value: Any) -> None:
    message = message_of(ValueError, require_fraction, good=0.5, rate=value)
    assert message == f"`rate` must be a number in [0, 1). Received: rate={value!r}."


@pytest.mark.parametrize("value", [0, 0.5, 0.999])
def test_require_fraction_accepts(value: float) -> None:
    message = message_of(ValueError, require_fraction, rate=value, bad=1)
    assert message == "`bad` must be a number in [0, 1). Received: bad=1."


def test_require_known() -> None:
    require_known(["a"], iter(["a", "b"]), "task", "`weights`")
    message = message_of(ValueError, require_known, ["clik", "a"], ["click", "a"], "task", "`weights`")
    assert message == "Unknown task ['clik'] in `weights`; known: ['click', 'a']. Did you mean 'click'?"
    message = message_of(ValueError, require_known, ["zzz"], ["click"], "task", "`weights`")
    assert message == "Unknown task ['zzz'] in `weights`; known: ['click']."


@pytest.mark.parametrize("alone", ["ab", "a", "", b"ab"])
def test_one_string_is_no_list_of_names(alone: Any) -> None:
    message = message_of(ValueError, require_several, good=["a"], none=None, tasks=alone)
    assert message == f"`tasks` must be a list, not one string; write [{alone!r}]. Received: tasks={alone!r}."
    message = message_of(ValueError, require_known, alone, ["a", "b"], "task", "`weights`")
    assert message == f"The task names for `weights` must be a list, not one string. Received: names={alone!r}."


def test_public_functions_refuse_one_string_for_several_names() -> None:
    """Otherwise "ab" would be the names "a" and "b", and "user" would be found in "user_id"."""
    table = pd.DataFrame({"a": ["x"], "b": ["y"], "ab": ["z"], "t": [1.0]})
    schema = Schema([Categorical("a"), Categorical("b")], labels=[Label("t")])
    preprocessor = Preprocessor.fit(schema, table)
    calls: list[Callable[[], Any]] = [
        lambda: schema.with_labels_of("t"),
        lambda: to_batch(table, preprocessor, features="ab"),
        lambda: MMoE("ab"),
        lambda: learning_curves({"run": {"loss": [1.0]}}, metrics="loss"),
        lambda: retrieval_metrics([0.0], ["u"], ks="10"),  # type: ignore[arg-type]
        lambda: with_histories(table, schema, "t", histories="ab"),
        lambda: GroupedOptimizer(LazyAdam(), LazyAdam(), tables="ab"),
    ]
    for call in calls:
        assert "must be a list, not one string" in message_of(ValueError, call)

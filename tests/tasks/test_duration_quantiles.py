"""D2Q: watch time by its quantile among rows of similar duration."""

from __future__ import annotations

import functools
import math
import pathlib
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tfmtl
from tests.tasks.losses import NAN, loss_of
from tests.tasks.test_check_labels import summary
from tfmtl._keras import tf
from tfmtl.data import Categorical, Label, Numeric, Preprocessor, Schema, to_batch
from tfmtl.ensembling import ensemble
from tfmtl.evaluation import evaluate
from tfmtl.models import MultiTaskModel, Regularization, build_network, load_model, save_model
from tfmtl.tasks import DurationQuantiles, HeadInputs
from tfmtl.tasks.quantile_tables import QuantileTables
from tfmtl.training import LazyAdam

ROOT_12 = math.sqrt(12)
KNOTS = [[0, 10, 20], [0, 50, 250], [0, 15, 250]]  # below 60, from 60, all
SCHEMA = Schema([Categorical("user")], [Categorical("item"), Numeric("length")], labels=[Label("watched")])
FRESH = """
import sys
import numpy as np
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["rank"]
rows = dict(user=tf.constant(["u0"] * 4), item=tf.constant(["i1"] * 4), length=tf.constant([5.0, 90.0, 1e6, np.nan]))
np.save(sys.argv[2], served(**rows)["watched"].numpy())
assert "tfmtl" not in sys.modules
"""


def task(**arguments: Any) -> DurationQuantiles:
    return DurationQuantiles("watched", "length", **{"edges": [60.0], "knots": KNOTS, **arguments})


@functools.cache
def table() -> pd.DataFrame:
    """Return rows in which users watch a share of the duration; the share of users grows with their number."""
    rng = np.random.default_rng(4)
    user, length = rng.integers(0, 5, 400), rng.choice([10.0, 30.0, 100.0, 400.0], 400)
    share = np.clip(user / 5 + 0.1 * rng.normal(size=400), 0, 1)
    watched = np.where(rng.random(400) < 0.1, NAN, share * length)
    length = np.where(rng.random(400) < 0.05, NAN, length)
    rows = {"user": [f"u{k}" for k in user], "item": [f"i{k}" for k in rng.integers(0, 9, 400)]}
    return pd.DataFrame({**rows, "length": length, "watched": watched})


def model(seed: int = 0, **arguments: Any) -> MultiTaskModel:
    preprocessor = Preprocessor.fit(SCHEMA, table())
    heads = [DurationQuantiles.fit("watched", "length", table(), num_bins=4, num_knots=11)]
    network = build_network(preprocessor, heads, embedding_dim=4, tower_units=[8], seed=seed, **arguments)
    built = MultiTaskModel(network, heads, preprocessor, seed=seed)
    built.compile(LazyAdam(0.03))
    return built


@functools.cache
def trained() -> MultiTaskModel:
    """Return a trained model, which no test changes."""
    built = model()
    built.fit(table(), batch_size=50, epochs=15, verbose=0)
    return built


def test_golden_loss() -> None:
    """15 of (0, 10, 20) is the quantile 3/4, 50 of (0, 50, 250) 1/2: t of sqrt(12) / 4 and 0, weights 1 and 3."""
    outputs = [[0.0, 0.0], [2.0, 1.0], [7.0, 2.0]]
    loss, weight, gradient = loss_of(task(), [15, 50, NAN], outputs, [1.0, 3.0, 0.0])
    assert loss == pytest.approx((12 / 16 + 3 * 4) / 4, rel=1e-6)
    assert weight == 4
    np.testing.assert_allclose(gradient, [[-2 * ROOT_12 / 4 / 4, 0], [3 * 2 * 2 / 4, 0], [0, 0]], rtol=1e-5)
    assert loss_of(task(), [NAN], [[0.3, 0.0]], [0.0])[:2] == (0, 0)


def test_served_seconds_are_those_of_the_bin() -> None:
    outputs = tf.constant([[ROOT_12 / 4, bin_] for bin_ in (0.0, 1.0, 2.0)] + [[9.0, 0.0], [-9.0, 1.0]])
    np.testing.assert_allclose(task().predict(outputs), [15, 150, 132.5, 20, 0], rtol=1e-5)
    np.testing.assert_allclose(task(clip=(5, 100)).predict(outputs), [15, 100, 100, 20, 5], rtol=1e-5)


def test_the_quantile_map_inverts() -> None:
    """Q_b(F_b(y)) is y for every number between the knots, and F_b is that of numpy where no knots are equal."""
    rng = np.random.default_rng(0)
    knots = np.sort(rng.exponential([[3.0], [40.0], [20.0]], [3, 11]), axis=1)
    knots[:, :3] = 0  # a quarter of the rows is not watched at all
    tables, group = QuantileTables(knots.tolist(), "`knots`"), rng.integers(0, 3, 200)
    numbers = np.float32([rng.uniform(knots[g, 2], knots[g, -1]) for g in group])
    found = tables.quantiles(tf.constant(numbers), tf.constant(group, tf.float32))
    expected = [np.interp(y, knots[g, 2:], np.arange(2, 11) / 10) for y, g in zip(numbers, group, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(tables.values(found, tf.constant(group, tf.float32)), numbers, rtol=1e-4)
    zero = tables.quantiles(tf.zeros([3]), tf.constant([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(zero, [0.1] * 3, atol=1e-6)
    np.testing.assert_array_equal(tables.values(zero, tf.constant([0.0, 1.0, 2.0])), [0] * 3)


def test_fit_measures_bins_and_quantiles() -> None:
    rows = {"length": [1, 1, 3, 3, NAN, 9], "watched": [0, 1, 2, 4, 8, NAN]}
    found = DurationQuantiles.fit("watched", "length", rows, num_bins=2, num_knots=3, clip=(1, 2))
    assert (found.edges, found.clip) == ((2.0,), (1.0, 2.0))
    assert found.knots == ((0.0, 0.5, 1.0), (2.0, 3.0, 4.0), (0.0, 2.0, 8.0))
    one = DurationQuantiles.fit("t", "length", {"length": [5, 5], "w": [1, 3]}, column="w", num_knots=2)
    assert (one.edges, one.knots) == ((), ((1.0, 3.0), (1.0, 3.0)))


def test_the_targets_of_each_bin_are_uniform() -> None:
    found, rows = DurationQuantiles.fit("watched", "length", table(), num_bins=4), table().dropna()
    bins = np.searchsorted(found.edges, rows["length"], side="right")
    assert np.bincount(bins).tolist() == rows.groupby("length").size().tolist()
    outputs = np.stack([np.zeros(len(rows)), bins], axis=1)
    losses = [
        loss_of(found, rows["watched"][bins == b].tolist(), outputs[bins == b], [1.0] * (bins == b).sum())[0]
        for b in range(4)
    ]
    np.testing.assert_allclose(losses, 1, atol=0.05)


def test_a_model_learns_the_share_and_not_the_duration() -> None:
    losses = trained().history.history["watched_loss"]
    assert losses[-1] < 0.3 < losses[0] < 1.2
    assert evaluate(trained(), table())["watched", "xauc"] > 0.9
    rows = pd.DataFrame({"user": "u4", "item": "i1", "length": [10.0, 400.0], "watched": NAN})
    short, long = trained().predict(rows, verbose=0)["watched"]
    assert 5 < short <= 10
    assert 200 < long <= 400


def test_missing_short_and_long_durations_have_their_bin() -> None:
    rows = pd.DataFrame({"user": "u1", "item": "i1", "length": [0.5, 10.0, 400.0, 9e9, NAN]})
    outputs = trained().network(to_batch(rows.assign(watched=1.0), trained().preprocessor).features)["watched"]
    assert outputs[:, 1].numpy().tolist() == [0, 0, 3, 3, 4]


def test_a_saved_model_its_ensemble_and_its_export_serve_seconds(tmp_path: pathlib.Path) -> None:
    loaded = load_model(save_model(trained(), tmp_path / "model"))
    assert loaded.tasks[0].get_config() == trained().tasks[0].get_config()
    expected = trained().predict(table(), verbose=0)["watched"]
    np.testing.assert_array_equal(loaded.predict(table(), verbose=0)["watched"], expected)
    both = ensemble([trained(), loaded, loaded])
    np.testing.assert_allclose(both.predict(table(), verbose=0)["watched"], expected, rtol=1e-4, atol=1e-4)
    path = tfmtl.export(trained(), tmp_path / "served")
    subprocess.run([sys.executable, "-c", FRESH, str(path), str(tmp_path / "answer.npy")], check=True)
    rows = pd.DataFrame({"user": "u0", "item": "i1", "length": [5.0, 90.0, 1e6, NAN]})
    np.testing.assert_allclose(
        np.load(tmp_path / "answer.npy"), trained().predict(rows, verbose=0)["watched"], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"edges": [60.0, 60.0]}, "`edges` of task 'watched' must be ascending finite numbers. Received: edges=[60.0,"),
        ({"edges": [NAN]}, "`edges` of task 'watched' must be ascending finite numbers."),
        ({"knots": KNOTS[:2]}, "must have one row for each of the 2 bins, and one for all rows. Received: rows=2."),
        ({"knots": [[0], [1], [2]]}, "`knots` of task 'watched' must have two or more knots, as many in each row."),
        ({"knots": [[0, 1], [2, 1], [0, 1]]}, "`knots` of task 'watched' must be ascending in each row, finite and"),
        ({"knots": [[-1, 1], [0, 1], [0, 1]]}, "must be ascending in each row, finite and 0 or more."),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        task(**arguments)


@pytest.mark.parametrize(
    ("rows", "arguments", "sentence"),
    [
        ({"length": [0, 1], "watched": [1, 1]}, {}, "must be above 0, or missing. Received: duration=0.0."),
        ({"length": [1, 1], "watched": [1, -1]}, {}, "must be 0 or more. Received: watch_time=-1.0."),
        ({"length": [NAN], "watched": [1]}, {}, "No row has both a watch time and a duration for task 'watched'."),
        ({"length": [], "watched": []}, {}, "No row has both a watch time and a duration for task 'watched'."),
        ({"length": [1], "watched": [np.inf]}, {}, "Column 'watched' of task 'watched' must be finite or missing."),
        ({"lenght": [1], "watched": [1]}, {}, "Did you mean 'lenght'?"),
        ({"length": [1], "watched": [1]}, {"num_bins": 0}, "`num_bins` must be a positive integer."),
        ({"length": [1], "watched": [1]}, {"num_knots": 1}, "`num_knots` of task 'watched' must be 2 or more."),
    ],
)
def test_bad_rows_are_named(rows: Any, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        DurationQuantiles.fit("watched", "length", rows, **arguments)


def test_bad_networks_are_named() -> None:
    with pytest.raises(ValueError, match=re.escape("Under `mixup` the label of a row has the duration of another")):
        model(regularization=Regularization(mixup=0.2))
    with pytest.raises(ValueError, match=re.escape("Task 'watched' needs labels of 0 or more")):
        task().check_labels(summary([-1, 3]))
    preprocessor = Preprocessor.fit(SCHEMA, table())
    with pytest.raises(ValueError, match=re.escape("Unknown numeric feature ['item'] in the schema")):
        build_network(preprocessor, [DurationQuantiles("watched", "item", [60.0], KNOTS)])
    heads = [task(scope="query")]
    network = build_network(preprocessor, heads)
    rule = "Unknown query feature ['length'] in `duration` of task 'watched' with scope='query'"
    with pytest.raises(ValueError, match=re.escape(rule)):
        MultiTaskModel(network, heads, preprocessor)
    with pytest.raises(ValueError, match="mixup"):
        task().connect(HeadInputs(None, None, {}))

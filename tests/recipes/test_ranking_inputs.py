"""Bins of numbers, and counts and rates of categories, by hand-computed values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl import data, layers, models, recipes, tasks
from tfmtl.recipes.rates import recipe_optimizer, sparse_ids
from tfmtl.tasks import Task
from tfmtl.training import LazyAdam

ROWS = 200
TABLE = pd.DataFrame(
    {
        "user": [f"u{i % 8}" for i in range(ROWS)],
        "item": [f"i{(i // 8) % 5}" for i in range(ROWS)],
        "paid": [0.0] * 120 + [float(i) for i in range(1, 81)],
        "flag": [float(i % 2) for i in range(ROWS)],
        "click": [float(i % 8 == 1) if i % 9 else np.nan for i in range(ROWS)],
        "stars": [float(i % 5) for i in range(ROWS)],
        "kind": [float(i % 3) for i in range(ROWS)],
    }
)


def prepared(labels: dict[str, Task], table: pd.DataFrame = TABLE) -> tuple[data.Preprocessor, list[Task]]:
    schema = data.Schema(
        [data.Categorical("user"), data.Numeric("paid"), data.Numeric("flag")],
        [data.Categorical("item")],
        labels=[data.Label(name) for name in labels],
    )
    return data.Preprocessor.fit(schema, table), list(labels.values())


def tables(labels: dict[str, Task], table: pd.DataFrame = TABLE, **arguments: Any) -> dict[str, np.ndarray]:
    """Return the numbers [size, folds + 1, columns] of each feature in a filled network."""
    preprocessor, heads = prepared(labels, table)
    inputs = recipes.ranking_inputs(preprocessor, heads, table, folds=3)
    network = models.build_network(preprocessor, heads, interactions=inputs, embedding_dim=2)
    recipes.fill_rates(network, preprocessor, heads, table, **arguments)
    layer = network.get_layer("rates")
    values = network.get_layer(layer.table).get_weights()[0].reshape(-1, 4, len(layer.columns))
    return dict(zip(layer.sizes, np.split(values, np.cumsum(list(layer.sizes.values()))[:-1]), strict=True))


def log_odds(rate: float) -> float:
    return float(np.log(rate / (1 - rate)))


def test_rates_of_an_event_are_log_odds_relative_to_the_mean() -> None:
    found = tables({"click": tasks.BinaryClassification("click")}, smoothing=4.0)
    observed = TABLE.dropna(subset="click")
    mean = observed["click"].mean()
    preprocessor, _ = prepared({"click": tasks.BinaryClassification("click")})
    for user in ("u1", "u2"):
        own = observed.loc[observed["user"] == user, "click"]
        rate = (own.sum() + 4 * mean) / (len(own) + 4)
        index = 2 + preprocessor.vocabulary("user").tolist().index(user)
        assert found["user"][index, -1, 0] == pytest.approx(log_odds(rate) - log_odds(mean), rel=1e-5)
    np.testing.assert_allclose(found["user"][[0, 1], :, 0], 0, atol=1e-6)  # missing and unknown values have the mean


def test_rates_of_a_fold_leave_its_rows_out() -> None:
    found = tables({"stars": tasks.Regression("stars")}, smoothing=2.0)
    preprocessor, heads = prepared({"stars": tasks.Regression("stars")})
    layer = recipes.ranking_inputs(preprocessor, heads, TABLE, folds=3)[-1]
    assert isinstance(layer, layers.CategoryRates)
    features = data.to_batch(TABLE, preprocessor).features
    folds = layer.fold_of([features["user"], features["item"]]).numpy()
    stars, users = TABLE["stars"].to_numpy(), features["user"].numpy()
    for fold in range(3):
        kept = (users == 4) & (folds != fold)
        expected = ((stars[kept] - stars.mean()).sum() / (kept.sum() + 2)) / stars.std()
        assert found["user"][4, fold, 0] == pytest.approx(expected, abs=1e-5)


def test_a_row_does_not_count_itself() -> None:
    counts = tables({"stars": tasks.Regression("stars")}, TABLE.head(36))["user"][2:, :, 1]
    rows = np.sort(TABLE.head(36)["user"].value_counts().to_numpy())[::-1]  # 5, 5, 5, 5, 4, 4, 4, 4
    others = np.log(rows)  # log(1 + rows - 1)
    mean = np.average(others, weights=rows)
    deviation = np.sqrt(np.average(np.square(others - mean), weights=rows))
    np.testing.assert_allclose(counts[:, 0], (others - mean) / deviation, rtol=1e-4)
    np.testing.assert_allclose(counts[:, -1], (np.log(1 + rows) - mean) / deviation, rtol=1e-4)


def test_each_class_has_a_rate_and_many_classes_have_none() -> None:
    preprocessor, heads = prepared({"kind": tasks.MultiClassClassification("kind", 3)})
    (*_, rates) = recipes.ranking_inputs(preprocessor, heads, TABLE)
    assert rates.get_config()["columns"] == ["rate of kind 0", "rate of kind 1", "rate of kind 2", "count"]
    preprocessor, heads = prepared({"kind": tasks.MultiClassClassification("kind", 11)})
    assert [type(layer).__name__ for layer in recipes.ranking_inputs(preprocessor, heads, TABLE)] == ["PiecewiseLinear"]
    found = tables({"kind": tasks.MultiClassClassification("kind", 3)}, smoothing=1.0)["user"][2:, -1, :3]
    assert np.isfinite(found).all()
    assert abs(found).max() < 0.5  # kinds do not depend on users


def test_a_feature_whose_rows_share_one_fold_is_left_out() -> None:
    """With equal ids all rows of a user are in one fold: their rates would be served and never trained."""
    items = np.where(TABLE["user"].isin(["u0", "u1", "u2"]), "x", "y")
    found = tables({"stars": tasks.Regression("stars")}, TABLE.assign(item=items))
    np.testing.assert_array_equal(found["user"], 0)
    assert abs(found["item"]).max() > 0


def test_edges_are_quantiles_of_the_values_other_than_the_most_frequent_one() -> None:
    preprocessor, heads = prepared({"stars": tasks.Regression("stars")})
    bins, _ = recipes.ranking_inputs(preprocessor, heads, TABLE, bins=4)
    assert isinstance(bins, layers.PiecewiseLinear)
    assert list(bins.edges) == ["paid"]  # a flag needs no bins
    moments = preprocessor.statistics.moments["paid"]
    edges = np.asarray(bins.edges["paid"]) * moments.deviation[0] + moments.mean[0]
    np.testing.assert_allclose(edges, [0, 1, 21, 40, 60, 80], atol=1.01)


def test_without_a_task_of_pairs_there_is_nothing_to_add() -> None:
    preprocessor, heads = prepared({"stars": tasks.Regression("stars", scope="query")})
    assert recipes.ranking_inputs(preprocessor, heads, TABLE) == []


def test_embeddings_of_sparse_ids_are_not_trained_and_others_learn_more_slowly() -> None:
    table = TABLE.assign(item=[f"i{i // 4}" for i in range(ROWS)], shop=TABLE["user"])
    schema = data.Schema(
        [data.Categorical("user"), data.Categorical("shop")],
        [data.Categorical("item"), data.Numeric("paid")],
        labels=[data.Label("stars")],
    )
    preprocessor = data.Preprocessor.fit(schema, table)
    assert sparse_ids(preprocessor) == ("item",)  # 4 rows of an item, 25 of a user
    found = recipes.fit(preprocessor, [tasks.Regression("stars")], table, epochs=1, batch_size=32, verbose=0)
    inputs, rate = (next(c for c in found.choices if c.name == name) for name in ("inputs", "rate"))
    assert inputs.value == "bins of numbers and counts and rates of categories"
    assert rate.value == "0.003 for ranking, a third for its embeddings"
    assert "item" in rate.reason
    factors = {v.name: found.model.optimizer.factor_of(v) for v in found.model.trainable_variables}
    tables = {name: factor for name, factor in factors.items() if "embedding" in name}
    assert tables == {"query_embedding_32/embeddings:0": pytest.approx(1 / 3), "item_embedding/embeddings:0": 0.0}
    assert {factor for name, factor in factors.items() if name not in tables} == {1.0}
    assert abs(found.model.network.get_layer("rates_table").get_weights()[0]).max() > 0


def test_a_retrieval_beside_ranking_keeps_its_rate_and_widths() -> None:
    table = TABLE.assign(item=[f"i{i // 4}" for i in range(ROWS)], bought=1.0)
    schema = data.Schema(
        [data.Categorical("user")], [data.Categorical("item")], labels=[data.Label("bought"), data.Label("stars")]
    )
    preprocessor = data.Preprocessor.fit(schema, table)
    heads: list[Task] = [tasks.Retrieval("bought"), tasks.Regression("stars")]
    inputs = recipes.ranking_inputs(preprocessor, heads, table)
    network = models.build_network(preprocessor, heads, interactions=inputs, isolate=[["bought"]])
    optimizer = recipe_optimizer(network, ["bought"], ["item"])
    factors = {v.name.split(":")[0]: optimizer.factor_of(v) for v in network.trainable_variables}
    assert factors["bought_item_embedding/embeddings"] == pytest.approx(10 / 3)
    assert factors["bought_query_tower_0/kernel"] == pytest.approx(10 / 3)
    assert factors["item_embedding/embeddings"] == 0
    assert factors["user_embedding/embeddings"] == pytest.approx(1 / 3)
    assert factors["query_tower_0/kernel"] == 1
    shared = models.build_network(preprocessor, heads)
    assert isinstance(recipe_optimizer(shared, ["bought"], ()), LazyAdam)


def test_every_isolated_group_reads_filled_rates() -> None:
    preprocessor, heads = prepared({"stars": tasks.Regression("stars"), "click": tasks.BinaryClassification("click")})
    inputs = recipes.ranking_inputs(preprocessor, heads, TABLE)
    network = models.build_network(preprocessor, heads, interactions=inputs, isolate=[["click"]], embedding_dim=2)
    recipes.fill_rates(network, preprocessor, heads, TABLE)
    filled = [network.get_layer(name).get_weights()[0] for name in ("rates_table", "click_rates_table")]
    np.testing.assert_array_equal(*filled)
    assert abs(filled[0]).max() > 0

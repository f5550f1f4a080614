"""Ensembles of tasks with events that follow each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tfmtl.data import Categorical, Label, Preprocessor, Schema, to_batch
from tfmtl.ensembling import ensemble, fit_weights
from tfmtl.ensembling.evidence import Objective, blocks
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification, ChainedRegression, DoublyRobustConversion

SCHEMA = Schema([Categorical("user")], [Categorical("item")], labels=[Label("click"), Label("buy"), Label("spend")])
SHARES = [0.6, 0.4]


def table() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    click = rng.random(60) < 0.6
    buy = click & (rng.random(60) < 0.5)
    return pd.DataFrame(
        {
            "user": [f"u{i}" for i in rng.integers(0, 6, 60)],
            "item": [f"i{i}" for i in rng.integers(0, 6, 60)],
            "click": click.astype(float),
            "buy": buy.astype(float),
            "spend": np.where(buy, rng.uniform(1, 9, 60), 0.0),
        }
    )


@pytest.fixture(scope="module")
def members() -> list[MultiTaskModel]:
    preprocessor = Preprocessor.fit(SCHEMA, table())
    models = []
    for seed in range(2):
        heads = [
            BinaryClassification("click"),
            DoublyRobustConversion("buy", after="click"),
            ChainedRegression("spend", after="buy", offset=4.0, scale=2.0),
        ]
        network = build_network(preprocessor, heads, embedding_dim=2, tower_units=[3], seed=seed)
        rng = np.random.default_rng(seed)
        for variable in network.trainable_variables:
            variable.assign(rng.normal(0, 0.7, variable.shape))
        models.append(MultiTaskModel(network, heads, preprocessor))
    return models


def served(model: MultiTaskModel) -> dict[str, np.ndarray]:
    features = to_batch(table(), model.preprocessor).features
    outputs = model.network({name: features[name] for name in model.network.input})
    return {task.name: task.predict(outputs[task.name]).numpy() for task in model.tasks}


def test_every_link_of_a_chain_serves_the_mean_of_the_members(members: list[MultiTaskModel]) -> None:
    found, apart = served(ensemble(members, SHARES)), [served(model) for model in members]
    for task in ("click", "buy", "spend"):
        expected = sum(share * each[task] for share, each in zip(SHARES, apart, strict=True))
        np.testing.assert_allclose(found[task], expected, rtol=1e-4, atol=1e-5)
    assert (found["buy"] <= found["click"] + 1e-6).all()


def test_weights_of_a_chain_are_no_worse_than_any_tried(members: list[MultiTaskModel]) -> None:
    weights = fit_weights(members, table())
    for task, found in blocks(members, table(), 1024).items():
        objective = Objective(found)
        tried = [objective(np.array([1 - s, s]))[0] for s in np.linspace(0, 1, 6)]
        assert objective(np.array(weights[task]))[0] <= min(tried) + 1e-4

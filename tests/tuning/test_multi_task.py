from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl import tuning
from tfmtl._keras import keras
from tfmtl.balancing import FixedWeights
from tfmtl.data import Categorical, Label, Numeric, Preprocessor, Schema
from tfmtl.layers import MMoE, SharedBottom
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification, Regression

SCHEMA = Schema(
    query=[Categorical("user"), Numeric("age")],
    candidate=[Categorical("item")],
    labels=[Label("click"), Label("rating")],
)


def _table(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 9, rows), rng.integers(0, 7, rows)
    return pd.DataFrame(
        {
            "user": [f"u{i}" for i in user],
            "age": rng.normal(40, 10, rows),
            "item": [f"i{i}" for i in item],
            "click": (user + item) % 2,
            "rating": np.where(rng.random(rows) < 0.2, np.nan, 1.0 + (user * item) % 5),
        }
    )


def test_a_multi_task_model_is_tuned_on_a_table(tmp_path: Path) -> None:
    train, valid = _table(200).iloc[:150], _table(200).iloc[150:]
    preprocessor = Preprocessor.fit(SCHEMA, train)

    def build(hp: Any) -> keras.Model:
        tasks = [BinaryClassification("click"), Regression("rating")]
        names = [task.name for task in tasks]
        network = build_network(
            preprocessor,
            tasks,
            trunk=tuning.sample_trunk(hp, [SharedBottom, MMoE]),
            embedding_dim=4,
            tower_units=[8],
            regularization=tuning.sample_regularization(hp),
        )
        weights = tuning.loss_weights(hp, names, reference="click")
        model = MultiTaskModel(network, tasks, preprocessor, FixedWeights(weights))
        model.compile(tuning.sample_optimizer(hp), run_eagerly=True)
        return model

    tuner = tuning.Hyperband(build, "val_rating_loss", max_epochs=2, factor=2, seed=1, directory=tmp_path)
    tuner.search(train, validation_data=valid, verbose=0)
    rows = tuning.trials_table(tuner, failed=True)
    assert {row["status"] for row in rows} == {"COMPLETED"}
    logs = tuner.get_best_models()[0].evaluate(valid, return_dict=True, verbose=0)
    assert logs["rating_loss"] == pytest.approx(rows[0]["score"], rel=1e-5)

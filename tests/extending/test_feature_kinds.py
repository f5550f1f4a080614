"""Feature kinds from outside the package pass through every stage of their life."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tfmtl
from tests.extending.kinds import Cyclic, HashedCategorical
from tfmtl.data import Categorical, Feature, Label, Preprocessor, Schema, cache, encode, open_files, write_tfrecords
from tfmtl.data.columns import to_columns
from tfmtl.evaluation import evaluate
from tfmtl.models import MultiTaskModel, build_network, load_model, save_model
from tfmtl.tasks import BinaryClassification

SCHEMA = Schema(
    query=[Categorical("user"), Cyclic("hour", period=24.0)],
    candidate=[Categorical("item"), HashedCategorical("brand", buckets=5)],
    labels=[Label("liked")],
)
ROWS = 24


def table() -> pd.DataFrame:
    row = np.arange(ROWS)
    return pd.DataFrame(
        {
            "user": [f"u{k}" for k in row % 3],
            "hour": np.where(row == 5, np.nan, row * 1.0),
            "item": [f"i{k}" for k in row % 4],
            "brand": [None if k == 3 else f"b{k}" for k in row % 4],
            "liked": (row >= 12) * 1.0,
        }
    )


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    tfmtl.keras.utils.set_random_seed(0)
    preprocessor = Preprocessor.fit(SCHEMA, table())
    tasks = [BinaryClassification("liked")]
    network = build_network(preprocessor, tasks, tfmtl.SharedBottom(units=[4]), embedding_dim=2, tower_units=[3])
    built = MultiTaskModel(network, tasks, preprocessor)
    built.compile(tfmtl.LazyAdam(0.05), run_eagerly=True)
    built.fit(table(), batch_size=ROWS, epochs=4, verbose=0)
    return built


def test_the_encoding_is_the_kinds_own(model: MultiTaskModel) -> None:
    found = encode(model.preprocessor, to_columns(table(), SCHEMA.features.values()))
    waves = [[math.sin(math.pi * h / 12), math.cos(math.pi * h / 12), 0.0] for h in range(ROWS)]
    waves[5] = [0.0, 0.0, 1.0]
    np.testing.assert_allclose(found["hour"], waves, atol=1e-6)
    brands = found["brand"].numpy()
    assert (brands[3::4] == 0).all()
    assert brands[:3].tolist() == (1 + tf.strings.to_hash_bucket_fast(["b0", "b1", "b2"], 5).numpy()).tolist()
    assert model.preprocessor.statistics.moments == {}
    assert set(model.preprocessor.statistics.vocabularies) == {"user", "item"}


def test_the_network_learns_with_the_kinds_own_layer(model: MultiTaskModel) -> None:
    losses = model.history.history["liked_loss"]
    assert losses[-1] < losses[0]
    assert model.network.get_layer("brand_hashed").get_weights()[0].shape == (6, 3)
    assert np.isfinite(evaluate(model, table())).all()


@pytest.mark.parametrize("suffix", ["tfrecord", "parquet", "csv"])
def test_files_hold_the_columns(model: MultiTaskModel, suffix: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / f"part.{suffix}"
    if suffix == "tfrecord":
        write_tfrecords(table(), SCHEMA, path)
    else:
        (table().to_parquet if suffix == "parquet" else table().to_csv)(path, index=False)
    expected = encode(model.preprocessor, to_columns(table(), SCHEMA.features.values()))
    found = cache(open_files(path, SCHEMA), model.preprocessor)
    for name, values in expected.items():
        np.testing.assert_array_equal(found.features[name], values)


def test_the_exported_model_answers_alike(model: MultiTaskModel, tmp_path: pathlib.Path) -> None:
    signature = tf.saved_model.load(str(tfmtl.export(model, tmp_path / "served"))).signatures["rank"]
    raw = to_columns(table(), SCHEMA.features.values())
    answer = signature(**{name: tf.constant(values) for name, values in raw.items()})
    assert np.abs(answer["liked"] - model.predict(table(), verbose=0)["liked"]).max() == 0.0


def test_a_saved_model_and_a_schema_in_json_hold_the_kinds(model: MultiTaskModel, tmp_path: pathlib.Path) -> None:
    config = json.loads(json.dumps(SCHEMA.get_config()))
    assert config["query"][1] == {"kind": "extending>Cyclic", "name": "hour", "column": "hour", "period": 24.0}
    assert Schema.from_config(config) == SCHEMA
    loaded = load_model(save_model(model, tmp_path / "saved"))
    assert loaded.schema == SCHEMA
    one, other = (of.predict(table(), verbose=0)["liked"] for of in (model, loaded))
    assert np.abs(one - other).max() == 0.0


def test_a_kind_that_a_saved_schema_could_not_find_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Unregistered(Cyclic):
        pass

    schema = Schema([Categorical("user"), Unregistered("hour")])
    with pytest.raises(ValueError, match="could not find the feature kind Unregistered again; decorate it"):
        schema.get_config()
    with pytest.raises(ValueError, match="kind 'elsewhere>Moon', which is unknown here; import its module first"):
        Schema.from_config({**SCHEMA.get_config(), "context": [{"kind": "elsewhere>Moon", "name": "a"}]})


def test_a_kind_without_its_methods_is_refused() -> None:
    class Bare(Feature):
        pass

    bare: Any = Bare
    with pytest.raises(TypeError, match="abstract"):
        bare("a")

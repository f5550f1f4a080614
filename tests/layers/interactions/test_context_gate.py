from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.layers.probes import PAIR, PRIORS, dense, randomize, sigmoid
from tfmtl import data, layers, models, tasks
from tfmtl._keras import keras, tf

PRIOR = PRIORS["domain"]
TABLE = pd.DataFrame({"user": ["a", "b", "c", "a"], "hour": ["1", "2", "1", "3"], "click": [1.0, 0.0, 1.0, 0.0]})
SCHEMA = data.Schema([data.Categorical("user")], context=[data.Categorical("hour")], labels=[data.Label("click")])


def network(gate: layers.ContextGate) -> keras.Model:
    preprocessor = data.Preprocessor.fit(SCHEMA, TABLE)
    return models.build_network(
        preprocessor, [tasks.BinaryClassification("click")], interactions=[gate], embedding_dim=4
    )


def test_it_is_its_definition() -> None:
    layer = layers.ContextGate(["hour"], gate_units=3)
    values = randomize(layer, (PAIR, PRIOR))
    hidden = np.maximum(dense(np.concatenate([PRIOR, PAIR], 1), values, "gate/hidden"), 0)
    expected = PAIR * 2 * sigmoid(dense(hidden, values, "gate/out"))
    np.testing.assert_allclose(layer((PAIR, PRIOR)), expected, rtol=1e-4)


def test_in_a_network_the_context_decides() -> None:
    built = network(layers.ContextGate(["hour"], gate_units=3, name="by_hour"))
    gate = built.get_layer("by_hour")
    pair, prior = gate.input
    read = keras.Model(built.input, [pair, prior, gate.output])
    inputs = {"user": tf.constant([1, 1]), "hour": tf.constant([1, 2])}
    for variable in gate.trainable_weights:
        variable.assign(tf.random.stateless_normal(variable.shape, seed=[1, 2]))
    before, context, after = read({**inputs, **{n: v for n, v in inputs.items() if n in built.input}})
    assert before.shape == after.shape
    assert context.shape == [2, 4]
    factors = after / before
    assert np.abs(factors[0] - factors[1]).max() > 1e-3
    assert float(tf.reduce_max(factors)) < 2.0


def test_a_network_with_it_survives_its_configuration() -> None:
    built = network(layers.ContextGate(["hour"], gate_units=3))
    again = keras.Model.from_config(built.get_config())
    again.set_weights(built.get_weights())
    inputs = {"user": tf.constant([1, 2]), "hour": tf.constant([1, 2])}
    np.testing.assert_array_equal(built(inputs)["click"], again(inputs)["click"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"features": []}, "`features` must be a list of names. Received: features=[]."),
        ({"features": "hour"}, "`features` must be a list of names. Received: features='hour'."),
        ({"features": ["hour"], "gate_units": 0}, "`gate_units` must be a positive integer. Received: gate_units=0."),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        layers.ContextGate(**arguments)


def test_an_unknown_feature_is_named() -> None:
    with pytest.raises(ValueError, match="minute"):
        network(layers.ContextGate(["minute"]))

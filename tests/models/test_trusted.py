"""A saved model that an attacker has changed is refused before any of its objects is made."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers.hostile_folders import MODULES, hostile_objects, positions, replaced, write, write_modules
from tensorflow.python.util import tf_export

from tests.models import small
from tfmtl._keras import SafeModeScope, keras, tf
from tfmtl._operations import OPERATIONS, is_operation
from tfmtl._saved_files import read_json
from tfmtl._trusted import require_trusted
from tfmtl.adaptation import OnlineLearner
from tfmtl.balancing import CRMOGM, MGDA, ScheduledWeights
from tfmtl.layers import ChainedTrunk
from tfmtl.models import MultiTaskModel, load_model, save_model
from tfmtl.tasks import Regression
from tfmtl.training import GroupedOptimizer, ScaledRates

OBJECTS = sorted(hostile_objects(pathlib.Path("sentinel")))


def _text(path: Any) -> str:
    """Return a position as a pattern of the text of an error."""
    return re.escape("".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)[1:])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return save_model(small.model(balancer=CRMOGM(MGDA())), tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def sentinel(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A file that no test may write; modules of these names would write it when they are imported."""
    file, modules = tmp_path / "sentinel", tmp_path / "modules"
    write_modules(modules, file)
    monkeypatch.syspath_prepend(str(modules))
    yield file
    assert not file.exists()
    assert not {*MODULES} & {*sys.modules}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_hostile_objects_are_refused_wherever_they_are(
    saved: pathlib.Path, sentinel: pathlib.Path, data: st.DataObject
) -> None:
    config = read_json(saved / "model.json", "")
    path = data.draw(st.sampled_from(list(positions(config))))
    hostile = hostile_objects(sentinel)[data.draw(st.sampled_from(OBJECTS))]
    wrapped = data.draw(st.sampled_from([hostile, [hostile], {"x": hostile}, {"x": [1, {"config": hostile}]}]))
    with pytest.raises(
        ValueError, match=r"^model\.json \w+ .* at \S+.*; .*\.$|^model\.json names a class by list"
    ) as e:
        require_trusted(replaced(config, path, wrapped), "model.json")
    assert re.search(f" at {_text(path)}", str(e.value))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize(
    "path", [("tasks", 0), ("balancer",), ("network", "config", "layers", 4), ("optimizer", "config")]
)
def test_a_folder_is_refused_before_anything_is_made(
    saved: pathlib.Path, tmp_path: pathlib.Path, sentinel: pathlib.Path, kind: str, path: Any
) -> None:
    config = read_json(saved / "model.json", "")
    write(saved, tmp_path / "model", replaced(config, path, hostile_objects(sentinel)[kind]))
    file = re.escape(str(tmp_path / "model" / "model.json"))
    with pytest.raises(ValueError, match=rf"^{file} (names|holds) .* at {_text(path)}"):
        load_model(tmp_path / "model")


def test_the_attacks_work_where_the_check_is_switched_off(saved: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The objects would do harm: `safe_mode=False` imports the module, which writes its file."""
    program = f"""
import json, pathlib, sys
from tfmtl.models import load_model
for safe in (True, False):
    try:
        load_model({str(tmp_path / "model")!r}, safe_mode=safe)
    except (TypeError, ValueError) as error:
        print("REFUSED", pathlib.Path({str(tmp_path / "sentinel")!r}).exists())
"""
    (tmp_path / "hostile_sentinel.py").write_text(f"open({str(tmp_path / 'sentinel')!r}, 'w').close()\n")
    config = read_json(saved / "model.json", "")
    hostile = hostile_objects(tmp_path)["module"]
    write(saved, tmp_path / "model", replaced(config, ("tasks", 0), hostile))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(pathlib.Path.cwd())])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert re.findall(r"REFUSED \w+", done.stdout) == ["REFUSED False", "REFUSED True"]


@keras.saving.register_keras_serializable("tests.models.test_trusted")
class Own(MultiTaskModel):
    """A model of a user."""


@keras.saving.register_keras_serializable("tests.models.test_trusted")
class Twice(keras.layers.Layer):
    """A layer of a user."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return 2 * inputs


@keras.saving.register_keras_serializable("tests.models.test_trusted")
def bent(inputs: tf.Tensor) -> tf.Tensor:
    """A function of a user."""
    return tf.abs(inputs)


class Unknown(keras.layers.Layer):
    """A layer that is not registered."""


def network() -> keras.Model:
    """Return a network of many operations and of registered parts."""
    numbers, text = keras.Input([4]), keras.Input([], dtype=tf.string)
    ragged = keras.Input([None], ragged=True)
    x = tf.concat([tf.nn.relu(numbers)[:, :2] + 1.0, tf.gather(numbers, [0, 1], axis=1)], 1)
    x = tf.boolean_mask(tf.where(x > 0, x, -x), tf.reduce_sum(x, 1) > 0)
    x = keras.layers.Dense(
        2, bent, kernel_initializer=keras.initializers.HeNormal(1), bias_constraint="non_neg", kernel_regularizer="l2"
    )(x)
    y = tf.strings.length(tf.strings.join([text, text]))
    rows = tf.squeeze(tf.cast(y, tf.int32)[:, None], 1)
    z = tf.nn.embedding_lookup(tf.ones([5, 2]), rows)
    dense = keras.layers.LSTM(2)(ragged.to_tensor()[:, :, None])
    lookup = keras.layers.StringLookup(vocabulary=["a", "b"])(text)
    outputs = [Twice()(x), y, z, dense, lookup, ragged.values, keras.losses.mean_squared_error(numbers, numbers)]
    return keras.Model([numbers, text, ragged], outputs)


def test_ordinary_networks_are_trusted() -> None:
    made = network()
    require_trusted(json.loads(made.to_json()), "model.json")
    require_trusted(keras.saving.serialize_keras_object(made), "model.json")
    require_trusted(keras.saving.serialize_keras_object(tf.TensorSpec([None, 3])), "model.json")
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    for part in (keras.optimizers.Adam(schedule), keras.optimizers.legacy.SGD(), keras.losses.Huber(),
                 keras.metrics.AUC(), keras.mixed_precision.Policy("mixed_bfloat16"), bent, keras.losses.mse,
                 keras.regularizers.L1L2(0.1), tf.constant([1.0]), tf.float32):  # fmt: skip
        require_trusted(keras.saving.serialize_keras_object(part), "model.json")
    text = made.to_json()
    assert "strings.length" in text
    with pytest.raises(ValueError, match=r"model\.json"):  # the same network with one other operation
        require_trusted(json.loads(text.replace("strings.length", "io.read_file")), "model.json")


def test_a_registered_model_is_loaded(tmp_path: pathlib.Path) -> None:
    assert type(load_model(save_model(small.model(kind=Own), tmp_path / "model"))) is Own


def test_an_unregistered_class_needs_the_consent_of_the_user() -> None:
    config = keras.saving.serialize_keras_object(Unknown())
    with pytest.raises(ValueError, match=r"names the class 'Unknown' of the module .* at network, which is neither"):
        require_trusted({"network": config}, "model.json")
    with SafeModeScope(False):
        require_trusted({"network": config}, "model.json")


def test_deep_nesting_is_one_sentence() -> None:
    config: Any = {}
    for _ in range(5000):
        config = [config]
    with pytest.raises(ValueError, match="is nested more than 200 levels deep"):
        require_trusted({"tasks": config}, "model.json")


@pytest.mark.parametrize("kind", ["module", "function of a module", "operation io.write_file", "Lambda"])
def test_a_part_that_holds_others_refuses_them_too(sentinel: pathlib.Path, kind: str) -> None:
    hostile = hostile_objects(sentinel)[kind]
    optimizer = keras.optimizers.serialize(keras.optimizers.Adam())
    makers = {
        "CRMOGM": lambda: CRMOGM.from_config({"balancer": hostile}),
        "ScheduledWeights": lambda: ScheduledWeights.from_config({"schedules": {"rating": hostile}}),
        "ChainedTrunk": lambda: ChainedTrunk.from_config({"trunk": hostile, "after": {}}),
        "Regression": lambda: Regression.from_config({"name": "rating", "extra_metrics": [hostile]}),
        "ScaledRates": lambda: ScaledRates.from_config({"optimizer": hostile, "factors": {}}),
        "GroupedOptimizer": lambda: GroupedOptimizer.from_config({"dense": hostile, "embeddings": optimizer}),
    }
    for name, make in makers.items():
        with pytest.raises(ValueError, match=f"^{name} .* at its top"):
            make()


def test_a_copy_in_memory_keeps_an_unregistered_part() -> None:
    copy = CRMOGM.from_config(CRMOGM(Plain()).get_config())
    assert type(copy.balancer) is Plain


class Plain(MGDA):
    """A balancer that is not registered."""


def test_a_keras_file_is_refused(tmp_path: pathlib.Path, sentinel: pathlib.Path) -> None:
    config = small.model().get_config()
    described = json.loads(config["model"])
    changed = {"model": json.dumps(replaced(described, ("balancer",), hostile_objects(sentinel)["module"]))}
    with pytest.raises(ValueError, match="names the class 'X' of the module 'hostile_sentinel' at balancer"):
        MultiTaskModel.from_config(changed)


def test_a_learner_of_a_stranger_is_refused(tmp_path: pathlib.Path, sentinel: pathlib.Path) -> None:
    learner = OnlineLearner(small.model(), tmp_path / "learner", replay=None)
    state, arrays = learner._journal.read_state(0)
    state["model"]["tasks"][0] = hostile_objects(sentinel)["module"]
    learner._journal.write_state(0, state, arrays)
    with pytest.raises(
        ValueError, match=r"learner/state-000000\.npz names the class 'X' of the module 'hostile_sentinel'"
    ):
        OnlineLearner.resume(tmp_path / "learner")


def test_a_class_that_is_no_model_is_refused(saved: pathlib.Path, tmp_path: pathlib.Path) -> None:
    config = read_json(saved / "model.json", "")
    write(saved, tmp_path / "model", {**config, "class": "tfmtl>MMoE"})
    with pytest.raises(ValueError, match="class tfmtl>MMoE, which is not registered"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "is empty"),
        (b"{", "is no JSON .*line 1 column 2"),
        (b"\xff", "is no JSON .*can't decode byte 0xff"),
        (b'{"class": 1, "class": 2}', "has the entry 'class' twice"),
        (b"[" * 100_000, "is no JSON .*recursion"),
        (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", "is nested more than 200 levels deep"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is no JSON .*4300 digits"),
        (b"[]", "is no mapping"),
        (b"{}", "it lacks the entries"),
    ],
)
def test_a_damaged_file_is_one_sentence(saved: pathlib.Path, tmp_path: pathlib.Path, text: bytes, reason: str) -> None:
    (tmp_path / "model.json").write_bytes(text)
    (tmp_path / "arrays.npz").write_bytes((saved / "arrays.npz").read_bytes())
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path))}.*{reason}") as e:
        load_model(tmp_path)
    assert "\n" not in str(e.value)


def test_every_allowed_operation_is_one_of_tensorflow() -> None:
    """A network holds the canonical name of an operation, which must be allowed as well."""
    found = {n: [tf_export.get_symbol_from_name(prefix + n) for prefix in ("", "compat.v1.")] for n in OPERATIONS}
    assert [name for name, functions in found.items() if not any(functions)] == []
    functions = [function for pair in found.values() for function in pair if function is not None]
    names = {tf_export.get_canonical_name_for_symbol(f, add_prefix_to_v1_names=True) for f in functions}
    assert [name for name in names if not is_operation(name)] == []
    assert not {name.partition(".")[0] for name in OPERATIONS} & {"io", "raw_ops", "data", "summary", "keras", "train"}

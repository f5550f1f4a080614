from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from servers.models import build
from tensorflow.core.protobuf import saved_model_pb2

from tfmtl._keras import tf
from tfmtl.models import MultiTaskModel
from tfmtl.serving import Exporter, Servable
from tfmtl.serving.exporter import CARD
from tfmtl.serving.signature import Signature
from tfmtl.serving.verification import difference, foreign_operations, probe_features
from tfmtl.serving.versions import MANIFEST


class Doubler(Exporter):
    """The smallest exporter: its signature multiplies a number by a variable."""

    def __init__(self, function: Callable[..., Any] | None = None, dtype: tf.DType = tf.float32) -> None:
        self.factor = tf.Variable(2.0)
        self.function = function or (lambda x: {"y": self.factor * x})
        self.dtype = dtype

    def servable(self, model: MultiTaskModel) -> Servable:
        spec = tf.TensorSpec([None], self.dtype, "x")
        signature = Signature(self.function, {"x": spec}, {"x": np.asarray([1, 2], self.dtype.as_numpy_dtype)})
        return Servable({"serving_default": signature})


def names(directory: pathlib.Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_own_exporter_is_one_method(tmp_path: pathlib.Path) -> None:
    path = Doubler().export(build()[0], tmp_path)
    loaded = tf.saved_model.load(str(path))
    answer = loaded.signatures["serving_default"](x=tf.constant([1.5]))
    np.testing.assert_array_equal(answer["y"], [3.0])


def test_own_probe_rows_are_checked_like_training_rows(tmp_path: pathlib.Path) -> None:
    model, frame = build()
    with pytest.raises(ValueError, match=r"The table lacks the columns \['age'\]"):
        Doubler().export(model, tmp_path / "model", probe=frame.drop(columns="age"))
    assert names(tmp_path) == []


def test_model_that_changed_on_the_way_is_not_published(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, save = Doubler(), tf.saved_model.save

    def corrupt(*arguments: Any, **options: Any) -> None:
        exporter.factor.assign(2.001)
        save(*arguments, **options)

    monkeypatch.setattr(tf.saved_model, "save", corrupt)
    with pytest.raises(RuntimeError, match=r"Output 'y' of .* differs by 0\.0005 after reloading"):
        exporter.export(build()[0], tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "error", [tf.errors.UnknownError(None, None, "x; No space left on device"), KeyboardInterrupt()]
)
def test_failing_save_leaves_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    save = tf.saved_model.save

    def break_off(*arguments: Any, **options: Any) -> None:
        save(*arguments, **options)
        raise error

    monkeypatch.setattr(tf.saved_model, "save", break_off)
    with pytest.raises((OSError, KeyboardInterrupt)):
        Doubler().export(build()[0], tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: {"y": x / 0.0}, "Output 'y' of signature 'serving_default' is not finite"),
        (lambda x: {"y": tf.reduce_sum(x)}, r"Output 'y' of .* must be float32, int64 or string \[B, "),
        (lambda x: {"y": x[:1] * tf.ones([3])}, "must be float32, int64 or string"),
        (lambda x: {"y": tf.cast(x, tf.float16)}, "must be float32, int64 or string"),
    ],
)
def test_unservable_answer_is_refused(tmp_path: pathlib.Path, function: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Doubler(function).export(build()[0], tmp_path / "model")
    assert names(tmp_path) == []


def test_untrained_kind_of_model_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TypeError, match="`model` must be MultiTaskModel"):
        Doubler().export(build()[0].network, tmp_path)


def test_foreign_operation_is_found_in_functions_too(tmp_path: pathlib.Path) -> None:
    proto = saved_model_pb2.SavedModel()
    graph = proto.meta_graphs.add().graph_def
    graph.node.add(op="Placeholder")
    function = graph.library.function.add()
    function.signature.name = "__inference_f"
    function.node_def.add(op="MatMul")
    function.node_def.add(op="__inference_f")
    function.node_def.add(op="Scann>ScannSearchBatched")
    (tmp_path / "saved_model.pb").write_bytes(proto.SerializeToString())
    assert foreign_operations(tmp_path) == ["Scann>ScannSearchBatched"]


def test_export_with_foreign_operation_is_not_published(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfmtl.serving.verification.foreign_operations", lambda path: ["Scann>ScannSearch"])
    with pytest.raises(
        RuntimeError, match=r"operations \['Scann>ScannSearch'\], which a stock TensorFlow server lacks"
    ):
        Doubler().export(build()[0], tmp_path / "model")
    assert names(tmp_path) == []


@pytest.mark.parametrize(("namespaces", "refused"), [((), True), (("Other",), True), (("Other", "Scann"), False)])
def test_operations_of_declared_namespaces_are_published_and_listed(
    namespaces: tuple[str, ...], refused: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("exporter", "verification"):
        monkeypatch.setattr(f"tfmtl.serving.{module}.foreign_operations", lambda path: ["Scann>ScannSearch"])
    exporter = Doubler()
    servable = dataclasses.replace(exporter.servable(build()[0]), namespaces=namespaces)
    monkeypatch.setattr(exporter, "servable", lambda model: servable)
    if refused:
        with pytest.raises(RuntimeError, match="stock TensorFlow server lacks"):
            exporter.export(build()[0], tmp_path / "model")
        return
    path = exporter.export(build()[0], tmp_path / "model")
    assert json.loads((path / MANIFEST).read_text())["foreign_operations"] == ["Scann>ScannSearch"]
    assert "needs: `Scann>ScannSearch`, of the library that has them." in (path / CARD).read_text()


@pytest.mark.parametrize("rows", [3, 8])
def test_probe_has_unknown_and_missing_rows_of_every_kind(rows: int) -> None:
    model, _ = build("int64")
    schema, statistics = model.schema, model.preprocessor.statistics
    features = probe_features(schema, statistics, rows)
    assert {name: len(value) for name, value in features.items()} == dict.fromkeys(schema.features, rows)
    for name, value in features.items():
        assert schema.features[name].raw_spec.is_compatible_with(value)
    encoded = {name: value.numpy() for name, value in model.preprocessor(features).items()}
    unknown, missing = rows - 2, rows - 1
    for name in ("user_id", "interests", "recent", "item_id", "genres", "title", "position"):
        assert (encoded[name][:unknown] >= 2).any()
        assert (encoded[name][missing] == 0).all()
        assert encoded[name][unknown].max() == 1
    np.testing.assert_array_equal(encoded["age"][unknown:], [[0, 1], [0, 1]])


@pytest.mark.parametrize(
    ("expected", "answer", "found"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0),
        ([0.5], [0.25], 0.25),  # absolute below 1
        ([-200.0], [-225.0], 0.125),  # relative above
        ([1.0], [float("nan")], float("nan")),
        ([float("nan")], [float("nan")], float("inf")),
        ([1.0], [1.0, 1.0], float("inf")),
        ([1.0], [1], float("inf")),
        (["a", "b"], ["a", "b"], 0.0),
        (["a", "b"], ["b", "a"], float("inf")),
    ],
)
def test_difference(expected: list[Any], answer: list[Any], found: float) -> None:
    np.testing.assert_equal(difference(tf.constant(expected), tf.constant(answer)), found)


def test_empty_answers_agree() -> None:
    assert difference(tf.zeros([0, 3]), tf.zeros([0, 3])) == 0.0

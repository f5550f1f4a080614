from __future__ import annotations

import pathlib
from typing import Any

import pytest
from tensorflow.core.protobuf import saved_model_pb2

from tfmtl._keras import tf
from tfmtl.serving.slimming import slim


class Everything(tf.Module):
    """Branches, loops, tables, variables and nested functions: everything that refers to nodes by name."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable([[2.0], [3.0]], name="a/long/name/for/a/weight")
        self.counter = tf.Variable(0)
        keys, values = tf.constant(["a", "b"]), tf.constant([4.0, 5.0])
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1.0)

    @tf.function(input_signature=[tf.TensorSpec([None], name="x")])
    def doubled(self, x: tf.Tensor) -> tf.Tensor:
        with tf.name_scope("some/scope"):
            return tf.map_fn(lambda value: 2.0 * value, x)

    @tf.function(
        input_signature=[tf.TensorSpec([None, 2], name="x"), tf.TensorSpec([None], tf.string, name="Identity")]
    )
    def serve(self, x: tf.Tensor, Identity: tf.Tensor) -> dict[str, tf.Tensor]:  # noqa: N803 - hostile on purpose
        with tf.name_scope("a/long/name/of/a/layer"):
            product = tf.squeeze(x @ self.weight, 1)
            found = self.table.lookup(Identity)
        with tf.control_dependencies([self.counter.assign_add(1)]):
            signed = tf.cond(tf.reduce_sum(product) > 0, lambda: product, lambda: -product)
        parts = tf.split(tf.stack([signed, found], axis=1), 2, axis=1)
        return {"signed": self.doubled(parts[0][:, 0]), "found": parts[1][:, 0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path, module = tmp_path_factory.mktemp("slim"), Everything()
    tf.saved_model.save(module, str(path), signatures={"serve": module.serve})
    return path


def ask(path: pathlib.Path) -> tuple[dict[str, Any], int]:
    loaded = tf.saved_model.load(str(path))
    x, names = tf.constant([[1.0, -1.0], [-2.0, 0.5]]), tf.constant(["b", "unknown"])
    answer = [loaded.signatures["serve"](x=x, Identity=names) for _ in range(2)][-1]
    return {name: value.numpy().tolist() for name, value in answer.items()}, int(loaded.counter)


def graph(path: pathlib.Path) -> Any:
    return saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def


def test_a_slim_model_computes_the_same(folder: pathlib.Path) -> None:
    """By hand: products -1 and -2.5 have a negative sum; doubled 2 and 5. "b" is 5; two calls were counted."""
    before, size, names = ask(folder), (folder / "saved_model.pb").stat().st_size, {n.name for n in graph(folder).node}
    slim(folder)
    assert before == ask(folder) == ({"signed": [2.0, 5.0], "found": [5.0, -1.0]}, 2)
    assert (folder / "saved_model.pb").stat().st_size < 0.85 * size
    assert {n.name for n in graph(folder).node} == names  # servers find inputs and outputs by name


def test_names_are_those_of_operations_and_distinct(folder: pathlib.Path) -> None:
    slim(folder)
    functions = graph(folder).library.function
    assert len(functions) > 5
    for function in functions:
        names = [node.name for node in function.node_def]
        assert len(set(names)) == len(names)
        assert not set(names) & {argument.name for argument in function.signature.input_arg}
        assert all(node.name.startswith(node.op) for node in function.node_def if not node.attr["shared_name"].s)
        assert not any("_output_shapes" in node.attr for node in function.node_def)


def test_the_fingerprint_is_that_of_the_slim_model(tmp_path: pathlib.Path) -> None:
    module = Everything()
    tf.saved_model.save(module, str(tmp_path), signatures={"serve": module.serve})
    found = [checksum(tmp_path)]
    for _ in range(2):
        slim(tmp_path)
        found.append(checksum(tmp_path))
    assert found[0] != found[1] == found[2]


def checksum(path: pathlib.Path) -> int:
    return tf.saved_model.experimental.read_fingerprint(str(path)).saved_model_checksum

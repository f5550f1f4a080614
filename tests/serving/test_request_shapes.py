"""The check of shapes at the start of every signature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from servers.models import build, queries, raw

from tfmtl._keras import tf
from tfmtl.serving.signature import FromExamples, Signature

SPECS = {
    "age": tf.TensorSpec([None], tf.float32),
    "words": tf.TensorSpec([None, None], tf.string),
    "vector": tf.TensorSpec([None, 3], tf.float32),
}
REQUEST = {"age": np.zeros(2, np.float32), "words": [["a"], ["b"]], "vector": np.zeros([2, 3], np.float32)}
RULE = (
    r"Every input must have its shape, with the same number of rows B and at most 65,536 values in a list\. Received: "
)


def ages(*, age: tf.Tensor, words: tf.Tensor, vector: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"age": age + 1.0, "size": tf.strings.length(words[:, :1])[:, 0], "sum": tf.reduce_sum(vector, axis=1)}


def call(signature: Signature, request: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Run the graph as a server does, which checks no shape."""
    function = signature.traced
    graph = tf.Graph()
    with graph.as_default():
        fed = {n: tf.compat.v1.placeholder(spec.dtype, None) for n, spec in signature.inputs.items()}
        answer = function(**{name: tf.ensure_shape(value, None) for name, value in fed.items()})
    with tf.compat.v1.Session(graph=graph) as session:
        return session.run(answer, {fed[name]: value for name, value in request.items()})


@pytest.mark.parametrize(
    ("wrong", "received"),
    [
        ({"age": np.zeros(1)}, r"age \[B\] as \[1\], words \[B, n\] as \[2, 1\], vector \[B, 3\] as \[2, 3\]\.\]"),
        ({"age": np.zeros(3)}, r"age \[B\] as \[3\]"),
        ({"age": np.zeros([2, 1])}, r"age \[B\] as \[2, 1\]"),
        ({"age": 0.0}, r"age \[B\] as \[\]"),
        ({"words": ["a", "b"]}, r"words \[B, n\] as \[2\]"),
        ({"words": np.full([2, 65_537], "")}, r"words \[B, n\] as \[2, 65537\]"),
        ({"words": [["a"]]}, r"words \[B, n\] as \[1, 1\]"),
        ({"vector": np.zeros([2, 4])}, r"vector \[B, 3\] as \[2, 4\]"),
        ({"vector": np.zeros([2, 3, 1])}, r"vector \[B, 3\] as \[2, 3, 1\]"),
        ({"vector": np.zeros([0, 3])}, r"vector \[B, 3\] as \[0, 3\]"),
        (
            {"age": np.zeros([1, 1]), "words": ["a"], "vector": np.zeros([1, 3])},
            r"age \[B\] as \[1, 1\], words \[B, n\]",
        ),
    ],
)
def test_other_shapes_are_refused_with_the_names_and_shapes_of_all_inputs(wrong: Any, received: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=RULE + ".*" + received):
        call(Signature(ages, SPECS), {**REQUEST, **wrong})


@pytest.mark.parametrize(("rows", "width"), [(0, 2), (1, 2), (5, 1), (1, 65_536)])
def test_right_shapes_are_answered(rows: int, width: int) -> None:
    words = np.full([rows, width], "ab", object)
    request = {"age": np.ones(rows, np.float32), "words": words, "vector": np.ones([rows, 3], np.float32)}
    answer = call(Signature(ages, SPECS), request)
    assert {name: value.tolist() for name, value in answer.items()} == {
        "age": [2.0] * rows,
        "size": [2] * rows,
        "sum": [3.0] * rows,
    }


def test_protos_must_be_a_vector() -> None:
    signature = FromExamples.reading(Signature(ages, SPECS))
    with pytest.raises(tf.errors.InvalidArgumentError, match=RULE + r"examples \[B\] as \[1, 1\]"):
        call(signature, {"examples": [[b""]]})


def test_every_input_of_a_served_model_needs_the_rows_of_the_others(loaded: Any, ids: Any) -> None:
    """One row in place of seven would be repeated for all queries, and three values of k would be three answers."""
    model, frame = build(ids)
    query = queries(model, frame)
    missing = tf.fill([7, 1], tf.constant("" if ids == "string" else -1, query["user_id"].dtype))
    filters = {"exclude_ids": missing, "restrict_ids": missing, "k": tf.fill([7], 3)}
    weights = {f"weight_{name}": tf.fill([7], 1.0) for name in ("seen", "rating", "clicked")}
    filtered = {**query, **filters}
    requests = {
        "retrieve": query,
        "retrieve_filtered": filtered,
        "recommend_filtered": {**filtered, **weights, "position": tf.fill([7], tf.constant(1, tf.int64))},
        "rank": raw(model, frame[:7]),
    }
    for signature, request in requests.items():
        loaded.signatures[signature](**request)
        for name, value in request.items():
            for rows in (1, 3):
                with pytest.raises(tf.errors.InvalidArgumentError, match=rf"{name} \[B.*\] as \[{rows}[,\]]"):
                    loaded.signatures[signature](**{**request, name: value[:rows]})
    one = {name: value[:1] for name, value in filtered.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"user_id \[B\] as \[1\].* k \[B\] as \[3\]"):
        loaded.signatures["retrieve_filtered"](**{**one, "k": tf.constant([1, 2, 3])})

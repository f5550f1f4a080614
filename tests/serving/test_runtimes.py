"""The published folder answers in processes without the packages that made it."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from servers import cc_loader
from servers.models import MAX_K, IdType, build, queries, raw

from tests.serving.exports import Exports
from tests.serving.reference import FUSED, Reference, check_equal
from tests.serving.wire import Call, Flat, flatten, write_calls
from tfmtl._keras import tf
from tfmtl.data.preprocessor import missing_row
from tfmtl.models import MultiTaskModel

HERE = pathlib.Path(__file__).parent


def run(runtime: str, model: pathlib.Path, calls: pathlib.Path) -> list[dict[str, Flat]]:
    """Answer the calls in another process that runs the script `runtime`."""
    command = [sys.executable, str(HERE / runtime), str(model), str(calls)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    answers: list[dict[str, Flat]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def unflatten(flat: Flat) -> np.ndarray:
    dtype = object if flat["dtype"] == "string" else flat["dtype"]
    return np.asarray(flat["values"], dtype).reshape(flat["shape"])


def requests(ids: IdType) -> list[tuple[str, dict[str, Any], dict[str, np.ndarray]]]:
    """Return signatures with a request and the expected answer, of 7, 1 and 0 rows."""
    model, frame = build(ids)
    query = queries(model, frame)
    reference = Reference(model, frame, query)
    exclude = reference.retrieve(2)["ids"]
    k = np.asarray([3, -1, 0, 99, 1, 10, 2], np.int32)
    weights = {name: np.linspace(0.1, 1, 7, dtype=np.float32) ** power for power, name in enumerate(FUSED)}
    only = np.concatenate([reference.retrieve(4)["ids"], np.full_like(exclude, reference.missing)], 1)
    cut = {**query, "exclude_ids": exclude, "restrict_ids": only, "k": k}
    position = np.asarray([1, 2, 3, -1, 1, 77, 2])
    weighed = {**cut, "position": position, **{f"weight_{name}": weight for name, weight in weights.items()}}
    placed = Reference(model, frame, query, position)
    rank = raw(model, frame[:7]), model.predict(frame[:7], verbose=0)
    whole = [
        ("retrieve", query, reference.retrieve(MAX_K)),
        ("retrieve_filtered", cut, reference.retrieve(MAX_K, exclude, k, only)),
        ("recommend", query, reference.recommend(MAX_K)),
        ("recommend_filtered", weighed, placed.recommend(MAX_K, exclude, k, weights, only)),
        ("embed_query_examples", *of_age_alone(model)),
        ("rank", *rank),
        ("serving_default", query, reference.recommend(MAX_K)),
    ]
    return [
        (name, {n: np.asarray(v)[:rows] for n, v in inputs.items()}, {n: v[:rows] for n, v in answer.items()})
        for rows in (7, 1, 0)
        for name, inputs, answer in whole
    ]


def of_age_alone(model: MultiTaskModel) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return protos that hold the age 8, as an integer or as a float, and the embeddings of their users."""
    integer = tf.train.Feature(int64_list=tf.train.Int64List(value=[8]))
    number = tf.train.Feature(float_list=tf.train.FloatList(value=[8.0]))
    protos = [tf.train.Example(features=tf.train.Features(feature={"age": kind})) for kind in (integer, number)]
    query = {feature.name: missing_row(feature) for feature in model.schema.query}
    embedding = model.tower("query")(model.preprocessor({**query, "age": tf.constant([8.0])}))["seen"].numpy()
    texts = [proto.SerializeToString().decode() for proto in protos]
    return {"examples": np.resize(np.asarray(texts), 7)}, {"embedding": np.repeat(embedding, 7, axis=0)}


@pytest.mark.parametrize("runtime", ["blocked_process.py", "c_api.py"])
def test_answers_without_the_packages_that_made_it(
    runtime: str, ids: IdType, exported: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    asked = requests(ids)
    calls = [Call(name, {n: flatten(v) for n, v in inputs.items()}) for name, inputs, _ in asked]
    write_calls(tmp_path / "calls.json", calls)
    answers = run(runtime, exported, tmp_path / "calls.json")
    for answer, (_, _, expected) in zip(answers, asked, strict=True):
        check_equal({name: unflatten(flat) for name, flat in answer.items()}, expected)


def test_answers_in_the_layer_of_keras_3(exports: Exports, tmp_path: pathlib.Path) -> None:
    asked = [call for call in requests("string")[:7] if call[0] in ("retrieve_filtered", "rank")]
    calls = [Call(name, {n: flatten(v) for n, v in inputs.items()}) for name, inputs, _ in asked]
    write_calls(tmp_path / "calls.json", calls)
    answers = run("tfsm_layer.py", exports.of("string") / "1", tmp_path / "calls.json")
    for answer, (_, _, expected) in zip(answers, asked, strict=True):
        check_equal({name: unflatten(flat) for name, flat in answer.items()}, expected)


@pytest.mark.skipif(not cc_loader.can_compile(), reason="needs g++")
def test_answers_in_the_loader_of_tensorflow_serving(
    ids: IdType, exported: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with cc_loader.loaded(cc_loader.compiled(tmp_path_factory.getbasetemp()), exported) as loader:
        for name, inputs, expected in requests(ids):
            answer = loader.ask(name, {n: _typed(value) for n, value in inputs.items()})
            answer = {n: np.char.decode(v.astype(bytes)) if v.dtype == object else v for n, v in answer.items()}
            check_equal(answer, expected)
        with pytest.raises(RuntimeError, match="no input"):
            loader.ask("retrieve", {})


def _typed(value: np.ndarray) -> np.ndarray:
    """Return strings as objects, so that an array without rows keeps its type."""
    return value.astype(object) if value.dtype.kind in "OUS" else value

"""An export behind a server, with REST and gRPC by the rules of TensorFlow Serving."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from servers import client, robustness
from servers.models import MAX_K, build, queries

from tests.serving.exports import Exports
from tests.serving.reference import Reference, check_equal
from tfmtl._keras import tf
from tfmtl.serving import export

pytest.importorskip("tensorflow_serving.apis.predict_pb2", reason="needs tensorflow-serving-api")

MODEL, FRAME = build()
QUERY = queries(MODEL, FRAME)
REFERENCE = Reference(MODEL, FRAME, QUERY)


def plain(tensor: Any) -> Any:
    value = np.asarray(tensor)
    return np.char.decode(value.astype(bytes)).tolist() if value.dtype == object else value.tolist()


def good() -> dict[str, Any]:
    """Return a request with every kind of input."""
    columns = {name: plain(value[:5]) for name, value in QUERY.items()}
    columns["age"] = [20.0, 30, 40, 50, 60]
    limits = {"exclude_ids": [["i1", "i2"]] * 5, "restrict_ids": [[""]] * 5, "k": [3, 10, -1, 2**31 - 1, 0]}
    return {"signature_name": "retrieve_filtered", "inputs": {**columns, **limits}}


@pytest.fixture(scope="module")
def version(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return shutil.copytree(exports.of(), tmp_path_factory.mktemp("served") / "model") / "1"


@pytest.fixture(scope="module")
def server(version: pathlib.Path) -> Iterator[Any]:
    with client.serving(version.parent) as found:
        found.wait_for(1)
        yield found


@pytest.mark.parametrize("rows", [True, False])
def test_rest_answers_rows_and_columns(server: Any, rows: bool) -> None:
    columns = {name: plain(value) for name, value in QUERY.items()}
    for signature, expected in (("retrieve", REFERENCE.retrieve(MAX_K)), ("recommend", REFERENCE.recommend(MAX_K))):
        if rows:
            instances = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            found = server.predict(signature, instances=instances)["predictions"]
            answer = {name: np.asarray([row[name] for row in found]) for name in found[0]}
        else:
            answer = server.predict(signature, inputs={**columns, "of no use": 1})["outputs"]
            answer = {name: np.asarray(value) for name, value in answer.items()}
        check_equal(answer, expected)


def test_one_input_and_one_output_go_without_names(server: Any) -> None:
    query = {name: plain(value) for name, value in QUERY.items()}
    named = server.predict("embed_query", inputs=query)["outputs"]
    assert np.shape(named) == (7, 8)
    protos = [{"b64": ""}, {"b64": "CgA="}]
    bare = server.predict("embed_query_examples", instances=protos)["predictions"]
    assert np.shape(bare) == (2, 8)
    assert server.predict("embed_query_examples", inputs=protos)["outputs"] == bare


def test_grpc_answers_as_rest(server: Any) -> None:
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc']}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "model", "recommend"
        for name, value in QUERY.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
        response = stub.Predict(request, timeout=60)
        answer = {name: tf.make_ndarray(value) for name, value in response.outputs.items()}
        check_equal({n: np.asarray(plain(v)) for n, v in answer.items()}, REFERENCE.recommend(MAX_K))
        assert response.model_spec.version.value == 1
        request.inputs["age"].CopyFrom(tf.make_tensor_proto(["old"] * 7))
        with pytest.raises(grpc.RpcError, match="has type object, not float32"):
            stub.Predict(request, timeout=60)
        del request.inputs["age"]
        with pytest.raises(grpc.RpcError, match="do not match"):
            stub.Predict(request, timeout=60)


def test_malformed_requests_are_refused_and_change_nothing(server: Any) -> None:
    body = json.dumps(good()).encode()
    expected = server.post(body)
    assert expected[0] == 200
    assert [len(set(row) - {""}) for row in expected[1]["outputs"]["ids"]] == [3, 10, 10, 10, 0]
    for bad in robustness.malformed(good()):
        status, answer = server.post(bad)
        assert status == 400, (bad[:200], answer)
        assert server.post(body) == expected
    assert server.post(body, "/v1/models/model:classify")[0] == 404
    assert server.post(body, "/v1/models/model/versions/7:predict")[0] == 404
    empty = {name: [] for name in good()["inputs"]}
    assert server.post(json.dumps({**good(), "inputs": empty}).encode())[0] == 400  # a list of lists has no width


def test_fuzzed_requests_never_fail_the_server(server: Any) -> None:
    statuses = robustness.fuzz(server, good(), 300)
    assert set(statuses) == {200, 400}
    assert statuses[400] > 100


def test_versions_are_swapped_under_load(version: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = export(MODEL, tmp_path / "other", max_k=MAX_K - 1)
    (tmp_path / "model").mkdir()
    assert robustness.swap(tmp_path / "model", [version, other], good(), clients=4, swaps=2).answers > 0


def test_killed_exports_leave_only_versions_that_load(version: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert robustness.kill_exports(tmp_path / "model", 2, [str(version)]) >= 2


def test_documented_requests_get_the_documented_answers() -> None:
    saved_models = pathlib.Path(__file__).parents[2] / "saved_models"
    text = (saved_models / "README.md").read_text()
    documented = re.findall(r"golden:predict -d '(.*?)'\n(\{[^\n]*\})?", text, re.DOTALL)
    assert len(documented) == 8
    with client.serving(saved_models / "golden") as golden:
        golden.wait_for(1)
        for body, rest in documented:
            status, answer = golden.post(body.encode())
            assert status == 200, answer
            if rest:
                tf.nest.map_structure(close, json.loads(rest), answer)


def close(documented: Any, found: Any) -> None:
    assert found == documented if isinstance(documented, str) else found == pytest.approx(documented, abs=2e-4)

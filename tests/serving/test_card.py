"""The files beside a SavedModel: its card, the requests of its verification and the configuration of its server."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import pytest
from servers.models import build

from tests.serving.exports import Exports
from tfmtl._keras import tf
from tfmtl.data import Schema
from tfmtl.serving import ModelCard, write_server_config
from tfmtl.serving.card import markdown
from tfmtl.serving.warm_up import WARM_UP, of_size, read_requests, tensor, write_warm_up


@pytest.fixture(scope="module")
def described(exports: Exports) -> pathlib.Path:
    return exports.described()


def test_the_manifest_describes_the_model(described: pathlib.Path) -> None:
    model, _ = build()
    card = json.loads((described / "assets.extra" / "tfmtl.json").read_text())["card"]
    assert card["description"] == "A test."
    assert card["tasks"]["rating"] == "Regression"
    assert card["metrics"] == {"rating": {"rmse": 0.5}, "clicked": {"auc": 0.7}, "seen": {"ndcg@10": None}}
    assert Schema.from_config(card["schema"]) == model.schema
    assert card["parameters"] == model.network.count_params()
    assert card["data"]["sha256"] == "abc"
    assert card["versions"]["tensorflow"] == tf.__version__
    assert set(card["versions"]) >= {"python", "numpy", "tf-keras", "tensorflow-recommenders"}


def test_other_statistics_have_another_hash() -> None:
    hashes = {ModelCard().describe(build(ids)[0])["data"]["statistics_sha256"] for ids in ("string", "int64")}
    assert len(hashes) == 2


def test_the_card_has_tasks_features_and_signatures(described: pathlib.Path) -> None:
    text = (described / "assets.extra" / "model_card.md").read_text()
    assert "| rating | Regression | rmse 0.5 |" in text
    assert "| seen | Retrieval | not given |" in text
    assert "| price | candidate | Numeric |" in text
    assert "| rank |" in text
    manifest = json.loads((described / "assets.extra" / "tfmtl.json").read_text())
    assert markdown(manifest) == text


def test_without_git_there_is_no_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert ModelCard().describe(build()[0])["revision"] is None


def test_stored_requests_are_answered(exported: pathlib.Path, loaded: Any) -> None:
    signatures = loaded.signatures
    requests = read_requests(exported)
    assert set(requests) == set(signatures)
    for name, stored in requests.items():
        request = {i: tensor(value) for i, value in stored.items()}
        for rows in (1, 20):
            answer = signatures[name](**of_size(request, rows))
            assert {len(value) for value in answer.values()} == {rows}


def test_without_the_protos_there_is_no_warm_up(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis.predict_pb2", None)
    assert not write_warm_up(tmp_path, {}, {})
    assert list(tmp_path.iterdir()) == []


def test_warm_up_requests_are_answered_in_several_sizes(
    exported: pathlib.Path, loaded: Any, tmp_path: pathlib.Path
) -> None:
    log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    signatures = loaded.signatures
    requests = {n: {i: tensor(v) for i, v in stored.items()} for n, stored in read_requests(exported).items()}
    assert write_warm_up(tmp_path, signatures, requests)
    records = tf.data.TFRecordDataset(str(tmp_path / WARM_UP))
    found: dict[str, list[int]] = {}
    for record in records:
        request = log.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {i: tf.constant(tf.make_ndarray(proto)) for i, proto in request.inputs.items()}
        (rows,) = {len(v) for v in signatures[request.model_spec.signature_name](**inputs).values()}
        found.setdefault(request.model_spec.signature_name, []).append(rows)
    assert found == {name: [1, 8, 64] for name in requests}


def test_the_configuration_lists_every_model_with_a_version(tmp_path: pathlib.Path) -> None:
    for name in ("a/1", "a/2", "b/7", "empty", "c/.tmp-1"):
        (tmp_path / name).mkdir(parents=True)
    options = write_server_config(tmp_path, base_path="/m", threads=2)
    text = (tmp_path / "models.config").read_text()
    assert text.count("config {") == 2
    assert 'name: "a" base_path: "/m/a"' in text
    assert 'name: "b" base_path: "/m/b"' in text
    for name in ("models", "batching", "monitoring"):
        assert f"/m/{name}.config" in options
        assert (tmp_path / f"{name}.config").is_file()
    assert "num_batch_threads { value: 2 }" in (tmp_path / "batching.config").read_text()


def test_without_a_version_there_is_nothing_to_serve(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"^No model in .* has a version; export one first\.$"):
        write_server_config(tmp_path)
    assert list(tmp_path.iterdir()) == []

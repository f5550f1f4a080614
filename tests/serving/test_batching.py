"""Requests that are joined and split as TensorFlow Serving does by the exported settings."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pytest
from servers.models import IdType, build, identifier, queries

from tfmtl._keras import tf
from tfmtl.serving import to_examples, write_server_config
from tfmtl.serving.server_config import BATCHING, write_batching
from tfmtl.serving.warm_up import of_size

Request = dict[str, tf.Tensor]


class Batcher:
    """Joins and splits requests by the rules of batching_session.cc and shared_batch_scheduler.h.

    Args:
        settings: text of a proto `BatchingParameters`.
        signature: the function of the batches.
    """

    def __init__(self, settings: str, signature: Any) -> None:
        self.settings = dict(re.findall(r"^(\w+) \{ value: (\w+) \}$", settings, re.MULTILINE))
        self.signature = signature
        self.batches: list[int] = []

    def answer(self, requests: list[Request]) -> list[dict[str, np.ndarray]]:
        """Return the answers of requests that wait at the same time."""
        sizes = [len(next(iter(request.values()))) for request in requests]
        if max(sizes) > int(self.settings["max_batch_size"]):
            raise ValueError(f"Task size {max(sizes)} is larger than maximum input batch size")
        assert self.settings["enable_large_batch_splitting"] == "true"
        whole = {name: tf.concat([request[name] for request in requests], 0) for name in requests[0]}
        step = int(self.settings["max_execution_batch_size"])
        parts = [{n: v[start : start + step] for n, v in whole.items()} for start in range(0, sum(sizes), step)]
        self.batches = [len(next(iter(part.values()))) for part in parts]
        answers = [self.signature(**part) for part in parts]
        joined = {name: np.concatenate([answer[name].numpy() for answer in answers]) for name in answers[0]}
        ends = np.cumsum(sizes)[:-1]
        split = {name: np.split(value, ends) for name, value in joined.items()}
        return [{name: values[i] for name, values in split.items()} for i in range(len(requests))]


def test_large_requests_are_split_and_answered(ids: IdType, exported: pathlib.Path, loaded: Any) -> None:
    query = of_size(queries(*build(ids)), 150)
    signature = loaded.signatures["recommend"]
    batcher = Batcher((exported / BATCHING).read_text(), signature)
    requests = [{name: value[start:end] for name, value in query.items()} for start, end in ((0, 140), (140, 150))]
    whole = {name: value.numpy() for name, value in signature(**query).items()}
    answers = batcher.answer(requests)
    assert batcher.batches == [64, 64, 22]
    for name, value in whole.items():
        found = np.concatenate([answer[name] for answer in answers])
        if name == "ids":
            np.testing.assert_array_equal(found, value)
        else:
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="Task size 4097 is larger"):
        batcher.answer([of_size(query, 4097)])


def test_lists_of_any_length_are_joined_as_protos(ids: IdType, exported: pathlib.Path, loaded: Any) -> None:
    """A server joins tensors of equal width only; protos have none."""
    query = queries(*build(ids))
    rows = [{name: value[i : i + 1] for name, value in query.items()} for i in range(3)]
    excluded = [[], [query["recent"][3, 0].numpy()], query["recent"][3].numpy().tolist()]
    rows = [row | ({"exclude_ids": [e]} if e else {}) for row, e in zip(rows, excluded, strict=True)]
    signature = loaded.signatures["retrieve_examples"]
    requests = [{"examples": to_examples(row)} for row in rows]
    answers = Batcher((exported / BATCHING).read_text(), signature).answer(requests)
    for request, answer in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(signature(**request)["ids"], answer["ids"])


def padded_as_the_server_does(values: tf.Tensor, width: int) -> tf.Tensor:
    """Pad with the first value of the tensor, as AddPadding of batching_util.h does."""
    return tf.concat([values, tf.fill([len(values), width - values.shape[1]], values[0, 0])], axis=1)


def test_padding_by_the_server_would_change_answers_and_is_off(
    exported: pathlib.Path, ids: IdType, loaded: Any
) -> None:
    query = {name: value[:2] for name, value in queries(*build(ids)).items()}
    missing = "" if ids == "string" else -1
    recent = [[identifier(ids, "i", 3), identifier(ids, "i", 4)], [identifier(ids, "i", 5), missing]]
    alone = tf.constant(recent, query["recent"].dtype)
    right, wrong = (
        loaded.signatures["retrieve"](**{**query, "recent": value})["scores"].numpy()
        for value in (alone, padded_as_the_server_does(alone, 3))
    )
    assert (np.abs(right - wrong).max(axis=1) > 1e-3).all()
    assert "pad_variable_length_inputs" not in (exported / BATCHING).read_text()


def test_settings_of_a_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "shop" / "1").mkdir(parents=True)
    write_server_config(tmp_path, max_batch_size=32, threads=2, max_request=100)
    text = (tmp_path / "batching.config").read_text()
    assert text == (
        "max_batch_size { value: 100 }\nenable_large_batch_splitting { value: true }\n"
        "max_execution_batch_size { value: 32 }\nbatch_timeout_micros { value: 2000 }\n"
        "num_batch_threads { value: 2 }\nmax_enqueued_batches { value: 1000 }\n"
    )
    with pytest.raises(ValueError, match=r"`max_request` must be at least `max_batch_size`.*max_request=8"):
        write_batching(tmp_path / "shop" / "1", max_request=8)
    with pytest.raises(ValueError, match=r"`threads` must be a positive integer"):
        write_server_config(tmp_path, threads=0)


@pytest.mark.parametrize("kind", ["file", "nothing", "hard link"])
def test_links_are_replaced_and_never_written_through(tmp_path: pathlib.Path, kind: str) -> None:
    models, outside = tmp_path / "models", tmp_path / "outside"
    version = models / "shop" / "1"
    version.mkdir(parents=True)
    if kind != "nothing":
        outside.write_text("key")
    paths = [*(models / f"{name}.config" for name in ("models", "batching", "monitoring")), version / BATCHING]
    for path in paths:
        path.hardlink_to(outside) if kind == "hard link" else path.symlink_to(outside)
    write_server_config(models)
    write_batching(version)
    assert [path.is_symlink() or path.stat().st_nlink > 1 for path in paths] == [False] * 4
    assert paths[0].read_text().startswith("model_config_list")
    assert paths[1].read_text() == paths[3].read_text()
    assert outside.read_text() == "key" if kind != "nothing" else not outside.exists()

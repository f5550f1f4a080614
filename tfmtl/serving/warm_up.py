"""Warm-up: requests that a server replays when it loads a version, so that no client waits for the first one."""

from __future__ import annotations

import base64
import importlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from tfmtl._keras import tf
from tfmtl._saved_files import read_json
from tfmtl.serving.versions import MANIFEST, check_files

REQUESTS = pathlib.PurePath("assets.extra", "tfmtl_requests.json")
"""One request per signature, with which the version was verified."""

WARM_UP = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")
"""The file of requests that TensorFlow Serving replays; it does not load a version if one of them fails."""

_SIZES = (1, 8, 64)

Requests = Mapping[str, Mapping[str, tf.Tensor]]


def write_requests(folder: pathlib.Path, requests: Requests) -> None:
    """Store one request per signature for `python -m tfmtl bench` and for authors of clients."""
    plain = {name: {i: _plain(tensor) for i, tensor in request.items()} for name, request in requests.items()}
    (folder / REQUESTS).write_text(json.dumps(plain) + "\n")


def read_requests(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Return the requests of `write_requests` as plain values: {signature: {input: {"dtype", "shape", "values"}}}.

    Raises:
        DamagedFileError: a `ValueError`, if the file does not match its checksum or is no JSON.
    """
    if (folder / MANIFEST).is_file():
        check_files(folder, REQUESTS.as_posix())
    return read_json(folder / REQUESTS, "export the model again")


def tensor(stored: Mapping[str, Any]) -> tf.Tensor:
    """Return a stored input as a tensor."""
    values, dtype = stored["values"], stored["dtype"]
    if dtype == "base64":
        return tf.constant([base64.b64decode(value) for value in values], tf.string)
    return tf.reshape(tf.constant(values, dtype), stored["shape"])


def of_size(request: Mapping[str, tf.Tensor], rows: int) -> dict[str, tf.Tensor]:
    """Return a request with a given number of rows, which repeats the rows of another request."""
    return {name: tf.gather(value, tf.range(rows) % len(value)) for name, value in request.items()}


def write_warm_up(folder: pathlib.Path, functions: Mapping[str, Any], requests: Requests) -> bool:
    """Write the requests that TensorFlow Serving replays, if the package `tensorflow-serving-api` is installed.

    Each is written in batches of 1, 8 and 64 rows and answered here first, so that none of them fails on a server.

    Returns:
        Whether the requests were written.
    """
    try:
        predict = importlib.import_module("tensorflow_serving.apis.predict_pb2")
        log = importlib.import_module("tensorflow_serving.apis.prediction_log_pb2")
    except ImportError:
        return False
    (folder / WARM_UP).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / WARM_UP)) as writer:
        for name, request in requests.items():
            for rows in _SIZES:
                record, batch = predict.PredictRequest(), of_size(request, rows)
                functions[name](**batch)
                record.model_spec.signature_name = name
                for i, value in batch.items():
                    record.inputs[i].CopyFrom(tf.make_tensor_proto(value.numpy(), value.dtype, value.shape))
                entry = log.PredictionLog(predict_log=log.PredictLog(request=record))
                writer.write(entry.SerializeToString())
    return True


def _plain(value: tf.Tensor) -> dict[str, Any]:
    array = value.numpy()
    flat = array.reshape(-1).tolist()
    shape = list(array.shape)
    if array.dtype != object:
        return {"dtype": array.dtype.name, "shape": shape, "values": flat}
    try:
        return {"dtype": "string", "shape": shape, "values": [text.decode() for text in flat]}
    except UnicodeDecodeError:
        return {"dtype": "base64", "shape": shape, "values": [base64.b64encode(text).decode() for text in flat]}

"""A version of a SavedModel, loaded and run in a process, so that loading does not hold up requests to another one.

In one Python process the threads of 32 clients leave a load hardly any time, unlike in TensorFlow Serving.
"""

from __future__ import annotations

import multiprocessing
import pathlib
import threading
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import numpy as np
import tensorflow as tf
from json_tensor import BadRequestError, Spec
from tensorflow_serving.apis import prediction_log_pb2

Arrays = dict[str, np.ndarray]


class Loader:
    """Loads versions in processes that are forked from one which has imported TensorFlow and has no threads.

    Create it before the first thread starts.
    """

    def __init__(self) -> None:
        self._fork = multiprocessing.get_context("fork")
        self._pipe, other = self._fork.Pipe()
        self._fork.Process(target=self._fork_versions, args=(other,)).start()
        other.close()

    def load(self, path: pathlib.Path) -> LoadedVersion:
        """Load a version.

        Raises:
            RuntimeError: if it does not load, or a warm-up request fails.
        """
        with Listener(family="AF_UNIX") as listener:
            self._pipe.send((str(path), listener.address))
            pipe = listener.accept()
        loaded = pipe.recv()
        if isinstance(loaded, str):
            raise RuntimeError(loaded)
        return LoadedVersion(int(path.name), pipe, loaded)

    def close(self) -> None:
        """End all versions."""
        self._pipe.close()

    def _fork_versions(self, pipe: Connection) -> None:
        self._pipe.close()
        while True:
            try:
                arguments = pipe.recv()
            except EOFError:
                return
            self._fork.Process(target=_serve, args=arguments, daemon=True).start()


class LoadedVersion:
    """A version in its own process, which ends when the last reference to this object is gone.

    Args:
        number: its number.
        pipe: to the process.
        specs: inputs of each signature.
    """

    def __init__(self, number: int, pipe: Connection, specs: dict[str, dict[str, Spec]]) -> None:
        self.number, self._pipe, self._specs = number, pipe, specs
        self._one = threading.Lock()

    def specs(self, signature: str) -> dict[str, Spec]:
        """Return the inputs of a signature."""
        if signature not in self._specs:
            raise BadRequestError(f'Serving signature key "{signature}" not found.')
        return self._specs[signature]

    def run(self, signature: str, inputs: Arrays) -> Arrays:
        """Answer a request."""
        specs = self.specs(signature)
        if set(inputs) != set(specs):
            raise BadRequestError(f"Request inputs {sorted(inputs)} do not match {sorted(specs)}.")
        for name, value in inputs.items():
            dtype, shape = specs[name]
            if (value.dtype.kind == "O") != (dtype == "string") or (dtype != "string" and value.dtype.name != dtype):
                raise BadRequestError(f"Input {name!r} has type {value.dtype}, not {dtype}.")
            if value.ndim != len(shape) or any(w not in (None, g) for g, w in zip(value.shape, shape, strict=True)):
                raise BadRequestError(f"Input {name!r} has shape {value.shape}, not {shape}.")
        with self._one:
            self._pipe.send((signature, inputs))
            answer: Arrays | str = self._pipe.recv()
        if isinstance(answer, str):
            raise BadRequestError(answer)
        return answer


def _serve(path: str, address: str) -> None:
    """Load a version, send the inputs of its signatures, and answer requests until the pipe is closed."""
    pipe = Client(address)
    try:
        signatures = tf.saved_model.load(path).signatures
        for signature, inputs in _warm_up_requests(pathlib.Path(path)):
            signatures[signature](**inputs)
    except Exception as error:  # noqa: BLE001 - the test looks for any reason not to load
        pipe.send(str(error))
        return
    inputs_of = {name: each.structured_input_signature[1] for name, each in signatures.items()}
    pipe.send({n: {k: (v.dtype.name, v.shape.as_list()) for k, v in inputs_of[n].items()} for n in inputs_of})
    while True:
        try:
            signature, inputs = pipe.recv()
        except EOFError:
            return
        try:
            answer = signatures[signature](
                **{name: tf.constant(v, inputs_of[signature][name].dtype) for name, v in inputs.items()}
            )
            pipe.send({name: tensor.numpy() for name, tensor in answer.items()})
        except tf.errors.OpError as error:
            pipe.send(error.message)


def _warm_up_requests(path: pathlib.Path) -> Any:
    """Yield the recorded requests, which TensorFlow Serving runs before it serves a version."""
    recorded = path / "assets.extra" / "tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(str(recorded)) if recorded.exists() else ():
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        yield request.model_spec.signature_name, inputs

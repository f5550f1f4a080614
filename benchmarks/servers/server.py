"""A substitute for TensorFlow Serving: versions of a folder, predict by REST and gRPC, hot swaps.

    python server.py MODEL_FOLDER [SECONDS_BETWEEN_POLLS]

It prints one line of JSON with the ports of REST and gRPC as soon as it accepts requests, and ends when its standard
input ends. It imports TensorFlow but not tfmtl, serves the highest version of the folder and keeps it until a higher
one is loaded and has answered its warm-up requests. Each version runs in its own process.
"""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import json_tensor
import tensorflow as tf
from json_tensor import BadRequestError
from loaded_version import LoadedVersion, Loader
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

URL = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict")


class Model:
    """The newest version of a folder, swapped while requests run."""

    def __init__(self, folder: pathlib.Path, poll: float) -> None:
        self.folder, self.poll, self.loader = folder, poll, Loader()
        self.failures: list[str] = []
        self.served: LoadedVersion | None = None
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            found = [path for path in self.folder.glob("*") if path.name.isascii() and path.name.isdecimal()]
            newest = max(found, key=lambda path: int(path.name), default=None)
            if newest is not None and (self.served is None or int(newest.name) > self.served.number):
                try:
                    self.served = self.loader.load(newest)
                except Exception as error:  # noqa: BLE001 - the test looks for any reason not to load
                    self.failures.append(f"{newest.name}: {error}")
            time.sleep(self.poll)

    def version(self, number: str | None) -> LoadedVersion:
        """Return the served version; raise `LookupError` if it has another number."""
        served = self.served
        if served is None or (number is not None and int(number) != served.number):
            raise LookupError("Servable not found.")
        return served


class Rest(BaseHTTPRequestHandler):
    """The REST API of one model."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet per answer, since a client waits 40 ms for a second one
    disable_nagle_algorithm = True
    model: Model

    def do_GET(self) -> None:
        """Answer with the served version and the versions that failed to load."""
        served = self.model.served
        self._answer(200, {"version": served and served.number, "failures": self.model.failures})

    def do_POST(self) -> None:
        """Answer a predict request."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = URL.fullmatch(self.path)
        try:
            if url is None:
                raise LookupError(f"Malformed request: POST {self.path}")
            version, request = self.model.version(url[2]), json_tensor.parse(body)
            signature = request.get("signature_name", "serving_default")
            inputs = json_tensor.read_inputs(request, version.specs(signature))
            self._answer(200, json_tensor.write_outputs(version.run(signature, inputs), "instances" in request))
        except BadRequestError as error:
            self._answer(400, {"error": str(error)})
        except LookupError as error:
            self._answer(404, {"error": str(error)})
        except Exception as error:  # noqa: BLE001 - the tests count status 500 as a failure
            self._answer(500, {"error": repr(error)})

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def _answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Grpc(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The gRPC API of one model."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name in the service
        """Answer a predict request."""
        try:
            wanted = request.model_spec.version
            version = self.model.version(str(wanted.value) if request.model_spec.HasField("version") else None)
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            signature = request.model_spec.signature_name or "serving_default"
            answer = version.run(signature, inputs)
        except BadRequestError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except LookupError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except (TypeError, ValueError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"malformed tensor: {error}")
        response = predict_pb2.PredictResponse()
        response.model_spec.version.value = version.number
        for name, value in answer.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


class HttpServer(ThreadingHTTPServer):
    """Accepts as many waiting connections as there are clients."""

    daemon_threads = True
    request_queue_size = 128


def main(folder: str, poll: str = "0.2") -> None:
    """Serve until the standard input ends."""
    model = Model(pathlib.Path(folder), float(poll))
    http = HttpServer(("127.0.0.1", 0), type("Handler", (Rest,), {"model": model}))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Grpc(model), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"rest": http.server_address[1], "grpc": port}), flush=True)
    sys.stdin.read()
    server.stop(None)
    model.loader.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

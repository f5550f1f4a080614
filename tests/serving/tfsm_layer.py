"""Answers requests with the `TFSMLayer` of Keras 3: `tfsm_layer.py MODEL CALLS` prints the answers as JSON."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import sys


def main(model: str, calls: str) -> None:
    """Answer every call by the layer that Keras 3 makes of its signature."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras  # here, since the collection of doctests imports this module
    import tensorflow as tf
    from wire import flatten, read_calls

    assert keras.__version__.startswith("3.")
    layer = functools.cache(lambda signature: keras.layers.TFSMLayer(model, call_endpoint=signature))
    answers = []
    for call in read_calls(pathlib.Path(calls)):
        inputs = {n: tf.reshape(tf.constant(t["values"], t["dtype"]), t["shape"]) for n, t in call.inputs.items()}
        answer = layer(call.signature)(inputs)
        answers.append({name: flatten(tensor.numpy()) for name, tensor in answer.items()})
    print(json.dumps(answers))  # noqa: T201 - read by the parent process


if __name__ == "__main__":
    main(*sys.argv[1:])

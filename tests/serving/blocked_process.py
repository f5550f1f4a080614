"""Answers requests with TensorFlow alone: `blocked_process.py MODEL CALLS` prints the answers as JSON.

The packages that made the model cannot be imported, as on a machine without them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import json
import pathlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from typing import Any

BLOCKED = ("tfmtl", "tensorflow_recommenders", "tf_keras", "keras", "keras_tuner", "tensorflow_model_optimization")


class Blocker(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of `BLOCKED`, because TensorFlow searches for Keras, and refuses to load them."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.split(".")[0] in BLOCKED else None

    def create_module(self, spec: ModuleSpec) -> None:
        raise ImportError(f"{spec.name} is blocked")


def main(model: str, calls: str) -> None:
    """Load the model, answer the calls and check that no blocked package was loaded."""
    sys.meta_path.insert(0, Blocker())
    for name in BLOCKED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            raise AssertionError(f"{name} could be imported")
    import tensorflow as tf
    from wire import flatten, read_calls

    signatures = tf.saved_model.load(model).signatures
    answers = []
    for call in read_calls(pathlib.Path(calls)):
        inputs = {n: tf.reshape(tf.constant(t["values"], t["dtype"]), t["shape"]) for n, t in call.inputs.items()}
        answer = signatures[call.signature](**inputs)
        answers.append({name: flatten(tensor.numpy()) for name, tensor in answer.items()})
    assert not {name.split(".")[0] for name in sys.modules} & set(BLOCKED)
    print(json.dumps(answers))  # noqa: T201 - read by the parent process


if __name__ == "__main__":
    main(*sys.argv[1:])

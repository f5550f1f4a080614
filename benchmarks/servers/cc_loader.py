"""Compiles and runs `loader.cc`, which loads a SavedModel with the loader of TensorFlow Serving."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

SOURCE = pathlib.Path(__file__).with_name("loader.cc")
LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")


def can_compile() -> bool:
    """Return whether there is a C++ compiler."""
    return shutil.which("g++") is not None


def compiled(folder: pathlib.Path) -> pathlib.Path:
    """Return the program in a folder, compiled against the installed TensorFlow on first use, which takes 20 s."""
    program, library = folder / "loader", pathlib.Path(tf.sysconfig.get_lib())
    if program.exists():
        return program
    command = ["g++", "-std=c++17", "-O1", "-w", *tf.sysconfig.get_compile_flags(), str(SOURCE), "-o", str(program)]
    # Debian's g++ drops libraries without a used symbol, and with them the factory of sessions.
    command += [f"-L{library}", "-Wl,--no-as-needed", *(f"-l:{name}" for name in LIBRARIES), f"-Wl,-rpath,{library}"]
    subprocess.run(command, check=True, timeout=300)
    return program


class Loader:
    """A running `loader`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def ask(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the answer of a signature; an error in the model raises `RuntimeError`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = attr_value_pb2.NameAttrList(name=signature)
        for name, value in inputs.items():
            request.attr[name].tensor.CopyFrom(
                tf.make_tensor_proto(value, tf.string if value.dtype == object else None, value.shape)
            )
        message = request.SerializeToString()
        self.process.stdin.write(struct.pack("I", len(message)) + message)
        self.process.stdin.flush()
        (size,) = struct.unpack("I", self.process.stdout.read(4))
        answer = attr_value_pb2.NameAttrList.FromString(self.process.stdout.read(size))
        if answer.name:
            raise RuntimeError(answer.name)
        return {name: tf.make_ndarray(value.tensor) for name, value in answer.attr.items()}


@contextlib.contextmanager
def loaded(program: pathlib.Path, model: pathlib.Path, repeats: int = 0) -> Iterator[Loader]:
    """Run the program on a model until the end of the block."""
    command = [str(program), str(model), str(repeats)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Loader(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()

"""Settings that save tests the time of tracing, for pytest's processes and for those that a test starts.

As a program, `python tests/tracing.py SCRIPT ARGUMENTS...` runs a script with them.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import runpy
import sys
from collections.abc import Iterator
from unittest import mock

from tfmtl._keras import tf


def trace_quickly() -> None:
    """Trace the package's code as it is written, and run graphs unoptimized, which takes a quarter less time.

    AutoGraph would first rewrite each function; the package needs none of that, since it has no Python condition on
    tensors. Classes of users are converted as always, and some tests in processes of their own, such as the example
    on MovieLens, run with AutoGraph and optimized graphs. `TFMTL_TEST_AUTOGRAPH=1` switches both on everywhere.
    """
    from tensorflow.python.autograph.core import config, config_lib  # after tfmtl, or it imports Keras 3 as well

    if not os.environ.get("TFMTL_TEST_AUTOGRAPH"):
        config.CONVERSION_RULES = (config_lib.DoNotConvert("tfmtl"), *config.CONVERSION_RULES)
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@contextlib.contextmanager
def eager_steps() -> Iterator[None]:
    """Make the steps of models eager unless `compile` sets `run_eagerly`; functions of TensorFlow are still traced.

    A traced step costs as much time as some twenty eager ones. For tests in which a trained model is only a means;
    never where the step, its graph or its compilation is the subject. `TFMTL_TEST_AUTOGRAPH=1` switches this off.
    """
    if os.environ.get("TFMTL_TEST_AUTOGRAPH"):
        yield
    else:
        # Keras reads the default of `run_eagerly` here; TensorFlow's own functions and data sets read it elsewhere.
        with mock.patch.object(tf.compat.v2.config, "functions_run_eagerly", return_value=True):
            yield


if __name__ == "__main__":
    del sys.argv[0]
    sys.path[0] = str(pathlib.Path(sys.argv[0]).parent)  # the neighbours of the script
    trace_quickly()
    with eager_steps():
        runpy.run_path(sys.argv[0], run_name="__main__")

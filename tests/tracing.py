"""The settings that make tests trace quickly, for pytest's processes and for those that a test starts and compares."""

from __future__ import annotations

import os

from tensorflow.python.autograph.core import config, config_lib

from tfmtl._keras import tf


def trace_quickly() -> None:
    """Trace the package's code as it is written, and run graphs unoptimized, which takes a quarter less time.

    AutoGraph would first rewrite each function; the package needs none of that, since it has no Python condition on
    tensors. Classes of users are converted as always, and most tests in processes of their own, such as the examples,
    run with AutoGraph and optimized graphs. `TFMTL_TEST_AUTOGRAPH=1` switches both on everywhere.
    """
    if not os.environ.get("TFMTL_TEST_AUTOGRAPH"):
        config.CONVERSION_RULES = (config_lib.DoNotConvert("tfmtl"), *config.CONVERSION_RULES)
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

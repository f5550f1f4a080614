"""One of two workers that train together by TF_CONFIG, or a process that trains alone on the same batches.

Prints the results of a training on a table and of one on shared files. Argument: the folder of the files.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from tfmtl._keras import tf

strategy = tf.distribute.MultiWorkerMirroredStrategy() if "TF_CONFIG" in os.environ else None

from tests.distribution.training import BATCH, outcome, table  # noqa: E402  the strategy is made before the first tensor
from tests.models import small  # noqa: E402
from tfmtl.data import distribute, open_files  # noqa: E402
from tfmtl.data.sharded import ShardedFiles  # noqa: E402


def joined(files: ShardedFiles) -> tf.data.Dataset:
    """Return the global batches of two workers in one process."""
    contexts = [tf.distribute.InputContext(2, worker, 2) for worker in range(2)]
    parts = tf.data.Dataset.zip(tuple(map(files.pipeline, contexts)))
    return parts.map(lambda *pair: tf.nest.map_structure(lambda *rows: tf.concat(rows, axis=0), *pair))


def on_files(folder: str) -> dict[str, Any]:
    files = distribute(open_files(folder, small.SCHEMA), small.preprocessor(), BATCH, shuffle_seed=3)
    if strategy is not None:
        return outcome(strategy, files)
    return outcome(None, joined(files), steps_per_epoch=files.steps(2))


sys.stdout.write("\n" + json.dumps({"table": outcome(strategy, table()), "files": on_files(sys.argv[1])}) + "\n")

"""One of the workers that train a model together, or the only one, by TF_CONFIG; prints what the training leaves."""

from __future__ import annotations

import json
import os
import sys

from tfmtl._keras import tf

strategy = tf.distribute.MultiWorkerMirroredStrategy() if "TF_CONFIG" in os.environ else None

from tests.distribution.training import outcome, table  # noqa: E402  the strategy is the first to use the devices

sys.stdout.write("\n" + json.dumps(outcome(strategy, table())) + "\n")

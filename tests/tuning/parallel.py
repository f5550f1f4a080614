"""One process of a search in parallel, chief or worker by KERASTUNER_TUNER_ID; prints its results afterwards.

Argument: the folder of the search, which all processes share.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from tests.tuning.models import FIT, functional
from tfmtl import tuning

built: list[int] = []


def build(hp: Any) -> Any:
    built.append(hp.Choice("units", [2, 4, 8, 16]))
    return functional(hp)


tuner = tuning.RandomSearch(build, "val_loss", max_trials=4, seed=5, directory=sys.argv[1], project_name="search")
built.clear()  # the search space was found by building
tuner.search(**FIT, epochs=2)
found: dict[str, Any] = {"trials": len(built)}
if os.environ["KERASTUNER_TUNER_ID"] == "chief":  # it alone holds all trials, and it ends when the workers have
    found["rows"] = tuning.trials_table(tuner, failed=True)
    found["best"] = tuner.get_best_models()[0].evaluate(*FIT["validation_data"], verbose=0)
sys.stdout.write("\n" + json.dumps(found) + "\n")

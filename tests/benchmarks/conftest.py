"""The scripts' folder is no package: its modules find each other as neighbours of the script that is run."""

from __future__ import annotations

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[2] / "benchmarks"))

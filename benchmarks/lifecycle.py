"""The benchmarks of the learning life cycle: the entries `lifecycle_*` and `sequential` of `run.py`.

python benchmarks/lifecycle.py --data FOLDER
"""

from __future__ import annotations

import sys

import registry
import run

ENTRIES = [entry for entry in registry.ENTRIES if entry.name.startswith("lifecycle_") or entry.name == "sequential"]

if __name__ == "__main__":
    sys.exit(run.main([*sys.argv[1:], "--only", *(entry.name for entry in ENTRIES)]))

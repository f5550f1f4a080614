"""Factorises clicks by the ALS of the package `implicit`; run by `benchmarks/sequential.py`.

    python implicit_als.py FILE.npz '{"factors": 64, "iterations": 15}'

Reads the pairs `user`, `item` of the file, numbers below its `shape`, and writes the factors [users, d], [items, d] in
their place.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import scipy.sparse
from implicit.als import AlternatingLeastSquares


def main(path: str, arguments: dict[str, Any]) -> None:
    """Fit and write."""
    pairs = np.load(path)
    ones = np.ones(len(pairs["user"]), np.float32)
    clicks = scipy.sparse.csr_matrix((ones, (pairs["user"], pairs["item"])), shape=pairs["shape"])
    model = AlternatingLeastSquares(**arguments)
    model.fit(clicks, show_progress=False)
    np.savez(path, user=model.user_factors, item=model.item_factors)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))

"""Factorizes clicks with ALS of the package `implicit`; started by `benchmarks/sequential.py`.

    python implicit_als.py FILE.npz '{"factors": 64, "iterations": 15}'

The file holds pairs `user`, `item` of integers below its `shape`; the script replaces it by one with the factors
[users, d] and [items, d].
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import scipy.sparse
from implicit.als import AlternatingLeastSquares


def main(path: str, arguments: dict[str, Any]) -> None:
    """Fit the factors and write them."""
    pairs = np.load(path)
    ones = np.ones(len(pairs["user"]), np.float32)
    clicks = scipy.sparse.csr_matrix((ones, (pairs["user"], pairs["item"])), shape=pairs["shape"])
    model = AlternatingLeastSquares(**arguments)
    model.fit(clicks, show_progress=False)
    np.savez(path, user=model.user_factors, item=model.item_factors)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))

"""Every signature of an export against the model in memory, on random rows with missing, unknown and extreme values.

    python benchmarks/serving_rows.py [--rows 10000]

The model is that of the tests, with every kind of feature and task, and random weights.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile

import numpy as np
import tensorflow as tf
from servers import hostile
from servers.models import MAX_K, build

from tfmtl.serving import export, to_examples
from tfmtl.serving.recommender import Recommender
from tfmtl.serving.signature import FromExamples
from tfmtl.serving.signatures import ENTRIES, signatures_of
from tfmtl.serving.verification import difference

BLOCK = 500


def main() -> None:
    """Parse the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    rows = parser.parse_args().rows
    model, _ = build()
    with tempfile.TemporaryDirectory() as folder:
        loaded = tf.saved_model.load(str(export(model, pathlib.Path(folder) / "model", max_k=MAX_K))).signatures
    print(f"| signature | largest difference over {rows:,} rows; infinite if a number is not finite |\n|---|---|")
    for name, signature in signatures_of(Recommender(model, MAX_K), ENTRIES).items():
        rng, worst = np.random.default_rng(0), 0.0
        for _ in range(-(-rows // BLOCK)):
            if isinstance(signature, FromExamples):
                request = {"examples": to_examples(hostile.request(model, signature.of, BLOCK, rng))}
            else:
                request = hostile.request(model, signature, BLOCK, rng)
            expected, answer = signature.traced(**request), loaded[name](**request)
            worst = max(worst, *(difference(value, answer[output]) for output, value in expected.items()))
        print(f"| {name} | {worst:.2g} |", flush=True)


if __name__ == "__main__":
    main()

"""Writes the golden export again: `python -m pytest tests/serving/write_golden.py`; runs only when it is named.

Do this when an answer is meant to change, and give the reason in the changelog.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
from servers.models import MAX_K, build, queries, raw

from tests.serving.test_golden import ANSWERS, MODEL
from tests.serving.wire import flatten
from tfmtl._keras import tf
from tfmtl.serving import export


def test_write_golden() -> None:
    model, frame = build("string")
    shutil.rmtree(MODEL.parent, ignore_errors=True)
    assert export(model, MODEL.parent, max_k=MAX_K, version=int(MODEL.name)) == MODEL
    query = queries(model, frame)
    only = [["i1", "i3", "i4", "i4"] if row == 3 else [""] * 4 for row in range(7)]
    cut = {
        "exclude_ids": tf.constant([["i1", "i2", ""]] * 7),
        "restrict_ids": tf.constant(only),
        "k": tf.constant([3, -1, 0, 99, 1, 10, 2]),
    }
    weights = {
        f"weight_{name}": tf.constant(np.linspace(0, 2, 7), tf.float32) for name in ("seen", "rating", "clicked")
    }
    calls = {
        "recommend": query,
        "recommend_filtered": {**query, **cut, **weights, "position": tf.constant([1, 2, 3, -1, 1, 77, 2], tf.int64)},
        "retrieve_filtered": {**query, **cut},
        "rank": raw(model, frame[:5]),
        "embed_query": query,
    }
    signatures = tf.saved_model.load(str(MODEL)).signatures
    golden = [
        {
            "signature": name,
            "inputs": {n: flatten(v.numpy()) for n, v in inputs.items()},
            "answer": {n: flatten(v.numpy()) for n, v in signatures[name](**inputs).items()},
        }
        for name, inputs in calls.items()
    ]
    ANSWERS.write_text(json.dumps(golden) + "\n")

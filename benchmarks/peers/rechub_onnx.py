"""Times MMoE of torch-rechub, exported to ONNX, in onnxruntime; started by `benchmarks/rank_latency.py`.

    python rechub_onnx.py '{"sizes": [20, 30], "numbers": 7, "rows": {"1": 300}}'

It prints one line of JSON, the median milliseconds by batch size. The inputs are integers and standardized numbers.
"""

from __future__ import annotations

import io
import json
import sys
import time
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch_rechub.basic import features
from torch_rechub.models import multi_task


class Flat(torch.nn.Module):
    """Reads the columns as two tensors, which the exporter to ONNX supports."""

    def __init__(self, model: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, integers: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of the tasks."""
        columns = {name: integers[:, i] for i, name in enumerate(self.names)}
        return self.model({**columns, **{f"n{i}": numbers[:, i] for i in range(numbers.shape[1])}})


def main(order: dict[str, Any]) -> dict[str, float]:
    """Build, export and time the model."""
    sizes, numbers = order["sizes"], order["numbers"]
    names = [f"c{i}" for i in range(len(sizes))]
    columns = [features.SparseFeature(n, size, 4) for n, size in zip(names, sizes, strict=True)]
    columns += [features.DenseFeature(f"n{i}") for i in range(numbers)]
    types = ["classification"] * 2
    model = multi_task.MMOE(columns, types, 8, {"dims": [16]}, [{"dims": [8]} for _ in types]).eval()
    file = io.BytesIO()
    example = (torch.zeros([2, len(sizes)], dtype=torch.int64), torch.zeros([2, numbers]))
    axes = {"integers": {0: "rows"}, "numbers": {0: "rows"}}
    torch.onnx.export(
        Flat(model, names), example, file, input_names=list(axes), dynamic_axes=axes, dynamo=False, opset_version=17
    )
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    rng, found = np.random.default_rng(0), {}
    for rows, calls in order["rows"].items():
        asked = {
            "integers": np.stack([rng.integers(0, size, int(rows)) for size in sizes], axis=1),
            "numbers": rng.normal(size=(int(rows), numbers)).astype(np.float32),
        }
        taken = []
        for _ in range(calls):
            start = time.perf_counter()
            session.run(None, asked)
            taken.append(time.perf_counter() - start)
        found[rows] = 1000 * float(np.median(taken[10:]))
    return found


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))

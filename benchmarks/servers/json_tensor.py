"""Conversion between JSON bodies of predict requests and arrays, by the rules of the REST API of TensorFlow Serving.

https://www.tensorflow.org/tfx/serving/api_rest: a request has `instances` (a list of rows) or `inputs` (columns), each
of them bare if the signature has one input; an answer has `predictions` or `outputs`, bare if it has one output.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

Spec = tuple[str, list[int | None]]
"""The type and shape of an input; None means any size."""


class BadRequestError(Exception):
    """A request that violates the rules."""


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request, which has exactly one of `instances` and `inputs`."""
    try:
        request = json.loads(body.decode())
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadRequestError(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise BadRequestError("Request must be a JSON object.")
    if ("instances" in request) == ("inputs" in request):
        raise BadRequestError("Request must have either `instances` or `inputs`.")
    if not isinstance(request.get("signature_name", ""), str):
        raise BadRequestError("`signature_name` must be a string.")
    return request


def read_inputs(request: Mapping[str, Any], specs: Mapping[str, Spec]) -> dict[str, np.ndarray]:
    """Return the arrays of a request for a signature with these inputs."""
    columns = _of_rows(request["instances"], specs) if "instances" in request else _of_columns(request["inputs"], specs)
    return {name: _array(name, columns[name], *spec) for name, spec in specs.items()}


def write_outputs(answer: Mapping[str, np.ndarray], rows: bool) -> dict[str, Any]:
    """Return the JSON of an answer."""
    columns = {name: _plain(name, value) for name, value in answer.items()}
    if not rows:
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    sizes = {len(value) if value.ndim else None for value in answer.values()}
    if len(sizes) != 1 or None in sizes:
        raise BadRequestError(f"Outputs have different batch sizes {sizes}.")
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def _of_rows(rows: Any, specs: Mapping[str, Spec]) -> dict[str, list[Any]]:
    if not isinstance(rows, list) or not rows:
        raise BadRequestError("`instances` must be a list of at least one row.")
    if len(specs) == 1 and not _is_named(rows[0], specs):
        return {next(iter(specs)): rows}
    for row in rows:
        if not isinstance(row, dict) or set(row) != set(specs):
            raise BadRequestError(f"Each instance must hold exactly {sorted(specs)}.")
    return {name: [row[name] for row in rows] for name in specs}


def _of_columns(inputs: Any, specs: Mapping[str, Spec]) -> dict[str, Any]:
    if len(specs) == 1 and not _is_named(inputs, specs):
        return {next(iter(specs)): inputs}
    if not isinstance(inputs, dict) or not set(specs) <= set(inputs):
        raise BadRequestError(f"`inputs` must hold {sorted(specs)}.")
    return inputs


def _is_named(value: Any, specs: Mapping[str, Spec]) -> bool:
    return isinstance(value, dict) and set(specs) <= set(value)


def _array(name: str, value: Any, dtype: str, shape: list[int | None]) -> np.ndarray:
    sizes: list[int] = []
    level = value
    while isinstance(level, list):
        sizes.append(len(level))
        level = level[0] if level else None
    if len(sizes) != len(shape) or any(want not in (None, got) for got, want in zip(sizes, shape, strict=True)):
        raise BadRequestError(f"Input {name!r} has shape {sizes}, not {shape}.")
    flat = [value]
    for size in sizes:
        if any(not isinstance(part, list) or len(part) != size for part in flat):
            raise BadRequestError(f"Input {name!r}: encountered list at unexpected size.")
        flat = [item for part in flat for item in part]
    scalars = [_scalar(name, item, dtype) for item in flat]
    try:
        return np.asarray(scalars, object if dtype == "string" else dtype).reshape(sizes)
    except OverflowError as error:
        raise BadRequestError(f"Input {name!r}: {error}") from error


def _scalar(name: str, item: Any, dtype: str) -> Any:
    if dtype == "string" and isinstance(item, str):
        return item.encode("utf-8", "surrogatepass")
    if dtype == "string" and isinstance(item, dict) and set(item) == {"b64"} and isinstance(item["b64"], str):
        try:
            return base64.b64decode(item["b64"], validate=True)
        except ValueError as error:
            raise BadRequestError(f"Input {name!r}: {error}") from error
    kinds = {"float32": (int, float), "int32": (int,), "int64": (int,)}.get(dtype, ())
    if isinstance(item, bool) or not isinstance(item, kinds):
        raise BadRequestError(
            f"JSON Value: {str(item)[:50]} Type: {type(item).__name__} is not of expected type: {dtype}"
        )
    return item


def _plain(name: str, value: np.ndarray) -> Any:
    if value.dtype.kind != "O":
        return value.tolist()
    flat = [{"b64": base64.b64encode(v).decode()} if name.endswith("_bytes") else v.decode() for v in value.reshape(-1)]
    return np.asarray(flat, object).reshape(value.shape).tolist()

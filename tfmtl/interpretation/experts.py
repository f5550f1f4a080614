"""The use of the experts of a trained trunk: which task reads which expert, and which experts are dead."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfmtl._checks import require, require_type
from tfmtl._keras import keras
from tfmtl.data.source import as_source
from tfmtl.layers import MultiTaskLayer
from tfmtl.models import MultiTaskModel
from tfmtl.models.graph import unwrapped
from tfmtl.models.keras_arguments import batch_size_of


@dataclasses.dataclass(frozen=True)
class ExpertUsage:
    """The use of the experts of one level.

    Attributes:
        load: mean weight of each expert by reader [readers, experts]; a row sums to 1. Readers are the tasks in order,
            and then a reader of the level above that serves all.
        entropy: mean entropy of each reader's weights in one row [readers], in nats; 0 if it reads one expert per row,
            log(experts) if it reads all equally.
        dead: positions of experts that no reader ever gives more than a hundredth of an even share.
    """

    load: np.ndarray
    entropy: np.ndarray
    dead: list[int]


def expert_usage(model: MultiTaskModel, x: Any, batch_size: int | None = None) -> dict[str, ExpertUsage]:
    """Return the use of the trunk's experts on the rows of a table.

    Args:
        model: a model with a trunk that has gates.
        x: pandas table (labels not needed), encoded table or data set, as in `MultiTaskModel.predict`.
        batch_size: rows per batch of a table; by default `model.evaluation_batch_size`.

    Returns:
        The usage by the name of the gates' level, `"experts"` for a trunk with one level such as `MMoE`. If isolated
        groups of tasks have a trunk each, the names begin with that of the trunk's first task, as in `"buy/experts"`.

    Raises:
        ValueError: if the network has no trunk with gates.
    """
    require_type(model, MultiTaskModel, "model")
    trunks = {layer.name: layer for layer in model.network.layers if isinstance(unwrapped(layer), MultiTaskLayer)}
    require(bool(trunks), "The network has no trunk, so there are no experts.")
    before = keras.Model(model.network.input, {name: layer.input for name, layer in trunks.items()})
    weights: dict[str, list[np.ndarray]] = {}
    source = as_source(x)
    rows = batch_size_of(source, "batch_size", batch_size, model.evaluation_batch_size)
    for batch in source.batches(model.preprocessor, rows, labels=False):
        features = getattr(batch, "features", batch)
        inputs = before({name: features[name] for name in model.network.input}, training=False)
        for name, trunk in trunks.items():
            group = f"{unwrapped(trunk).task_names[0]}/" if len(trunks) > 1 else ""
            for level, found in unwrapped(trunk).gate_weights(inputs[name]).items():
                weights.setdefault(group + level, []).append(np.asarray(found, np.float32))
    first = unwrapped(next(iter(trunks.values())))
    require(bool(weights), f"The trunk {first.name!r} ({type(first).__name__}) has no gates.")
    return {level: _usage(np.concatenate(parts)) for level, parts in weights.items()}


def _usage(weights: np.ndarray) -> ExpertUsage:
    """Return the usage of weights [rows, readers, experts]."""
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    unread = weights.max(axis=(0, 1)) < 0.01 / weights.shape[2]
    return ExpertUsage(
        weights.mean(axis=0), -(weights * logs).sum(axis=2).mean(axis=0), np.flatnonzero(unread).tolist()
    )

"""Ablation of experts: how much worse each task is without one of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_fraction, require_known, require_positive_int, require_type
from tfmtl._keras import tf
from tfmtl.data.frames import rows_of
from tfmtl.data.interchange import as_frame
from tfmtl.interpretation.experts import ExpertUsage, expert_usage
from tfmtl.interpretation.importance import Importance, Quality, intervals, mean_of_known
from tfmtl.layers import Gate, MultiTaskLayer
from tfmtl.models import MultiTaskModel
from tfmtl.models.explained import chosen_tasks, encoded_rows
from tfmtl.models.graph import unwrapped


def expert_ablation(
    model: MultiTaskModel,
    table: Any,
    *,
    tasks: Sequence[str] | None = None,
    metrics: Mapping[str, str] | None = None,
    blocks: int = 10,
    level: float = 0.95,
    seed: int = 0,
) -> Importance:
    """Measure how much worse each task is without each expert.

    Use it beside `expert_usage`: an expert with a large weight may still be dispensable. An expert gets the weight 0
    for all readers of its level, and the other weights of each gate are scaled to sum 1.

    Args:
        model: a trained model with a trunk that has gates.
        table, tasks, metrics, blocks, level, seed: as in `permutation_importance`.

    Returns:
        The loss of quality by expert and task, with intervals over blocks of rows. Experts are named by the gates that
        read them and their position, such as `"gate/0"`, or `"0/3"` for expert 3 of level 0.

    Raises:
        ValueError: if the network has no gates, or as `permutation_importance`.

    Example:
        >>> # expert_ablation(model, test).to_frame().loc["gate/0"]

    Cost: a forward pass over the rows for each expert.

    Reference: Meyes et al., "Ablation Studies in Artificial Neural Networks", 2019, https://arxiv.org/abs/1901.08644.
    """
    chosen = chosen_tasks(model, tasks)
    require_positive_int(blocks=blocks)
    require(blocks > 1, "`blocks` must be 2 or more, since an interval needs a spread.", blocks=blocks)
    require_fraction(level=level)
    batch = encoded_rows(model, table, [task.name for task in chosen])
    rows = rows_of(batch)
    require(rows >= blocks, f"`table` has {rows} rows for {blocks} blocks; give more rows or fewer blocks.")
    groups = _gates(model)
    parts = np.array_split(np.random.default_rng(seed).permutation(rows), blocks)
    lost, names = [], []
    with _masked(groups) as masks:
        quality = Quality(model, chosen, metrics or {}, batch, parts)
        base = quality(batch.features)
        for group, mask in masks.items():
            for e in range(mask.shape[0]):
                mask.assign(1.0 - tf.one_hot(e, mask.shape[0]))
                lost.append(quality.signs * (quality(batch.features) - base))
                names.append(f"{group}/{e}")
            mask.assign(tf.ones_like(mask))
    values = intervals(np.stack(lost), level)
    return Importance(names, [t.name for t in chosen], *values, mean_of_known(base), {name: [name] for name in names})


def usage_by_slice(
    model: MultiTaskModel, table: Any, column: str, batch_size: int | None = None
) -> dict[Any, dict[str, ExpertUsage]]:
    """Return the use of the trunk's experts for each value of a column, such as a segment of users.

    Args:
        model: a model with a trunk that has gates.
        table: a table (pandas, PyArrow, Polars), without need of labels.
        column: a column of the table with few values; rows without a value are left out.
        batch_size: rows per batch.

    Returns:
        `expert_usage` by value of the column.

    Raises:
        ValueError: if the table has no such column, or the network has no gates.

    Example:
        >>> # usage_by_slice(model, test, "country")["FR"]["experts"].load
    """
    require_type(model, MultiTaskModel, "model")
    frame = as_frame(table)
    require_known([column], list(frame.columns), "column", "`table`")
    parts = dict(iter(frame.groupby(column, observed=True)))
    require(bool(parts), f"Column {column!r} of `table` has no value.")
    return {value: expert_usage(model, part, batch_size) for value, part in parts.items()}


def _gates(model: MultiTaskModel) -> dict[str, list[Gate]]:
    """Return the gates of the network that read the same experts, by name."""
    trunks = [unwrapped(layer) for layer in model.network.layers if isinstance(unwrapped(layer), MultiTaskLayer)]
    found: dict[str, list[Gate]] = {}
    for trunk in trunks:
        prefix = f"{trunk.task_names[0]}/" if len(trunks) > 1 else ""
        for gate in (layer for layer in trunk.submodules if isinstance(layer, Gate)):
            level = re.search(r"_(\d+)$", gate.name)
            found.setdefault(prefix + (level[1] if level else gate.name), []).append(gate)
    kinds = [type(trunk).__name__ for trunk in trunks]
    require(bool(found), f"The network has no gates over experts that could be left out; its trunks are {kinds}.")
    return found


@contextlib.contextmanager
def _masked(groups: Mapping[str, Sequence[Gate]]) -> Iterator[dict[str, tf.Variable]]:
    """Multiply the weights of gates by variables [E] and scale them to sum 1 inside the `with` block."""
    masks = {name: tf.Variable(tf.ones([gates[0].num_experts]), trainable=False) for name, gates in groups.items()}
    changed = [(gate, masks[name]) for name, gates in groups.items() for gate in gates]
    for gate, mask in changed:
        gate.__dict__["call"] = _renormalized(gate.call, mask)
    try:
        yield masks
    finally:
        for gate, _ in changed:
            gate.__dict__.pop("call", None)


def _renormalized(call: Any, mask: tf.Variable) -> Any:
    def masked(inputs: Any, training: bool | None = None) -> tf.Tensor:
        weights = call(inputs, training=training)
        kept = weights * tf.cast(mask, weights.dtype)
        return tf.math.divide_no_nan(kept, tf.reduce_sum(kept, axis=2, keepdims=True))

    return masked

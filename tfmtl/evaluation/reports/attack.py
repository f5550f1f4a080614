"""The metrics of a model under attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl._keras import tf, traced
from tfmtl.data import Batch, to_batch
from tfmtl.data.frames import gather_batches, rows_of_pass
from tfmtl.data.interchange import as_frame
from tfmtl.evaluation.reports.report import as_series, judged, labels_of
from tfmtl.layers.marks import marking, repeated
from tfmtl.layers.noise.perturbations import ascent, radii
from tfmtl.models import MultiTaskModel
from tfmtl.models.adversarial import moved, shift_gradients
from tfmtl.tasks import Task


def attack(
    model: MultiTaskModel,
    frame: pd.DataFrame,
    *,
    strength: float,
    steps: int = 1,
    tasks: Sequence[str] | None = None,
) -> pd.Series:
    """Measure every ranking task of a model at the encodings of largest loss near those of each row.

    Use it to compare models in the worst case; compare with `evaluate`, which reads the same rows without an attack.
    The attack is that of `tfmtl.layers.Adversarial`, on the loss of one task at a time, with full access to the model
    and to the labels. Retrieval tasks are left out: no row of a corpus has a label to attack.

    Args:
        model: the model.
        frame: table with features and labels; rows with a missing label do not count for that task.
        strength: radius in units of the root mean square of the encodings' row lengths; 0 for no attack.
        steps: 1 for the fast gradient method, more for projected gradient descent.
        tasks: names of the tasks to measure, by default all ranking tasks.

    Returns:
        Values by (task, metric), without the tasks that have no observed label in the table.

    Raises:
        ValueError: if a task is unknown or retrieves, or an argument is out of range.

    Cost: for each task and step, one pass forward and backward over the table.
    """
    frame = as_frame(frame)
    require(strength >= 0, "`strength` must be 0 or more.", strength=strength)
    require_positive_int(steps=steps)
    ranking = [task for task in model.tasks if not task.retrieves]
    require_known(tasks or (), [task.name for task in ranking], "ranking task", "`tasks`")
    chosen = [task for task in ranking if tasks is None or task.name in tasks]
    batch = to_batch(frame, model.preprocessor, labels=labels_of(model, frame, chosen))
    report: dict[tuple[str, str], float] = {}
    for task in chosen:
        labels, weights = judged(task, model.schema, batch)
        rows = np.flatnonzero(weights > 0)
        if len(rows):
            served = attacker(model, task, steps)(batch, strength)
            served = tf.nest.map_structure(lambda values, at=rows: values[at], served)
            values = task.report(labels[rows], served, weights[rows])
            report |= {(task.name, metric): value for metric, value in values.items()}
    return as_series(report)


def attacker(model: MultiTaskModel, task: Task, steps: int) -> Callable[[Batch, float], Any]:
    """Return a function from a batch and a strength to the served values [N, ...] of a task under attack.

    The attack moves the encodings to raise the loss of this task. The function is traced once for all strengths.
    """
    size = min(1.0, 2.5 / steps)

    def served(rows: Batch, strength: tf.Tensor) -> Any:
        with marking() as first:
            model.compute_losses(rows, training=False)
        value = lambda: model.compute_losses(rows, training=False)[task.name][0]  # noqa: E731
        limits = radii(first.encodings, strength)
        start = [tf.zeros_like(z, tf.float32) for z in first.encodings]
        shifts = ascent(lambda shifts: shift_gradients(first, shifts, value), start, limits, steps, size)
        with repeated(first, moved(first.encodings, shifts)):
            outputs = model(rows.features, training=False)
        return model.served(outputs, rows.features)[task.name]

    of_rows = traced(served, reduce_retracing=True)

    def attacked(batch: Batch, strength: float) -> Any:
        level = tf.constant(strength, tf.float32)
        parts = [of_rows(rows, level) for rows in gather_batches(batch, rows_of_pass(batch.features))]
        return tf.nest.map_structure(lambda *arrays: np.concatenate([array.numpy() for array in arrays]), *parts)

    return attacked

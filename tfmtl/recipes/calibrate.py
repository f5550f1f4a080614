"""Calibration of the probabilities of a trained model, as a fixed part of its network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl._keras import keras
from tfmtl.data import Categorical
from tfmtl.data.source import as_source
from tfmtl.layers import AtInference, Calibration
from tfmtl.layers.calibration import uncalibrated
from tfmtl.models import MultiTaskModel
from tfmtl.models.keras_arguments import require_compiled
from tfmtl.models.label_checks import label_errors
from tfmtl.models.optimizer_copies import fresh_copy
from tfmtl.recipes.calibration_maps import FITS, Floats, LogitMap
from tfmtl.tasks import Task

CalibrationMethod = Literal["temperature", "platt", "isotonic", "prior"]

LEAST_EVENTS = 20
"""Validation rows of each class that a value of the slice feature needs for a map of its own."""


def calibrate(
    model: MultiTaskModel, validation: Any = None, *, method: CalibrationMethod = "platt",
    tasks: Sequence[str] | None = None, by: str | None = None, rate: float = 1.0, min_rows: int = 1000,
) -> MultiTaskModel:  # fmt: skip
    """Return a model with calibrated probabilities, by a map that is part of its network.

    Use it if probabilities enter a decision, such as a bid or an expected value, or if negatives were downsampled.

    With the logit z of a served probability sigma(z), the calibrated probability is sigma(T(z)), T increasing:

    - `"temperature"`: T(z) = z / t; for classes softmax(z / t). One number, which cannot correct a wrong base rate.
    - `"platt"`: T(z) = a z + b with a > 0.
    - `"isotonic"`: piecewise linear through the centres of at most 64 groups of blocks of an isotonic regression.
    - `"prior"`: T(z) = z + log r, so that p = r p' / (r p' + 1 - p') if training kept negatives with probability r.

    The order of rows stays, and so does AUC. Missing labels do not count, weights do. The map follows the task's output
    in inference only: `evaluate`, `predict`, ensembles, teachers, saved models and exports read it; training losses and
    the heads of later events do not. It replaces an earlier map of the task. Fit it last, and
    again after further training or another part, such as that of `join_boosting`.

    Args:
        model: trained, compiled model; it is not changed, and the result shares its layers.
        validation: rows outside of the training, any form that `evaluate` takes; not needed for `"prior"`.
        method: see above.
        tasks: names of the tasks; by default all binary tasks, and with `"temperature"` those of classes too.
        by: `Categorical` feature with a map for each value that has at least `min_rows` rows and 20 of each class; the
            other values have the map of all rows. The order then stays within a value.
        rate: r in (0, 1], also added to fitted maps as log r: `validation` then needs negatives downsampled alike.
        min_rows: see `by`.

    Raises:
        RuntimeError: if the model is not compiled.
        ValueError: if a task serves no probability, the rows lack a class, or their labels do not increase with z.

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599,
    section 4 (temperature); Platt, "Probabilistic Outputs for Support Vector Machines", 1999; Zadrozny, Elkan, KDD
    2002, https://doi.org/10.1145/775047.775151 (isotonic), with the knots of Oron, Flournoy, "Centered Isotonic
    Regression", 2017, https://arxiv.org/abs/1701.05964; He et al., "Practical Lessons from Predicting Clicks on Ads at
    Facebook", ADKDD 2014, section 6.3 (prior).

    Cost: one pass over the validation rows; K comparisons per probability in the network.
    """
    _check(model, method, by, rate, min_rows)
    outputs = {name: uncalibrated(output) for name, output in model.network.output.items()}
    chosen = _chosen(model, outputs, method, tasks, rate)
    found = {task.name: Maps([LogitMap.affine(1.0)]) for task in chosen}
    if method != "prior":
        require(validation is not None, f"`method={method!r}` needs `validation` rows.")
        network = keras.Model(model.network.input, {task.name: outputs[task.name] for task in chosen})
        rows = _rows(model, network, chosen, validation, by)
        found = {task.name: _fitted(task, rows[task.name], method, _size(model, by), min_rows) for task in chosen}
    return _with_maps(model, outputs, {name: maps.shifted(math.log(rate)) for name, maps in found.items()}, by)


class Maps(NamedTuple):
    """Fitted maps: the first is that of all rows; `choices` holds the map of each index of the slice feature."""

    maps: Sequence[LogitMap]
    choices: npt.NDArray[np.int32] | None = None

    def shifted(self, shift: float) -> Maps:
        """Return the maps plus a number."""
        return self._replace(maps=[one.shifted(shift) for one in self.maps])


class _Rows(NamedTuple):
    """The labelled rows of a task: logits [n, classes], labels, weights, and indices of the slice feature [n]."""

    logits: Floats
    labels: Floats
    weights: Floats
    indices: npt.NDArray[np.int64]

    def of(self, chosen: Any) -> _Rows:
        """Return some of the rows."""
        return _Rows(*(part[chosen] for part in self))

    def fewest(self) -> int:
        """Return the number of rows of the class with the fewest."""
        classes = max(2, self.logits.shape[1])
        return int(np.bincount(self.labels.astype(np.int64), minlength=classes).min())


def _check(model: MultiTaskModel, method: str, by: str | None, rate: float, min_rows: int) -> None:
    """Raise if the model is not compiled, or an argument is unknown or out of range."""
    require_compiled(model, "calibrate")
    require_positive_int(min_rows=min_rows)
    methods = list(get_args(CalibrationMethod))
    require(method in methods, f"`method` must be one of {methods}.", method=method)
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    require(number and 0 < rate <= 1, "`rate` must lie above 0 and up to 1.", rate=rate)
    require(method != "prior" or by is None, "The prior correction has no map by slice; leave out `by`.", by=by)
    features = model.schema.features
    require_known([] if by is None else [by], features, "feature", "`by`")
    categorical = by is None or isinstance(features[by], Categorical)
    require(categorical, "`by` must name a Categorical feature of the schema.", by=by)


def _size(model: MultiTaskModel, by: str | None) -> int:
    """Return the number of indices of the slice feature, 0 without one."""
    return 0 if by is None else model.preprocessor.statistics.size(str(model.schema.features[by].vocabulary))


def _with_maps(model: MultiTaskModel, outputs: dict[str, Any], maps: dict[str, Maps], by: str | None) -> MultiTaskModel:
    """Return a compiled model with the maps of some tasks behind their outputs."""
    inputs, connected = model.network.input, dict(model.network.output)
    for task in model.tasks:
        if task.name in maps:
            connected[task.name] = _connected(task, outputs[task.name], maps[task.name], by and inputs[by])
    calibrated = model.with_network(keras.Model(inputs, connected, name=model.network.name))
    calibrated.compile(fresh_copy(model.optimizer))
    return calibrated


def _chosen(
    model: MultiTaskModel, outputs: dict[str, Any], method: str, names: Sequence[str] | None, rate: float
) -> list[Task]:
    """Return the tasks to calibrate."""
    require_known(names or (), [task.name for task in model.tasks], "task", "`tasks`")
    widths = {task.name: _width(task, outputs[task.name]) for task in model.tasks}
    most = 1 if method != "temperature" or rate < 1 else math.inf
    given = [name for name, width in widths.items() if 0 < width <= most] if names is None else list(names)
    require(bool(given), f"The model has no task to calibrate with `method={method!r}`.", tasks=list(widths))
    without = [name for name in given if not widths[name]]
    require(not without, f"The tasks {without} serve no probability that could be calibrated.", tasks=given)
    classes = [name for name in given if widths[name] > most]
    require(not classes, f"The tasks {classes} have classes: use `method='temperature'` and leave out `rate`.")
    return [task for task in model.tasks if task.name in given]


def _width(task: Task, output: Any) -> int:
    """Return the number of logits of the served probability, 0 if the task serves none."""
    logits = _logits(task, output)
    return 0 if logits is None else int(logits.shape[-1])


def _logits(task: Task, outputs: Any) -> Any:
    """Return the logits [B, 1] or [B, classes] of the served probability, or None."""
    kept: list[Any] = []

    def keep(logits: Any) -> Any:
        kept.append(logits)
        return logits

    return kept[0] if task.calibrated(outputs, keep) is not None else None


def _connected(task: Task, output: Any, maps: Maps, indices: Any) -> Any:
    """Add the maps of a task to the network, and return its output."""
    choices, knots = maps.choices, max(len(one.knots) for one in maps.maps)
    layer = Calibration(knots, len(maps.maps), 0 if choices is None else len(choices), name=f"{task.name}_calibration")
    served = task.calibrated(output, lambda logits: layer(logits if choices is None else [logits, indices]))
    starts, values, slopes = map(np.stack, zip(*(one.padded(knots) for one in maps.maps), strict=True))
    layer.set_maps(starts, values, slopes, choices)
    return AtInference(name=f"{task.name}_calibrated")([output, served])


def _rows(
    model: MultiTaskModel, network: keras.Model, tasks: Sequence[Task], table: Any, by: str | None
) -> dict[str, _Rows]:
    """Return the labelled rows of each task; `network` has their outputs before calibration."""
    source = as_source(table)
    require(not source.sequences, "`validation` must hold single rows, such as `with_histories` makes, not sequences.")
    found: dict[str, list[_Rows]] = {task.name: [] for task in tasks}
    for batch in source.batches(model.preprocessor, model.evaluation_batch_size):
        outputs = network({name: batch.features[name] for name in network.input}, training=False)
        for task in tasks:
            with label_errors():
                labels, weights, inputs = model.loss_arguments(task, batch, training=False)
            weights = task.served_weight(weights, inputs.labels).numpy()
            indices = np.zeros(len(weights)) if by is None else batch.features[by].numpy()
            logits = _logits(task, outputs[task.name]).numpy().astype(np.float64)
            rows = _Rows(
                logits, labels.numpy().astype(np.float64), weights.astype(np.float64), indices.astype(np.int64)
            )
            found[task.name].append(rows.of((weights > 0) & ~np.isnan(rows.labels)))
    require(all(found.values()), "`validation` must have rows; it has none.")
    return {name: _Rows(*map(np.concatenate, zip(*parts, strict=True))) for name, parts in found.items()}


def _fitted(task: Task, rows: _Rows, method: str, size: int, min_rows: int) -> Maps:
    """Return the map of all rows, and with a `size` of the slice feature those of its values with enough rows."""
    classes = np.unique(rows.labels)
    rule = f"The validation rows must have labels of at least two classes of task {task.name!r}."
    require(len(classes) > 1, rule, labels=classes.tolist())
    finite = bool(np.isfinite(rows.logits).all())
    require(finite, f"The outputs of task {task.name!r} on validation must be finite.")
    fit = FITS[method]
    common = fit(*rows[:3])
    if common is None:
        shifted = " or the logits are shifted, which `method='platt'` corrects" if method == "temperature" else ""
        rule = f"The labels of task {task.name!r} do not increase with its logits on the validation rows{shifted}."
        raise ValueError(rule)
    if not size:
        return Maps([common])
    maps, choices = [common], np.zeros(size, np.int32)
    counts = np.bincount(rows.indices, minlength=size)
    for index in np.flatnonzero(counts >= min_rows):
        part = rows.of(rows.indices == index)
        own = fit(*part[:3]) if part.fewest() >= LEAST_EVENTS else None
        if own is not None:
            choices[index] = len(maps)
            maps.append(own)
    return Maps(maps, choices)

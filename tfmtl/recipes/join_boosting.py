"""The weights of a network and boosted trees in ranking tasks, chosen by the loss on validation rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, tf
from tfmtl._names import layer_name
from tfmtl.data import Batch, to_batch
from tfmtl.data.interchange import as_frame, stacked
from tfmtl.evaluation.counting import FloatArray
from tfmtl.layers.calibration import uncalibrated
from tfmtl.models import MultiTaskModel
from tfmtl.models.keras_arguments import require_compiled
from tfmtl.models.label_checks import check_table
from tfmtl.models.optimizer_copies import fresh_copy
from tfmtl.recipes.boosted_part import LEAST_ROWS, BoostedPart, EncodedBoosting
from tfmtl.recipes.mixture_judge import near_best
from tfmtl.tasks import BinaryClassification, MultiClassClassification, Ranking, Regression, Task

_KINDS = (BinaryClassification, MultiClassClassification, Regression)
_MOST_CLASSES = 10
_MOST_TREES = 1000
"""Largest number of trees of all classes of a task."""
_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class BoostedTask:
    """The trees of one task and their weight.

    Attributes:
        weights: of the output of the network and of the trees; (1, 0) for the network alone.
        rounds: number of trees of each output.
        values: the mean loss on validation of `network`, `trees` and `mixture`, in the scale of the task's loss.
    """

    weights: tuple[float, float]
    rounds: int
    values: dict[str, float]

    @property
    def mixture(self) -> str:
        """The weights in words."""
        network, trees = self.weights
        return f"{network:.2g} network + {trees:.2g} trees ({self.rounds} rounds)" if trees > 0 else "network alone"

    @property
    def found(self) -> str:
        """The losses in words."""
        return ", ".join(f"{name} {value:.4f}" for name, value in self.values.items())


@dataclasses.dataclass(frozen=True)
class JoinedBoosting:
    """The result of `join_boosting`.

    Attributes:
        model: the compiled model with trees in the outputs of some tasks, or the given one if no task has any.
        tasks: the choice of each task that was compared.
    """

    model: MultiTaskModel
    tasks: dict[str, BoostedTask]

    def __str__(self) -> str:
        lines = [f"{name}: {task.mixture}; loss on validation: {task.found}." for name, task in self.tasks.items()]
        return "\n".join(lines) or "No task has trees."


def join_boosting(
    model: MultiTaskModel,
    train: Any,
    validation: Any,
    *,
    tasks: Sequence[str] | None = None,
    rounds: int = 200,
    max_rows: int = 200_000,
    refit: bool = True,
    seed: int = 0,
) -> JoinedBoosting:
    """Join boosted trees to the ranking tasks of a trained model, with the weights of the least loss on validation.

    Use it after the training, as `fit` does: trees find steps in numbers, counts and rates that a network smooths over.
    They are fixed layers of the same network and SavedModel.

    The output of a task becomes w z_network + (1 - w) z_trees, in log-odds, or in the scale of a regression's loss. The
    trees are those of `baselines.GradientBoosting`, fitted to encoded features: codes, counts and out-of-fold rates of
    ids, numbers, and lengths of lists; texts are left out. The mean of the weights w of 0, 1/4, ..., 1 within one
    standard error of the least loss is used; a task keeps its network alone if this has no smaller loss. An earlier
    calibration of a task with trees is removed. Further training trains the network beside the fixed trees.

    Tasks of other classes than `BinaryClassification`, `MultiClassClassification` (of up to ten classes) and
    `Regression`, tasks of a chain (`after`), and those with a focal loss or class weights stay as they are.

    Args:
        model: trained model.
        train, validation: the table of its training, and a table outside it with labels.
        tasks: names of the tasks; by default all that can have trees.
        rounds: largest number of trees of each output; fewer with more than five classes.
        max_rows: largest number of rows to fit trees to, drawn at random; counts and rates use all rows.
        refit: whether the result's trees are fitted to both tables; then `calibrate` needs rows outside of both.
        seed: seed of the draw, of the folds of the rates and of the trees.

    Raises:
        RuntimeError: if the model is not compiled.
        ValueError: if a task cannot have trees or has some already, or a label is none of its task.

    Reference: that of `tfmtl.baselines.GradientBoosting`.

    Cost: twice that of `GradientBoosting` for each task; in serving some look-ups for each row, tree and level.
    """
    require_compiled(model, "join_boosting")
    require_positive_int(rounds=rounds, max_rows=max_rows)
    rows = _Rows(as_frame(train), as_frame(validation), refit, {"max_rows": max_rows, "seed": seed})
    chosen = _tasks(model, tasks)
    if not chosen:
        return JoinedBoosting(model, {})
    batch = to_batch(rows.validation, model.preprocessor, labels=[task.name for task in chosen])
    check_table(chosen, model.schema, batch)
    own = _outputs(model, batch, [task.name for task in chosen])
    found, parts = {}, {}
    for task in chosen:
        trees = rows.fitted(model, task, min(rounds, max(1, _MOST_TREES // task.output_units)))
        judged = None if trees is None else _judged(task, batch, own[task.name], trees, rows.validation)
        if trees is not None and judged is not None:
            found[task.name] = judged
            if judged.weights[1] > 0:
                parts[task.name] = rows.refitted(model, task, trees)
    return JoinedBoosting(joined(model, parts, found) if parts else model, found)


class _Rows(NamedTuple):
    """The tables that trees are fitted to, and the arguments of `EncodedBoosting`."""

    train: Any
    validation: Any
    refit: bool
    options: dict[str, int]

    def fitted(self, model: MultiTaskModel, task: Ranking, rounds: int) -> EncodedBoosting | None:
        """Return trees for the training rows, as many as are best on validation.

        The result is None without a feature or two different labels.
        """
        if not EncodedBoosting.features(model.schema, task):
            return None
        fresh = EncodedBoosting(model.preprocessor, rounds, self.validation, **self.options)
        return fresh if fresh.fit(model.schema, task, self.train).rounds else None

    def refitted(self, model: MultiTaskModel, task: Ranking, trees: EncodedBoosting) -> BoostedPart:
        """Return as many trees for all rows; the given ones without `refit`."""
        if not self.refit:
            return trees.part(task)
        fresh = EncodedBoosting(model.preprocessor, max_iter=trees.rounds, hold_out=False, **self.options)
        rows = stacked([self.train, self.validation], model.schema.features.values())
        return fresh.fit(model.schema, task, rows).part(task)


def joined(model: MultiTaskModel, parts: Mapping[str, BoostedPart], found: Mapping[str, BoostedTask]) -> MultiTaskModel:
    """Return a compiled model of the same class and state with trees in the outputs of some tasks."""
    inputs, outputs = model.network.input, dict(model.network.output)
    for name, part in parts.items():
        weights, prefix = found[name].weights, layer_name(f"trees_{name}")
        weighted = [
            keras.layers.Rescaling(weight, dtype="float32", name=f"{prefix}_weight_{i}")(output)
            for i, (weight, output) in enumerate(
                zip(weights, (uncalibrated(outputs[name]), part.connect(inputs)), strict=True)
            )
        ]
        outputs[name] = keras.layers.Add(dtype="float32", name=f"{prefix}_sum")(weighted)
    network = model.with_network(keras.Model(inputs, outputs, name=model.network.name))
    network.compile(fresh_copy(model.optimizer))
    return network


def _tasks(model: MultiTaskModel, names: Sequence[str] | None) -> list[Ranking]:
    """Return the tasks to compare."""
    had = [task.name for task in model.tasks if f"{layer_name(f'trees_{task.name}')}_sum" in _layers(model)]
    require(not had, "Tasks have trees already; give the model as it was before `join_boosting`.", tasks=had)
    followed = {parent for task in model.tasks for parent in task.depends_on}
    able = [task for task in model.tasks if _can(task) and task.name not in followed]
    if names is None:
        return able
    known = [task.name for task in able]
    wrong = [name for name in names if name not in known]
    require(not wrong, f"Trees can join only the tasks {known}.", tasks=wrong)
    return [task for task in able if task.name in names]


def _layers(model: MultiTaskModel) -> set[str]:
    return {layer.name for layer in model.network.layers}


def _can(task: Task) -> bool:
    few = not isinstance(task, MultiClassClassification) or task.num_classes <= _MOST_CLASSES
    plain = not getattr(task, "reweighted", False) and not getattr(task, "extra_losses", ())
    return type(task) in _KINDS and few and not task.depends_on and plain


def _outputs(model: MultiTaskModel, batch: Batch, names: Sequence[str]) -> dict[str, FloatArray]:
    """Return the network's outputs [n, units] of some tasks for the rows of a batch."""
    part = keras.Model(model.network.input, {name: uncalibrated(model.network.output[name]) for name in names})
    features = {name: batch.features[name] for name in model.network.input}
    found = part.predict(features, batch_size=model.evaluation_batch_size, verbose=0)
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def _judged(task: Ranking, batch: Batch, own: FloatArray, trees: EncodedBoosting, table: Any) -> BoostedTask | None:
    """Return the weights of the least loss on validation rows; None if too few rows have a label to choose by."""
    labels, weight = (values[task.name].numpy().astype(np.float64) for values in (batch.labels, batch.weights))
    rows = np.flatnonzero(~np.isnan(labels) & (weight > 0))
    if len(rows) < LEAST_ROWS:
        return None
    weight, outputs = weight[rows] / weight[rows].mean(), trees.outputs(table.iloc[rows])

    def losses(share: float) -> FloatArray:
        return weight * losses_of(task, labels[rows], (1 - share) * own[rows] + share * outputs)

    tried = {share: losses(share) for share in _GRID}
    share = float(np.mean(near_best({option: -loss for option, loss in tried.items()})))
    values = {"network": tried[0.0], "trees": tried[1.0], "mixture": losses(share)}
    means = {name: float(loss.mean()) for name, loss in values.items()}
    share = share if means["mixture"] < means["network"] else 0.0
    return BoostedTask((1 - share, share), trees.rounds, means)


def losses_of(task: Ranking, labels: FloatArray, outputs: FloatArray) -> FloatArray:
    """Return the loss [n] of each row.

    Args:
        task: the task.
        labels: [n], all observed.
        outputs: [n, units].
    """
    found: npt.NDArray[np.float64]
    if isinstance(task, Regression):
        targets = task.targets(tf.constant(labels, tf.float32)).numpy()
        found = np.square(outputs[:, 0] - targets)
    elif isinstance(task, MultiClassClassification):
        found = np.logaddexp.reduce(outputs, axis=1) - outputs[np.arange(len(labels)), labels.astype(np.int64)]
    else:
        found = np.logaddexp(0, outputs[:, 0]) - labels * outputs[:, 0]
    return found

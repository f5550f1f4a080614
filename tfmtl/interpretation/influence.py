"""Influence of training rows on the loss of a prediction, by gradients at checkpoints."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int, require_type
from tfmtl._keras import keras
from tfmtl.data import Batch
from tfmtl.data.frames import rows_of
from tfmtl.data.interchange import as_frame
from tfmtl.interpretation.row_gradients import DenseGradients, HeadGradients
from tfmtl.models import MultiTaskModel, load_model
from tfmtl.models.explained import Floats, chosen_tasks, encoded_rows
from tfmtl.tasks import Task
from tfmtl.tasks.ranking import Ranking

Variables = Literal["head", "dense"]
_KINDS: dict[str, type[HeadGradients] | type[DenseGradients]] = {"head": HeadGradients, "dense": DenseGradients}


def influence_of_rows(
    model: MultiTaskModel,
    train: Any,
    examples: Any,
    task: str,
    *,
    checkpoints: Sequence[Any] | None = None,
    rates: float | Sequence[float] = 1.0,
    variables: Variables = "head",
) -> Floats:
    """Measure the influence of training rows on the losses of examples (TracInCP).

    Use it to find the rows that taught a model a prediction, and wrong labels: their influence on themselves is large.
    I(z, z') = sum over checkpoints c of eta_c <grad L(z; theta_c), grad L(z'; theta_c)>, where L is the
    task's loss of a row times the weight of the row. Steps on a row z with I(z, z') > 0 lowered the loss of z'.

    Args:
        model: a trained model; it does not change.
        train: labelled rows that trained the model: a table (pandas, PyArrow, Polars), or a `Batch`.
        examples: labelled rows to explain, in the same form; the label may be a supposed one.
        task: a task with a loss per row: no retrieval, and without `extra_losses`.
        checkpoints: the weights after stages of the training, each a folder of `save_model`, a `.keras` file, a file
            of `ModelCheckpoint(save_weights_only=True)`, or the arrays of the network's weights, such as each of
            `Snapshots.weights`. By default the present weights.
        rates: learning rate eta of each checkpoint, or of all.
        variables: parameters of the gradients: `"head"` for the last dense layer of the task, `"dense"` for all trained
            ones before its output except tables of embeddings, by which rows with equal ids also influence each other.

    Returns:
        Influence of each training row on each example [M, N]; 0 for rows without a label of the task.

    Raises:
        ValueError: if the task has no loss per row, a checkpoint does not fit, an example has no label, or there are
            not as many rates as checkpoints.
        TypeError: if a checkpoint has another form.

    Example:
        >>> # influence_of_rows(model, train, train.head(5), "click", checkpoints=snapshots.weights)

    Cost: one pass over the training rows per checkpoint, and with `"dense"` per checkpoint and example.

    Reference: Pruthi, Liu, Sundararajan and Kale, "Estimating Training Data Influence by Tracing Gradient Descent",
    NeurIPS 2020, https://arxiv.org/abs/2002.08484, the equation of TracInCP in section 3.3; section 4.1 for the last
    layer alone.
    """
    (chosen,) = chosen_tasks(model, [task])
    _check_task(chosen)
    require_known([variables], _KINDS, "kind of parameters", "`variables`")
    stages = _stages(checkpoints, rates)
    rows, targets = encoded_rows(model, train, [task], "train"), encoded_rows(model, examples, [task], "examples")
    weights = model.loss_arguments(chosen, targets, training=False)[1].numpy()
    require(bool((weights > 0).all()), "`examples` needs a label in every row.", row=int(np.argmin(weights)))
    copy = model if checkpoints is None else model.with_network(keras.models.clone_model(model.network))
    gradients = _KINDS[variables](copy, next(t for t in copy.tasks if t.name == task))
    total: Floats = np.zeros([rows_of(targets), rows_of(rows)])
    for stage, rate in stages:
        _load(copy, stage)
        total += rate * gradients.products(rows, targets)
    return total


def influential_rows(
    model: MultiTaskModel,
    train: Any,
    example: Any,
    task: str,
    *,
    checkpoints: Sequence[Any] | None = None,
    rates: float | Sequence[float] = 1.0,
    variables: Variables = "head",
    k: int = 10,
) -> Any:
    """Return the training rows with the largest influence on the loss of one prediction.

    Use it to answer why a model predicts a value: "because of these rows". Proponents lowered the loss of the example
    in training, opponents raised it.

    Args:
        model, train, task, checkpoints, rates, variables: as in `influence_of_rows`.
        example: a table or a `Batch` of one labelled row.
        k: most proponents and most opponents.

    Returns:
        A table with the columns `influence` and those of the training table, with its index: at most k proponents, the
        largest first, then at most k opponents, the smallest influence last. Rows without influence are absent.

    Raises:
        ValueError: if `example` has several rows, the table has a column `influence`, or as `influence_of_rows`.

    Example:
        >>> # influential_rows(model, train, test.iloc[[3]], "click", checkpoints=["epoch_1", "epoch_2"])

    Cost: as `influence_of_rows`.

    Reference: as `influence_of_rows`.
    """
    from tfmtl.interpretation.tables import ranked_rows

    require_positive_int(k=k)
    frame = None if isinstance(train, Batch) else as_frame(train)
    taken = frame is not None and "influence" in getattr(frame, "columns", ())
    require(not taken, "`train` has a column 'influence'; rename it, since the result has this name.")
    target = encoded_rows(model, example, [t.name for t in chosen_tasks(model, [task])], "example")
    given = {"checkpoints": checkpoints, "rates": rates, "variables": variables}
    found = influence_of_rows(model, train, target, task, **given)  # type: ignore[arg-type]
    require(len(found) == 1, "`example` must have one row; call once per row.", rows=len(found))
    order = np.argsort(-found[0], kind="stable")
    best, worst = order[:k][found[0, order[:k]] > 0], order[-k:][found[0, order[-k:]] < 0]
    return ranked_rows(frame, np.concatenate([best, worst]), "influence", found[0])


def _stages(checkpoints: Sequence[Any] | None, rates: float | Sequence[float]) -> list[tuple[Any, float]]:
    """Return the checkpoints with their rates; None for the present weights."""
    require(checkpoints is None or len(checkpoints) > 0, "`checkpoints` must hold at least one.", received=checkpoints)
    stages = [None] if checkpoints is None else list(checkpoints)
    shares = rates if isinstance(rates, Sequence) else [rates] * len(stages)
    require(len(shares) == len(stages), f"`rates` needs one rate for each of {len(stages)} checkpoints.", rates=rates)
    return [(stage, float(rate)) for stage, rate in zip(stages, shares, strict=True)]


def _check_task(task: Task) -> None:
    """Raise unless the loss of a batch is a sum over its rows."""
    require(not task.retrieves, f"Task {task.name!r} is a retrieval, of which a row has no loss of its own.")
    extra = isinstance(task, Ranking) and bool(task.extra_losses)
    require(not extra, f"Task {task.name!r} has `extra_losses`, by which rows depend on each other.")


def _load(model: MultiTaskModel, checkpoint: Any) -> None:
    """Give a copy of the model the weights of a checkpoint; None keeps its weights."""
    if checkpoint is None:
        return
    if isinstance(checkpoint, str | os.PathLike):
        path = pathlib.Path(checkpoint)
        if path.is_dir() or path.suffix == ".keras":
            checkpoint = load_model(path).network.get_weights()
        else:
            status = model.load_weights(str(path))
            if hasattr(status, "expect_partial"):
                status.expect_partial()
            return
    require_type(checkpoint, (list, tuple), "checkpoints[...]", "Give a path, or the arrays of the network's weights.")
    shapes = [tuple(np.shape(array)) for array in checkpoint]
    fits = shapes == [tuple(weight.shape) for weight in model.network.weights]
    require(fits, "A checkpoint must hold the arrays of this network's weights.", arrays=len(shapes))
    model.network.set_weights(checkpoint)

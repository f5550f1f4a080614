"""Gradients of one training step, task by task: where they are taken, their inner products, and the full list of them.

These functions are for the balancers and callbacks of this package and for those that extend it; they are not exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl._replicas import all_reduce
from tfmtl.balancing.gramian import Gradient, TaskGradients, add, gated_gramian, gramian_of, join
from tfmtl.balancing.training_step import TrainingStep

At = str | Sequence[str]
"""Where gradients are taken: `"representation"`, `"shared"`, or names of layers; see `GramianBalancer`."""

Deltas = Sequence[Sequence[tf.Tensor]]
"""By task, the gradient of its loss with respect to each of its outputs: `TrainingStep.output_gradients`."""

_LOCATIONS = ("representation", "shared")


def checked_location(at: At) -> str | tuple[str, ...]:
    """Return the argument `at` of a `GramianBalancer` with a tuple of layer names, or raise `ValueError`."""
    if isinstance(at, str):
        require(at in _LOCATIONS, f"`at` must be one of {list(_LOCATIONS)} or a list of layer names.", at=at)
        return at
    valid = bool(at) and all(isinstance(name, str) for name in at)
    require(valid, f"`at` must be one of {list(_LOCATIONS)} or name at least one layer.", at=at)
    return tuple(at)


def gramian_at(step: TrainingStep, deltas: Deltas, at: At) -> tf.Tensor:
    """Return the inner products [K, K] of the tasks' gradients at one location, times the square of `step.scale`.

    Args:
        step, deltas: the step and its `output_gradients`.
        at: as in `GramianBalancer`.

    Raises:
        ValueError: if a layer does not exist, no loss reaches the location, or the trunk marks no representation.
    """
    if at == "representation":
        return representation_gramian(step, deltas)
    variables = step.shared if at == "shared" else _variables_of(step, at)
    return gramian_of(require_reached(at, gradients_by_task(step, deltas, variables, reduce=True)))


def _variables_of(step: TrainingStep, layers: Sequence[str]) -> list[tf.Variable]:
    return [v for name in layers for v in step.network.get_layer(name).trainable_variables]


def representation_gramian(step: TrainingStep, deltas: Deltas) -> tf.Tensor:
    """Return the inner products [K, K] of the tasks' gradients with respect to the shared representation.

    Args:
        step, deltas: the step and its `output_gradients`.

    Raises:
        ValueError: if the trunk marks no representation.
    """
    require(
        bool(step.representation),
        "The trunk marks no tensor that its tasks share; call `self.mark_shared` in its `call` or give another `at`.",
    )
    if step.gated is None:
        joined = gradients_by_task(step, deltas, step.representation)
        if not any(gradients is not None for gradients in joined):  # frozen up to there: take the shared variables
            joined = gradients_by_task(step, deltas, step.shared, reduce=True)
        gramian = gramian_of(require_reached("representation", joined))
    else:
        outputs, gates = step.gated
        flat = [output for of_task in step.outputs for output in of_task]
        plain = [delta for of_task in deltas for delta in of_task]
        gramian = gated_gramian(step.tape.gradient(flat, list(outputs), plain), gates)
    return all_reduce(gramian)  # replicas hold different rows of one representation: inner products add up


def gradients_by_task(
    step: TrainingStep, deltas: Deltas, sources: Sequence[Any], reduce: bool = False
) -> list[TaskGradients | None]:
    """Return for each of `sources`, variables or tensors, the tasks' gradients, None where no task reaches it.

    Args:
        step, deltas: the step and its `output_gradients`.
        sources: variables, or tensors of the forward pass.
        reduce: whether to sum over the replicas.
    """
    of_tasks = [
        step.tape.gradient(list(outputs), list(sources), list(delta)) if outputs else [None] * len(sources)
        for outputs, delta in zip(step.outputs, deltas, strict=True)
    ]
    of_sources = [list(gradients) for gradients in zip(*of_tasks, strict=True)]
    return [join([None if g is None else all_reduce(g) for g in gs] if reduce else gs) for gs in of_sources]


def complete_gradients(
    step: TrainingStep, deltas: Deltas, of_shared: Sequence[Gradient], penalize: bool = False
) -> list[Gradient]:
    """Return one gradient for each of `step.variables`: the given one if it is shared, else that of the plain sum.

    Args:
        step, deltas: the step and its `output_gradients`.
        of_shared: gradients of `step.shared`.
        penalize: whether to add the penalties' gradients to them.
    """
    if penalize:
        penalties = step.tape.gradient(step.penalty, list(step.shared))
        of_shared = [add(gradient, penalty) for gradient, penalty in zip(of_shared, penalties, strict=True)]
    found = dict(zip(map(id, step.shared), of_shared, strict=True))
    of_network = {id(v) for v in step.network.trainable_variables}
    heads = [v for v in step.variables if id(v) in of_network and id(v) not in found]
    others = [v for v in step.variables if id(v) not in of_network]  # learned by tasks and balancers themselves
    flat = [output for outputs in step.outputs for output in outputs]
    plain = [delta for delta_of_task in deltas for delta in delta_of_task]
    of_heads = step.tape.gradient([*flat, step.penalty], heads, [*plain, tf.ones_like(step.penalty)]) if heads else []
    of_others = step.tape.gradient(step.objective, others) if others else []
    found.update(zip(map(id, [*heads, *others]), [*of_heads, *of_others], strict=True))
    return [found[id(v)] for v in step.variables]


def require_reached(at: At, joined: Sequence[TaskGradients | None]) -> list[TaskGradients]:
    """Return the gradients that are not None; raise `ValueError` if there are none.

    Args:
        at: where they were taken, for the error message.
        joined: gradients by variable or tensor.
    """
    reached = [gradients for gradients in joined if gradients is not None]
    require(bool(reached), "No task's loss reaches the variables or tensors named by `at`.", at=at)
    return reached

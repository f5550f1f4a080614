"""Balancers that look at the tasks' gradients."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl._replicas import all_reduce, replicas
from tfmtl.balancing.balancer import SeparatingBalancer
from tfmtl.balancing.gramian import Gradient, TaskGradients, add, gated_gramian, gramian_of, join
from tfmtl.balancing.training_step import TrainingStep

At = str | Sequence[str]
Deltas = Sequence[Sequence[tf.Tensor]]

_PLACES = ("representation", "shared")


class GramianBalancer(SeparatingBalancer):
    """Weights the tasks by the inner products of their gradients.

    The update of the variables that tasks share is sum_i w_i g_i with w from `task_weights`; a variable of one task
    alone takes the gradient of its own loss with weight 1, whatever w is. A task without a label in the batch has
    weight 0 and is left out of the balance.

    Args:
        at: where the gradients are taken. `"representation"`: at the last tensors that all tasks share (the experts'
            outputs of a trunk; the encoded features if tasks outside the trunk take part), at about the cost of one
            backward pass; a bound of the parameters' up to the Jacobian in between (Sener & Koltun, 2018).
            `"shared"`: at all shared variables, embedding tables included (touched rows only), exact, K backward
            passes. Or names of layers of the network: at their variables.

    Subclasses implement `task_weights`; state they keep is made by `add_state` in `bind`.
    """

    def __init__(self, at: At = "representation", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.at = checked_place(at)

    def bind(self, task_names: Sequence[str], kendall_factors: Sequence[float]) -> None:
        """Create the weights that the log shows, and compile what finds them."""
        super().bind(task_names, kendall_factors)
        # Dozens of operations on K x K numbers take longer to start than to run: XLA makes one of them.
        self._compiled = tf.function(self.task_weights, jit_compile=True, autograph=False)

    @abc.abstractmethod
    def task_weights(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return the weight of each task's gradient [K].

        Args:
            gramian: inner products of the tasks' gradients, float32 [K, K]; zero in rows and columns of unobserved
                tasks.
            losses: mean loss of each task [K].
            observed: bool [K]. The weights of the observed tasks must be those of a problem without the others; what is
                returned for the others does not matter.
        """

    def gradients(self, step: TrainingStep) -> list[Any]:
        """Return the gradients of the weighted losses, and of the penalties."""
        deltas = step.output_gradients()
        if self.at == "shared":
            return self._mix_by_variable(step, deltas)
        weights = self._weigh(step, gramian_at(step, deltas, self.at))
        flat = [output for outputs in step.outputs for output in outputs]
        weighted = [tf.cast(w, d.dtype) * d for w, ds in zip(tf.unstack(weights), deltas, strict=True) for d in ds]
        of_shared = step.tape.gradient([*flat, step.penalty], step.shared, [*weighted, tf.ones_like(step.penalty)])
        return complete(step, deltas, of_shared)

    def _weigh(self, step: TrainingStep, gramian: tf.Tensor) -> tf.Tensor:
        losses = all_reduce(tf.stack(step.losses)) / step.scale
        gramian = gramian / step.scale**2
        # A step that overflows in half precision is skipped by the optimiser; it must not spoil state for ever.
        finite = tf.reduce_all(tf.math.is_finite(gramian)) & tf.reduce_all(tf.math.is_finite(losses))
        pairs = finite & step.observed[:, tf.newaxis] & step.observed[tf.newaxis, :]
        weights = self._solve(tf.where(pairs, gramian, 0.0), tf.where(finite, losses, 0.0), step.observed)
        weights = tf.stop_gradient(tf.where(step.observed, weights, 0.0))
        self.last_weights.assign(weights)
        return weights

    def _solve(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        if tf.executing_eagerly() or replicas() > 1:  # XLA does not assign to variables that replicas mirror
            return self.task_weights(gramian, losses, observed)
        return self._compiled(gramian, losses, observed)

    def _mix_by_variable(self, step: TrainingStep, deltas: Deltas) -> list[Gradient]:
        joined = by_variable(step, deltas, step.shared, reduce=True)
        weights = self._weigh(step, gramian_of(_reached(self.at, joined))) / replicas()
        return complete(step, deltas, [None if g is None else g.weighted(weights) for g in joined], penalize=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "at": self.at if isinstance(self.at, str) else list(self.at)}


def checked_place(at: At) -> str | tuple[str, ...]:
    """Return `at` as `GramianBalancer` takes it, or raise `ValueError`."""
    if isinstance(at, str):
        require(at in _PLACES, f"`at` must be one of {list(_PLACES)} or a list of layer names.", at=at)
        return at
    valid = bool(at) and all(isinstance(name, str) for name in at)
    require(valid, f"`at` must be one of {list(_PLACES)} or name at least one layer.", at=at)
    return tuple(at)


def gramian_at(step: TrainingStep, deltas: Deltas, at: At) -> tf.Tensor:
    """Return the inner products [K, K] of the tasks' gradients at a place, times the square of `step.scale`.

    Args:
        step, deltas: the step and its `output_gradients`.
        at: as in `GramianBalancer`.

    Raises:
        ValueError: if a layer does not exist, no loss reaches the place, or the trunk marks no representation.
    """
    if at == "representation":
        return representation_gramian(step, deltas)
    variables = step.shared if at == "shared" else _variables_of(step, at)
    return gramian_of(_reached(at, by_variable(step, deltas, variables, reduce=True)))


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
        "The trunk does not mark what its tasks share; call `self.mark_shared` in its `call` or give another `at`.",
    )
    if step.gated is None:
        joined = by_variable(step, deltas, step.representation)
        if not any(gradients is not None for gradients in joined):  # frozen up to there: what is shared comes behind it
            joined = by_variable(step, deltas, step.shared, reduce=True)
        gramian = gramian_of(_reached("representation", joined))
    else:
        outputs, gates = step.gated
        flat = [output for of_task in step.outputs for output in of_task]
        plain = [delta for of_task in deltas for delta in of_task]
        gramian = gated_gramian(step.tape.gradient(flat, list(outputs), plain), gates)
    return all_reduce(gramian)  # replicas hold different rows of one representation: inner products add up


def by_variable(
    step: TrainingStep, deltas: Deltas, sources: Sequence[Any], reduce: bool = False
) -> list[TaskGradients | None]:
    """Return for each of `sources`, variables or tensors, the tasks' gradients, None where no task reaches it.

    Args:
        step, deltas: the step and its `output_gradients`.
        sources: variables, or tensors of the forward pass.
        reduce: whether to sum over the replicas.
    """
    of_tasks = [
        step.tape.gradient(list(outputs), list(sources), list(delta))
        for outputs, delta in zip(step.outputs, deltas, strict=True)
    ]
    of_sources = [list(gradients) for gradients in zip(*of_tasks, strict=True)]
    return [join([None if g is None else all_reduce(g) for g in gs] if reduce else gs) for gs in of_sources]


def complete(
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


def _reached(at: At, joined: Sequence[TaskGradients | None]) -> list[TaskGradients]:
    reached = [gradients for gradients in joined if gradients is not None]
    require(bool(reached), "No task's loss reaches what `at` names.", at=at)
    return reached

"""Smoothed weights of another balancer on the Gramian."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_fraction, require_type
from tfmtl._keras import keras, register, tf
from tfmtl._trusted import deserialize
from tfmtl.balancing.gramian_balancer import GramianBalancer


@register
class CRMOGM(GramianBalancer):
    """CR-MOGM: averages the weights of another `GramianBalancer` over the steps.

    Use it where weights jump from batch to batch, as those of MGDA do with small batches.

    w_t = momentum w_{t-1} + (1 - momentum) w^_t, w^_t the weights that the other balancer gives for the batch.

    Args:
        balancer: another `GramianBalancer`; its `at` is where gradients are taken.
        momentum: in [0, 1); 0 changes nothing.

    Example:
        >>> from tfmtl.balancing.pcgrad import PCGrad
        >>> balancer = CRMOGM(PCGrad(), momentum=0.5)
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> def step(product):
        ...     gramian = tf.constant([[1.0, product], [product, 1.0]])
        ...     return balancer.task_weights(gramian).numpy().tolist()
        >>> step(-0.5), step(0.5)  # PCGrad gives 1.5 twice, then 1
        ([1.5, 1.5], [1.25, 1.25])

    Reference:
        Zhou et al., "On the Convergence of Stochastic Multi-Objective Gradient Manipulation and Beyond", NeurIPS 2022,
        https://proceedings.neurips.cc/paper_files/paper/2022/file/f91bd64a3620aad8e70a27ad9cb3ca57-Paper-Conference.pdf,
        CR-MOGM there. The batch decides both the gradients and the weights; smoothing weakens that correlation, which
        biases the update. The average starts with the first weights that a task gets, not with given ones, since
        methods differ in the sum of their weights. A task without a label keeps its average. The momentum is constant;
        the paper's may change with the step.

    The sum of the weights: with all tasks in every batch, the average of the other balancer's sums, which are 1 for
    `MGDA`, but change from batch to batch for `PCGrad` or `NashMTL`. With missing labels, every task averages over the
    batches that have it, so that the weights of a batch can sum to more or less than the other balancer's ever do: of
    two tasks under `MGDA`, one that is often alone, with weight 1, brings much of that to the batches of both. They are
    not scaled back, since the sum is part of the other balancer's result.

    Cost: that of the other balancer. We know of no evidence in recommenders.
    """

    def __init__(self, balancer: GramianBalancer, momentum: float = 0.9, **kwargs: Any) -> None:
        require_type(balancer, GramianBalancer, "balancer")
        require(
            type(balancer).gradients is GramianBalancer.gradients,
            f"A {type(balancer).__name__} does more than weight the tasks, so that its weights cannot be smoothed; "
            "give a balancer that only implements `weigh`.",
        )
        require_fraction(momentum=momentum)
        super().__init__(balancer.at, **kwargs)
        self.balancer = balancer
        self.momentum = float(momentum)
        self.needs_losses_after_step = balancer.needs_losses_after_step
        self.after_step_every = balancer.after_step_every
        self.reads_losses = balancer.reads_losses

    def build_state(self) -> None:
        """Bind the other balancer and create the averages."""
        self.balancer.bind(self.tasks)
        self._averages = self.add_state("averages", [len(self.task_names)], 1.0)
        self._started = self.add_state("started", [len(self.task_names)])

    def prepare(self, shared: Sequence[tf.Variable]) -> None:
        """Create the state of the other balancer."""
        self.balancer.prepare(shared)

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return the averages."""
        weights = self.balancer.weigh(gramian, losses, observed)
        averages = tf.where(self._started > 0, self.momentum * self._averages + (1 - self.momentum) * weights, weights)
        usable = observed & tf.math.is_finite(averages)
        self._averages.assign(tf.where(usable, averages, self._averages))
        self._started.assign(tf.where(usable, 1.0, self._started))
        return tf.convert_to_tensor(self._averages)

    def after_step(self, before: tf.Tensor, after: tf.Tensor, observed: tf.Tensor) -> None:
        """Update the state of the other balancer."""
        self.balancer.after_step(before, after, observed)

    def end_epoch(self) -> None:
        """End the epoch of the other balancer."""
        self.balancer.end_epoch()

    def get_config(self) -> dict[str, Any]:
        config = {name: value for name, value in super().get_config().items() if name != "at"}
        return {
            **config,
            "balancer": keras.saving.serialize_keras_object(self.balancer),
            "momentum": self.momentum,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> CRMOGM:
        """Rebuild it, and the other balancer."""
        balancer = deserialize(keras.saving.deserialize_keras_object, config["balancer"], "CRMOGM")
        return cls(**{**config, "balancer": balancer})

"""Experts that belong to tasks and that all tasks may read (AdaTT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.trunks.gated_experts import GatedExperts, trainable, weighted_sums


@register
class AdaTT(GatedExperts):
    """Adaptive task-to-task fusion: each task mixes the experts of all tasks and adds a combination of its own.

    At each level, x_k <- sum_e softmax(W_k x_k / temperature)_e f_e + sum_{own e} v_ke f_e, with experts f_e that read
    their owner's x, all tasks' experts e in the first sum, and learned weights v_ke. x_k starts as the input.

    Args:
        task_names: names of the tasks.
        num_task_experts: number of each task's experts at a level.
        num_levels: number of levels.
        **kwargs: `units`, `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`,
            `gate_temperature`, `expert_dropout`: see `GatedExperts`.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}.

    Example:
        >>> trunk = AdaTT(["click", "buy"], num_task_experts=3, units=[4])
        >>> {level: tuple(gates.shape) for level, gates in trunk.gate_weights(tf.ones([5, 7])).items()}
        {'level_0': (5, 2, 6), 'level_1': (5, 2, 6)}

    Reference:
        Li et al., "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask Learning in Recommendations", KDD 2023,
        https://arxiv.org/abs/2304.04959. This is the form without shared units; those of the general form are left out.
        The own weights v start at 1 / num_task_experts, the mean, instead of at random, and are learned also where a
        task has a single expert, which the authors' code adds as it is. The gates have no bias.

    Cost: one matrix product an input and layer and level for all experts.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        num_task_experts: int = 2,
        num_levels: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, **kwargs)
        require_positive_int(num_task_experts=num_task_experts, num_levels=num_levels)
        self.num_task_experts = num_task_experts
        self.num_levels = num_levels

    def build_layers(self, input_shape: Any) -> None:
        """Create experts, gates, and the weights of own experts [tasks, num_task_experts] of each level."""
        tasks, levels = len(self.task_names), range(self.num_levels)
        count = tasks * self.num_task_experts
        self._experts = [self.make_experts(f"experts_{level}", count) for level in levels]
        self._gates = [self.make_gate(f"gates_{level}", tasks, count) for level in levels]
        mean = keras.initializers.Constant(1 / self.num_task_experts)
        self._own = [
            self.add_weight(f"own_weights_{level}", [tasks, self.num_task_experts], initializer=mean)
            for level in levels
        ]

    def mix(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return the tasks' representations, and the softmax gates' weights by level."""
        mixed, fusions = self._fuse(inputs, training)
        return mixed, {name: gates for name, (gates, _) in fusions.items()}

    def _fuse(
        self, inputs: tf.Tensor, training: bool | None
    ) -> tuple[tf.Tensor, dict[str, tuple[tf.Tensor, tf.Tensor]]]:
        """Return the tasks' representations, and by level the gates alone and together with the own weights."""
        tasks, fusions = inputs, {}
        for level in range(self.num_levels):
            experts = self._experts[level](tasks, training=training)
            if level == self.num_levels - 1:
                experts = self.mark_shared(experts)
            gates = self._gates[level](tasks, training=training)
            total = gates + tf.cast(self._own_weights(level), gates.dtype)
            tasks = weighted_sums(total, experts)
            fusions[f"level_{level}"] = gates, total
        return tasks, fusions

    def _own_weights(self, level: int) -> tf.Tensor:
        """Return the weights of own experts as [tasks, tasks * num_task_experts], 0 for other tasks' experts."""
        count = len(self.task_names)
        return tf.reshape(tf.eye(count)[:, :, tf.newaxis] * tf.cast(self._own[level], tf.float32), [count, -1])

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """Mix the experts' outputs for each task."""
        mixed, fusions = self._fuse(inputs, training)
        outputs = self.by_task(mixed)
        self.mark_gated(outputs, fusions[f"level_{self.num_levels - 1}"][1])
        return outputs

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """All experts, which every task reads, and what the experts of a level above read; not the last fusion."""
        return [*trainable(*self._experts, *self._gates[:-1]), *self._own[:-1]]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the numbers of levels and experts, their width and dropout."""
        name = cls.__name__.lower()
        return {
            "num_task_experts": hp.Int(f"{name}_num_task_experts", 1, 4, default=2),
            "num_levels": hp.Int(f"{name}_num_levels", 1, 3, default=2),
            **super().search_space(hp),
        }

    def get_config(self) -> dict[str, Any]:
        own = {"num_task_experts": self.num_task_experts, "num_levels": self.num_levels}
        return {**super().get_config(), **own}

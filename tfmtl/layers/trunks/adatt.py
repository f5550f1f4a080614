"""AdaTT: experts that belong to tasks, and that all tasks may read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.trunks.dense_trunk import trainable
from tfmtl.layers.trunks.gated_experts import GatedArguments, GatedExperts, weighted_sums


@register
class AdaTT(GatedExperts):
    """AdaTT (adaptive task-to-task fusion): each task mixes all tasks' experts and adds a weighted sum of its own.

    Use it when pairs of tasks differ in how much they can learn from each other; its gates show which task reads which.

    At each level, x_k <- sum_e softmax(W_k x_k / temperature)_e f_e + sum_{own e} v_ke f_e. An expert f_e reads the x
    of its task; the first sum is over all tasks' experts e; the weights v_ke are learned. x_k starts as the input.

    Args:
        task_names: names of the tasks.
        num_task_experts: number of each task's experts at a level.
        num_levels: number of levels.
        **kwargs: `units`, `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`,
            `gate_temperature`, `expert_dropout`: see `MMoE`.

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
        https://arxiv.org/abs/2304.04959. This is the form without the shared units of the general form. The own
        weights v start at 1 / num_task_experts, the mean, instead of at random. They are also learned for a single
        expert per task, which the authors' program adds unweighted. The gates have no bias.

    Cost: one matrix product per level, layer and input for all experts.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        num_task_experts: int = 2,
        num_levels: int = 2,
        **kwargs: Unpack[GatedArguments],
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

    def combine(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return the tasks' representations, and the softmax gates' weights by level."""
        combined, fusions = self._fuse(inputs, training)
        return combined, {name: gates for name, (gates, _) in fusions.items()}

    def _fuse(
        self, inputs: tf.Tensor, training: bool | None
    ) -> tuple[tf.Tensor, dict[str, tuple[tf.Tensor, tf.Tensor]]]:
        """Return the tasks' representations, and by level the gates and the sums of gates and own weights."""
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
        combined, fusions = self._fuse(inputs, training)
        outputs = self.by_task(combined)
        self.mark_gated(outputs, fusions[f"level_{self.num_levels - 1}"][1])
        return outputs

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """All experts, and the gates and own weights of every level except the last, which serve one task each."""
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

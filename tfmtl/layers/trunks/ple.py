"""CGC and PLE: experts of single tasks beside shared experts, at one level or at several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.experts.experts import Experts
from tfmtl.layers.experts.gating import SoftmaxGate
from tfmtl.layers.trunks.dense_trunk import trainable
from tfmtl.layers.trunks.gated_experts import GatedArguments, GatedExperts, weighted_sums


@register
class CGC(GatedExperts):
    """CGC (customized gate control): each task mixes its own experts with experts that all tasks share.

    Use it when tasks conflict: a task's own experts learn from that task only. It is one level of `PLE`.

    y_k = sum_e softmax(W_k x / temperature)_e f_e(x) over task k's own and the shared experts e.

    With `orthogonality` mu the layer has a loss in training, which draws own and shared experts apart: with the outputs
    P of an own and S of a shared expert, [B, units] each, mu times the mean over all pairs of |S'P|^2 / (|S|^2 |P|^2).

    Args:
        task_names: names of the tasks.
        num_task_experts: number of each task's own experts; more if the tasks have little in common.
        num_shared_experts: number of shared experts; more if the tasks are similar.
        orthogonality: mu, 0 or more.
        **kwargs: `units`, `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`,
            `gate_temperature`, `expert_dropout`: see `MMoE`.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}.

    Example:
        >>> trunk = CGC(["click", "buy"], num_task_experts=1, num_shared_experts=2, units=[4])
        >>> trunk(tf.ones([2, 5]))["click"].shape, trunk.gate_weights(tf.ones([2, 5]))["level_0"].shape
        (TensorShape([2, 4]), TensorShape([2, 2, 4]))

    Reference:
        Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for Personalized
        Recommendations", RecSys 2020, https://doi.org/10.1145/3383313.3412236. The gates have no bias; temperature and
        dropout of the gates are additions. The loss is that of Bousmalis et al., "Domain Separation Networks", NeurIPS
        2016, https://arxiv.org/abs/1608.06019, equation 5, divided by both norms, so that small outputs gain nothing.

    Cost: two matrix products per layer and input, one for all tasks' own experts and one for the shared experts.
    """

    num_levels: int = 1
    """Levels of experts."""

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        num_task_experts: int = 2,
        num_shared_experts: int = 2,
        *,
        orthogonality: float = 0.0,
        **kwargs: Unpack[GatedArguments],
    ) -> None:
        super().__init__(task_names, **kwargs)
        require_positive_int(num_task_experts=num_task_experts, num_shared_experts=num_shared_experts)
        valid = isinstance(orthogonality, int | float) and 0 <= orthogonality < float("inf")
        require(valid, "`orthogonality` must be a number of 0 or more.", orthogonality=orthogonality)
        self.num_task_experts = num_task_experts
        self.num_shared_experts = num_shared_experts
        self.orthogonality = orthogonality

    def build_layers(self, input_shape: Any) -> None:
        """Create the levels."""
        self._own: list[Experts] = []
        self._shared: list[Experts] = []
        self._task_gates: list[SoftmaxGate] = []
        self._shared_gates: list[SoftmaxGate] = []
        for level in range(self.num_levels):
            self._add_level(level)

    def _add_level(self, level: int) -> None:
        """Add a level and, above the first one, the gate that mixes the preceding level for the shared experts."""
        tasks, own = len(self.task_names), self.num_task_experts
        readable = [
            [task == owner for owner in range(tasks) for _ in range(own)] + [True] * self.num_shared_experts
            for task in range(tasks)
        ]
        if level > 0:
            self._shared_gates.append(self.make_gate(f"shared_gate_{level - 1}", 1, len(readable[0])))
        self._own.append(self.make_experts(f"own_experts_{level}", tasks * own))
        self._shared.append(self.make_experts(f"shared_experts_{level}", self.num_shared_experts))
        self._task_gates.append(self.make_gate(f"task_gates_{level}", tasks, len(readable[0]), readable))

    def combine(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return the tasks' representations, and by level the gates' weights of the tasks and of the shared reader."""
        tasks = shared = inputs
        weights = {}
        for level in range(self.num_levels):
            experts = self._level(level, tasks, shared, training)
            gates = self._task_gates[level](tasks, training=training)
            tasks = weighted_sums(gates, experts)
            if level < self.num_levels - 1:
                shared_gate = self._shared_gates[level](shared, training=training)
                shared = weighted_sums(shared_gate, experts)[:, 0]
                gates = tf.concat([gates, shared_gate], axis=1)
            weights[f"level_{level}"] = gates
        return tasks, weights

    def _level(self, level: int, tasks: tf.Tensor, shared: tf.Tensor, training: bool | None) -> tf.Tensor:
        """Return the outputs of a level's experts, own experts by task before shared ones; mark them if balancers
        compare the tasks there.
        """
        own = self._own[level](tasks, training=training)
        common = self._shared[level](shared, training=training)
        if training and self.orthogonality:
            self.add_loss(self.orthogonality * overlap(own, common))
        if self.num_levels == 1:
            common = self.mark_shared(common)
        experts = tf.concat([own, common], axis=1)
        return self.mark_shared(experts) if level == self.num_levels - 2 else experts

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        combined, gates = self.combine(inputs, training)
        outputs = self.by_task(combined)
        if self.num_levels == 1:
            self.mark_gated(outputs, gates["level_0"][..., -self.num_shared_experts :])
        return outputs

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """Shared experts and gates, and the own experts and gates that reach another task through a shared gate.

        The shared gate of each level reads all of its experts; the last level has none, so that its own experts are
        private. A task's gate feeds only the task's experts at the next level, so that the gates of the last two
        levels are private.
        """
        return trainable(*self._shared, *self._shared_gates, *self._own[:-1], *self._task_gates[:-2])

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the numbers of experts, their width and dropout."""
        name = cls.__name__.lower()
        return {
            "num_task_experts": hp.Int(f"{name}_num_task_experts", 1, 4, default=2),
            "num_shared_experts": hp.Int(f"{name}_num_shared_experts", 1, 4, default=2),
            **super().search_space(hp),
        }

    def get_config(self) -> dict[str, Any]:
        own = {"num_task_experts": self.num_task_experts, "num_shared_experts": self.num_shared_experts}
        return {**super().get_config(), **own, "orthogonality": self.orthogonality}


def overlap(own: tf.Tensor, shared: tf.Tensor) -> tf.Tensor:
    """Return the mean over pairs of experts of |S'P|^2 / (|S|^2 |P|^2), with Frobenius norms: a number in [0, 1].

    Args:
        own: outputs [B, own experts, units], one P for each expert.
        shared: outputs [B, shared experts, units], one S for each.

    Example:
        >>> along, across = tf.constant([[[1.0, 0.0]], [[2.0, 0.0]]]), tf.constant([[[2.0, 0.0]], [[-1.0, 0.0]]])
        >>> float(overlap(along, along)), float(overlap(along, across))
        (1.0, 0.0)
    """
    own, shared = tf.cast(own, tf.float32), tf.cast(shared, tf.float32)
    products = tf.reduce_sum(tf.einsum("bpi,bsj->psij", own, shared) ** 2, axis=[2, 3])
    sizes = (tf.reduce_sum(outputs**2, axis=[0, 2]) for outputs in (own, shared))
    return tf.reduce_mean(tf.math.divide_no_nan(products, tf.einsum("p,s->ps", *sizes)))


@register
class PLE(CGC):
    """PLE (progressive layered extraction): several levels of `CGC`.

    Use it when tasks conflict and there is enough data for deep experts; it is the field's usual step after `MMoE`.

    At each level, task k's own experts read its representation x_k and the shared experts read a shared one, x_s; then
    x_k <- sum_e softmax(W_k x_k / temperature)_e f_e over own and shared experts e, and x_s <- the same over all
    experts. All start from the input; the last level has no x_s.

    Args:
        task_names: names of the tasks.
        num_task_experts: number of each task's own experts at a level.
        num_shared_experts: number of shared experts at a level.
        num_levels: number of levels; one is `CGC`.
        **kwargs: see `CGC`.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}.

    Example:
        >>> trunk = PLE(["click", "buy"], num_levels=2, units=[4])
        >>> {level: tuple(gates.shape) for level, gates in trunk.gate_weights(tf.ones([3, 5])).items()}
        {'level_0': (3, 3, 6), 'level_1': (3, 2, 6)}

    Reference:
        Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for Personalized
        Recommendations", RecSys 2020, https://doi.org/10.1145/3383313.3412236. Every level's experts have the same
        `units`. With several levels, a gradient balancer compares the tasks at the outputs of all experts of the level
        before the last: it is the last tensor through which all preceding layers serve every task.

    Cost: that of `CGC` times the number of levels.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        num_task_experts: int = 2,
        num_shared_experts: int = 2,
        num_levels: int = 2,
        **kwargs: Unpack[GatedArguments],
    ) -> None:
        super().__init__(task_names, num_task_experts, num_shared_experts, **kwargs)
        require_positive_int(num_levels=num_levels)
        self.num_levels = num_levels

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the numbers of levels and experts, their width and dropout."""
        levels = hp.Int(f"{cls.__name__.lower()}_num_levels", 1, 3, default=2)
        return {"num_levels": levels, **super().search_space(hp)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_levels": self.num_levels}

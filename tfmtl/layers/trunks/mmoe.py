"""MMoE and OMoE: mixtures of shared experts, with one gate per task or one gate for all tasks."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import register, tf
from tfmtl.layers.dense_stack import search_dropout, search_units
from tfmtl.layers.trunks.mixture_of_experts import SoftmaxMixture


@register
class MMoE(SoftmaxMixture):
    """MMoE (multi-gate mixture of experts): shared experts, mixed for each task by the task's gate.

    Use it as the first choice when tasks are only partly related: a gate lets each task prefer other experts.

    y_k = sum_i softmax(W_k x / temperature)_i f_i(x), experts f_i of dense layers `units`, gate kernels W_k
    [d, num_experts].

    Args:
        task_names: names of the tasks.
        num_experts: number of experts; take more than tasks if the tasks differ much.
        units: widths of each expert's dense layers.
        activation: activation of the experts.
        dropout: rate on the experts' outputs, in [0, 1).
        kernel_initializer: initializer of the kernels; each expert has its own draw.
        kernel_regularizer: regularizer of the experts' kernels.
        seed: seed of the initial values and of dropout.
        gate_temperature: divisor of the gates' logits; above 1 the gates mix more evenly.
        expert_dropout: rate at which an expert is dropped from a row in training, in [0, 1); set it if the gates
            settle on one expert.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}.

    Example:
        >>> trunk = MMoE(["click", "buy"], num_experts=3, units=[4])
        >>> trunk(tf.ones([2, 5]))["click"].shape, trunk.gates(tf.ones([2, 5])).shape
        (TensorShape([2, 4]), TensorShape([2, 2, 3]))

    Reference:
        Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018,
        https://doi.org/10.1145/3219819.3220007, equations 6 to 8. The gates have no bias, as there.

    Cost: one matrix product per layer and input for all experts.
    """

    @property
    def num_gates(self) -> int:  # type: ignore[override]
        """One gate per task."""
        return len(self.task_names)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the number of experts, their width and dropout."""
        name = cls.__name__.lower()
        return {
            "num_experts": hp.Choice(f"{name}_num_experts", [2, 4, 8], default=4),
            "units": search_units(hp, name, 32),
            "dropout": search_dropout(hp, name),
        }


@register
class OMoE(MMoE):
    """OMoE (one-gate mixture of experts): shared experts, mixed by one gate for all tasks.

    Use it as the baseline of `MMoE`: the difference is the gain of separate gates.

    y_k = sum_i softmax(W x / temperature)_i f_i(x), the same for every task.

    Args:
        task_names, num_experts, units, activation, dropout, kernel_initializer, kernel_regularizer, seed,
            gate_temperature, expert_dropout: see `MMoE`.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}, the same values for every task.

    Example:
        >>> OMoE(["click", "buy"], num_experts=3, units=[4])(tf.ones([2, 5]))["buy"].shape
        TensorShape([2, 4])

    Reference:
        Jacobs et al., "Adaptive Mixtures of Local Experts", Neural Computation 3 (1991),
        https://doi.org/10.1162/neco.1991.3.1.79; the name is that of Ma et al., KDD 2018.

    Cost: that of `MMoE` with one gate.
    """

    @property
    def num_gates(self) -> int:  # type: ignore[override]
        """One gate for all tasks."""
        return 1

    def gates(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return the mixture weights [B, tasks, num_experts], the same for every task."""
        return tf.repeat(super().gates(inputs, training=training), len(self.task_names), axis=1)

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """All variables of the layer."""
        return list(self.trainable_weights)

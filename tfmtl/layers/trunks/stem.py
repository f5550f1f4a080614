"""STEM: embedding tables and experts of each task beside shared ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.dense_stack import StackArguments, search_dropout, search_units
from tfmtl.layers.experts.gating import SoftmaxGate
from tfmtl.layers.trunks.base import FeatureEncodings
from tfmtl.layers.trunks.dense_trunk import DenseTrunk, width_of

_SHARED = "shared"


@register
class STEM(DenseTrunk):
    """STEM (shared and task-specific embeddings): each task reads all tables and trains its own and the shared ones.

    Use it when tasks disagree about which users or items are similar, so that shared embeddings hurt one of them.

    y_k = sum_e g_k,e f_e(x_s) + sum_e g_k,e f_k,e(x_k) + sum_{j != k} sum_e g_k,e stop(f_j,e(x_j)),
    g_k = softmax(G_k [x_s, x_k]) over all experts, for encodings x_s from the shared tables and x_k from those of task
    k; `stop` blocks the gradient, so that a task's tables learn from that task only.

    `connect` creates the tables of the tasks in the network: x_s is the encoded pair, x_k the encoding of the same
    features by the tables of task k.

    Args:
        task_names: names of the tasks; none may be called "shared".
        units: widths of each expert's dense layers.
        num_shared_experts: number of experts that read the shared tables.
        num_task_experts: number of experts of each task.
        **kwargs: `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`: see `SharedBottom`.

    Call arguments:
        inputs: {"shared": [B, d], task: [B, n] for each task}, or one tensor [B, d] for all.

    Returns:
        {task: [B, units[-1]]}.

    Example:
        >>> trunk = STEM(["click", "buy"], units=[4])
        >>> inputs = {"shared": tf.ones([2, 5]), "click": tf.ones([2, 3]), "buy": tf.zeros([2, 3])}
        >>> trunk(inputs)["buy"].shape, trunk.gate_weights(inputs)["experts"].shape
        (TensorShape([2, 4]), TensorShape([2, 2, 3]))

    Reference:
        Su et al., "STEM: Unleashing the Power of Embeddings for Multi-task Recommendation", AAAI 2024,
        https://arxiv.org/abs/2308.13537. One level of experts; a gate is one linear layer on the concatenation of
        both encodings, where the authors' program has hidden layers on their sum. Columns of the pair other than
        features, such as the product of the towers, are inputs of the shared experts and the gates only.

    Cost: one more set of embedding tables per task, in memory and in the optimizer; one matrix product per layer and
    input for the shared experts, and one for the experts of all tasks.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        units: Sequence[int] = (32,),
        num_shared_experts: int = 1,
        num_task_experts: int = 1,
        **kwargs: Unpack[StackArguments],
    ) -> None:
        super().__init__(task_names, units, **kwargs)
        require_positive_int(num_shared_experts=num_shared_experts, num_task_experts=num_task_experts)
        require(_SHARED not in self.task_names, f"No task of a STEM may be called {_SHARED!r}.", task_names=task_names)
        self.num_shared_experts = num_shared_experts
        self.num_task_experts = num_task_experts

    def connect(self, pair: Any, features: FeatureEncodings) -> dict[str, Any]:
        """Add the trunk to a network, and embedding tables for each task."""
        outputs: dict[str, Any] = self({_SHARED: pair, **{t: features.encode(tables=t) for t in self.task_names}})
        return outputs

    def reached_inputs(self, task: str, inputs: Any) -> Any:
        """Return the shared encoding and the task's own."""
        return {name: inputs[name] for name in (_SHARED, task)} if isinstance(inputs, Mapping) else inputs

    def build_layers(self, input_shape: Any) -> None:
        """Create experts and gates."""
        shapes = self._by_reader(input_shape)
        shared, own = (width_of(shapes[name]) for name in (_SHARED, self.task_names[0]))
        tasks = len(self.task_names)
        count = tasks * self.num_task_experts
        self._shared = self.make_experts("shared_experts", self.num_shared_experts, self.units)
        self._own = self.make_experts("task_experts", count, self.units)
        self._gate = SoftmaxGate(
            tasks, self.num_shared_experts + count, kernel_initializer=self.initializer_of("gates"), name="gates",
            dtype=self.dtype_policy,
        )  # fmt: skip
        self.build_part(self._shared, [None, shared])
        self.build_part(self._own, [None, tasks, own])
        self.build_part(self._gate, [None, None, shared + own])

    def _by_reader(self, inputs: Any) -> Mapping[str, Any]:
        """Return the input, or its shape, of the shared experts and of each task."""
        return inputs if isinstance(inputs, Mapping) else dict.fromkeys((_SHARED, *self.task_names), inputs)

    def _gates(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Return the weights [B, tasks, experts]."""
        read = [tf.concat([inputs[_SHARED], inputs[task]], 1) for task in self.task_names]
        return self._gate(tf.stack(read, axis=1))

    def gate_weights(self, inputs: Any) -> dict[str, tf.Tensor]:
        """Return as "experts" the gates' weights [B, tasks, experts]: shared experts first, then task by task."""
        if not self.built:
            self(inputs)
        return {"experts": self._gates(self._by_reader(inputs))}

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, tf.Tensor]:
        inputs = self._by_reader(inputs)
        tasks, count = len(self.task_names), self.num_task_experts
        shared = self.mark_shared(self._shared(inputs[_SHARED], training=training))
        own = self._own(tf.stack([inputs[task] for task in self.task_names], axis=1), training=training)
        gates = self._gates(inputs)
        of_shared, of_tasks = tf.split(gates, [self.num_shared_experts, tasks * count], axis=2)
        is_own = tf.repeat(tf.eye(tasks, dtype=gates.dtype), count, axis=1)
        mixed = (
            tf.matmul(of_shared, shared)
            + tf.matmul(of_tasks * is_own, own)
            + tf.matmul(of_tasks * (1 - is_own), tf.stop_gradient(own))
        )
        outputs = dict(zip(self.task_names, tf.unstack(mixed, axis=1), strict=True))
        self.mark_gated(outputs, of_shared)  # the other summands belong to the task or are stopped
        return outputs

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """The shared experts' variables; the gates and experts of a task learn from that task only."""
        return list(self._shared.trainable_weights)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the numbers of experts, their width and dropout."""
        return {
            "units": search_units(hp, "stem", 32),
            "num_shared_experts": hp.Int("stem_num_shared_experts", 1, 4, default=1),
            "num_task_experts": hp.Int("stem_num_task_experts", 1, 4, default=1),
            "dropout": search_dropout(hp, "stem"),
        }

    def get_config(self) -> dict[str, Any]:
        own = {"num_shared_experts": self.num_shared_experts, "num_task_experts": self.num_task_experts}
        return {**super().get_config(), **own}

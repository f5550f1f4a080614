"""AITM: adaptive information transfer along a chain of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.kernels import KernelArguments, Kernels
from tfmtl.layers.trunks.base import MultiTaskLayer
from tfmtl.layers.trunks.chained_trunk import ChainedTrunk


@register
class AITM(ChainedTrunk, Kernels):
    """AITM (adaptive information transfer): each task attends to its own and to its parent tasks' representations.

    Use it for a chain such as impression, click, purchase, in which later tasks have few positive labels.

    z_k = sum_u softmax_u(<Q_k u, K_k u> / sqrt(units)) V_k u over u in {q_k} and {p_j = act(T_jk z_j + b_jk)} for the
    parents j of k, with q_k of the inner trunk; z_k = q_k for a task without parents.

    Args:
        trunk: the inner trunk, such as `SharedBottom` or `MMoE`.
        after: parent or parents by task, `{"conversion": "click"}`.
        units: width of Q, K and V, and of z_k.
        activation: activation of the transfers T, which have the width of q_k.
        **kwargs: `kernel_initializer`, `kernel_regularizer`, `seed`: see `SharedBottom`.

    Call arguments:
        inputs: those of the inner trunk.

    Returns:
        {task: [B, units]}; a task without parents has the inner trunk's width.

    Example:
        >>> from tfmtl.layers import SharedBottom
        >>> trunk = AITM(SharedBottom(["click", "buy"], units=[4]), after={"buy": "click"}, units=3)
        >>> {name: tuple(z.shape) for name, z in trunk(tf.ones([2, 5])).items()}
        {'click': (2, 4), 'buy': (2, 3)}

    Reference:
        Xi et al., "Modeling the Sequential Dependence among Audience Multi-step Conversions with Multi-task Learning in
        Targeted Display Advertising", KDD 2021, https://arxiv.org/abs/2105.08489. Q, K and V are linear maps without
        bias. Several parents per task are an addition. The paper's calibrator is `order_penalty` of
        `tfmtl.tasks.BinaryClassification`.

    Cost: that of the inner trunk, and four small matrix products per task with a parent; the tasks are computed one by
    one.
    """

    def __init__(
        self,
        trunk: MultiTaskLayer,
        after: Mapping[str, str | Sequence[str]],
        units: int = 32,
        activation: Any = "relu",
        **kwargs: Unpack[KernelArguments],
    ) -> None:
        super().__init__(trunk, after, **kwargs)
        require_positive_int(units=units)
        self.units = units
        self.activation = keras.activations.get(activation)
        self._transfers: dict[str, dict[str, keras.layers.Dense]] = {}
        self._projections: dict[str, list[keras.layers.Dense]] = {}

    def build_relation(self, task: str, parents: Sequence[str], position: int, width: int) -> None:
        """Create a transfer for each parent, and Q, K and V."""
        first = position * (len(self.task_names) + 3)
        self._transfers[task] = {
            parent: self.dense(width, first + i, f"{parent}_to_{task}", activation=self.activation)
            for i, parent in enumerate(parents)
        }
        self._projections[task] = [
            self.dense(self.units, first + len(parents) + i, f"{task}_{part}", use_bias=False)
            for i, part in enumerate(("query", "key", "value"))
        ]

    def relate(self, task: str, own: tf.Tensor, parents: Mapping[str, tf.Tensor], training: bool | None) -> tf.Tensor:
        """Return the attention over the transfers and q_k [B, units]."""
        passed = [self._transfers[task][parent](z) for parent, z in parents.items()]
        read = tf.stack([*passed, own], axis=1)
        query, key, value = (projection(read) for projection in self._projections[task])
        logits = tf.reduce_sum(query * key, axis=2) / self.units**0.5
        return tf.einsum("bu,bud->bd", tf.nn.softmax(logits), value)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the width; `trunk` and `after` are given."""
        return {"units": hp.Choice("aitm_units", [16, 32, 64], default=32)}

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "units": self.units, "activation": activation}

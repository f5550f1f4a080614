"""DBMTL: relations between tasks as a Bayesian network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._keras import keras, register, tf
from tfmtl.layers.dense_stack import DenseStack, StackArguments, search_dropout, search_units
from tfmtl.layers.noise.randomness import Dropout
from tfmtl.layers.trunks.base import MultiTaskLayer
from tfmtl.layers.trunks.chained_trunk import ChainedTrunk


@register
class BayesianRelations(ChainedTrunk, DenseStack):
    """DBMTL's trunk: an MLP per task that reads the task's representation and those of its parent tasks.

    Use it when the label of one task depends on that of another, such as a purchase on a click.

    z_k = MLP_k([q_k, z_p for the parents p of k]) with q_k of the inner trunk; z_k = q_k for a task without parents.
    With the heads on top, P(y_1 ... y_K | x) = prod_k P(y_k | x, parents of k) for a graph of the labels; the parents'
    representations replace the labels, which are unknown at serving.

    Args:
        trunk: the inner trunk, such as `SharedBottom` or `MMoE`.
        after: parents by task, `{"purchase": ["click", "cart"]}`.
        units: widths of each MLP's dense layers.
        **kwargs: `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`: see `SharedBottom`.

    Call arguments:
        inputs: those of the inner trunk.

    Returns:
        {task: [B, units[-1]]}; a task without parents has the inner trunk's width.

    Example:
        >>> from tfmtl.layers import SharedBottom
        >>> trunk = BayesianRelations(SharedBottom(["click", "buy"], units=[4]), after={"buy": "click"}, units=[3])
        >>> {name: tuple(z.shape) for name, z in trunk(tf.ones([2, 5])).items()}
        {'click': (2, 4), 'buy': (2, 3)}

    Reference:
        Wang et al., "Deep Bayesian Multi-Target Learning for Recommender Systems", 2019,
        https://arxiv.org/abs/1902.09154. The class is not called DBMTL to avoid confusion with the balancer DB-MTL.

    Cost: that of the inner trunk, and one small network per task with parents; the tasks are computed one by one.
    """

    def __init__(
        self,
        trunk: MultiTaskLayer,
        after: Mapping[str, str | Sequence[str]],
        units: Sequence[int] = (32,),
        **kwargs: Unpack[StackArguments],
    ) -> None:
        super().__init__(trunk, after, units=units, **kwargs)
        self._dense: dict[str, list[keras.layers.Dense]] = {}
        self._dropouts: dict[str, list[Dropout]] = {}

    def build_relation(self, task: str, parents: Sequence[str], position: int, width: int) -> None:
        """Create the MLP."""
        first = position * len(self.units)
        self._dense[task] = self.dense_layers(f"{task}_relation", first)
        self._dropouts[task] = [
            Dropout(self.dropout, self.seed + 7919 * (first + i), dtype=self.dtype_policy)
            for i in range(len(self.units))
        ]

    def relate(self, task: str, own: tf.Tensor, parents: Mapping[str, tf.Tensor], training: bool | None) -> tf.Tensor:
        """Return the MLP's output [B, units[-1]]."""
        hidden = tf.concat([own, *parents.values()], axis=1)
        for dense, dropout in zip(self._dense[task], self._dropouts[task], strict=True):
            hidden = dropout(dense(hidden), training=training)
        return hidden

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search width and dropout; `trunk` and `after` are given."""
        return {
            "units": search_units(hp, "bayesian_relations", 32),
            "dropout": search_dropout(hp, "bayesian_relations"),
        }

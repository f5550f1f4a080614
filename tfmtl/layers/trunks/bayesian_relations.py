"""Relations between tasks as a Bayesian network (the trunk of DBMTL)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import keras, register, spawn, tf
from tfmtl.layers.noise.randomness import Dropout
from tfmtl.layers.trunks.base import MultiTaskLayer
from tfmtl.layers.trunks.chained_trunk import ChainedTrunk


@register
class BayesianRelations(ChainedTrunk):
    """A network of its own reads each task's representation and those of the tasks in front of it.

    z_k = MLP_k([q_k, z_p for the parents p of k]) with q_k of the inner trunk; z_k = q_k for a task without parents.
    With the heads on top, P(y_1 ... y_K | x) = prod_k P(y_k | x, parents of k) for a graph of the labels, in which the
    parents' representations stand for the unknown labels.

    Args:
        trunk: the inner trunk, such as `SharedBottom` or `MMoE`.
        after: by task its parents, `{"purchase": ["click", "cart"]}`.
        units: widths of each MLP's dense layers.
        activation: activation after each of them.
        dropout: rate after each of them, in [0, 1).
        kernel_initializer: initializer of the kernels; every one gets a draw of its own.
        kernel_regularizer: regulariser of the kernels.
        seed: seed of the initial values and of dropout.

    Call arguments:
        inputs: those of the inner trunk.

    Returns:
        {task: [B, units[-1]]}; of the inner trunk's width for a task without parents.

    Example:
        >>> from tfmtl.layers import SharedBottom
        >>> trunk = BayesianRelations(SharedBottom(["click", "buy"], units=[4]), after={"buy": "click"}, units=[3])
        >>> {name: tuple(z.shape) for name, z in trunk(tf.ones([2, 5])).items()}
        {'click': (2, 4), 'buy': (2, 3)}

    Reference:
        Wang et al., "Deep Bayesian Multi-Target Learning for Recommender Systems", 2019,
        https://arxiv.org/abs/1902.09154. The paper calls it DBMTL, which here would be taken for the balancer DB-MTL.

    Cost: that of the inner trunk and one small network a task with parents, one task after the other.
    """

    def __init__(
        self,
        trunk: MultiTaskLayer,
        after: Mapping[str, str | Sequence[str]],
        units: Sequence[int] = (32,),
        activation: Any = "relu",
        dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(trunk, after, **kwargs)
        require(len(units) > 0, "`units` must name at least one width.", units=units)
        for width in units:
            require_positive_int(units=width)
        require_fraction(dropout=dropout)
        self.units = tuple(units)
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = seed
        self._dense: dict[str, list[keras.layers.Dense]] = {}
        self._dropouts: dict[str, list[Dropout]] = {}

    def build_relation(self, task: str, parents: Sequence[str], position: int, width: int) -> None:
        """Create the MLP."""
        places = [position * len(self.units) + i for i in range(len(self.units))]
        self._dense[task] = [
            keras.layers.Dense(
                units,
                activation=self.activation,
                kernel_initializer=spawn(self.kernel_initializer, place, self.seed),
                kernel_regularizer=self.kernel_regularizer,
                name=f"{task}_relation_{level}",
            )
            for level, (units, place) in enumerate(zip(self.units, places, strict=True))
        ]
        self._dropouts[task] = [Dropout(self.dropout, self.seed + 7919 * place) for place in places]

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
            "units": (hp.Choice("bayesian_relations_units", [16, 32, 64], default=32),),
            "dropout": hp.Float("bayesian_relations_dropout", 0.0, 0.4, step=0.1, default=0.0),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": list(self.units),
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
        }

"""One optimiser for embedding tables, another for all other weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_several, require_type
from tfmtl._keras import keras, register
from tfmtl._trusted import deserialize
from tfmtl.training.split_optimizer import SplitOptimizer


@register
class GroupedOptimizer(SplitOptimizer):
    """Embedding tables by one optimiser, all other weights by another, under one global norm.

    Args:
        embeddings: for the tables, such as `RowWiseAdagrad(0.05)`.
        dense: for all other weights, such as `LazyAdam(1e-3)`.
        tables: last parts of the names of variables that are tables.
        name: of the optimiser.
        **kwargs: `global_clipnorm`, `clipnorm` or `clipvalue` over both groups; a part's own clipping is of its group.

    `learning_rate` is that of the dense weights, also for callbacks; the tables' is `embeddings.learning_rate`. Weight
    decay and its exceptions belong to the parts.

    Raises:
        TypeError: if a part is no Keras 2 optimiser of the current kind.
        ValueError: if both parts are one object.

    Example:
        >>> import tensorflow as tf
        >>> table, kernel = tf.Variable([[1.0]], name="user/embeddings"), tf.Variable([[1.0]], name="kernel")
        >>> gradients = [tf.IndexedSlices(tf.ones([1, 1]), tf.constant([0])), tf.ones([1, 1])]
        >>> optimizer = GroupedOptimizer(keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.25))
        >>> optimizer.apply_gradients(zip(gradients, [table, kernel])) and None
        >>> float(table[0, 0]), float(kernel[0, 0])
        (0.5, 0.75)

    Where it differs from TFRS' `CompositeOptimizer`, https://www.tensorflow.org/recommenders/api_docs/python/tfrs/
    experimental/optimizers/CompositeOptimizer: that one is a legacy optimiser around functions that return variables,
    so that it has no configuration, `learning_rate`, `build`, nor variables if its parts are of the current kind.

    Cost: that of the parts.
    """

    def __init__(
        self,
        embeddings: keras.optimizers.Optimizer,
        dense: keras.optimizers.Optimizer,
        tables: Sequence[str] = ("embeddings",),
        *,
        name: str = "GroupedOptimizer",
        **kwargs: Any,
    ) -> None:
        for group, optimizer in {"embeddings": embeddings, "dense": dense}.items():
            require_type(optimizer, keras.optimizers.Optimizer, group, "Pass an instance such as LazyAdam().")
        require(
            embeddings is not dense, "`embeddings` and `dense` must be two optimisers; each has a state of its own."
        )
        require_several(tables=tables)
        self.embeddings = embeddings
        self.dense = dense
        self.tables = tuple(tables)
        super().__init__(name=name, **kwargs)

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the dense weights."""
        return self.dense.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.dense.learning_rate = value

    def split(self, variables: Iterable[Any]) -> list[tuple[keras.optimizers.Optimizer, list[Any]]]:
        """Return each group's optimiser with its part of the variables, in their order."""
        tables: list[Any] = []
        others: list[Any] = []
        for variable in variables:
            (tables if self._is_table(variable) else others).append(variable)
        return [(self.embeddings, tables), (self.dense, others)]

    def _is_table(self, variable: Any) -> bool:
        return variable.name.rsplit("/", 1)[-1].split(":")[0] in self.tables

    def get_config(self) -> dict[str, Any]:
        clipping = {name: getattr(self, name) for name in ("clipnorm", "global_clipnorm", "clipvalue")}
        parts = {group: keras.optimizers.serialize(getattr(self, group)) for group in ("embeddings", "dense")}
        return {"name": self.name, "tables": list(self.tables), **parts, **clipping}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> GroupedOptimizer:
        """Return an optimiser without state from its configuration."""
        parts = {
            group: deserialize(keras.optimizers.deserialize, config[group], "GroupedOptimizer", custom_objects)
            for group in ("embeddings", "dense")
        }
        return cls(**{**config, **parts})

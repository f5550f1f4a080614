"""PiecewiseLinear: numbers as their position in bins."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.layers.interactions.base import Interaction
from tfmtl.layers.trunks.base import FeatureEncodings
from tfmtl.types import Column


@register
class PiecewiseLinear(Interaction):
    """Piecewise linear encoding (PLE) of numbers, joined to the pair.

    Use it for numbers with steps or long tails, which a network learns slowly from one standardized number.
    `recipes.fit` adds it by default with bins at the quantiles of the training split.

    With the edges e_0 < ... < e_T of a feature, a value x has the T numbers

        (x - e_(t-1)) / (e_t - e_(t-1)), clipped to [0, 1]

    and zeros if it is missing.

    Args:
        edges: by feature, two or more increasing edges of its bins, in the unit of the *encoded* value.

    Call arguments:
        inputs: for each feature the value and its missing flag [B, 2].

    Returns:
        [B, number of bins of all features].

    Example:
        >>> encode = PiecewiseLinear({"age": [0.0, 1.0, 3.0]})
        >>> encode([tf.constant([[0.5, 0.0], [2.0, 0.0], [0.0, 1.0]])]).numpy().tolist()
        [[0.5, 0.0], [1.0, 0.5], [0.0, 0.0]]

    Reference: Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning", NeurIPS 2022,
    https://arxiv.org/abs/2203.05556, equation 1; values outside of the outer edges are clipped here.

    Cost: two operations for each bin.
    """

    def __init__(self, edges: Mapping[str, Sequence[float]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(bool(edges), "`edges` must name at least one feature.", edges=edges)
        for name, values in edges.items():
            increasing = all(low < high for low, high in itertools.pairwise(values))
            require(len(values) >= 2 and increasing, f"`edges[{name!r}]` must increase.", edges=values)
        self.edges = {name: [float(value) for value in values] for name, values in edges.items()}

    def connect(self, pair: Any, features: FeatureEncodings) -> Any:
        # Not `join`: no parameter is behind these numbers, so that they are no representation that tasks share.
        return keras.layers.Concatenate(name=f"{self.name}_pair")(
            [pair, self([features.encode([name]) for name in self.edges])]
        )

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        parts = []
        for pair, edges in zip(tf.nest.flatten(inputs), self.edges.values(), strict=True):
            low, high = (tf.constant(part, pair.dtype) for part in (edges[:-1], edges[1:]))
            share = tf.clip_by_value((pair[:, :1] - low) / (high - low), 0.0, 1.0)
            parts.append(share * (1 - pair[:, 1:]))
        return tf.concat(parts, axis=1)

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return new columns, one per bin; see `tfmtl.types.HasColumnSources`."""
        edges = [(name, *pair) for name, values in self.edges.items() for pair in itertools.pairwise(values)]
        return [(own[0][0], *edge) for edge in edges]  # type: ignore[index]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "edges": self.edges}

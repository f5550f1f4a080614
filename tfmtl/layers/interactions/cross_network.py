"""DCN-v2: explicit products of the pair's features, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import tensorflow_recommenders as tfrs
from typing_extensions import Unpack

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.interactions.base import Interaction
from tfmtl.layers.kernels import Kernels, LayerArguments
from tfmtl.layers.trunks.base import FeatureEncodings
from tfmtl.types import Column

Structure = Literal["parallel", "stacked"]


@register
class CrossNetwork(Interaction, Kernels):
    """DCN-v2's cross network: each layer raises the degree of the products of features by one.

    Use it when products of features matter (user x genre, hour x device) and dense layers alone learn them slowly.

    x_{l+1} = x_0 * (W_l x_l + b_l + diag_scale x_l) + x_l, each layer a `tfrs.layers.dcn.Cross`.

    Args:
        num_layers: number of layers L; the output holds products of up to L + 1 features.
        structure: `"parallel"` gives [x_0, x_L] to the trunk, `"stacked"` x_L alone.
        projection_dim: rank of W, below d, or None for a full matrix; a quarter of d or less saves time.
        diag_scale: added to the diagonal of W for stability, 0 or more.
        kernel_initializer: initializer of the kernels.
        kernel_regularizer: regularizer of the kernels.
        seed: seed of the initial values.

    Call arguments:
        inputs: x_0 [B, d].

    Returns:
        [B, 2 d], or [B, d] if stacked.

    Example:
        >>> CrossNetwork(structure="stacked")(tf.ones([2, 3])).shape
        TensorShape([2, 3])

    Reference:
        Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank
        Systems", WWW 2021, https://arxiv.org/abs/2008.13535, equations 1 and 2.

    Cost: d^2 multiplications per layer, or 2 d projection_dim.
    """

    def __init__(
        self,
        num_layers: int = 2,
        structure: Structure = "parallel",
        projection_dim: int | None = None,
        diag_scale: float = 0.0,
        kernel_initializer: Any = "truncated_normal",
        kernel_regularizer: Any = None,
        seed: int = 0,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(
            kernel_initializer=kernel_initializer, kernel_regularizer=kernel_regularizer, seed=seed, **kwargs
        )
        require_positive_int(num_layers=num_layers)
        require(
            structure in ("parallel", "stacked"), "`structure` must be 'parallel' or 'stacked'.", structure=structure
        )
        if projection_dim is not None:
            require_positive_int(projection_dim=projection_dim)
        require(diag_scale >= 0, "`diag_scale` must be 0 or more.", diag_scale=diag_scale)
        self.num_layers = num_layers
        self.structure = structure
        self.projection_dim = projection_dim
        self.diag_scale = float(diag_scale)
        self._layers = [
            tfrs.layers.dcn.Cross(
                projection_dim,
                self.diag_scale,
                kernel_initializer=self.kernel_initializer,
                kernel_regularizer=self.kernel_regularizer,
                name=f"cross_{i}",
                dtype=self.dtype_policy,
            )
            for i in range(num_layers)
        ]

    def connect(self, pair: Any, features: FeatureEncodings) -> Any:
        return self(pair)

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        require(
            self.projection_dim is None or self.projection_dim < width,
            f"`projection_dim` must be below the pair's width {width}.",
            projection_dim=self.projection_dim,
        )
        for i, layer in enumerate(self._layers):
            layer.build(input_shape)
            # TFRS gives all its kernels copies of one initializer: with a seed, both factors would be equal.
            for j, dense in enumerate(m for m in layer.submodules if isinstance(m, keras.layers.Dense)):
                dense.kernel_initializer = self.initializer(2 * i + j)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        crossed = inputs
        for layer in self._layers:
            crossed = layer(inputs, crossed)
        return tf.concat([inputs, crossed], axis=1) if self.structure == "parallel" else crossed

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return the inputs' columns if parallel, and one per crossed column; see `tfmtl.types.HasColumnSources`."""
        crossed = [(own[0], column) for column in inputs[0]]
        return [*inputs[0], *crossed] if self.structure == "parallel" else crossed

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the number of layers."""
        return {"num_layers": hp.Int("crossnetwork_layers", 1, 4, default=2)}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "structure": self.structure,
            "projection_dim": self.projection_dim,
            "diag_scale": self.diag_scale,
        }

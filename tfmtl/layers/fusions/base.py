"""The base of layers that make one encoding of several modalities."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_fraction, require_known, require_positive_int
from tfmtl._keras import keras, spawn, tf
from tfmtl.layers.noise.randomness import Dropout
from tfmtl.types import Column

REST = "rest"
"""The modality of the features that no group names."""


class Fusion(keras.layers.Layer, abc.ABC):
    """One encoding of several modalities, such as an item's image, text and ids; some may be missing in a row.

    Views, several descriptions of one user or item, are the same thing: a group of features each.

    A modality missing in a row is replaced by a vector learned for it, in training and at serving alike. With
    `modality_dropout` whole modalities count as missing in some rows of training, so that the others learn to do
    without. Subclasses implement `fuse`.

    Args:
        groups: modality to names of its features; the features of the role that no group names form the modality
            `"rest"`.
        units: width of the result.
        modality_dropout: rate at which a present modality counts as missing in a row of training, in [0, 1). A row that
            would lose all its modalities keeps them.
        kernel_initializer: initializer of the kernels.
        kernel_regularizer: regulariser of the kernels.
        seed: seed of the initial values and of dropout.

    Call arguments:
        inputs: pair ({modality: [B, d of the modality]}, {modality: [B], 1 where present and 0 where missing}).

    Returns:
        [B, units].

    Raises:
        ValueError: if a feature is in two groups, or modalities or their widths are other than in the first call.

    Attributes:
        modalities: their names in order, known after the first call.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[str]],
        units: int = 32,
        modality_dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_groups(groups)
        require_positive_int(units=units)
        require_fraction(modality_dropout=modality_dropout)
        self.groups = {modality: list(names) for modality, names in groups.items()}
        self.units = units
        self.modality_dropout = modality_dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = seed
        self._dropout = Dropout(modality_dropout, seed, dtype=self.dtype_policy)

    @abc.abstractmethod
    def fuse(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        """Return the encoding [B, units].

        Args:
            vectors: [B, d] of each modality in the order of `modalities`, the learned vector where it is missing.
            present: bool [B, modalities]. A row without any modality counts as if it had all of them, all learned.
        """

    def split(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return the features of each modality, given the names of all of them.

        Raises:
            ValueError: if a group names a feature that is not among them.
        """
        named = [name for group in self.groups.values() for name in group]
        require_known(named, names, "feature", "the groups of a fusion")
        rest = [name for name in names if name not in named]
        return {**{modality: list(group) for modality, group in self.groups.items()}, **({REST: rest} if rest else {})}

    def build(self, input_shape: Any) -> None:
        """Create a vector [d] for each modality."""
        shapes = input_shape[0]
        self.modalities = [*self.groups, *([REST] if REST in shapes else [])]
        self._check_modalities(shapes)
        self._widths = [int(shapes[modality][-1]) for modality in self.modalities]
        self._missing = [
            self.add_weight(f"missing_{modality}", [width], initializer="zeros")
            for modality, width in zip(self.modalities, self._widths, strict=True)
        ]
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """Replace what is missing, and fuse."""
        return self.fuse(*self.complete(inputs, training))

    def complete(self, inputs: Any, training: bool | None = None) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return the arguments of `fuse`."""
        vectors, presence = inputs
        self._check_modalities(vectors)
        self._check_modalities(presence)
        widths = {modality: vectors[modality].shape[-1] for modality in self.modalities}
        known = dict(zip(self.modalities, self._widths, strict=True))
        require(widths == known, f"Fusion {self.name!r} was built for modalities of widths {known}.", widths=widths)
        present = self._keep(tf.stack([presence[modality] > 0 for modality in self.modalities], axis=1), training)
        completed = [
            tf.where(present[:, i, tf.newaxis], vectors[modality], tf.cast(self._missing[i], vectors[modality].dtype))
            for i, modality in enumerate(self.modalities)
        ]
        return completed, present | ~tf.reduce_any(present, axis=1, keepdims=True)

    def _check_modalities(self, given: Mapping[str, Any]) -> None:
        known = list(self.modalities)
        require(set(given) == set(known), f"Fusion {self.name!r} has the modalities {known}.", modalities=sorted(given))

    def _keep(self, present: tf.Tensor, training: bool | None) -> tf.Tensor:
        """Return which of the present modalities [B, modalities] count: in training without the dropped ones."""
        kept = present & (self._dropout(tf.ones(tf.shape(present)), training=training) > 0)
        return tf.where(tf.reduce_any(kept, axis=1, keepdims=True), kept, present)

    def dense(self, width: int, index: int, name: str, **arguments: Any) -> keras.layers.Dense:
        """Return a dense layer with initial values of its own for each `index`."""
        return keras.layers.Dense(
            width, kernel_initializer=spawn(self.kernel_initializer, index, self.seed),
            kernel_regularizer=self.kernel_regularizer, name=name, dtype=self.dtype_policy, **arguments,
        )  # fmt: skip

    def projections(self, width: int, **arguments: Any) -> list[keras.layers.Dense]:
        """Return a dense layer for each modality: their widths differ, so that no one product does for all."""
        return [self.dense(width, i, f"project_{name}", **arguments) for i, name in enumerate(self.modalities)]

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return columns of this layer's own; see `tfmtl.types.HasColumnSources`."""
        return own

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels; the model-optimization toolkit asks by this name."""
        return [v for v in self.trainable_weights if "kernel" in v.name]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search width and the dropout of modalities; `groups` are given."""
        name = cls.__name__.lower()
        return {
            "units": hp.Choice(f"{name}_units", [16, 32, 64], default=32),
            "modality_dropout": hp.Float(f"{name}_modality_dropout", 0.0, 0.4, step=0.1, default=0.0),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "groups": {modality: list(names) for modality, names in self.groups.items()},
            "units": self.units,
            "modality_dropout": self.modality_dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
        }


def _check_groups(groups: Mapping[str, Sequence[str]]) -> None:
    require(
        isinstance(groups, Mapping)
        and bool(groups)
        and all(names and not isinstance(names, str) for names in groups.values()),
        "`groups` must map modalities to lists of one or more features.",
        groups=groups,
    )
    require(REST not in groups, f"`groups` must not name {REST!r}, which is what they leave over.", groups=groups)
    names = [name for group in groups.values() for name in group]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, "Every feature may be in one group of a fusion.", twice=twice)

"""The base of fusions: layers that map several modalities to one encoding."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_fraction, require_known, require_positive_int
from tfmtl._keras import keras, tf
from tfmtl.layers.dense_stack import search_dropout
from tfmtl.layers.kernels import KernelArguments, Kernels
from tfmtl.layers.noise.randomness import Dropout
from tfmtl.types import Column

REST = "rest"
"""The modality of the features that are in no group."""


Groups = Mapping[str, Sequence[str]]
"""Names of features by modality."""


class FusionArguments(KernelArguments, total=False):
    """Keyword arguments of `Fusion` except `units`."""

    modality_dropout: float


class Fusion(Kernels, abc.ABC):
    """Base of fusions: maps several modalities, such as an item's image, text and ids, to one encoding.

    Use a fusion in `build_network` when a user or an item has several descriptions (modalities or views), some of which
    may be missing in a row. Subclasses implement `fuse`.

    A modality that is missing in a row is replaced by a learned vector of that modality, in training and at serving.

    Args:
        groups: names of features by modality; the remaining features of the role form the modality `"rest"`.
        units: width of the result; about the width of the widest modality, or less to save time.
        modality_dropout: rate at which a present modality counts as missing in a row of training, in [0, 1). Set it
            above 0 if modalities are missing more often at serving than in training, or if the model relies on one of
            them. A row that would lose all its modalities keeps them.
        kernel_initializer: initializer of the kernels; the default suits all fusions.
        kernel_regularizer: regularizer of the kernels; set it if modalities are wide and rows are few.
        seed: seed of the initial values and of dropout; change it to train an ensemble.

    Call arguments:
        inputs: pair ({modality: [B, d of the modality]}, {modality: [B], 1 where present and 0 where missing}).

    Returns:
        [B, units].

    Raises:
        ValueError: if a feature is in two groups, or if modalities or their widths differ from those of the first call.

    Attributes:
        modalities: names of the modalities in order; set by the first call.
    """

    def __init__(
        self,
        groups: Groups,
        units: int = 32,
        modality_dropout: float = 0.0,
        **kwargs: Unpack[KernelArguments],
    ) -> None:
        super().__init__(**kwargs)
        _check_groups(groups)
        require_positive_int(units=units)
        require_fraction(modality_dropout=modality_dropout)
        self.groups = {modality: list(names) for modality, names in groups.items()}
        self.units = units
        self.modality_dropout = modality_dropout
        self._dropout = Dropout(modality_dropout, self.seed, dtype=self.dtype_policy)

    @abc.abstractmethod
    def fuse(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        """Return the encoding [B, units].

        Args:
            vectors: [B, d] per modality in the order of `modalities`, the learned vector where it is missing.
            present: bool [B, modalities]. All true in a row without any modality: all its vectors are learned ones.
        """

    def split(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return the features of each modality, given the names of all features of the role.

        Raises:
            ValueError: if a group holds a feature that `names` lacks.
        """
        named = [name for group in self.groups.values() for name in group]
        require_known(named, names, "feature", "the groups of a fusion")
        rest = [name for name in names if name not in named]
        return {**{modality: list(group) for modality, group in self.groups.items()}, **({REST: rest} if rest else {})}

    def build(self, input_shape: Any) -> None:
        """Create the learned vector [d] of each modality."""
        shapes = input_shape[0]
        self.modalities = self.modalities_of(shapes)
        self._widths = [int(shapes[modality][-1]) for modality in self.modalities]
        self._missing = [
            self.add_weight(f"missing_{modality}", [width], initializer="zeros")
            for modality, width in zip(self.modalities, self._widths, strict=True)
        ]
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        return self.fuse(*self.complete(inputs, training))

    def complete(self, inputs: Any, training: bool | None = None) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return the arguments of `fuse`: the vectors, learned ones in place of missing ones, and their presence."""
        vectors, presence = inputs
        self._check_modalities(vectors, list(self.modalities))
        self._check_modalities(presence, list(self.modalities))
        widths = {modality: vectors[modality].shape[-1] for modality in self.modalities}
        known = dict(zip(self.modalities, self._widths, strict=True))
        require(widths == known, f"Fusion {self.name!r} was built for modalities of widths {known}.", widths=widths)
        present = self._keep(tf.stack([presence[modality] > 0 for modality in self.modalities], axis=1), training)
        completed = [
            tf.where(present[:, i, tf.newaxis], vectors[modality], tf.cast(self._missing[i], vectors[modality].dtype))
            for i, modality in enumerate(self.modalities)
        ]
        return completed, present | ~tf.reduce_any(present, axis=1, keepdims=True)

    def modalities_of(self, given: Mapping[str, Any]) -> list[str]:
        """Return the modalities of a mapping in their order, or raise if it lacks one or has others."""
        known = [*self.groups, *([REST] if REST in given else [])]
        self._check_modalities(given, known)
        return known

    def with_modality_dropout(self, rate: float) -> Fusion:
        """Return an unbuilt copy of this fusion that drops modalities at a rate."""
        return type(self).from_config({**self.get_config(), "modality_dropout": rate})

    def _check_modalities(self, given: Mapping[str, Any], known: Sequence[str]) -> None:
        require(set(given) == set(known), f"Fusion {self.name!r} has the modalities {known}.", modalities=sorted(given))

    def _keep(self, present: tf.Tensor, training: bool | None) -> tf.Tensor:
        """Return the present modalities [B, modalities], in training without the dropped ones."""
        kept = present & (self._dropout(tf.ones(tf.shape(present)), training=training) > 0)
        return tf.where(tf.reduce_any(kept, axis=1, keepdims=True), kept, present)

    def projections(self, width: int, **arguments: Any) -> list[keras.layers.Dense]:
        """Return one dense layer per modality: their widths differ, so that one product cannot serve all."""
        return [self.dense(width, i, f"project_{name}", **arguments) for i, name in enumerate(self.modalities)]

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return new columns, one per output column; see `tfmtl.types.HasColumnSources`."""
        return own

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search width and modality dropout; `groups` are given."""
        name = cls.__name__.lower()
        return {
            "units": hp.Choice(f"{name}_units", [16, 32, 64], default=32),
            "modality_dropout": search_dropout(hp, f"{name}_modality"),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "groups": {modality: list(names) for modality, names in self.groups.items()},
            "units": self.units,
            "modality_dropout": self.modality_dropout,
        }


def _check_groups(groups: Groups) -> None:
    require(
        isinstance(groups, Mapping)
        and bool(groups)
        and all(names and not isinstance(names, str) for names in groups.values()),
        "`groups` must map modalities to lists of one or more features.",
        groups=groups,
    )
    require(
        REST not in groups, f"`groups` must not name {REST!r}, the modality of the remaining features.", groups=groups
    )
    names = [name for group in groups.values() for name in group]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, "A feature may be in one group of a fusion only.", twice=twice)

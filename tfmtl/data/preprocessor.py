"""Raw features to indices and standardised numbers, in the graph: one layer for training and serving."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._checks import require
from tfmtl._identity import FIRST, MISSING, UNKNOWN, keys_of
from tfmtl._keras import keras, register, tf, traced
from tfmtl.data.distinct_candidates import DistinctCandidates
from tfmtl.data.features import Feature
from tfmtl.data.lookup_tables import JointLookup, NumberedKeys, small_together
from tfmtl.data.raw_table import RawTable
from tfmtl.data.schema import Schema
from tfmtl.data.statistics import Statistics, fit_statistics
from tfmtl.data.values import MISSING_INTEGER
from tfmtl.types import Features

MISSING_VALUES: dict[tf.DType, Any] = {
    tf.string: "",
    tf.int64: MISSING_INTEGER,
    tf.int32: MISSING_INTEGER,
    tf.float32: np.nan,
    tf.float64: np.nan,
}
"""The raw missing value of each type, in a table and in a request."""


@register
class Preprocessor(keras.layers.Layer):
    """Keras layer that encodes raw features with the statistics of the training split.

    A category becomes an index: 0 missing, 1 unknown, 2 + its rank in the vocabulary. A number x becomes
    ((x - mean) / deviation, missing flag), cut to 1000 deviations from the mean. It holds no trainable weight and is
    exported with the model, so that training and serving cannot differ.

    Args:
        schema: roles and kinds of the columns.
        statistics: of the training split; `Preprocessor.fit(schema, table)` computes them.

    Attributes:
        schema: the argument, in which numbers that need it have `dtype="float64"`; see `Numeric`.
        statistics: the argument.
        fitted_candidates: the distinct candidates of the training table after `Preprocessor.fit`, else None; it is not
            a part of the configuration.

    Call arguments:
        features: raw tensors by feature name, any subset of the schema, as their `raw_spec`: strings or int64 [B] or
            [B, length], float32 or float64 [B] or [B, size].

    Returns:
        Encoded tensors by feature name: int32 [B] or [B, max_length], float32 [B, 2] or [B, size + 1].

    Example:
        >>> import pandas as pd
        >>> from tfmtl.data import Categorical
        >>> schema = Schema(query=[Categorical("user_id")])
        >>> preprocessor = Preprocessor.fit(schema, pd.DataFrame({"user_id": ["b", "a", "b"]}))
        >>> preprocessor({"user_id": tf.constant(["a", "b", "new", ""])})["user_id"].numpy().tolist()
        [3, 2, 1, 0]

    Cost: one hash look-up per category; small vocabularies share a table, see `JointLookup`.
    """

    def __init__(self, schema: Schema, statistics: Statistics, **kwargs: Any) -> None:
        # float32 under every policy: half precision has too few digits for raw numbers; nor may Keras cast float64
        super().__init__(**{"trainable": False, "dtype": "float32", "autocast": False, **kwargs})
        self.schema = schema.fitted(statistics)
        self.statistics = statistics
        self.fitted_candidates: DistinctCandidates | None = None
        self._tables = {
            name: _table(feature, statistics.vocabularies[name]) for name, feature in schema.vocabularies.items()
        }
        self._joint = list(_joint_lookups(schema, statistics))
        self._traced = functools.cache(lambda names: traced(self.call, reduce_retracing=True))

    @classmethod
    def fit(cls, schema: Schema, source: pd.DataFrame | RawTable, **kwargs: Any) -> Preprocessor:
        """Build the preprocessor of a training split in one pass; see `fit_statistics`.

        The preprocessor then holds the distinct candidates of the table too, which become the corpus of a
        `MultiTaskModel` with a retrieval task and without `candidates`.

        Args:
            schema: roles and kinds of the columns.
            source: the training table, or a source that yields it in pieces, such as `tfmtl.data.open_files(...)`.
            kwargs: further arguments of the layer, such as `name`.
        """
        readable = bool(schema.candidate) and not any(feature.borrows for feature in schema.candidate)
        candidates = DistinctCandidates(schema) if readable else None
        preprocessor = cls(schema, fit_statistics(schema, source, candidates), **kwargs)
        preprocessor.fitted_candidates = candidates
        return preprocessor

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the arguments, since look-up tables cannot be pickled."""
        return _rebuilt, (type(self), self.schema, self.statistics, self.name, self.fitted_candidates)

    def compiled(self, features: Features) -> dict[str, tf.Tensor]:
        """Encode the features that are given in one traced call.

        One function per set of features, because TensorFlow warns of a function that is traced for many.
        """
        encoded: dict[str, tf.Tensor] = self._traced(frozenset(features))(features)
        return encoded

    def call(self, features: Features) -> dict[str, tf.Tensor]:
        """Encode the features that are given."""
        known = self.schema.features
        unknown = [name for name in features if name not in known]
        require(not unknown, f"Unknown features {unknown}; the schema has {list(known)}.")
        raw = {name: self._checked(feature, features[name]) for name, feature in known.items() if name in features}
        encoded = self._encode_together(raw)
        return {name: encoded[name] for name in raw}

    def keys(self, features: Features) -> dict[str, tf.Tensor]:
        """Return the keys [B] of the users and candidates of raw features by role; see `keys_of`."""
        ids = {role: features[name] for role, name in self.schema.ids.items() if name in features}
        return {role: keys_of(tf.convert_to_tensor(raw)) for role, raw in ids.items()}

    def raw_signature(self, names: tuple[str, ...]) -> dict[str, tf.TensorSpec]:
        """Return the tensor specification that serving clients fill, by feature name."""
        return {name: self.schema.features[name].raw_spec for name in names}

    def vocabulary(self, name: str) -> np.ndarray:
        """Return the values of a vocabulary; value i has index i + 2."""
        return self.statistics.vocabularies[name]

    def encoded_missing(self, name: str) -> np.ndarray:
        """Return the encoding [...] of a missing value of a feature, as the network reads it."""
        encoded: np.ndarray = self({name: missing_row(self.schema.features[name])})[name].numpy()[0]
        return encoded

    def encodes_like(self, other: Preprocessor) -> bool:
        """Return whether both turn the same raw features into the same numbers."""
        if self is other:
            return True
        ours, theirs = self.statistics, other.statistics
        return (
            self.schema.features == other.schema.features
            and ours.moments == theirs.moments
            and all(np.array_equal(ours.vocabularies[name], theirs.vocabularies[name]) for name in ours.vocabularies)
        )

    @property
    def tables(self) -> dict[str, tf.lookup.StaticHashTable]:
        """The look-up tables; an exported model must hold those that it reads."""
        return {**self._tables, **{f"joint_{i}": lookup.table for i, lookup in enumerate(self._joint)}}

    def look_up(self, name: str, values: tf.Tensor) -> tf.Tensor:
        """Return the int32 indices of raw values in the vocabulary of feature `name`."""
        absent = tf.equal(values, "" if values.dtype == tf.string else tf.constant(MISSING_INTEGER, tf.int64))
        return tf.where(absent, MISSING, self._tables[name].lookup(values))

    def _checked(self, feature: Feature, raw: Any) -> tf.Tensor:
        spec = feature.raw_spec
        raw = _dense(feature, raw, spec.dtype)
        wanted = spec.dtype
        alike = (raw.dtype == tf.string) == (wanted == tf.string) and not raw.dtype.is_complex
        coarse = wanted == tf.float64 and raw.dtype != tf.float64  # the digits that float64 is for are lost already
        alike = alike and not (raw.dtype.is_floating and (wanted.is_integer or coarse))
        require(
            alike and raw.shape.is_compatible_with(spec.shape),
            f"Feature {feature.name!r} must be a {wanted.name} tensor of shape {spec.shape}.",
            dtype=raw.dtype.name,
            shape=raw.shape,
        )
        return tf.cast(raw, wanted)

    def _encode_together(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Encode features with small vocabularies together, then the others, all features of a kind together."""
        encoded: dict[str, tf.Tensor] = {}
        for lookup in self._joint:
            values = {name: raw[name] for name in raw if name in lookup}
            encoded |= lookup(values) if values else {}
        kinds: dict[type[Feature], list[Feature]] = {}
        for name in raw:
            if name not in encoded:
                feature = self.schema.features[name]
                kinds.setdefault(type(feature), []).append(feature)
        for kind, features in kinds.items():
            encoded |= kind.encode_together(features, raw, self)
        return encoded

    def get_config(self) -> dict[str, Any]:
        """Return the schema and the statistics as plain values."""
        return {
            **super().get_config(),
            "schema": self.schema.get_config(),
            "statistics": self.statistics.get_config(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessor:
        """Rebuild the layer from `get_config`."""
        rest = {k: v for k, v in config.items() if k not in ("schema", "statistics", "trainable")}
        return cls(Schema.from_config(config["schema"]), Statistics.from_config(config["statistics"]), **rest)


def missing_row(feature: Feature) -> tf.Tensor:
    """Return one raw row [1, ...] without a value.

    Example:
        >>> from tfmtl.data import Vector
        >>> missing_row(Vector("image", size=2)).numpy()
        array([[nan, nan]], dtype=float32)
    """
    spec = feature.raw_spec
    return tf.fill([size or 1 for size in spec.shape], tf.constant(MISSING_VALUES[spec.dtype], spec.dtype))


def _rebuilt(
    kind: type[Preprocessor], schema: Schema, statistics: Statistics, name: str, candidates: Any
) -> Preprocessor:
    preprocessor = kind(schema, statistics, name=name)
    preprocessor.fitted_candidates = candidates
    return preprocessor


def _dense(feature: Feature, raw: Any, dtype: tf.DType) -> tf.Tensor:
    """Return a ragged or sparse tensor of ids as a dense one, padded by the missing value; others as a tensor."""
    if not isinstance(raw, tf.RaggedTensor | tf.SparseTensor):
        return tf.convert_to_tensor(raw)
    require(
        not dtype.is_floating,
        f"Numbers of feature {feature.name!r} must be dense, since an absent one may be 0 or missing; call "
        "`tf.sparse.to_dense` or `to_tensor` with the value that is meant.",
        type=type(raw).__name__,
    )
    absent = tf.constant("" if raw.dtype == tf.string else MISSING_INTEGER, raw.dtype)
    return raw.to_tensor(absent) if isinstance(raw, tf.RaggedTensor) else tf.sparse.to_dense(raw, absent)


def _joint_lookups(schema: Schema, statistics: Statistics) -> Iterator[JointLookup]:
    """Yield a look-up of strings and one of integers, each of those categories that have small vocabularies."""
    for dtype, absent in (("string", ""), ("int64", MISSING_INTEGER)):
        alike = [f.name for f in schema.features.values() if f.is_id and f.raw_spec.dtype.name == dtype]
        names = small_together({name: len(statistics.vocabularies[name]) for name in alike})
        if names:
            vocabularies = {name: statistics.vocabularies[name] for name in names}
            yield JointLookup(vocabularies, absent, MISSING, UNKNOWN, FIRST)


def _table(feature: Feature, values: np.ndarray) -> tf.lookup.StaticHashTable:
    """Build the hash table directly: Keras' `StringLookup` takes 50 times as long to save 1,000,000 values."""
    dtype = feature.raw_spec.dtype
    # TensorFlow refuses an empty table; the missing value is never looked up.
    keys: list[Any] = values.tolist() or ["" if dtype == tf.string else MISSING_INTEGER]
    return tf.lookup.StaticHashTable(NumberedKeys(tf.constant(keys, dtype), FIRST), UNKNOWN)

"""Raw numbers to standardised ones and missing flags, all numeric features at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from tfmtl._keras import tf
from tfmtl.data.features import Numeric, Vector
from tfmtl.data.schema import Schema
from tfmtl.data.statistics import Statistics

_FAR = 1000.0  # deviations; larger values would overflow in the network


def standardize(
    names: Sequence[str], raw: Mapping[str, tf.Tensor], schema: Schema, statistics: Statistics
) -> dict[str, tf.Tensor]:
    """Return numeric features [B] as (value, missing flag) [B, 2], each by its `transform` and `missing`."""
    features = [cast("Numeric", schema.features[name]) for name in names]
    logarithmic, plain = ([f.transform == kind for f in features] for kind in ("log1p", "none"))
    moments = [(statistics.moments[f.name].mean[0], statistics.moments[f.name].deviation[0]) for f in features]
    learned = [f.missing != "mean" for f in features]
    means, deviations = np.where(np.transpose([plain]), (0.0, 1.0), moments).T.astype(np.float32)
    fills = np.where(np.logical_or(learned, np.logical_not(plain)), 0.0, [mean for mean, _ in moments])
    values = tf.stack([raw[name] for name in names], axis=1)
    if any(logarithmic):
        logs = tf.sign(values) * tf.math.log1p(tf.abs(values))
        values = logs if all(logarithmic) else tf.where(logarithmic, logs, values)
    values = (values - means) / deviations
    known = tf.math.is_finite(values)  # a value that overflows counts as missing
    far = np.where(plain, np.inf, _FAR).astype(np.float32)
    values = tf.where(known, tf.clip_by_value(values, -far, far), fills.astype(np.float32))
    missing = tf.cast(tf.logical_not(known), tf.float32) * np.asarray(learned, np.float32)
    return dict(zip(names, tf.unstack(tf.stack([values, missing], axis=2), num=len(names), axis=1), strict=True))


def standardize_vector(feature: Vector, raw: tf.Tensor, statistics: Statistics) -> tf.Tensor:
    """Return a vector [B, size] as (values, missing flag) [B, size + 1]; a row that lacks a number is missing."""
    moments = statistics.moments[feature.name]
    values = (raw - tf.constant(moments.mean, tf.float32)) / tf.constant(moments.deviation, tf.float32)
    finite = tf.math.is_finite(values)
    values = tf.clip_by_value(values, -_FAR, _FAR)
    known = tf.reduce_all(finite, axis=1, keepdims=True)
    return tf.concat([tf.where(known, values, 0.0), tf.cast(tf.logical_not(known), tf.float32)], axis=1)

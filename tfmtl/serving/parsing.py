"""Parsing of `tf.Example` protos in the graph of a signature, in stock operations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tfmtl._keras import tf
from tfmtl.data.preprocessor import MISSING_VALUES
from tfmtl.serving.exact_numbers import read_exact

_SHORT = 128  # lengths below have one byte in a proto

_TAGS = {tf.string: r"\x0a", tf.float32: r"\x12", tf.int64: r"\x1a"}
"""The byte with which a list of each type begins in a `tf.train.Feature`."""

_LISTS = {tf.string: "BytesList", tf.float32: "FloatList", tf.int64: "Int64List"}
_FIELDS = {tf.string: "bytes_list", tf.float32: "float_list", tf.int64: "int64_list"}


def from_examples(examples: tf.Tensor, specs: Mapping[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """Parse serialized protos [B] to the tensors of a request; absent inputs are missing, longer lists are cut.

    A float may be written as an integer, as clients do that take 3 for 3.0. An input of another type than that of the
    specification counts as missing, so that it changes no other row of a batch that a server joined; a list of another
    type with more than 16,383 bytes is an error, and so is a string that is no proto. Names without a specification
    are ignored: a `tf.Example` may hold any. Integers beyond the range of their type become its nearest value.

    Args:
        examples: strings [B].
        specs: by input name; a width of None takes lists of any length and pads them. See `read_exact` for float64.

    Cost: a search for inputs of another type, a microsecond for a proto of 40 features, and about 0.2 ms for each proto
    that holds some.
    """
    exact = {name: _fitted(read_exact(examples, name), s) for name, s in specs.items() if s.dtype == tf.float64}
    specs = {name: spec for name, spec in specs.items() if name not in exact}
    types = {name: tf.int64 if spec.dtype.is_integer else spec.dtype for name, spec in specs.items()}
    parsed = _parse_with_others(examples, types) if types else {}
    return {**exact, **{name: _fitted(_clipped(parsed[name], spec.dtype), spec) for name, spec in specs.items()}}


def _parse(examples: tf.Tensor, types: Mapping[str, tf.DType]) -> dict[str, tf.Tensor]:
    """Return the values [B, any] by name; shorter lists end in missing values."""
    lists = {
        name: tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True, default_value=MISSING_VALUES[dtype])
        for name, dtype in types.items()
    }
    return dict(tf.io.parse_example(examples, lists))


def _parse_with_others(examples: tf.Tensor, types: Mapping[str, tf.DType]) -> dict[str, tf.Tensor]:
    """Return the values [B, any] by name, where some protos hold inputs of another type."""
    found = tf.strings.regex_full_match(examples, _of_other_types(types))

    def some() -> dict[str, tf.Tensor]:
        plain = _parse(tf.where(found, "", examples), types)
        decoded = _decoded(tf.boolean_mask(examples, found), types)
        return {name: _replaced(plain[name], found, decoded[name]) for name in types}

    parsed: dict[str, tf.Tensor] = tf.cond(tf.reduce_any(found), some, lambda: _parse(examples, types))
    return parsed


def _of_other_types(types: Mapping[str, tf.DType]) -> str:
    r"""Return a regular expression of the protos that hold a list of another type under one of the names.

    In the wire format a name follows the byte 0A and its length, its value the byte 12 and a length, and the list
    starts with the byte of its type. All bytes of a length except the last one are above 7F; the expression can match
    such a byte only by `\C`, which also matches any other. A text that looks alike only costs the time of the other
    parser.

    Example:
        >>> expression = _of_other_types({"age": tf.float32})
        >>> row = tf.train.Example()
        >>> row.features.feature["age"].float_list.value.append(3.5)
        >>> bool(tf.strings.regex_full_match(row.SerializeToString(), expression))
        False
        >>> row.features.feature["age"].int64_list.value.append(3)
        >>> bool(tf.strings.regex_full_match(row.SerializeToString(), expression))
        True
    """
    groups = []
    for dtype in dict.fromkeys(types.values()):
        names = "|".join(_key(name) for name, other in types.items() if other == dtype)
        own = _TAGS[dtype]
        before, after = (rf"\x{int(own[2:], 16) + step:02x}" for step in (-1, 1))
        others = [tag for kind, tag in _TAGS.items() if kind != dtype]
        tags, long = f"[{''.join(others)}]", f"[{''.join(tag for tag in others if tag != _TAGS[tf.string])}]"
        lengths = (
            rf"[\x00-\x7f]{tags}",
            # After a length of one byte, the list's own byte and its length would look like two bytes and another type.
            rf"\C[\x01-{before}{after}-\x7f]{tags}",
            rf"\C{own}{tags}\C[{before}{own}]",
            # In a list with one byte of length, the byte of a text follows at this position.
            rf"\C\C[\x01-\x7f]{long}",
        )
        groups.append(rf"(?:{names})\x12(?:{'|'.join(lengths)})")
    return rf"\C*\x0a(?:{'|'.join(groups)})\C*"


def _key(name: str) -> str:
    size = len(name.encode())
    length = rf"\x{size:02x}" if size < _SHORT else rf"\C\x{size // _SHORT:02x}"
    return length + re.escape(name)


def _decoded(examples: tf.Tensor, types: Mapping[str, tf.DType]) -> dict[str, tf.Tensor]:
    """Return the values [n, any] of at least one proto by name; floats may be written as integers."""
    names = list(types)
    features = _field(examples, "Example", "features", tf.string)
    _, (entries,) = _decode(features, "Features", {"feature": tf.string})
    keys = _field(entries, "Features.FeatureEntry", "key", tf.string)
    values = _field(entries, "Features.FeatureEntry", "value", tf.string)
    named = tf.equal(keys[:, tf.newaxis, :], tf.constant(names)[:, tf.newaxis])
    value = tf.strings.reduce_join(tf.where(named, values[:, tf.newaxis, :], ""), axis=2)  # a name occurs once
    given = {dtype: _field(value, "Feature", field, tf.string) for dtype, field in _FIELDS.items()}
    lists = {dtype: _list(serialized, dtype, dtype) for dtype, serialized in given.items()}
    (floats, sizes), (whole, more) = lists[tf.float32], _list(given[tf.int64], tf.int64, tf.float32)
    width = tf.maximum(tf.shape(floats)[2], tf.shape(whole)[2])
    floats, whole = _widened(floats, width), _widened(whole, width)
    lists[tf.float32] = tf.where(tf.math.is_nan(floats), whole, floats), tf.maximum(sizes, more)
    found = {}
    for i, (name, dtype) in enumerate(types.items()):
        values, sizes = lists[dtype]
        found[name] = values[:, i, : tf.reduce_max(sizes[:, i])]
    return found


def _list(serialized: tf.Tensor, written: tf.DType, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the values of lists [...] as [..., any], missing values after the last one of each, and their sizes."""
    sizes, (values,) = _decode(serialized, _LISTS[written], {"value": written})
    inside = tf.sequence_mask(sizes[..., 0], tf.shape(values)[-1])
    return tf.where(inside, values if written == dtype else tf.cast(values, dtype), _missing(dtype)), sizes[..., 0]


def _field(serialized: tf.Tensor, message: str, field: str, dtype: tf.DType) -> tf.Tensor:
    """Return a field [...] of messages [...]; the default value of its type where a message lacks it."""
    _, (values,) = _decode(serialized, message, {field: dtype})
    filled = tf.concat([values, tf.zeros([*tf.unstack(tf.shape(serialized)), 1], dtype)], axis=-1)
    return filled[..., 0]


def _decode(serialized: tf.Tensor, message: str, fields: Mapping[str, tf.DType]) -> Any:
    return tf.io.decode_proto(serialized, f"tensorflow.{message}", list(fields), list(fields.values()))


def _replaced(values: tf.Tensor, found: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Return values [B, any] with the rows where `found` [B] is true replaced by `others` [n, any], in order."""
    width = tf.maximum(tf.shape(values)[1], tf.shape(others)[1])
    rows = tf.concat([_widened(values, width), _widened(others, width)], axis=0)
    count = tf.shape(values)[0]
    later = count + tf.cumsum(tf.cast(found, tf.int32), exclusive=True)
    return tf.gather(rows, tf.where(found, later, tf.range(count)))


def _widened(values: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Return values [..., n] as [..., width], missing ones after the last."""
    before = [[0, 0]] * (values.shape.rank - 1)
    return tf.pad(values, [*before, [0, width - tf.shape(values)[-1]]], constant_values=_missing(values.dtype))


def _fitted(values: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Return lists [B, any] in the shape of an input."""
    if spec.shape.rank == 2 and spec.shape[1] is None:
        return values
    width = spec.shape[1] if spec.shape.rank == 2 else 1
    missing = tf.fill([tf.shape(values)[0], width], _missing(spec.dtype))
    fitted = tf.ensure_shape(tf.concat([values, missing], axis=1)[:, :width], [None, width])
    return fitted if spec.shape.rank == 2 else fitted[:, 0]


def _clipped(values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Return int64 values in a narrower type, those beyond its range as its nearest value; other values unchanged."""
    return values if values.dtype == dtype else tf.saturate_cast(values, dtype)


def _missing(dtype: tf.DType) -> tf.Tensor:
    return tf.constant(MISSING_VALUES[dtype], dtype)

"""The types of a schema's columns, for files without types of their own."""

from __future__ import annotations

import functools

import pyarrow as pa

from tfmtl.data.features import Categorical, Feature, IdSequence, MultiValued, Numeric, Text, Vector
from tfmtl.data.schema import Label, Schema

_IDS = {"string": pa.string(), "int64": pa.int64()}


def declared_types(schema: Schema) -> dict[str, pa.DataType]:
    """Return the type of every column of the schema, by name.

    Example:
        >>> declared_types(Schema(query=[Categorical("user_id")], labels=[Label("click")]))
        {'user_id': DataType(string), 'click': DataType(double)}
    """
    kinds = {name: _arrow_type(feature) for name, feature in schema.features.items()}
    for label in schema.labels:
        kinds[label.column] = _label_type(label)
        if label.sample_weight:
            kinds[label.sample_weight] = pa.float64()
    return kinds


def _label_type(label: Label) -> pa.DataType:
    return pa.array(label.classes).type if label.classes else pa.float64()


@functools.singledispatch
def _arrow_type(feature: Feature) -> pa.DataType:
    raise TypeError(f"No type in files for the feature kind {type(feature).__name__}.")


@_arrow_type.register
def _(feature: Categorical) -> pa.DataType:
    return _IDS[feature.dtype]


@_arrow_type.register
def _(feature: Text) -> pa.DataType:
    return pa.string()


@_arrow_type.register
def _(feature: Numeric) -> pa.DataType:
    return pa.float64()


@_arrow_type.register
def _(feature: Vector) -> pa.DataType:
    return pa.list_(pa.float32())


@_arrow_type.register
def _(feature: IdSequence) -> pa.DataType:
    return pa.list_(_IDS[feature.dtype])


@_arrow_type.register
def _(feature: MultiValued) -> pa.DataType:
    return pa.string() if feature.separator is not None else pa.list_(_IDS[feature.dtype])

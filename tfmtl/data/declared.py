"""The types of a schema's columns, for files without types of their own."""

from __future__ import annotations

import pyarrow as pa

from tfmtl.data.schema import Label, Schema


def declared_types(schema: Schema) -> dict[str, pa.DataType]:
    """Return the type of every column of the schema, by name.

    Example:
        >>> from tfmtl.data import Categorical
        >>> declared_types(Schema(query=[Categorical("user_id")], labels=[Label("click")]))
        {'user_id': DataType(string), 'click': DataType(double)}
    """
    kinds: dict[str, pa.DataType] = {}
    for feature in schema.features.values():
        first = kinds.setdefault(feature.column, feature.arrow_type)
        if {first, feature.arrow_type} == {pa.int64(), pa.float64()}:
            kinds[feature.column] = pa.int64()  # of two features with one column: integers serve as numbers too
    for label in schema.labels:
        kinds[label.column] = _label_type(label)
        if label.sample_weight:
            kinds[label.sample_weight] = pa.float64()
    return kinds


def _label_type(label: Label) -> pa.DataType:
    return pa.array(label.classes).type if label.classes else pa.float64()

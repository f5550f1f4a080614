"""Features as plain values in saved schemas, of the package's own kinds and of registered others."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require
from tfmtl._keras import keras
from tfmtl.data import features
from tfmtl.data.features.feature import Feature


def to_plain(feature: Feature) -> dict[str, Any]:
    """Return the kind and the arguments of a feature.

    Raises:
        ValueError: if the kind is neither one of the package nor registered with Keras.

    Example:
        >>> from tfmtl.data import Vector
        >>> from_plain(**to_plain(Vector("image", size=8))) == Vector("image", size=8)
        True
    """
    return {"kind": _name_of(type(feature)), **feature.get_config()}


def from_plain(kind: str, **arguments: Any) -> Feature:
    """Rebuild a feature from `to_plain`.

    Raises:
        ValueError: if the kind is unknown, because the module that registers it was not imported.
    """
    found = getattr(features, kind, None) or keras.saving.get_registered_object(kind)
    require(
        isinstance(found, type) and issubclass(found, Feature),
        f"The saved schema has a feature of the kind {kind!r}, which is unknown here; import its module first.",
    )
    feature: Feature = found.from_config(arguments)
    return feature


def _name_of(kind: type[Feature]) -> str:
    """Return the name of a kind: that of the class for the package's own, else that in Keras' registry."""
    if getattr(features, kind.__name__, None) is kind:
        return kind.__name__
    name: str = keras.saving.get_registered_name(kind)
    require(
        keras.saving.get_registered_object(name) is kind,
        f"A saved schema could not find the feature kind {kind.__name__} again; decorate it with "
        "`@tfmtl.keras.saving.register_keras_serializable('my_package')`.",
    )
    return name

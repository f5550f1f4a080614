"""Feature kinds: frozen dataclasses that describe the values of a column, not how the model embeds them."""

from __future__ import annotations

import dataclasses
from typing import Literal

from tfmtl._checks import require, require_positive_int

IdType = Literal["string", "int64"]
Missing = Literal["learned", "mean", "error"]
Transform = Literal["standardize", "log1p", "none"]

MISSING_INTEGER = -1
"""The integer that means "no value" in an integer column, in training and in serving requests."""


def _check_name(name: str) -> None:
    require(
        isinstance(name, str) and name.isidentifier(),
        "A feature's `name` must be a Python identifier, because it becomes a Keras input and a serving argument; "
        "rename the column.",
        name=name,
    )


@dataclasses.dataclass(frozen=True)
class Feature:
    """A column of the table; use one of the concrete kinds.

    Attributes:
        name: column name, and the name of the serving input.
    """

    name: str

    def __post_init__(self) -> None:
        _check_name(self.name)

    @property
    def vocabulary(self) -> str | None:
        """Name of the vocabulary that turns values into indices, or None for numbers."""
        return None

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """Shape of one encoded example, without the batch dimension."""
        raise NotImplementedError(f"{type(self).__name__} is not a concrete feature kind.")


@dataclasses.dataclass(frozen=True)
class _Tokens(Feature):
    """A feature with a vocabulary that is learned from the training split."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument in ("max_length", "min_count", "max_size"):
            value = getattr(self, argument, None)
            if value is not None:
                require_positive_int(**{argument: value})
        dtype = getattr(self, "dtype", "string")
        require(
            dtype in ("string", "int64"), f"`dtype` of feature {self.name!r} must be 'string' or 'int64'.", dtype=dtype
        )

    @property
    def vocabulary(self) -> str | None:
        """The feature's own name: it has a vocabulary of its own."""
        return self.name


@dataclasses.dataclass(frozen=True)
class Categorical(_Tokens):
    """One category a row, such as an id, a brand or a device.

    Values seen fewer than `min_count` times in the training split, or beyond the `max_size` most frequent, share the
    "unknown" index with values never seen; a missing value (None, NaN, `""`, or -1 in an integer column) has an index
    of its own.

    Attributes:
        dtype: `"string"` or `"int64"`, the type clients send.
        min_count: rows of the training split a value needs to enter the vocabulary.
        max_size: most frequent values kept, or None for all.

    Example:
        >>> Categorical("user_id", min_count=2).encoded_shape
        ()
    """

    dtype: IdType = "string"
    min_count: int = 1
    max_size: int | None = None

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """No dimension: one index."""
        return ()


@dataclasses.dataclass(frozen=True)
class MultiValued(_Tokens):
    """Several categories per row, such as genres: a list column, or one string with a `separator`.

    Attributes:
        max_length: values kept per row, the first ones.
        dtype: `"string"` or `"int64"`.
        separator: splits a string column ("Action|Comedy") into strings; None means that the column holds lists.
        min_count: least number of rows with a value for it to enter the vocabulary.
        max_size: most frequent values kept, or None for all.
    """

    max_length: int = 8
    dtype: IdType = "string"
    separator: str | None = None
    min_count: int = 1
    max_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.separator is None or (self.separator != "" and self.dtype == "string"),
            f"`separator` of feature {self.name!r} must not be empty and gives strings; leave `dtype` at 'string'.",
            separator=self.separator,
            dtype=self.dtype,
        )

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """One index per position, [max_length]."""
        return (self.max_length,)


@dataclasses.dataclass(frozen=True)
class Text(_Tokens):
    """Free text, lower-cased and split into words inside the model.

    Attributes:
        max_length: words kept per row, the first ones.
        min_count: least number of training rows with a word for it to enter the vocabulary.
        max_size: most frequent words kept.
    """

    max_length: int = 16
    min_count: int = 2
    max_size: int | None = 20_000

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """One index per position, [max_length]."""
        return (self.max_length,)


@dataclasses.dataclass(frozen=True)
class IdSequence(_Tokens):
    """A list of ids, most recent first, that shares vocabulary and embedding with the categorical feature `of`.

    Attributes:
        of: name of the `Categorical` feature that the ids belong to.
        max_length: ids kept per row, the first ones.
        dtype: `"string"` or `"int64"`, as that of the other feature.
    """

    of: str = ""
    max_length: int = 20
    dtype: IdType = "string"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.of), f"`of` of feature {self.name!r} must name the categorical feature it holds.", of=self.of)

    @property
    def vocabulary(self) -> str | None:
        """The name of the feature that the ids belong to."""
        return self.of

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """One index per position, [max_length]."""
        return (self.max_length,)


@dataclasses.dataclass(frozen=True)
class Numeric(Feature):
    """A number, standardised inside the model with the moments of the training split.

    Encoded as the pair (value, missing flag): with `missing="learned"` a missing value is 0 with flag 1, so that the
    first layer learns its own weight for missing values; with `"mean"` it is the mean (0 after standardisation) and the
    flag stays 0. Infinity counts as missing at serving and is refused in a training table.

    Attributes:
        missing: `"learned"`, `"mean"`, or `"error"` to refuse tables with missing values.
        transform: `"standardize"` gives (x - mean) / deviation; `"log1p"` standardises sign(x) log(1 + |x|);
            `"none"` passes x on.
    """

    missing: Missing = "learned"
    transform: Transform = "standardize"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.missing in ("learned", "mean", "error"),
            "`missing` must be 'learned', 'mean' or 'error'.",
            missing=self.missing,
        )
        require(
            self.transform in ("standardize", "log1p", "none"),
            "`transform` must be 'standardize', 'log1p' or 'none'.",
            transform=self.transform,
        )

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """The value and its missing flag, [2]."""
        return (2,)


@dataclasses.dataclass(frozen=True)
class Vector(Feature):
    """A dense vector of `size` numbers per row, such as a precomputed image or text embedding.

    A row that is None or holds a NaN is missing: encoded as zeros with the flag set in the last position.

    Attributes:
        size: length of every row's vector.
    """

    size: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive_int(size=self.size)

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """The vector and its missing flag, [size + 1]."""
        return (self.size + 1,)

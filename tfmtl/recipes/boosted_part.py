"""Boosted trees of one ranking task as fixed layers of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._identity import UNKNOWN
from tfmtl._keras import keras, tf
from tfmtl._names import layer_name
from tfmtl.baselines import GradientBoosting
from tfmtl.baselines.interactions import Floats, Ints
from tfmtl.baselines.ranking_baseline import Target
from tfmtl.baselines.tabular_features import TabularFeatures
from tfmtl.data import Numeric, Preprocessor, to_batch
from tfmtl.data.columns import Columns, to_labels
from tfmtl.data.features import Feature
from tfmtl.layers import TreeColumns
from tfmtl.layers.embeddings.joined import JoinedEmbedding
from tfmtl.recipes.tree_arrays import TreeArrays, raw_outputs
from tfmtl.tasks import Ranking, Regression

_ROWS = 4096
LEAST_ROWS = 20
"""Validation rows with a label below which they choose nothing."""
_KEPT = 2
"""The indices of missing and unknown values, before those of the vocabulary."""


@dataclasses.dataclass(frozen=True)
class BoostedPart:
    """Fitted trees of one task, and the numbers of the categories that they read.

    Attributes:
        task: the task.
        tables: by category, the numbers [size, units] of each index: 1 + code, or 0 for none; count; rates.
        fills: by further feature, the values of its missing numbers; see `TreeColumns`.
        trees: the nodes.
        rounds: the number of trees of each output.
    """

    task: str
    tables: Mapping[str, npt.NDArray[np.float32]]
    fills: Mapping[str, Sequence[float | None]]
    trees: TreeArrays
    rounds: int

    def connect(self, inputs: Mapping[str, Any]) -> Any:
        """Return the output [B, units] of the trees for encoded features, symbolic or not.

        The layers are not trained. Their tables can grow, be saved and exported like those of embeddings.
        """
        return self._output(self._layers(), inputs)

    def values(self, features: Mapping[str, Any]) -> npt.NDArray[np.float64]:
        """Return the output [n, units] for encoded features of rows."""
        layers, read = self._layers(), {name: features[name] for name in (*self.tables, *self.fills)}
        first = range(0, len(next(iter(read.values()))), _ROWS)
        parts = [self._output(layers, {name: value[i : i + _ROWS] for name, value in read.items()}) for i in first]
        return np.concatenate([part.numpy() for part in parts]).astype(np.float64)

    def _layers(self) -> list[keras.layers.Layer]:
        name = layer_name(f"trees_{self.task}")  # growth takes the tables of a name like this for those of one task
        units = next((rows.shape[1] for rows in self.tables.values()), 1)
        found = [TreeColumns(len(self.tables), units, list(self.fills.values()), name=f"{name}_columns")]
        found.append(self.trees.layer(name))
        if self.tables:
            sizes = {feature: len(rows) for feature, rows in self.tables.items()}
            rows = [np.concatenate(list(self.tables.values()))]
            fixed: dict[str, Any] = {"weights": rows, "trainable": False, "dtype": "float32"}
            found.append(JoinedEmbedding(sizes, units, "zeros", name=f"{name}_table", **fixed))
        return found

    def _output(self, layers: Sequence[keras.layers.Layer], inputs: Mapping[str, Any]) -> Any:
        columns, trees, *tables = layers
        looked_up = [table(tf.stack([inputs[name] for name in self.tables], axis=1)) for table in tables]
        return trees(columns([*looked_up, *(inputs[name] for name in self.fills)]))


class EncodedBoosting(GradientBoosting):
    """`GradientBoosting` on encoded features, so that a network can compute its columns; a regression in its own scale.

    Args:
        preprocessor: that of the network.
        max_iter: largest number of trees of each output.
        validation: table outside the training table to choose the number of trees by, or None for a part of the
            training rows, which also chooses if the table has fewer than 20 labels, or the label is one of users.
        **arguments: those of `GradientBoosting`.
    """

    def __init__(
        self, preprocessor: Preprocessor, max_iter: int = 200, validation: Any = None, **arguments: Any
    ) -> None:
        super().__init__(max_iter, **arguments)
        self.preprocessor = preprocessor
        self.validation = validation

    @property
    def rounds(self) -> int:
        """The number of fitted trees of each output; 0 if all labels are equal, which needs no tree."""
        return int(self._estimator.n_iter_) if self._varies else 0

    def part(self, task: Ranking) -> BoostedPart:
        """Return the fitted trees as a part of a network."""
        encoder = self._encoder
        assert isinstance(encoder, _EncodedColumns)
        trees = TreeArrays.of(self._estimator, task.output_units)
        return BoostedPart(task.name, encoder.numbers(), encoder.fills(), trees, self.rounds)

    def outputs(self, frame: Any) -> npt.NDArray[np.float64]:
        """Return the output [n, units] of the fitted trees for rows of a table; equal to that of `part`, but faster."""
        assert isinstance(self._task, Ranking)
        matrix = self._encoder.transform(self._columns(frame, self._features))
        return raw_outputs(self._estimator, matrix, self._task.output_units)

    def _held_out(self, target: Target) -> dict[str, Any]:
        if self.validation is None or len(np.unique(target.groups)) < len(target.groups):
            return {}
        assert isinstance(self._task, Ranking)
        name = self._task.name
        found = to_labels(self.validation, self._schema.with_labels_of([name]), np.float64)
        labels, weights = (values[name] for values in found)
        known = np.isin(labels, target.labels) if target.num_classes else ~np.isnan(labels)
        rows = np.flatnonzero(known & (weights > 0))
        if len(rows) < LEAST_ROWS:
            return {}
        matrix = self._encoder.transform(self._columns(self.validation.iloc[rows], self._features))
        scaled = labels[rows] if target.num_classes else self._scaled(labels[rows])
        return {"X_val": matrix, "y_val": scaled, "sample_weight_val": weights[rows]}

    def _scaled(self, labels: Floats) -> Floats:
        """Return the labels of a regression in the scale of its loss."""
        assert isinstance(self._task, Regression)
        scaled: Floats = self._task.targets(tf.constant(labels, tf.float32)).numpy().astype(np.float64)
        return scaled

    def _fit(self, frame: Any, target: Target, rows: Ints) -> None:
        ids = [feature for feature in self._features if feature.is_id]
        others = [Numeric(feature.name) for feature in self._features if not feature.is_id]
        self._features = [*ids, *others]
        if isinstance(self._task, Regression):
            target = target._replace(labels=self._scaled(target.labels))
        super()._fit(frame, target, rows)

    def _tabular(self) -> TabularFeatures:
        return _EncodedColumns(self._features, self.smoothing, self.folds, self.seed).of(self.preprocessor)

    def _columns(self, frame: Any, features: Iterable[Feature]) -> Columns:
        names = [feature.name for feature in features]
        if not names:
            return {}
        encoded = to_batch(frame, self.preprocessor, labels=False, features=names).features
        return {name: _column(name, value.numpy(), self.preprocessor) for name, value in encoded.items()}


class _EncodedColumns(TabularFeatures):
    """Columns in float32, the type of the network, and the numbers of each index of a category."""

    def of(self, preprocessor: Preprocessor) -> _EncodedColumns:
        """Keep the preprocessor, and return this object."""
        self._preprocessor = preprocessor
        return self

    def fit_transform(self, columns: Columns, target: Target, rows: Ints) -> Floats:
        """Return the matrix in float32."""
        matrix: Floats = super().fit_transform(columns, target, rows).astype(np.float32)
        return matrix

    def transform(self, columns: Columns) -> Floats:
        """Return the matrix in float32."""
        matrix: Floats = super().transform(columns).astype(np.float32)
        return matrix

    def numbers(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the numbers [size, units] of each index of each category."""
        return {name: self._numbers(name) for name in self._tables}

    def fills(self) -> dict[str, list[float | None]]:
        """Return the values of missing numbers by feature; () for lists."""
        lists = [name for name in self._fills if self._preprocessor.schema.features[name].vocabulary is not None]
        found = {name: [None if np.isnan(x) else float(x) for x in fill] for name, fill in self._fills.items()}
        return {**found, **{name: [] for name in lists}}

    def _numbers(self, name: str) -> npt.NDArray[np.float32]:
        rows = self._tables[name].of_new(_codes(name, self._preprocessor))
        rows[:, 0] = np.nan_to_num(rows[:, 0] + 1)
        known = len(self._preprocessor.vocabulary(name)) + _KEPT
        rows[known:] = rows[UNKNOWN]  # free indices, which later values take
        return rows.astype(np.float32)


def _codes(name: str, preprocessor: Preprocessor) -> Ints:
    """Return the code [size] of each index: 0, 1, and then by the order of the values, as numbers have a meaning."""
    codes = np.arange(preprocessor.statistics.size(name))
    order = np.argsort(preprocessor.vocabulary(name), kind="stable")
    codes[_KEPT + order] = _KEPT + np.arange(len(order))
    return codes


def _column(name: str, encoded: npt.NDArray[Any], preprocessor: Preprocessor) -> npt.NDArray[Any]:
    """Return the codes [n] of a category, the numbers [n, d] of a feature, or the length [n, 1] of a list."""
    if preprocessor.schema.features[name].is_id:
        column: npt.NDArray[Any] = _codes(name, preprocessor)[encoded]
        return column
    if encoded.dtype.kind != "f":
        return (encoded > 0).sum(axis=1, keepdims=True).astype(np.float32)
    return np.where(encoded[:, -1:] > 0, np.nan, encoded[:, :-1])

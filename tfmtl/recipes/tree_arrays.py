"""The nodes of fitted scikit-learn trees as the arrays of `BoostedTrees`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._keras import keras
from tfmtl.layers import BoostedTrees
from tfmtl.layers.boosted_trees import LARGEST, WORD_BITS

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

_UNSEEN = float(np.log(2.0))
"""Distance of a class without rows from the rarest other class, in log-odds: half a row."""


@dataclasses.dataclass(frozen=True)
class TreeArrays:
    """The weights of `BoostedTrees`, in its order, and the largest depth of a leaf."""

    feature: Integers
    threshold: Floats
    child: Integers
    value: Floats
    root: Integers
    outputs: Floats
    bias: Floats
    split_feature: Integers
    split_right: Integers
    depth: int

    @classmethod
    def of(cls, estimator: Any, units: int) -> TreeArrays:
        """Return the arrays of a fitted `HistGradientBoostingClassifier` or `HistGradientBoostingRegressor`.

        Args:
            estimator: fitted to a matrix of numbers, in which codes of categories are integers from 0.
            units: number of outputs; of a classifier for more than one unit, the number of classes.
        """
        reader, grown = _Reader(estimator), list(itertools.chain.from_iterable(estimator._predictors))
        trees = [reader.read(tree) for tree in grown]
        first = np.cumsum([0, *(len(tree["value"]) for tree in trees)])
        joined = {name: np.concatenate([tree[name] for tree in trees]) for name in trees[0]}
        child = np.concatenate([tree["child"] + start for tree, start in zip(trees, first, strict=False)])
        columns, bias = _outputs(estimator, units)
        outputs = np.zeros([len(trees), units])
        outputs[np.arange(len(trees)), np.resize(columns, len(trees))] = 1
        return cls(
            feature=joined["feature"].astype(np.int32),
            threshold=_rounded_down(joined["threshold"]),
            child=child.astype(np.int32),
            value=joined["value"].astype(np.float32),
            root=first[:-1].astype(np.int32),
            outputs=outputs.astype(np.float32),
            bias=bias.astype(np.float32),
            split_feature=np.array(reader.split_feature, np.int32),
            split_right=_as_words(reader.split_right),
            depth=max(1, *(int(tree.nodes["depth"].max()) for tree in grown)),
        )

    def layer(self, name: str) -> keras.layers.Layer:
        """Return the layer with these weights."""
        weights = [self.feature, self.threshold, self.child, self.value, self.root, self.outputs, self.bias]
        splits = len(self.split_feature)
        return BoostedTrees(
            units=len(self.bias),
            trees=len(self.root),
            nodes=len(self.feature),
            depth=self.depth,
            splits=splits,
            words=self.split_right.shape[1],
            weights=[*weights, self.split_feature, self.split_right] if splits else weights,
            name=name,
        )


class _Reader:
    """Reads trees in the terms of the matrix that an estimator was fitted to, and collects categorical splits."""

    def __init__(self, estimator: Any) -> None:
        width, category = estimator.n_features_in_, estimator.is_categorical_
        category = np.zeros(width, np.bool_) if category is None else np.asarray(category)
        # The estimator moves categories before the other columns, and numbers their codes again.
        self._column = np.concatenate([np.flatnonzero(category), np.flatnonzero(~category)])
        self._codes: Sequence[Any] = ()
        if category.any():
            self._codes = estimator._preprocessor.named_transformers_["encoder"].categories_
        largest = [np.nanmax(codes, initial=0) for codes in self._codes]
        self._size = int(max(largest, default=0)) + 2
        self._width = width
        self.split_feature: list[int] = []
        self.split_right: list[Bools] = []

    def read(self, tree: Any) -> Mapping[str, npt.NDArray[Any]]:
        """Return feature, threshold, child and value of the nodes of a tree, both children of a node together."""
        nodes, order, child = tree.nodes, [0], []
        left, right, leaf = (nodes[name].tolist() for name in ("left", "right", "is_leaf"))
        for i in itertools.count():
            if i == len(order):
                break
            child.append(i if leaf[order[i]] else len(order))
            order += [] if leaf[order[i]] else [left[order[i]], right[order[i]]]
        read = zip(*(self._compared(nodes[i], tree.raw_left_cat_bitsets) for i in order), strict=True)
        feature, threshold = (np.array(column, np.float64) for column in read)
        return {"feature": feature, "threshold": threshold, "child": np.array(child), "value": nodes["value"][order]}

    def _compared(self, node: Any, bitsets: Any) -> tuple[int, float]:
        """Return the feature of a node and the largest number that leads to its first child."""
        if node["is_leaf"]:
            return 0, LARGEST
        read, missing_left = int(node["feature_idx"]), bool(node["missing_go_to_left"])
        if not node["is_categorical"]:
            threshold = min(float(node["num_threshold"]), LARGEST)  # it is infinite where only missing numbers go right
            return int(self._column[read]) + (0 if missing_left else self._width), threshold
        self.split_feature.append(int(self._column[read]))
        self.split_right.append(self._directions(self._codes[read], bitsets[node["bitset_idx"]], missing_left))
        return 2 * self._width + len(self.split_feature) - 1, 0.5

    def _directions(self, codes: Any, bitset: Any, missing_left: bool) -> Bools:
        """Return whether a missing code, and each code, leads to the second child."""
        right = np.full(self._size, not missing_left)
        left = np.unpackbits(np.ascontiguousarray(bitset, "<u4").view(np.uint8), bitorder="little")
        for number, code in enumerate(codes):
            if not np.isnan(code):
                right[1 + int(code)] = not left[number]
        return right


def raw_outputs(estimator: Any, matrix: Any, units: int) -> npt.NDArray[np.float64]:
    """Return the output [n, units] of `TreeArrays.layer` for a matrix [n, d], computed by scikit-learn."""
    columns, bias = _outputs(estimator, units)
    found: npt.NDArray[np.float64] = np.tile(bias, [len(matrix), 1])
    raw = estimator.decision_function if hasattr(estimator, "classes_") else estimator.predict
    found[:, columns] = raw(matrix).reshape(len(matrix), -1)
    return found


def _outputs(estimator: Any, units: int) -> tuple[Any, Any]:
    """Return the unit of each tree of an iteration, and the bias [units]."""
    start, bias = np.ravel(estimator._baseline_prediction), np.zeros(units)
    classes = getattr(estimator, "classes_", None)
    if units == 1 or classes is None:
        bias[0] = start[0]
        return [0], bias
    classes = classes.astype(np.int64)
    if len(classes) == 2:  # one logit, of the second class
        columns, known = classes[1:], np.array([0.0, start[0]])
    else:
        columns, known = classes, start
    bias[:] = known.min() - _UNSEEN
    bias[classes] = known
    return columns, bias


def _rounded_down(thresholds: Any) -> Floats:
    """Return thresholds c' in float32 such that x <= c' is x <= c for all finite x in float32."""
    rounded = np.clip(thresholds, -LARGEST, LARGEST).astype(np.float32)
    above = rounded.astype(np.float64) > thresholds
    found: Floats = np.where(above, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return found


def _as_words(rows: Sequence[Bools]) -> Integers:
    """Return rows of bits as integers [rows, words]."""
    size = len(rows[0]) if rows else 1
    bits = np.zeros([len(rows), -(-size // WORD_BITS) * WORD_BITS], np.bool_)
    for i, row in enumerate(rows):
        bits[i] = np.resize(row[0], bits.shape[1])  # codes that no row has take the direction of a missing one
        bits[i, : len(row)] = row
    words: Integers = np.packbits(bits, axis=1, bitorder="little").view("<u4").astype(np.int64).astype(np.int32)
    return words

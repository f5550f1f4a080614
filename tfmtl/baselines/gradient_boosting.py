"""GradientBoosting: boosted trees on raw columns, counts and rates."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int
from tfmtl.baselines.interactions import Ints
from tfmtl.baselines.ranking_baseline import RankingBaseline, Target, probabilities
from tfmtl.baselines.tabular_features import TabularFeatures, is_category
from tfmtl.data import Text
from tfmtl.data.columns import Columns
from tfmtl.data.features import Feature

_ROWS_TO_HOLD_OUT = 1000
_LABELS_TO_HOLD_OUT = 20
_FEW_TREES = 20


class GradientBoosting(RankingBaseline):
    """Gradient boosting (scikit-learn's `HistGradientBoosting`) on counts, target encodings and raw features.

    Use it as the usual baseline of a table: a network has to exceed it to be worth its cost. `TabularFeatures` lists
    the columns; texts are left out. With at least 1000 rows and 20 labels of each class a tenth of the rows chooses the
    number of trees; for labels of users, which repeat in their rows, a fifth of the users does. A regression minimizes
    the squared error in the unit of the label.

    Args:
        max_iter: largest number of trees (of each class).
        learning_rate: factor of each tree.
        smoothing: weight of the mean in the rates of categories.
        folds: number of folds of the rates, at least 2.
        max_rows: largest number of rows to fit trees to, drawn at random; counts and rates use all rows.
        seed: seed of the draw, of the folds and of the trees.
        hold_out: whether held-out rows choose the number of trees; without them it is `max_iter`.

    Cost: one thread; about 7 s for 80,000 rows, 20 columns and 200 trees.

    Reference: Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NIPS 2017; Micci-Barreca, "A
    Preprocessing Scheme for High-Cardinality Categorical Attributes in Classification and Prediction Problems", SIGKDD
    Explorations 2001, https://doi.org/10.1145/507533.507538, equation 3 (rates).
    """

    def __init__(
        self,
        max_iter: int = 200,
        learning_rate: float = 0.1,
        smoothing: float = 20.0,
        folds: int = 5,
        max_rows: int = 200_000,
        seed: int = 0,
        hold_out: bool = True,
    ) -> None:
        super().__init__(max_rows, seed)
        require_positive_int(max_iter=max_iter, folds=folds)
        require(folds >= 2, "`folds` must be at least 2: rates of one fold would contain their own label.", folds=folds)
        require(smoothing > 0, "`smoothing` must be above 0.", smoothing=smoothing)
        require(learning_rate > 0, "`learning_rate` must be above 0.", learning_rate=learning_rate)
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.smoothing = smoothing
        self.folds = folds
        self.hold_out = hold_out

    @classmethod
    def uses(cls, feature: Feature) -> bool:
        """Return whether a feature is no text."""
        return not isinstance(feature, Text)

    def _fit(self, frame: Any, target: Target, rows: Ints) -> None:
        from sklearn import ensemble  # imported here: it takes half a second
        from threadpoolctl import threadpool_limits

        categories = self._columns(frame, filter(is_category, self._features))
        others = self._columns(frame.iloc[rows], itertools.filterfalse(is_category, self._features))
        self._encoder = self._tabular()
        matrix = self._encoder.fit_transform({**categories, **others}, target, rows)
        kind = ensemble.HistGradientBoostingClassifier if target.num_classes else ensemble.HistGradientBoostingRegressor
        self._num_classes = target.num_classes
        labels, weights = target.labels[rows], target.weights[rows]
        held_out = self._held_out(target)
        estimator = kind(
            max_iter=self.max_iter,
            learning_rate=self.learning_rate,
            categorical_features=np.array(self._encoder.categorical),
            early_stopping=bool(held_out) or (self.hold_out and _can_hold_out(labels, target.num_classes)),
            random_state=self.seed,
        )
        # Threads of OpenMP wait in busy loops: beside other work two of them took thirty times as long as one.
        with threadpool_limits(1, "openmp"):
            if self.hold_out and not held_out and _repeats(target.groups[rows]):
                estimator.set_params(early_stopping=False)
                estimator.set_params(max_iter=_best_size(estimator, matrix, labels, target.groups[rows], self.seed))
            # Weighted quantiles take most of the time: equal weights are left out.
            sample_weight = weights if np.ptp(weights) > 0 else None
            self._estimator = estimator.fit(matrix, labels, sample_weight=sample_weight, **held_out)

    def _held_out(self, target: Target) -> dict[str, Any]:
        """Return rows to choose the number of trees by, as arguments of the estimator's `fit`; none by default."""
        return {}

    def _tabular(self) -> TabularFeatures:
        return TabularFeatures(self._features, self.smoothing, self.folds, self.seed)

    def _predict(self, columns: Columns) -> npt.NDArray[np.float64]:
        matrix = self._encoder.transform(columns)
        if self._num_classes:
            return probabilities(self._estimator, matrix, self._num_classes)
        values: npt.NDArray[np.float64] = self._estimator.predict(matrix)
        return values


def _can_hold_out(labels: Any, num_classes: int) -> bool:
    """Return whether a tenth of the rows can choose the number of trees."""
    enough = len(labels) >= _ROWS_TO_HOLD_OUT
    return enough and (not num_classes or int(np.unique(labels, return_counts=True)[1].min()) >= _LABELS_TO_HOLD_OUT)


def _repeats(groups: Ints) -> bool:
    return len(np.unique(groups)) < len(groups)


def _best_size(estimator: Any, matrix: Any, labels: Any, groups: Ints, seed: int) -> int:
    """Return the number of trees with the least loss on a fifth of the groups, because rows of one group are alike."""
    from sklearn import base

    distinct, group = np.unique(groups, return_inverse=True)
    held = np.random.default_rng(seed).permutation(len(distinct))[: len(distinct) // 5]
    out = np.isin(group.reshape(-1), held)
    if not out.any() or np.ptp(labels[~out]) == 0:
        return min(_FEW_TREES, estimator.max_iter)
    part = base.clone(estimator).fit(matrix[~out], labels[~out])
    if base.is_classifier(part):
        own = labels[out][:, np.newaxis] == part.classes_
        stages = part.staged_predict_proba(matrix[out])
        losses = [-np.log(np.maximum(np.where(own, found, 0).sum(axis=1), 1e-7)).mean() for found in stages]
    else:
        losses = [np.square(found - labels[out]).mean() for found in part.staged_predict(matrix[out])]
    return int(np.argmin(losses)) + 1

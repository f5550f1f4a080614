"""TfidfLinear: a linear model of words and categories."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tfmtl._checks import require, require_positive_int
from tfmtl.baselines.interactions import Ints
from tfmtl.baselines.ranking_baseline import RankingBaseline, Target, probabilities
from tfmtl.data import Schema, Text, to_columns
from tfmtl.data.columns import Columns
from tfmtl.data.features import Feature
from tfmtl.tasks import Task

_ROWS_OF_RARE_WORDS = 1000


class TfidfLinear(RankingBaseline):
    """Logistic or ridge regression on TF-IDF weights of words and word pairs, and one-hot categories.

    Use it as the baseline of tables with texts, such as reviews: on texts of one topic few networks exceed it. It needs
    a `Text` feature. Numbers are left out. In tables of at least 1000 rows, words of one row are ignored.

    Args:
        strength: inverse of the L2 penalty.
        max_features: largest number of words and pairs of each text column, the most frequent ones.
        max_rows: largest number of rows to fit to, drawn at random.
        seed: seed of the draw.

    Cost: one pass over the texts and up to 200 sparse products with all rows.

    Reference: Wang and Manning, "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification", ACL 2012,
    https://aclanthology.org/P12-2018.
    """

    def __init__(
        self, strength: float = 1.0, max_features: int = 100_000, max_rows: int = 200_000, seed: int = 0
    ) -> None:
        super().__init__(max_rows, seed)
        require_positive_int(max_features=max_features)
        require(strength > 0, "`strength` must be above 0.", strength=strength)
        self.strength = strength
        self.max_features = max_features

    @classmethod
    def features(cls, schema: Schema, task: Task) -> list[Feature]:
        """Return the texts and categories that a task may read; none without a text."""
        found = super().features(schema, task)
        return found if any(isinstance(feature, Text) for feature in found) else []

    @classmethod
    def uses(cls, feature: Feature) -> bool:
        """Return whether a feature is a text or a category."""
        return isinstance(feature, Text) or (
            not feature.raw_spec.dtype.is_floating and feature.raw_spec.shape.rank == 1
        )

    def _fit(self, frame: Any, target: Target, rows: Ints) -> None:
        from sklearn import exceptions, linear_model  # imported here: it takes half a second

        chosen = to_columns(frame.iloc[rows], self._features)
        self._vectorizers = [(f.name, self._vectorizer(f, chosen[f.name])) for f in self._features]
        self._texts = {feature.name for feature in self._features if isinstance(feature, Text)}
        self._num_classes = target.num_classes
        labels, weights = target.labels[rows], target.weights[rows]
        self._estimator = (
            linear_model.LogisticRegression(C=self.strength, max_iter=200)
            if target.num_classes
            else linear_model.Ridge(alpha=1 / self.strength, solver="sparse_cg")
        )
        with warnings.catch_warnings():  # 200 steps are near enough to the optimum for a baseline
            warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
            self._estimator.fit(self._matrix(chosen), labels, sample_weight=weights)

    def _vectorizer(self, feature: Feature, values: npt.NDArray[Any]) -> Any:
        """Return the fitted vectorizer of a column; None for texts without a word."""
        from sklearn import preprocessing
        from sklearn.feature_extraction import text

        if not isinstance(feature, Text):
            return preprocessing.OneHotEncoder(handle_unknown="ignore").fit(values[:, np.newaxis])
        vectorizer = text.TfidfVectorizer(
            ngram_range=(1, 2),
            min_df=1 if len(values) < _ROWS_OF_RARE_WORDS else 2,
            max_features=self.max_features,
            sublinear_tf=True,
            token_pattern=r"(?u)\b\w+\b",
        )
        try:
            return vectorizer.fit(values)
        except ValueError as error:
            if "empty vocabulary" in str(error) or "no terms remain" in str(error):
                return None
            raise

    def _matrix(self, columns: Columns) -> Any:
        """Return the sparse matrix [n, d] of raw columns."""
        parts = [
            vectorizer.transform(columns[name] if name in self._texts else columns[name][:, np.newaxis])
            for name, vectorizer in self._vectorizers
            if vectorizer is not None
        ]
        return sparse.hstack([sparse.csr_matrix((len(next(iter(columns.values()))), 1)), *parts], format="csr")

    def _predict(self, columns: Columns) -> npt.NDArray[np.float64]:
        matrix = self._matrix(columns)
        if self._num_classes:
            return probabilities(self._estimator, matrix, self._num_classes)
        values: npt.NDArray[np.float64] = self._estimator.predict(matrix)
        return values

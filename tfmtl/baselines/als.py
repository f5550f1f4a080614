"""ALS: matrix factorization of implicit feedback by alternating least squares."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl.baselines.interactions import Interactions, Ints, Weighting
from tfmtl.baselines.retrieval_baseline import RetrievalBaseline
from tfmtl.evaluation.counting import FloatArray


class ALS(RetrievalBaseline):
    """Alternating least squares (ALS, iALS) for implicit feedback, by the package `implicit`.

    Use it as the strongest common baseline without features. It needs `pip install 'tfmtl[baselines]'`.

    Args:
        factors: width of the factors of users and items.
        regularization: weight of the L2 penalty.
        alpha: confidence of an observed pair relative to an unobserved one.
        iterations: number of passes.
        weighting: entries of the matrix by the number n of interactions of a pair: `"count"`, `"log"` or `"binary"`.
        seed: seed of the initial factors.

    Raises:
        ValueError: if an argument is out of range.
        ImportError: in `fit`, if `implicit` is not installed.

    Cost: iterations (nnz factors^2 + (U + C) factors^3) for nnz entries of the matrix.

    Reference: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008,
    https://doi.org/10.1109/ICDM.2008.22.
    """

    def __init__(
        self,
        factors: int = 64,
        regularization: float = 0.05,
        alpha: float = 10.0,
        iterations: int = 15,
        weighting: Weighting = "log",
        seed: int = 0,
    ) -> None:
        require_positive_int(factors=factors, iterations=iterations)
        require(regularization >= 0, "`regularization` must be 0 or more.", regularization=regularization)
        require(alpha > 0, "`alpha` must be above 0.", alpha=alpha)
        self.factors = factors
        self.regularization = regularization
        self.alpha = alpha
        self.iterations = iterations
        self.weighting = weighting
        self.seed = seed

    @staticmethod
    def installed() -> bool:
        """Return whether `implicit` can be imported."""
        try:
            _implicit()
        except ImportError:
            return False
        return True

    def _fit(self, interactions: Interactions) -> None:
        als = _implicit()
        from threadpoolctl import threadpool_limits  # scikit-learn needs it as well

        matrix = interactions.matrix(self.weighting).astype(np.float32)
        with threadpool_limits(1, "blas"):  # `implicit` has threads of its own and warns of those of BLAS
            model = als.AlternatingLeastSquares(
                factors=self.factors,
                regularization=self.regularization,
                alpha=self.alpha,
                iterations=self.iterations,
                random_state=self.seed,
            )
            model.fit(matrix, show_progress=False)
        self._user_factors, self._item_factors = np.asarray(model.user_factors), np.asarray(model.item_factors)

    def _scores(self, rows: Ints) -> FloatArray:
        scores: FloatArray = self._user_factors[rows] @ self._item_factors.T
        return scores


def _implicit() -> Any:
    try:
        from implicit.cpu import als
    except ImportError as error:
        raise ImportError(
            "The baseline ALS needs the package `implicit`, which cannot be imported; install it by "
            "`pip install 'tfmtl[baselines]'`, or leave ALS out."
        ) from error
    return als

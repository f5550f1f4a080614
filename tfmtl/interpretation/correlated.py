"""Groups of correlated features, which attributions should treat together."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from tfmtl._checks import require, require_positive_int, require_type
from tfmtl.models import MultiTaskModel
from tfmtl.models.explained import Floats, encoded_rows, rows_at

_VALUES = 20


def correlated_features(
    model: MultiTaskModel, table: Any, threshold: float = 0.7, max_rows: int = 10_000, seed: int = 0
) -> dict[str, list[str]]:
    r"""Find groups of features that repeat each other, for `permutation_importance` and `shapley_values`.

    v^2(f, g) = (|Q_f^T Q_g|^2 - e) / (min(d_f, d_g) - e) with e = d_f d_g / (N - 1), which independent features have on
    average. Q_f [N, d_f] is an orthonormal basis of the centred columns of feature f: the ranks of a number, and an
    indicator of each of the 20 most frequent values of a category or list. v is the correlation of ranks of two
    numbers, Cramer's V of two categories, and the correlation ratio of a number and a category. Features of a group are
    linked by pairs with v of at least the threshold.

    Args:
        model: encodes the rows.
        table: rows without need of labels: a table (pandas, PyArrow, Polars), or a `Batch`.
        threshold: least v of two linked features, above 0 and at most 1.
        max_rows: rows that are read; others are left out at random.
        seed: seed of this choice.

    Returns:
        The features of each group by its name, such as `"city+country"`; features without a partner are absent.

    Raises:
        ValueError: if the threshold is outside (0, 1], or the table lacks a column.

    Example:
        >>> # groups = correlated_features(model, test)
        >>> # permutation_importance(model, test, groups=groups)

    Cost: N d^2 for d columns of all features together, at most 20 per category.

    Reference: Bergsma, "A bias-correction for Cramer's V and Tschuprow's T", Journal of the Korean Statistical Society
    2013, https://doi.org/10.1016/j.jkss.2012.10.002; the correction here is that of canonical correlations, which also
    suits numbers.
    """
    require_type(model, MultiTaskModel, "model")
    require(0 < threshold <= 1, "`threshold` must be above 0 and at most 1.", threshold=threshold)
    require_positive_int(max_rows=max_rows)
    columns = {name: encoded_rows(model, table).features[name] for name in model.network.input}
    rows = int(next(iter(columns.values())).shape[0])
    if rows > max_rows:
        columns = rows_at(columns, np.sort(np.random.default_rng(seed).permutation(rows)[:max_rows]))
    bases = {name: _basis(column.numpy()) for name, column in columns.items()}
    names = [name for name, basis in bases.items() if basis.shape[1]]
    group = {name: name for name in names}
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            if group[first] != group[second] and association(bases[first], bases[second]) >= threshold:
                old, new = group[second], group[first]
                group = {name: new if owner == old else owner for name, owner in group.items()}
    found = [[name for name in names if group[name] == owner] for owner in dict.fromkeys(group.values())]
    return {"+".join(members): members for members in found if len(members) > 1}


def association(first: Floats, second: Floats) -> float:
    """Return v of two orthonormal bases [N, d_f] and [N, d_g]; see `correlated_features`."""
    rows, widths = len(first), (first.shape[1], second.shape[1])
    expected = widths[0] * widths[1] / max(rows - 1, 1)
    most = min(widths) - expected
    total = float(np.square(first.T @ second).sum()) - expected
    return float(np.sqrt(min(max(total / most, 0.0), 1.0))) if most > 0 else 0.0


def _basis(column: np.ndarray) -> Floats:
    """Return an orthonormal basis [N, d] of the centred columns of a feature, without those that are constant."""
    if np.issubdtype(column.dtype, np.integer):
        values, counts = np.unique(column, return_counts=True)
        frequent = values[np.argsort(-counts, kind="stable")[:_VALUES]]
        flat = column.reshape(len(column), -1)
        wide = np.stack([(flat == value).any(axis=1) for value in frequent], axis=1).astype(np.float64)
    else:
        wide = np.asarray(rankdata(column.reshape(len(column), -1), axis=0), np.float64)
    left, sizes, _ = np.linalg.svd(wide - wide.mean(axis=0), full_matrices=False)
    kept: Floats = left[:, sizes > 1e-9 * max(1.0, float(sizes.max(initial=0.0)))]
    return kept

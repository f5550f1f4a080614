"""The learning rates of the recipe: retrieval, ranking, its embeddings, and embeddings of ids with few rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tfmtl._keras import keras
from tfmtl._names import layer_name
from tfmtl.data import Preprocessor
from tfmtl.models.isolation import independent_groups
from tfmtl.training import LazyAdam, ScaledRates

RETRIEVAL_RATE, RANKING_RATE = 1e-2, 3e-3
SPARSE_WIDTH = 8
"""Width of the embeddings of sparse ids in networks without retrieval, which keeps them apart from other tables."""
_EMBEDDINGS = 1 / 3
"""Rate of the embeddings of ranking tasks relative to that of their other weights."""
_FEW_ROWS = 20


def sparse_ids(preprocessor: Preprocessor) -> tuple[str, ...]:
    """Return the vocabularies with fewer than 20 rows per value, with which trained embeddings memorize labels."""
    counts = {name: preprocessor.statistics.counts[name] for name in preprocessor.schema.vocabularies}
    return tuple(name for name, found in counts.items() if len(found) and found.mean() < _FEW_ROWS)


def recipe_optimizer(
    network: keras.Model, retrieval: Collection[str], sparse: Sequence[str]
) -> keras.optimizers.Optimizer:
    """Return the optimizer of the recipe.

    Variables that a retrieval task reads have the rate 0.01; those of other tasks 0.003, a third of it for embedding
    tables, and none for tables of sparse ids alone, which keep their initial rows.

    Args:
        network: from `build_network`.
        retrieval: names of the retrieval tasks.
        sparse: vocabularies from `sparse_ids`.
    """
    groups = independent_groups(network)
    if all(set(names) & set(retrieval) for names, _ in groups):
        return LazyAdam(RETRIEVAL_RATE)
    factors = {}
    for names, variables in groups:
        for variable in variables:
            name = variable.name.split(":")[0]
            own = RETRIEVAL_RATE / RANKING_RATE if set(names) & set(retrieval) else _factor(name, sparse)
            if variable.trainable and own != 1:
                factors[name] = own
    return ScaledRates(LazyAdam(RANKING_RATE), factors)


def _factor(variable: str, sparse: Sequence[str]) -> float:
    """Return the factor of a variable that no retrieval reads."""
    table, _, last = variable.rpartition("/")
    if last != "embeddings":
        return 1.0
    names = [layer_name(f"{name}_embedding") for name in sparse]
    if sparse:
        names.append(f"embedding_{SPARSE_WIDTH}")  # the table that several small vocabularies share
    return 0.0 if any(table == name or table.endswith(f"_{name}") for name in names) else _EMBEDDINGS

"""The fraction of zeros in the weights of a network, and its target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from tfmtl._checks import require, require_fraction, require_known, require_type
from tfmtl._keras import keras, tf
from tfmtl.models import MultiTaskModel

Select = Callable[[keras.layers.Layer], bool]

Share = float | tuple[int, int]
"""A fraction of zeros in [0, 1), or (m, n): m zeros among each n successive inputs of a unit, such as (2, 4)."""

Sparsity = Share | Mapping[str, Share]
"""One share for all layers, or by layer name ("" for the others, which stay dense without it)."""


class Target(NamedTuple):
    """The zeros that the weights of a layer must have.

    Attributes:
        fraction: of zeros.
        m_by_n: zeros among so many successive inputs, or None for zeros anywhere.
    """

    fraction: float
    m_by_n: tuple[int, int] | None = None


def targets(network: keras.Model, wanted: Sparsity, select: Select, argument: str) -> dict[str, Target]:
    """Return the target of each selected layer, by name.

    Raises:
        ValueError: if a share is out of range, a layer unknown, not prunable or not selected, none is left, or (m, n)
            is given for a layer with other weights than matrices.
    """
    chosen = {layer.name: layer for layer in network.layers if select(layer) and is_prunable(layer)}
    require(bool(chosen), "No layer of the network is selected for pruning.")
    shares: dict[str, Share] = dict.fromkeys(chosen, wanted) if not isinstance(wanted, Mapping) else {}
    if isinstance(wanted, Mapping):
        require_known(
            [name for name in wanted if name], chosen, "layer", f"`{argument}` (the layers that can be pruned)"
        )
        shares = {name: wanted[key] for name in chosen if (key := name if name in wanted else "") in wanted}
        require(bool(shares), 'No layer of the network is selected for pruning; name layers, or "".')
    found = {name: _target(share, argument) for name, share in shares.items()}
    for name, target in found.items():
        shapes = [tuple(weight.shape) for weight in prunable_weights(chosen[name])]
        matrices = target.m_by_n is None or all(len(shape) == 2 for shape in shapes)
        require(matrices, f"Layer {name!r} cannot have m zeros of n: that is for matrices.", shapes=shapes)
    return found


def _target(share: Share, argument: str) -> Target:
    if not isinstance(share, tuple):
        require_fraction(**{argument: share})
        return Target(float(share))
    valid = len(share) == 2 and all(isinstance(n, int) for n in share) and 0 < share[0] < share[1]
    require(valid, f"`{argument}` as (m, n) must be integers with 0 < m < n.", **{argument: share})
    return Target(share[0] / share[1], share)


def prunable_weights(layer: keras.layers.Layer) -> list[tf.Variable]:
    """Return the weights of a layer that pruning acts on: kernels, embedding tables, the matrices of a trunk.

    A layer that is not trained has none, such as the tables of `recipes.join_ease`: pruning could not repair them.

    Example:
        >>> dense = keras.layers.Dense(2)
        >>> dense.build([None, 3])
        >>> [tuple(weight.shape) for weight in prunable_weights(dense)]
        [(3, 2)]
    """
    if not layer.trainable:
        return []
    if hasattr(layer, "get_prunable_weights"):  # the toolkit's protocol; it adds the method to Keras' layers, too
        return list(layer.get_prunable_weights())
    if isinstance(layer, keras.layers.Embedding):
        return [layer.embeddings]
    return [layer.kernel] if isinstance(layer, keras.layers.Dense) else []


def is_prunable(layer: keras.layers.Layer) -> bool:
    """Return whether a layer is pruned by default: dense layers, embeddings and trunks."""
    return bool(prunable_weights(layer))


def sparsity(network: keras.Model, select: Select = is_prunable) -> dict[str, float]:
    """Return the fraction of zeros of each prunable weight, by "layer/weight".

    Args:
        network: a functional network without pruning wrappers, or a `MultiTaskModel` of one.
        select: layers to look at.

    Example:
        >>> inputs = keras.Input([2])
        >>> sparsity(keras.Model(inputs, keras.layers.Dense(2, kernel_initializer="zeros", name="head")(inputs)))
        {'head/kernel': 1.0}
    """
    return {name: _zeros(values) for name, values in _selected(_network_of(network), select)}


def check_sparsity(
    network: keras.Model, target: Sparsity, tolerance: float = 0.01, select: Select = is_prunable
) -> None:
    """Raise unless every prunable weight has the stated fraction of zeros, or its m zeros of n.

    Args:
        network: a network after `strip`, or a `MultiTaskModel` of one.
        target: fraction of zeros in [0, 1), or (m, n), one for all or by layer name as in `prune`.
        tolerance: a weight may have this fraction less, and one zero less, since a fraction of few entries is not
            whole.
        select: layers to look at; those that were pruned.

    Raises:
        ValueError: naming the weight that misses the target by most.
    """
    network = _network_of(network)
    wanted = targets(network, target, select, "target")
    lacking, values_of, target_of = {}, {}, {}
    for name, values in _selected(network, lambda layer: layer.name in wanted):
        goal = target_of[name] = wanted[name.partition("/")[0]]
        enough = goal.fraction - tolerance
        found = _zeros(values) + 1 / values.size
        lacking[name] = _lacking_groups(values, *goal.m_by_n) if goal.m_by_n else enough - found
        values_of[name] = values
    worst = max(lacking, key=lambda name: lacking[name])
    goal, values = target_of[worst], values_of[worst]
    asked = f"{goal.m_by_n[0]} of each {goal.m_by_n[1]}" if goal.m_by_n else f"{goal.fraction:.1%}"
    require(
        lacking[worst] <= 0,
        f"Weight {worst!r} has {_zeros(values):.1%} zeros instead of {asked}; train beyond the schedule's "
        "`end_step`, and let no callback restore weights from before it.",
    )


def _zeros(values: np.ndarray) -> float:
    return float(np.mean(values == 0))


def _lacking_groups(values: np.ndarray, zeros: int, size: int) -> float:
    """Return the fraction of groups of successive inputs that have more non-zero entries than they may."""
    filled = np.pad(values != 0, [(0, -len(values) % size), (0, 0)]).reshape(-1, size, values.shape[1])
    return float(np.mean(filled.sum(axis=1) > size - zeros))


def _network_of(model: keras.Model) -> keras.Model:
    """Return the network of a `MultiTaskModel`, or a network as it is."""
    require_type(model, keras.Model, "network")
    return model.network if isinstance(model, MultiTaskModel) else model


def _selected(network: keras.Model, select: Select) -> Iterator[tuple[str, np.ndarray]]:
    for layer in network.layers:
        for weight in prunable_weights(layer) if select(layer) else ():
            yield f"{layer.name}/{weight.name.split(':')[0].removeprefix(layer.name + '/')}", weight.numpy()

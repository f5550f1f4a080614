"""Several query vectors in one output: K vectors u_k [B, d] in one row of width K d, and the products with candidates.

The number K follows from the widths of query and candidate, so that an output without such vectors has K = 1.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from tfmtl._keras import keras, tf


def interests_in(query: Any, candidate: Any) -> int:
    """Return K of an output, from the widths of query [..., K d] and candidate [..., d]; 1 if a width is unknown."""
    widths = query.shape[-1], candidate.shape[-1]
    return 1 if None in widths else int(widths[0]) // int(widths[1])


def by_interest(query: tf.Tensor, interests: int) -> tf.Tensor:
    """Return the vectors of queries [B, K d] as [B, K, d]."""
    return tf.reshape(query, [-1, interests, query.shape[-1] // interests])


def interest_of(query: tf.Tensor, candidate: tf.Tensor, sharpness: float | None = None) -> tf.Tensor:
    """Return the vector by which each query is trained, chosen by the candidate of its row.

    u = u_m with m = argmax_k <u_k, v>, or with sharpness p the mean sum_k a_k u_k with a = softmax(p <u_k, v>), through
    which the gradient passes as well.

    Args:
        query: u_1, ..., u_K [B, K d].
        candidate: v [B, d].
        sharpness: p, or None for the largest product, of which the first one counts among equal ones.

    Returns:
        [B, d].

    Example:
        >>> query, candidate = tf.constant([[1.0, 0.0, 0.0, 1.0]]), tf.constant([[2.0, 3.0]])
        >>> interest_of(query, candidate).numpy().tolist()
        [[0.0, 1.0]]
        >>> print(interest_of(query, candidate, sharpness=1.0).numpy().round(2))
        [[0.27 0.73]]
    """
    interests = interests_in(query, candidate)
    if interests == 1:
        return query
    vectors = by_interest(query, interests)
    products = tf.einsum("bkd,bd->bk", vectors, candidate)
    if sharpness is None:
        return tf.gather(vectors, tf.argmax(products, axis=1), batch_dims=1)
    return tf.einsum("bk,bkd->bd", tf.nn.softmax(sharpness * products), vectors)


def best_of_pairs(query: tf.Tensor, candidate: tf.Tensor) -> tf.Tensor:
    """Return the score max_k <u_k, v> [B] of each row's pair of query [B, K d] and candidate [B, d]."""
    interests = interests_in(query, candidate)
    if interests == 1:
        return tf.reduce_sum(query * candidate, axis=1)
    return tf.reduce_max(tf.einsum("bkd,bd->bk", by_interest(query, interests), candidate), axis=1)


def best_of_all(query: tf.Tensor, candidate: tf.Tensor) -> tf.Tensor:
    """Return the scores max_k <u_k, v> [B, C] of all pairs of queries [B, K d] and candidates [C, d]."""
    interests = interests_in(query, candidate)
    if interests == 1:
        return tf.matmul(query, candidate, transpose_b=True)
    products = tf.matmul(tf.reshape(query, [-1, candidate.shape[-1]]), candidate, transpose_b=True)
    return tf.reduce_max(tf.reshape(products, [-1, interests, tf.shape(candidate)[0]]), axis=1)  # also of no query


def best_scores(query: npt.NDArray[Any], candidate: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return `best_of_all` of arrays.

    Example:
        >>> query, candidate = tf.constant([[1.0, 3.0]]).numpy(), tf.constant([[2.0], [-1.0]]).numpy()
        >>> best_scores(query, candidate).tolist()  # two vectors of width 1
        [[6.0, -1.0]]
    """
    interests = interests_in(query, candidate)
    scores: npt.NDArray[Any] = query.reshape(-1, candidate.shape[1]) @ candidate.T
    return scores if interests == 1 else scores.reshape(len(query), interests, len(candidate)).max(axis=1)


def joined_to_each(query: Any, extra: Any, interests: int, name: str) -> Any:
    """Add coordinates to each vector of a query in a network: [B, K d] and [B, e] become [B, K (d + e)].

    Args:
        query: symbolic tensor [B, K d].
        extra: symbolic tensor [B, e], or a list of them.
        interests: K.
        name: name of the layer that concatenates, and prefix of the others.
    """
    parts = list(extra) if isinstance(extra, list | tuple) else [extra]
    if interests == 1:
        return keras.layers.Concatenate(name=name)([query, *parts])
    vectors = keras.layers.Reshape([interests, query.shape[-1] // interests], name=f"{name}_vectors")(query)
    repeated = [keras.layers.RepeatVector(interests, name=f"{name}_repeated_{i}")(p) for i, p in enumerate(parts)]
    longer = keras.layers.Concatenate(name=name)([vectors, *repeated])
    return keras.layers.Reshape([interests * longer.shape[-1]], name=f"{name}_flat")(longer)


def unit_vectors(query: Any, interests: int, name: str) -> Any:
    """Scale each of the K vectors of a query [B, K d] in a network to length 1."""
    if interests == 1:
        return keras.layers.UnitNormalization(name=name)(query)
    width = query.shape[-1]
    vectors = keras.layers.Reshape([interests, width // interests], name=f"{name}_vectors")(query)
    return keras.layers.Reshape([width], name=f"{name}_flat")(keras.layers.UnitNormalization(name=name)(vectors))

"""Blocks of similar candidates for an inverted file: clustering, comparison with queries, and recall."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._keras import tf

MARGIN = 4
"""A search by int8 codes scores `k + k // MARGIN` candidates again by their embeddings to find the best `k`."""

_MANY = 1024  # clusters; a larger number is made in two steps, since k-means costs rows times clusters
_SAMPLE = 100_000  # rows on which the first step fits its centres
_SPREAD = 0.35  # share of a block's radius by which its best candidate is assumed to beat the block's mean


def cluster(embeddings: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Return the cluster number [C] of each row of embeddings [C, d], by k-means, in two steps for many clusters."""
    from sklearn.cluster import KMeans  # its import takes half a second, and only this function needs it

    first = clusters if clusters <= _MANY else round(clusters**0.5)
    kept = np.sort(np.random.default_rng(seed).permutation(len(embeddings))[: max(_SAMPLE, 2 * first)])
    fit = KMeans(first, n_init=1, max_iter=20, random_state=seed).fit(embeddings[kept])
    nearest: np.ndarray = fit.predict(embeddings).astype(np.int64)
    if first == clusters:
        return nearest
    found = np.empty_like(nearest)
    for number in range(first):
        rows = np.flatnonzero(nearest == number)
        inner = min(_MANY, max(1, len(rows) * clusters // len(embeddings)))
        found[rows] = number * _MANY + (cluster(embeddings[rows], inner, seed) if len(rows) else 0)
    return found


def block_keys(vectors: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
    """Return the keys [blocks, d + 1] that `resemblance` compares with queries: mean and share of the radius.

    Args:
        vectors: float32 [blocks, block, d], 0 where there is no candidate.
        inside: float32 [blocks, block], 1 or 0.
    """
    counts = tf.reduce_sum(inside, axis=1, keepdims=True)
    means = tf.reduce_sum(vectors, axis=1) / counts
    squares = tf.reduce_sum(vectors**2, axis=[1, 2])[:, None] / counts - tf.reduce_sum(means**2, axis=1, keepdims=True)
    return tf.concat([means, _SPREAD * tf.sqrt(tf.maximum(squares, 0.0))], axis=1)


def resemblance(query: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Return q . mean + share * |q| * radius [B, blocks], an estimate of the best score in each block."""
    return tf.matmul(tf.concat([query, tf.norm(query, axis=1, keepdims=True)], axis=1), keys, transpose_b=True)


def to_codes(vectors: Any) -> tuple[Any, Any]:
    """Return the nearest int8 codes of vectors [..., d] and their steps [..., 1], 1 / 127 of the largest entry.

    Example:
        >>> codes, steps = to_codes(tf.constant([[1.0, -0.5], [0.0, 0.0]]))
        >>> codes.numpy().tolist(), np.round(127 * steps.numpy(), 3).tolist()
        ([[127, -64], [0, 0]], [[1.0], [127.0]])
    """
    largest = tf.reduce_max(tf.abs(vectors), axis=-1, keepdims=True)
    steps = tf.where(largest > 0, largest / 127, 1.0)
    return tf.cast(tf.round(vectors / steps), tf.int8), steps


def rounded(embeddings: np.ndarray) -> np.ndarray:
    """Return embeddings [C, d] after a round trip through their int8 codes."""
    codes, steps = to_codes(tf.constant(embeddings))
    values: np.ndarray = codes.numpy().astype(np.float32) * steps.numpy()
    return values


def halves(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every second sample query to choose a search by, and the others to measure its recall on.

    A recall on the queries by which the search was chosen is too high. A single query serves both purposes.

    Example:
        >>> [part.tolist() for part in halves(np.arange(5))]
        [[0, 2, 4], [1, 3]]
    """
    return queries[::2], queries[1::2] if len(queries) > 1 else queries


def ranks_of_best(
    blocks: np.ndarray, embeddings: np.ndarray, queries: np.ndarray, k: int, coarse: np.ndarray | None = None
) -> np.ndarray:
    """Return the rank [n, k], from 0, of the block that holds each of the best k candidates of each query.

    Args:
        blocks, embeddings, queries, k: as in `InvertedFile.choose_probes`.
        coarse: the approximate embeddings [C, d] that the search compares first, or None. A candidate that is not among
            the best by them gets the rank of a block beyond the last.
    """
    inside = blocks >= 0
    block_of = np.empty(len(embeddings), np.int64)
    block_of[blocks[inside]] = np.nonzero(inside)[0]
    vectors = embeddings[np.maximum(blocks, 0)] * inside[:, :, None]
    keys = block_keys(vectors, inside.astype(np.float32))
    ranks = []
    for query in queries:
        best = np.argpartition(-(embeddings @ query), k - 1)[:k]
        rank = np.empty(len(blocks), np.int64)
        rank[np.argsort(-resemblance(query[None], keys).numpy()[0])] = np.arange(len(blocks))
        found = rank[block_of[best]]
        if coarse is not None:
            kept = k + k // MARGIN
            scores = coarse @ query
            first_out = np.partition(scores, -kept - 1)[-kept - 1] if kept < len(scores) else -np.inf
            found = np.where(scores[best] > first_out, found, len(blocks))
        ranks.append(found)
    return np.stack(ranks)

"""The embeddings of the ids of a feature: nearest neighbors, and a map in two dimensions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int, require_several
from tfmtl._keras import tf
from tfmtl._nearest import best_of, unit_rows
from tfmtl.data.frames import rows_of_pass
from tfmtl.models import MultiTaskModel
from tfmtl.models.encodings import Encodings
from tfmtl.models.explained import Floats, chosen_tasks

_SCORES = 1 << 22  # of ids and all ids that are compared at once


def nearest_neighbors(
    model: MultiTaskModel, feature: str, ids: Sequence[Any], k: int = 10, *, tasks: Sequence[str] | None = None
) -> Any:
    """Return the ids of a categorical feature with the nearest embeddings, by their cosine.

    Use it to look at the table of embeddings of any feature, such as users, genres or countries. For candidates with
    all their features, as they are retrieved, use `evaluation.similar_items`. score(i, j) = e_i . e_j / (|e_i| |e_j|).
    Embeddings of rare ids are near their random initial values, and so are their neighbors.

    Args:
        model: a trained model.
        feature: a categorical feature with one id per row.
        ids: some of its ids; one that occurs twice has one list.
        k: length of the lists; the number of other ids, if they are fewer.
        tasks: tasks that read the embeddings, all by default; tables of several groups of tasks are joined.

    Returns:
        A table with the columns `id`, `rank` from 1, `neighbor` and `score`, ordered by id and rank.

    Raises:
        ValueError: if the feature has no embedding, an id is outside its vocabulary, or a task is unknown.

    Example:
        >>> # nearest_neighbors(model, "genre", ["drama"], k=3)

    Cost: one product with the table per id.
    """
    require_positive_int(k=k)
    require_several(ids=ids)
    known, table = embeddings_of(model, feature, tasks)
    listed = list(dict.fromkeys(ids))
    require(bool(listed), "`ids` must hold at least one id.", ids=ids)
    position = {value: i for i, value in enumerate(known)}
    unknown = [value for value in listed if value not in position]
    require(not unknown, f"`ids` must be in the vocabulary of feature {feature!r}.", unknown=unknown[:3])
    length = min(k, len(known) - 1)
    require(length > 0, f"The vocabulary of feature {feature!r} has one id, which has no neighbor.")
    table, own = unit_rows(table), np.array([position[value] for value in listed])
    step = max(1, _SCORES // len(known))
    pieces = [own[i : i + step] for i in range(0, len(own), step)]
    found, scores = zip(*(best_of(table[piece] @ table.T, piece, length) for piece in pieces), strict=True)
    from tfmtl.interpretation.tables import columns_table

    return columns_table(
        {
            "id": [value for value in listed for _ in range(length)],
            "rank": np.tile(np.arange(1, length + 1), len(listed)),
            "neighbor": [known[i] for i in np.concatenate(found).reshape(-1)],
            "score": np.concatenate(scores).reshape(-1),
        }
    )


@dataclasses.dataclass(frozen=True)
class EmbeddingMap:
    """The embeddings of ids in the plane of their largest variance.

    Attributes:
        feature: name of the feature.
        ids: the n ids.
        points: coordinates [n, 2].
        shares: share of the variance along each axis [2].
        labels: label of each id, None without one.
    """

    feature: str
    ids: list[Any]
    points: Floats
    shares: Floats
    labels: list[Any]

    def to_frame(self) -> Any:
        """Return a table with the columns `id`, `x`, `y` and `label`, and `share`, the share of both axes together."""
        from tfmtl.interpretation.tables import columns_table

        share = np.full(len(self.ids), self.shares.sum())
        x, y = self.points.T
        return columns_table({"id": self.ids, "x": x, "y": y, "label": self.labels, "share": share})


def embedding_map(
    model: MultiTaskModel,
    feature: str,
    *,
    labels: Mapping[Any, Any] | None = None,
    tasks: Sequence[str] | None = None,
    most: int = 2000,
    seed: int = 0,
) -> EmbeddingMap:
    """Draw the embeddings of a categorical feature in two dimensions by principal component analysis (PCA).

    Use it to see groups of ids that a model treats alike; `embedding_scatter` draws the map. With the centred
    embeddings X = U S V^T, the points are the first two columns of U S, and their shares S_j^2 / sum of all S^2. Two
    dimensions keep only this share of the variance: with a small one, near points need not have near embeddings, and
    `nearest_neighbors` answers that question. The largest coordinate of each axis in V is positive.

    Args:
        model: a trained model.
        feature: a categorical feature with one id per row.
        labels: label by id, such as `films.set_index("film")["genre"]`, by which points are coloured.
        tasks: as in `nearest_neighbors`.
        most: ids in the map; of more, as many are drawn at random.
        seed: seed of this choice.

    Returns:
        The points with ids, labels and shares of variance.

    Raises:
        ValueError: if the feature has no embedding or fewer than two ids, or a task is unknown.

    Example:
        >>> # embedding_scatter(embedding_map(model, "film", labels=films.set_index("film")["genre"]))

    Cost: n d^2 for n ids with embeddings of width d.

    Reference: Jolliffe, "Principal Component Analysis", Springer 2002, https://doi.org/10.1007/b98835, section 3.5.
    """
    require_positive_int(most=most)
    ids, table = embeddings_of(model, feature, tasks)
    if len(ids) > most:
        kept = np.sort(np.random.default_rng(seed).permutation(len(ids))[:most])
        ids, table = [ids[i] for i in kept], table[kept]
    require(len(ids) > 1, f"A map needs two ids or more of feature {feature!r}.", ids=ids)
    points, shares = principal_plane(table.astype(np.float64))
    given = {
        key: label for key, label in ({} if labels is None else dict(labels)).items() if label == label
    }  # without NaN
    return EmbeddingMap(feature, ids, points, shares, [given.get(value) for value in ids])


def principal_plane(table: Floats) -> tuple[Floats, Floats]:
    """Return the points [n, 2] of vectors [n, d] along the first two principal axes, and the shares of variance [2].

    Example:
        >>> points, shares = principal_plane(np.array([[0.0, 3.0], [0.0, -1.0]]))
        >>> points.tolist(), shares.tolist()
        ([[2.0, 0.0], [-2.0, 0.0]], [1.0, 0.0])
    """
    left, sizes, axes = np.linalg.svd(table - table.mean(axis=0), full_matrices=False)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    points = np.zeros([len(table), 2])
    shares = np.zeros(2)
    count = min(2, len(sizes))
    points[:, :count] = (left * sizes * signs)[:, :count]
    total = np.square(sizes).sum()
    if total > 0:
        shares[:count] = np.square(sizes[:count]) / total
    return points, shares


def embeddings_of(model: MultiTaskModel, feature: str, tasks: Sequence[str] | None = None) -> tuple[list[Any], Any]:
    """Return the ids in the vocabulary of a categorical feature [n], and the embeddings [n, d] that tasks read.

    Raises:
        ValueError: if there is no such feature or task, or no task reads its embedding.
    """
    chosen = chosen_tasks(model, tasks)
    features = model.schema.features
    known = [f.name for f in features.values() if f.vocabulary is not None and not f.encoded_shape]
    require_known([feature], known, "categorical feature", "the schema")
    ids = model.preprocessor.vocabulary(str(features[feature].vocabulary)).tolist()
    encodings = Encodings(model.network, [task.name for task in chosen])
    parts = [part for part in encodings.parts if part.feature == feature]
    require(bool(parts) and bool(ids), f"Feature {feature!r} has no embedding that these tasks read.", ids=len(ids))
    missing = {name: model.preprocessor.encoded_missing(name)[np.newaxis] for name in model.network.input}
    size, found = rows_of_pass(missing), []
    for start in range(0, len(ids), size):
        indices = np.arange(start, min(start + size, len(ids))) + 2  # 0 is missing and 1 unknown
        rows = {name: tf.constant(np.repeat(value, len(indices), axis=0)) for name, value in missing.items()}
        rows[feature] = tf.cast(indices, rows[feature].dtype)
        tensors = encodings.of(rows)[0]
        columns = [tensors[part.tensor].numpy()[:, part.start : part.end] for part in parts]
        found.append(np.concatenate(columns, axis=1).astype(np.float32))
    return ids, np.concatenate(found)

"""UserNeighbors: the part of a retrieval score that the neighbors of a user's own candidates have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int
from tfmtl._identity import FIRST
from tfmtl._keras import keras, register, tf


@register
class UserNeighbors(keras.layers.Layer):
    """A fixed list of candidates for each user, with a part of the score for each of them.

    Use it as `Retrieval(copy=...)` in large catalogues, where candidates have a few near neighbors, such as those of
    one session: a dot product of moderate width cannot hold all pairs. `recipes.join_ease` computes the lists.

    score(q, i) = <u_q, v_i> + part(user, i), with the part 0 for a candidate outside of the user's list. A user without
    a list, such as one that came later, has the dot product alone. The part has no gradient: losses are those of the
    dot products.

    Args:
        history: name of the query feature with the user's id.
        rows: number of encoded users that have lists, V.
        width: length of the lists, M.

    Example:
        >>> lists = UserNeighbors("user", rows=3, width=2)
        >>> lists.fill([[0, 0], [0, 0], [7, 5]], [[0.0, 0.0], [0.0, 0.0], [2.0, 1.0]])
        >>> lists.of_pairs(tf.constant([2, 2, 9]), tf.constant([5, 6, 5])).numpy().tolist()
        [1.0, 0.0, 0.0]

    Reference: Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001,
    https://doi.org/10.1145/371920.372071, with the scores of all items computed before serving.

    Cost: 8 bytes for each entry of the lists; a look-up of M entries for a query.
    """

    def __init__(self, history: str, rows: int, width: int, **kwargs: Any) -> None:
        super().__init__(**{"trainable": False, "dtype": "float32", **kwargs})
        require(isinstance(history, str) and bool(history), "`history` must be the name of a feature.")
        require_positive_int(rows=rows, width=width)
        self.history = history
        self.rows = rows
        self.width = width
        self._ids = self.add_weight("ids", [rows, width], tf.int32, "zeros", trainable=False)
        self._parts = self.add_weight("parts", [rows, width], tf.float32, "zeros", trainable=False)
        self.built = True

    def config(self) -> dict[str, Any]:
        """Return the arguments as plain values."""
        return {"history": self.history, "rows": self.rows, "width": self.width}

    def fill(self, ids: npt.ArrayLike, parts: npt.ArrayLike) -> None:
        """Set the lists.

        Args:
            ids: encoded ids [V, M] of candidates, distinct in each row; those below 2 are none.
            parts: [V, M], finite and at least 0.

        Raises:
            ValueError: if a shape is another, a part is negative or not finite, or a row holds an id twice.
        """
        own, values = np.asarray(ids, np.int32), np.asarray(parts, np.float32)
        shape = (self.rows, self.width)
        right = own.shape == shape == values.shape
        require(right, f"The lists must have the shape {shape}.", ids=own.shape, parts=values.shape)
        require(bool((np.isfinite(values) & (values >= 0)).all()), "Parts of lists must be finite and 0 or more.")
        ordered = np.sort(own, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= FIRST)
        require(not twice.any(), "A list must hold a candidate once.", row=int(twice.any(axis=1).argmax()))
        self._ids.assign(np.where(own >= FIRST, own, 0))
        self._parts.assign(np.where(own >= FIRST, values, 0))

    def of_history(self, history: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the lists of users: distinct encoded ids [B, M], 0 for none, and their part of the scores [B, M].

        Args:
            history: int32 [B], encoded users.
        """
        row = tf.where((history >= FIRST) & (history < self.rows), history, 0)
        return tf.gather(self._ids, row), tf.gather(self._parts, row)

    def of_pairs(self, history: tf.Tensor, candidate: tf.Tensor) -> tf.Tensor:
        """Return the part [B] of the scores of pairs.

        Args:
            history: int32 [B], encoded users.
            candidate: int32 [B], encoded ids.
        """
        ids, parts = self.of_history(history)
        equal = (ids == candidate[:, tf.newaxis]) & (candidate >= FIRST)[:, tf.newaxis]
        return tf.reduce_sum(tf.where(equal, parts, 0.0), axis=1)

    def call(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.of_history(inputs)

    def get_config(self) -> Mapping[str, Any]:
        return {**super().get_config(), **self.config()}

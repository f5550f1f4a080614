"""Mixup in a network: the mixed encodings that its trunk reads, and the losses on the labels of both rows of a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tfmtl._keras import keras, seed_of, tf
from tfmtl._names import layer_name
from tfmtl.data import Batch
from tfmtl.layers import Mixup
from tfmtl.layers.noise.mixup import MixupPairs, MixupPartners
from tfmtl.models.encoders import FeatureEncoder
from tfmtl.tasks import Task
from tfmtl.tasks.batch_loss import batch_loss

MIXUP_PAIRS = "mixup/pairs"
"""Name of the pairs among the outputs of `with_mixup_pairs`."""


class MixupFeatures:
    """`FeatureEncodings` that mix the rows of a network under construction in pairs.

    A row has the same partner in all encodings; see `Regularization.mixup`.

    Args:
        features: the features of the network.
        alpha: parameter of the Beta distribution, above 0.
    """

    def __init__(self, features: FeatureEncoder, alpha: float) -> None:
        self._features = features
        draw = MixupPartners(alpha, seed_of("mixup", features.seed), name="mixup_partners")
        self._pairs = draw(next(iter(features.inputs.values())))
        self._mixed: dict[str, Any] = {}

    def mixup(self, encoding: Any, name: str) -> Any:
        """Return the mixed form of an encoding [B, d]; calls with the same name return the same tensor."""
        if name not in self._mixed:
            self._mixed[name] = Mixup(name=layer_name(f"{name}_mixup"))((encoding, *self._pairs))
        return self._mixed[name]

    def encode(self, names: Sequence[str] = (), tables: str = "") -> Any:
        """Return the joined encodings of features [B, d], mixed; see `tfmtl.layers.FeatureEncodings`."""
        parts = (tables or "shared", *names)
        return self.mixup(self._features.encode(names, tables), "_".join(parts))

    def embed(self, name: str) -> tuple[Any, Any]:
        """Raise `ValueError`: lists of different lengths cannot be mixed."""
        raise ValueError(f"A trunk cannot read embeddings, here of {name!r}, under mixup; read encodings instead.")

    def embed_target(self, history: str) -> Any:
        """Raise `ValueError`; see `embed`."""
        return self.embed(history)

    def index_target(self, history: str) -> tuple[Any, Any]:
        """Raise `ValueError`; see `embed`."""
        return self.embed(history)

    def indices(self, name: str) -> tuple[Any, Any]:
        """Raise `ValueError`; see `embed`."""
        return self.embed(name)


def with_mixup_pairs(network: keras.Model) -> keras.Model:
    """Return the network with the `MixupPairs` of its rows as one more output, or unchanged if it has no mixup."""
    draws = [layer for layer in network.layers if isinstance(layer, MixupPartners)]
    if not draws:
        return network
    pairs = MixupPairs(*draws[0].output)
    return keras.Model(network.input, {**network.output, MIXUP_PAIRS: pairs}, name=network.name)


def mixup_loss(
    arguments: Callable[..., Any], task: Task, data: Batch, output: Any, pairs: MixupPairs
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a task's mean loss over the labels of the rows and of their partners, and the weight of both.

    Args:
        arguments: `MultiTaskModel.loss_arguments`.
        task: the task.
        data: the rows [B, ...].
        output: the task's output for the mixed rows.
        pairs: the partner of each row and the share that each row kept.
    """
    sums, total = [], tf.constant(0.0)
    for rows, share in ((data, pairs.kept), (pairs.partners_of(data), 1 - pairs.kept)):
        labels, weights, inputs = arguments(task, rows, training=True)
        loss, weight = batch_loss(task, labels, output, share * weights, inputs)
        sums.append(loss * weight)
        total += weight
    return tf.math.divide_no_nan(tf.add_n(sums), total), total

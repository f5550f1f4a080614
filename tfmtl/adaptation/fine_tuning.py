"""Fine-tuning of parts of a model: freezing, gradual unfreezing and learning rates per part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfmtl._checks import require, require_type
from tfmtl._keras import keras
from tfmtl.adaptation.parts import layers_of, variables_of
from tfmtl.models import MultiTaskModel
from tfmtl.models.optimizer_copies import fresh_copy
from tfmtl.models.optimizer_parts import covers
from tfmtl.training import ScaledRates

Parts = str | Sequence[str]


def freeze(model: MultiTaskModel, parts: Parts) -> list[str]:
    """Stop training parts of a model, from the next step on.

    Use it to fine-tune the heads on few labels, or to keep embeddings that were trained on more data.

    Args:
        model: changed in place.
        parts: see `layers_of`.

    Returns:
        The names of the layers, including those that were frozen before.

    A gradient balancer then compares the tasks at the shared variables that are still trained; without any, each head
    is trained by its own gradient. Slots of the optimizer and state of the balancer are kept.
    """
    return _set(model, parts, trainable=False)


def unfreeze(model: MultiTaskModel, parts: Parts = "all") -> list[str]:
    """Train parts of a model again; arguments and returns are those of `freeze`.

    An optimizer that was built while they were frozen has no slots for them. It is replaced by one with the same
    settings and no state; use `GradualUnfreezing` to keep momenta and steps.
    """
    return _set(model, parts, trainable=True)


class GradualUnfreezing(keras.callbacks.Callback):
    """Gradual unfreezing of ULMFiT: trains the heads first and the parts below them from later epochs on.

    Use it after a warm start, so that untrained heads do not spoil the trained layers below.

    Args:
        schedule: parts by the epoch, from 0, from which on they are trained; see `layers_of`. All other parts are
            frozen until the training ends.

    After `fit` every layer is as trainable as it was before.

    Raises:
        ValueError: if the schedule is empty, an epoch is negative, or, in `fit`, a part is unknown.

    Example:
        >>> GradualUnfreezing({0: "heads", 1: ["trunk"], 2: ["towers", "embeddings"]}).schedule[1]
        ['trunk']

    Reference:
        Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018,
        https://arxiv.org/abs/1801.06146, section 3.3.

    Cost: a new trace of the training step at each epoch of the schedule.
    """

    def __init__(self, schedule: Mapping[int, Parts]) -> None:
        super().__init__()
        valid = bool(schedule) and all(isinstance(epoch, int) and epoch >= 0 for epoch in schedule)
        rule = "`schedule` must give parts by epochs from 0 on, such as {0: 'heads', 2: 'all'}."
        require(valid, rule, schedule=schedule)
        self.schedule = dict(schedule)

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Freeze all layers; the optimizer already has their slots."""
        require_type(self.model, MultiTaskModel, "model")
        layers = {epoch: layers_of(self.model.network, parts) for epoch, parts in self.schedule.items()}
        self._layers = {epoch: [layer for layer in found if layer.trainable] for epoch, found in layers.items()}
        self._before = [layer for layer in layers_of(self.model.network) if layer.trainable]
        for layer in self._before:
            layer.trainable = False

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Unfreeze the parts of this epoch and, after a restart, of the preceding epochs."""
        due = [layer for start, layers in self._layers.items() if start <= epoch for layer in layers]
        if any(not layer.trainable for layer in due):
            for layer in due:
                layer.trainable = True
            self.model.retrace()

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Make the layers as trainable as they were before."""
        for layer in self._before:
            layer.trainable = True
        self.model.retrace()


def layerwise_rates(
    model: MultiTaskModel, optimizer: keras.optimizers.Optimizer, factors: Mapping[str, float]
) -> ScaledRates:
    """Return an optimizer that trains parts of a model at a fraction of its learning rate.

    Use it to fine-tune a warm-started model, such as with `{"embeddings": 0.1, "towers": 0.3}`: lower layers are more
    general and need less change.

    Args:
        model: the model to compile with the optimizer; not changed.
        optimizer: a Keras 2 optimizer.
        factors: factor of the learning rate by part, see `layers_of`; for a layer in several parts the first counts.

    Raises:
        ValueError: if a part is unknown or a factor is negative.
    """
    require_type(model, MultiTaskModel, "model")
    named: dict[str, float] = {}
    for part, factor in factors.items():
        for variable in variables_of(layers_of(model.network, part)):
            named.setdefault(variable.name.split(":")[0], factor)
    return ScaledRates(optimizer, named)


def _set(model: MultiTaskModel, parts: Parts, trainable: bool) -> list[str]:
    require_type(model, MultiTaskModel, "model")
    layers = layers_of(model.network, parts)
    for layer in layers:
        layer.trainable = trainable
    if trainable:
        model.share_unfrozen()
        if not covers(getattr(model, "optimizer", None), model.trainable_variables):
            model.optimizer = fresh_copy(model.optimizer)
    model.retrace()
    return [layer.name for layer in layers]

"""Which parts of a model training changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_type
from tfmtl._keras import keras
from tfmtl.adaptation.parts import layers_of
from tfmtl.balancing import Balancer
from tfmtl.models import MultiTaskModel
from tfmtl.models.network import shared_variables

Parts = str | Sequence[str]


def freeze(model: MultiTaskModel, parts: Parts) -> list[str]:
    """Stop training parts of a model; they take effect at the next step, compiled or not.

    Args:
        model: changed in place.
        parts: see `layers_of`.

    Returns:
        The names of the layers, also of those that were frozen before.

    A gradient balancer goes on to weigh the tasks by what is shared and still trained; where nothing is, each head
    learns by its own gradient. Slots of the optimiser and state of the balancer stay as they are.
    """
    return _set(model, parts, trainable=False)


def unfreeze(model: MultiTaskModel, parts: Parts = "all") -> list[str]:
    """Train parts of a model again; arguments and returns are those of `freeze`.

    An optimiser that was built while they were frozen has no slots for them: it is replaced by one with the same
    settings, whose momenta and steps begin anew. Freeze by `GradualUnfreezing` to keep them.
    """
    return _set(model, parts, trainable=True)


class GradualUnfreezing(keras.callbacks.Callback):
    """Trains the heads first and the parts below them from later epochs on.

    Args:
        schedule: parts by the epoch, from 0, that begins to train them; see `layers_of`. What it does not name stays
            frozen, until the training ends.

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
        """Freeze everything; the optimiser has its slots already."""
        require_type(self.model, MultiTaskModel, "model")
        layers = {epoch: layers_of(self.model.network, parts) for epoch, parts in self.schedule.items()}
        self._layers = {epoch: [layer for layer in found if layer.trainable] for epoch, found in layers.items()}
        self._before = [layer for layer in layers_of(self.model.network) if layer.trainable]
        for layer in self._before:
            layer.trainable = False

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Train what the epoch adds, and after a restart what the epochs before it added."""
        due = [layer for start, layers in self._layers.items() if start <= epoch for layer in layers]
        if any(not layer.trainable for layer in due):
            for layer in due:
                layer.trainable = True
            self.model.retrace()

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Leave the model as it was."""
        for layer in self._before:
            layer.trainable = True
        self.model.retrace()


def _set(model: MultiTaskModel, parts: Parts, trainable: bool) -> list[str]:
    require_type(model, MultiTaskModel, "model")
    layers = layers_of(model.network, parts)
    for layer in layers:
        layer.trainable = trainable
    if trainable:
        _share(model)
        _renew_optimizer(model)
    model.retrace()
    return [layer.name for layer in layers]


def _share(model: MultiTaskModel) -> None:
    """Let the balancer mix what tasks share that was frozen when the model was made."""
    known = {id(v) for v in model.shared_variables}
    wanted = known | {id(v) for v in shared_variables(model.network, model.chained)}
    if wanted == known:
        return
    model.__dict__["shared_variables"] = [v for v in model.network.weights if id(v) in wanted]
    if type(model.balancer).prepare is not Balancer.prepare:  # its state is by shared variable
        fresh = type(model.balancer).from_config(model.balancer.get_config())
        fresh.bind(model.balancer.tasks)
        fresh.prepare(model.shared_variables)
        model.balancer = fresh


def _renew_optimizer(model: MultiTaskModel) -> None:
    optimizer: Any = getattr(model, "optimizer", None)
    slots = getattr(getattr(optimizer, "inner_optimizer", optimizer), "_index_dict", None)
    if not slots or all(model.optimizer._var_key(v) in slots for v in model.trainable_variables):
        return
    model.optimizer = type(model.optimizer).from_config(model.optimizer.get_config())

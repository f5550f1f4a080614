"""Members of an ensemble: snapshots of one training, and models that differ only in their seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int, require_type
from tfmtl._keras import keras
from tfmtl.models import MultiTaskModel


class Snapshots(keras.callbacks.Callback):
    """Snapshot ensembles: a callback that trains in cycles of the learning rate and keeps the model after each cycle.

    Use it for an ensemble at the training cost of one model; `ensemble(snapshots.models())` combines the models.

    rate(t) = rate_0 / 2 (1 + cos(pi (t mod c) / c)) at step t: the rate falls from rate_0, the rate of the optimizer,
    to 0 in a cycle of c steps and then restarts. After a restart the training leaves one minimum and reaches another,
    so that the models differ nearly as much as if they were trained independently.

    If a call executes several steps, as is the default of `MultiTaskModel.compile`, these steps have the mean of their
    rates; with `compile(steps_per_execution=1)` each step has its exact rate.

    Args:
        cycles: number of cycles; the `epochs` of `fit` must be a multiple of it.
        last: number of snapshots kept, the latest ones; all by default.

    Attributes:
        weights: for each snapshot the arrays of the network's weights.

    Raises:
        ValueError: at the start of `fit`, if the epochs are not a multiple of the cycles, the number of steps per epoch
            is not known, or the optimizer has a learning rate schedule.

    Example:
        Five models in the training time of one::

            snapshots = Snapshots(cycles=5)
            model.fit(train, epochs=20, callbacks=[snapshots])
            best = ensemble(snapshots.models(), fit_weights(snapshots.models(), valid))

    Reference:
        Huang et al., "Snapshot Ensembles: Train 1, get M for free", ICLR 2017, https://arxiv.org/abs/1704.00109,
        equation 2; the rate is that of Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR
        2017, https://arxiv.org/abs/1608.03983. As in the papers, the state of the optimizer is kept
        at a restart.

    Cost: a copy of the network's weights per cycle.
    """

    def __init__(self, cycles: int, last: int | None = None) -> None:
        super().__init__()
        require_positive_int(cycles=cycles)
        if last is not None:
            require_positive_int(last=last)
        self.cycles = cycles
        self.last = last
        self.weights: list[list[np.ndarray]] = []

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Check the number of epochs and steps, and store the learning rate."""
        require_type(self.model, MultiTaskModel, "model")
        epochs = self.params["epochs"]
        require(epochs % self.cycles == 0, f"`epochs` must be a multiple of the {self.cycles} cycles.", epochs=epochs)
        require(
            self.params.get("steps") is not None,
            "`Snapshots` needs the number of steps per epoch; pass `fit` a table or `steps_per_epoch`.",
        )
        schedule = getattr(self.model.optimizer, "_learning_rate", None)
        require(
            not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule),
            "`Snapshots` sets the learning rate; compile the optimiser with a number, not with a schedule.",
            learning_rate=schedule,
        )
        self.weights = []
        self._epochs = epochs // self.cycles
        self._rate = float(self.model.optimizer.learning_rate)
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Store the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Set the learning rate of the next steps."""
        steps = self.params["steps"]
        call = min(int(self.model.steps_per_execution.numpy()), max(steps - batch, 1))
        length = self._epochs * steps
        done = self._epoch % self._epochs * steps + batch
        self.model.optimizer.learning_rate = self._rate * float(
            np.mean([cosine(done + i, length) for i in range(call)])
        )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Store the weights at the end of a cycle."""
        if (epoch + 1) % self._epochs == 0:
            self.weights.append(self.model.network.get_weights())
            self.weights = self.weights[-(self.last or self.cycles) :]

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Restore the learning rate of the optimizer."""
        self.model.optimizer.learning_rate = self._rate

    def models(self) -> list[MultiTaskModel]:
        """Return the snapshots as models, not compiled, with the state of balancer and tasks at the end of training.

        Raises:
            RuntimeError: if no cycle has ended.
        """
        if not self.weights:
            raise RuntimeError("There is no snapshot yet; pass the callback to `fit` for at least one cycle.")
        return [_copy(self.model, weights) for weights in self.weights]


def cosine(step: int, length: int) -> float:
    """Return the factor of the initial rate at a step, for cycles of `length` steps.

    Example:
        >>> [round(cosine(step, 4), 3) for step in range(6)]
        [1.0, 0.854, 0.5, 0.146, 1.0, 0.854]
    """
    return 0.5 * (1.0 + math.cos(math.pi * (step % length) / length))


def member_seeds(recipe: Callable[[int], MultiTaskModel], count: int, first: int = 0) -> list[MultiTaskModel]:
    """Deep ensembles: train models that differ only in their seed: `first`, `first` + 1, ....

    Use it if you can afford several trainings, otherwise `Snapshots`; `ensemble` combines the models.

    Args:
        recipe: function from a seed to a trained model. It should pass the seed to the network and to the model, so
            that initial values, dropout, the order of the rows and negatives differ.
        count: number of models.
        first: the first seed.

    Reference:
        Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS
        2017, https://arxiv.org/abs/1612.01474, in which different seeds suffice.

    Cost: `count` trainings.
    """
    require_positive_int(count=count)
    return [recipe(seed) for seed in range(first, first + count)]


def _copy(model: MultiTaskModel, weights: list[np.ndarray]) -> Any:
    network = keras.models.clone_model(model.network)
    network.set_weights(weights)
    return model.with_network(network)

"""Reptile: meta-learning by the mean of the adapted values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.adaptation.meta_gradient import descend
from tfmtl.adaptation.meta_learner import MetaLearner
from tfmtl.data import Batch
from tfmtl.models import MultiTaskModel


class Reptile(MetaLearner):
    """Reptile: moves the initial values towards the values adapted to each task.

    Use it where `MAML` costs too much: it needs no second derivatives. By default it adapts all parts except the
    embeddings.

    theta <- theta + meta_rate mean over tasks (theta'_task - theta), theta' after `inner_steps` steps of gradient
    descent on all rows of the task, support and query. Parts that `adapt` does not name are not changed.

    Args:
        model: a compiled model.
        inner_rate, inner_steps, adapt: see `MetaLearner`. With a single step it is ordinary training.
        meta_rate: epsilon, in (0, 1].

    Reference:
        Nichol, Achiam and Schulman, "On First-Order Meta-Learning Algorithms", 2018, https://arxiv.org/abs/1803.02999,
        section 3; several tasks per step, as in the batch version of equation 1.

    Cost: `inner_steps` gradients per task.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        inner_rate: float = 0.05,
        inner_steps: int = 5,
        *,
        meta_rate: float = 0.5,
        adapt: str | Sequence[str] = "all",
    ) -> None:
        super().__init__(model, inner_rate, inner_steps, adapt)
        require(0 < meta_rate <= 1, "`meta_rate` must lie in (0, 1].", meta_rate=meta_rate)
        self.meta_rate = meta_rate

    def learn(self, batch: Batch, support: tf.Tensor, query: tf.Tensor) -> tuple[tf.Tensor, list[Any]]:
        """Return the loss after the steps and the change of each adapted variable."""
        rows = tf.concat([support, query], axis=0)
        before = [tf.identity(v) for v in self.adapted]
        descend(lambda: self._loss_on(batch, rows), self.adapted, self.inner_rate, self.inner_steps)
        loss = self._loss_on(batch, rows)
        changes = [v - start for v, start in zip(self.adapted, before, strict=True)]
        for variable, start in zip(self.adapted, before, strict=True):
            variable.assign(start)
        return loss, changes

    def update(self, results: Sequence[list[Any]]) -> None:
        """Add the mean change times `meta_rate` to each variable."""
        for variable, changes in zip(self.adapted, zip(*results, strict=True), strict=True):
            variable.assign_add(self.meta_rate / len(changes) * tf.add_n(list(changes)))
        self.model.optimizer.iterations.assign_add(1)  # the draws of negatives depend on it

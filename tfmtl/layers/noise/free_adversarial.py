"""Adversarial training that updates the weights and the perturbations by one backward pass."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.noise.adversarial import AdversarialTraining
from tfmtl.layers.noise.perturbations import Tensors, directions, projected, radii


@register
class FreeAdversarial(AdversarialTraining):
    """Free adversarial training: replay each batch, with perturbations from the gradients of the preceding replay.

    Use it instead of `Adversarial` if time is short: an update costs as much as one without an attack. Give it to
    `Regularization(adversarial=...)`, and train for 1 / `replays` of the epochs.

    A batch makes `replays` updates of the weights, with the loss at the encodings z + delta, and

        delta_0 = 0, delta_i+1 = P(delta_i + r g_i / |g_i|)

    row by row and encoding by encoding, with g_i the gradient of update i by the encodings, P the projection to
    |delta| <= r, and r = strength sqrt(mean_b |z_b|^2).

    Args:
        strength: as in `AdversarialTraining`.
        replays: updates for each batch; 1 trains as without an attack.

    Example:
        >>> from tfmtl.models import Regularization
        >>> Regularization(adversarial=FreeAdversarial(replays=3)).adversarial.replays
        3

    Reference:
        Shafahi et al., "Adversarial Training for Free!", NeurIPS 2019, https://arxiv.org/abs/1904.12843, algorithm 1,
        there with perturbations that one batch hands to the next, here from 0 for each batch, since the rows differ.

    Cost: no pass more than the updates without an attack.
    """

    def __init__(self, strength: float = 0.1, replays: int = 4, **kwargs: Any) -> None:
        super().__init__(strength, **kwargs)
        require_positive_int(replays=replays)
        self.replays = replays

    @property
    def idle(self) -> bool:
        """Whether there is one update per batch."""
        return self.replays == 1

    def next_shifts(self, encodings: Tensors, gradients: Tensors, shifts: Tensors) -> list[tf.Tensor]:
        """Return the perturbations of the next replay.

        Args:
            encodings: the encodings z [B, d] of this replay.
            gradients: of the objective by these encodings.
            shifts: their perturbations; empty in the first replay.
        """
        limits, moves = radii(encodings, self.strength), directions(gradients)
        before = shifts or [tf.zeros_like(move) for move in moves]
        moved = [shift + r * move for shift, r, move in zip(before, limits, moves, strict=True)]
        return projected(moved, limits)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "replays": self.replays}

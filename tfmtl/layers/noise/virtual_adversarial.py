"""Virtual adversarial training: perturbations that change the predictions, without labels."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require_positive_int
from tfmtl._keras import register
from tfmtl.layers.noise.adversarial import AdversarialLoss, FurtherPasses, TaskLosses
from tfmtl.layers.noise.perturbations import directions, radii, random_directions

_PROBE = 0.1
"""Length of the random first perturbation in units of the radius: small, with a divergence above rounding errors."""


@register
class VirtualAdversarial(AdversarialLoss):
    """Virtual adversarial training (VAT): keep the predictions equal near the encodings of each row.

    Use it when most rows lack the label of a task: it needs no labels, so that it learns from all rows. Give it to
    `Regularization(adversarial=...)`.

    The loss of task k is L_k(z) + weight D_k(p(z), p(z + delta)), for the encodings z of query, candidate and context,
    with D_k the task's `distillation_loss` at temperature 1, without a gradient through p(z):

        d_0 = +-u, d_i+1 = g_i / |g_i|, g_i = sum_k dD_k/dd (p(z), p(z + 0.1 r d_i)), delta = r d_iterations

    row by row and encoding by encoding, for a random direction u of the step and a random sign of the row, and
    r = strength sqrt(mean_b |z_b|^2). D is KL for classes and events, the squared difference of standardised values
    for numbers, and KL between the scores of the batch's candidates for retrieval, which takes its positive rows.
    Ranking tasks take all rows.

    Args:
        strength, weight: as in `AdversarialLoss`.
        iterations: steps of the power iteration that finds the direction of largest change.

    Example:
        >>> from tfmtl.models import Regularization
        >>> Regularization(adversarial=VirtualAdversarial(weight=2.0)).adversarial.weight
        2.0

    Reference:
        Miyato et al., "Virtual Adversarial Training: A Regularization Method for Supervised and Semi-Supervised
        Learning", TPAMI 2019, https://arxiv.org/abs/1704.03976, algorithm 1, here at encodings with a relative radius,
        and for any task.

    Cost: that of `Adversarial` with as many steps.
    """

    def __init__(self, strength: float = 0.1, weight: float = 1.0, iterations: int = 1, **kwargs: Any) -> None:
        super().__init__(strength, weight, **kwargs)
        require_positive_int(iterations=iterations)
        self.iterations = iterations

    def adversarial_losses(self, passes: FurtherPasses) -> TaskLosses:
        """Return the divergences at the encodings where they are about largest."""
        limits = radii(passes.encodings, self.strength)
        moves = random_directions(passes.encodings, passes.seed)
        for _ in range(self.iterations):
            probes = [_PROBE * r * move for r, move in zip(limits, moves, strict=True)]
            moves = directions(passes.divergence_gradients(probes))
        return passes.divergences([r * move for r, move in zip(limits, moves, strict=True)])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "iterations": self.iterations}

"""Adversarial training on the gradients of the tasks' losses."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Protocol

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.marks import EncodingMark
from tfmtl.layers.noise.perturbations import Tensors, ascent, radii

TaskLosses = dict[str, tuple[tf.Tensor, tf.Tensor]]
"""By task its mean loss over its rows, and the weight of these rows."""


class FurtherPasses(Protocol):
    """The further passes that a training step can make from its encodings on; `tfmtl.models` implements it."""

    @property
    def encodings(self) -> Sequence[tf.Tensor]:
        """The encodings [B, d] of the first pass."""

    @property
    def seed(self) -> tf.Tensor:
        """Two integers [2] that differ from step to step."""

    def loss_gradients(self, shifts: Tensors | None = None) -> Tensors:
        """Return the gradients of the objective by the encodings moved by shifts; at the first pass without shifts."""

    def divergence_gradients(self, shifts: Tensors) -> Tensors:
        """Return the gradients of the sum of the tasks' divergences by the shifts."""

    def losses(self, shifts: Tensors) -> TaskLosses:
        """Return the tasks' losses at encodings moved by constant shifts, in a pass that trains."""

    def divergences(self, shifts: Tensors) -> TaskLosses:
        """Return the tasks' divergences of the outputs at moved encodings from those of the first pass, likewise."""


class AdversarialTraining(EncodingMark, abc.ABC):
    """The base of methods that train against perturbations of the encodings; in inference an identity layer.

    `Regularization(adversarial=...)` takes an instance, and the network has a copy of it at each role's encoding.

    Args:
        strength: radius of the perturbations in units of the root mean square of the encodings' row lengths, above 0.
    """

    def __init__(self, strength: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(strength > 0, "`strength` must be above 0.", strength=strength)
        self.strength = strength

    @property
    @abc.abstractmethod
    def idle(self) -> bool:
        """Whether training is exactly the one without it."""

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "strength": self.strength}


class AdversarialLoss(AdversarialTraining, abc.ABC):
    """The base of methods with a further loss: that of task k is L_k + weight A_k, with A_k from `adversarial_losses`.

    Args:
        strength: as in `AdversarialTraining`.
        weight: factor of the adversarial losses; 0 trains as without them.
    """

    def __init__(self, strength: float = 0.1, weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(strength, **kwargs)
        require(weight >= 0, "`weight` must be 0 or more.", weight=weight)
        self.weight = weight

    @property
    def idle(self) -> bool:
        """Whether the weight is 0."""
        return self.weight == 0

    @abc.abstractmethod
    def adversarial_losses(self, passes: FurtherPasses) -> TaskLosses:
        """Return A_k and the weight of its rows by task."""

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weight": self.weight}


@register
class Adversarial(AdversarialLoss):
    """Adversarial training (FGSM, PGD): also minimize the losses at the worst encodings near those of each row.

    Use it if served features are noisy or users may choose them to their advantage; on clean rows it rarely helps. Give
    it to `Regularization(adversarial=...)`.

    The loss of task k is L_k(z) + weight L_k(z + delta), for the encodings z of query, candidate and context and

        delta_0 = 0, delta_i+1 = P(delta_i + a r g_i / |g_i|), g_i = dL/dz (z + delta_i), delta = delta_steps

    row by row, with L the balancer's objective, P the projection to |delta| <= r, and r = strength sqrt(mean_b |z_b|^2)
    for each encoding, without a gradient through delta and r. One step is the fast gradient method, more steps are
    projected gradient descent. An encoding also holds the numbers of its role, as the network reads them, with their
    flags of missing values, so that dense inputs are perturbed together with the embeddings. The encodings are dense,
    so that the gradients of tables stay sparse. Parts of a network that read features past these encodings, such as a
    trunk with tables of its own, see no perturbation there.

    Args:
        strength, weight: as in `AdversarialLoss`.
        steps: steps of the attack.
        step_size: a, the length of a step in units of the radius; by default min(1, 2.5 / steps).

    Example:
        >>> from tfmtl.models import Regularization
        >>> Regularization(adversarial=Adversarial(strength=0.05, steps=3)).adversarial.steps
        3

    Reference:
        He et al., "Adversarial Personalized Ranking for Recommendation", SIGIR 2018, https://arxiv.org/abs/1808.03908,
        section 3, there from a trained model on and with a fixed radius; steps and projection are those of Madry et
        al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018,
        https://arxiv.org/abs/1706.06083. Retrieval and rankings trained so recommend popular items even more: Anelli et
        al., "Understanding the Effects of Adversarial Personalized Ranking Optimization Method on Recommendation
        Quality", 2021, https://arxiv.org/abs/2107.13876; compare the lists also by `evaluation.catalog_metrics`.

    Cost: one more pass from the encodings on, forward and backward, and one more backward pass to the encodings;
    another forward and backward pass for each further step.
    """

    def __init__(
        self, strength: float = 0.1, weight: float = 1.0, steps: int = 1, step_size: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(strength, weight, **kwargs)
        require_positive_int(steps=steps)
        require(step_size is None or step_size > 0, "`step_size` must be above 0, or None.", step_size=step_size)
        self.steps = steps
        self.step_size = step_size

    def adversarial_losses(self, passes: FurtherPasses) -> TaskLosses:
        """Return the losses at the attacked encodings."""
        return passes.losses(self.attack(passes))

    def attack(self, passes: FurtherPasses) -> list[tf.Tensor]:
        """Return the perturbations delta of the encodings."""
        limits = radii(passes.encodings, self.strength)
        size = min(1.0, 2.5 / self.steps) if self.step_size is None else self.step_size
        first = [tf.zeros_like(z, tf.float32) for z in passes.encodings]
        shifts = ascent(lambda _: passes.loss_gradients(), first, limits, 1, size)
        return ascent(passes.loss_gradients, shifts, limits, self.steps - 1, size)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "steps": self.steps, "step_size": self.step_size}

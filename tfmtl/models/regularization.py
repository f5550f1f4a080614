"""The penalties, noise and augmentation of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfmtl._checks import require, require_fraction, require_type
from tfmtl._keras import keras
from tfmtl.layers import AdversarialTraining, DomainAdversary, MultiTaskLayer, SequenceAugmentation


@dataclasses.dataclass(frozen=True)
class Regularization:
    """The penalties, noise, augmentation and adversarial training of a network: L1, L2, dropout, mixup and more.

    Give it to `build_network`. Everything except the penalties acts in training only. Some parts have arguments of this
    kind themselves: trunks `dropout` and `kernel_regularizer`, gates `gate_temperature`, poolings with attention
    `dropout`, and tasks with classes `label_smoothing`, which changes their loss.

    Attributes:
        l1, l2: penalties on the towers' kernels.
        embedding_l2: penalty on the embeddings that a batch looks up, as their mean over the batch.
        dropout: rate after each layer of the towers, in [0, 1).
        unknown_rate: share of categories replaced by "unknown" in training, so that its embedding is trained; one for
            all or by feature ("" for the others). A rate of the candidate's id of some tenths, such as
            `{"movie_id": 0.3, "": 0.01}`, trains the other features to describe candidates that arrive later.
        context_dropout: rate at which all context features of a row count as missing, in [0, 1), so that the values of
            rows without a context, which `recommend` serves, are trained too. On 150,000 grocery orders 0.05 changes
            the AUC with a context by less than 0.003 and lowers the log loss without one from 4.6 to 0.6.
        embedding_dropout: rate on the coordinates of embeddings, independently for each entry of a list, in [0, 1).
        feature_dropout: rate at which the embedding or the numbers of a feature are set to 0 in a row, in [0, 1); see
            `tfmtl.layers.FeatureDropout`.
        modality_dropout: rate at which a modality counts as missing in a row, in [0, 1); replaces the argument of the
            fusions and needs a fusion.
        expert_dropout: rate at which an expert is left out for a row, in [0, 1), while the weights of the others are
            scaled to sum 1; replaces the argument of the trunk and needs a trunk with it.
        mixup: alpha of the Beta distribution by which rows are mixed in pairs, 0 for none; see below.
        sequence: augmentation of the indices of histories (`IdSequence`), copied for each history; or None.
        adversarial: training against perturbations of the encodings, such as `tfmtl.layers.Adversarial`, copied for
            each role; or None.
        domain: a discriminator of the domains of rows, `tfmtl.layers.DomainAdversary`, copied, against which the
            representations are trained; or None. Not together with mixup, which makes rows of two domains.

    Mixup: h_i <- lambda_i h_i + (1 - lambda_i) h_p(i) for every input h of the trunk, so that ids are mixed as
    encodings. A task of the trunk has the loss of h_i on its row's label with weight lambda_i w_i, and on its partner's
    label with weight (1 - lambda_i) w_p(i); a missing label has no weight. Tasks that do not read the trunk, retrieval
    and tasks of the query, are not mixed: an in-batch softmax has no label to mix.

    Example:
        >>> Regularization(dropout=0.1, mixup=0.2, sequence=SequenceAugmentation(crop=0.4, mask=0.2)).mixup
        0.2

    Reference:
        Verma et al., "Manifold Mixup", ICML 2019, https://arxiv.org/abs/1806.05236, after Zhang et al., "mixup", ICLR
        2018, https://arxiv.org/abs/1710.09412; here the mixed layer is always the same, there it is drawn in each step.
    """

    l1: float = 0.0
    l2: float = 0.0
    embedding_l2: float = 0.0
    dropout: float = 0.0
    unknown_rate: float | Mapping[str, float] = 0.01
    context_dropout: float = 0.05
    embedding_dropout: float = 0.0
    feature_dropout: float = 0.0
    modality_dropout: float = 0.0
    expert_dropout: float = 0.0
    mixup: float = 0.0
    sequence: SequenceAugmentation | None = None
    adversarial: AdversarialTraining | None = None
    domain: DomainAdversary | None = None

    def __post_init__(self) -> None:
        for name in ("l1", "l2", "embedding_l2", "mixup"):
            require(getattr(self, name) >= 0, f"`{name}` must be 0 or more.", **{name: getattr(self, name)})
        rates = [field.name for field in dataclasses.fields(self) if field.name.endswith(("dropout", "_rate"))]
        require_fraction(**{name: getattr(self, name) for name in rates if name != "unknown_rate"})
        for rate in self._unknown_rates.values():
            require_fraction(unknown_rate=rate)
        if self.sequence is not None:
            cure = "Pass an instance such as SequenceAugmentation(crop=0.4)."
            require_type(self.sequence, SequenceAugmentation, "sequence", cure)
        if self.adversarial is not None:
            cure = "Pass an instance such as Adversarial(strength=0.1)."
            require_type(self.adversarial, AdversarialTraining, "adversarial", cure)
        if self.domain is not None:
            require_type(self.domain, DomainAdversary, "domain", 'Pass an instance such as DomainAdversary("store").')
            rule = "`mixup` mixes rows of two domains; leave out either `mixup` or `domain`."
            require(not self.mixup, rule, mixup=self.mixup, domain=self.domain.column)

    @property
    def _unknown_rates(self) -> Mapping[str, float]:
        return self.unknown_rate if isinstance(self.unknown_rate, Mapping) else {"": self.unknown_rate}

    @property
    def own_unknown_rates(self) -> list[str]:
        """The features with an `unknown_rate` of their own."""
        return [name for name in self._unknown_rates if name]

    def unknown_rate_of(self, feature: str) -> float:
        """Return the `unknown_rate` of a feature."""
        return self._unknown_rates.get(feature, self._unknown_rates.get("", 0.01))

    def kernel_regularizer(self) -> Any:
        """Return the Keras regularizer of the towers' kernels, or None."""
        return keras.regularizers.L1L2(self.l1, self.l2) if self.l1 or self.l2 else None

    def regularized(self, trunk: MultiTaskLayer | None) -> MultiTaskLayer | None:
        """Return the trunk, or a copy of it with `expert_dropout` if that is above 0."""
        if not self.expert_dropout:
            return trunk
        require(trunk is not None, "`expert_dropout` needs a trunk with experts; pass one such as MMoE().")
        assert trunk is not None
        return trunk.with_expert_dropout(self.expert_dropout)

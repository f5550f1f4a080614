"""A mixture of shared experts of which each task settles on few (DSelect-k)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import register, seed_of
from tfmtl.layers.experts.dselect_k_gate import DSelectKGate, require_selectors
from tfmtl.layers.experts.gating import Gate
from tfmtl.layers.trunks.mixture_of_experts import MixtureOfExperts


@register
class DSelectK(MixtureOfExperts):
    """Shared experts, of which each task learns to read at most k.

    y_k = sum_e w_ke f_e(x), experts f_e of dense layers `units`, weights w from a `DSelectKGate`.

    Args:
        task_names: names of the tasks.
        num_experts: number of experts.
        num_selectors: most experts that a task reads once its gate has settled.
        gamma: width of the gates' smooth step.
        static: whether a task's choice is one for all rows instead of one for each.
        entropy_weight: weight of the penalty on the entropy of every task's selectors.
        **kwargs: `units`, `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer` and `seed` of the
            experts, see `MMoE`; the gates start near 0 whatever the initializer.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}.

    Example:
        >>> import tensorflow as tf
        >>> trunk = DSelectK(["click", "buy"], num_experts=8, num_selectors=2, units=[4])
        >>> trunk(tf.ones([2, 5]))["click"].shape, trunk.gates(tf.ones([2, 5])).shape
        (TensorShape([2, 4]), TensorShape([2, 2, 8]))

    Reference:
        Hazimeh et al., "DSelect-k: Differentiable Selection in the Mixture of Experts with Applications to Multi-Task
        Learning", NeurIPS 2021, https://arxiv.org/abs/2106.03760; for where the gates differ see `DSelectKGate`. They
        have no temperature, whose part `gamma` plays, and drop no experts in training: a selector that has settled has
        no other expert to read.

    Cost: that of `MMoE`; experts without weight are computed, too.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        num_experts: int = 4,
        num_selectors: int = 2,
        gamma: float = 1.0,
        static: bool = False,
        entropy_weight: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, num_experts, **kwargs)
        require_selectors(num_experts, num_selectors, gamma, entropy_weight)
        self.num_selectors = num_selectors
        self.gamma = gamma
        self.static = static
        self.entropy_weight = entropy_weight

    def make_gate(self, kernel_initializer: Any) -> Gate:
        """Return the gate, whose initial values are small whatever the experts' initializer."""
        return DSelectKGate(
            len(self.task_names), self.num_experts, num_selectors=self.num_selectors, gamma=self.gamma,
            static=self.static, entropy_weight=self.entropy_weight, seed=seed_of("gate", self.seed),
            name="gate", dtype=self.dtype_policy,
        )  # fmt: skip

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the numbers of experts and selectors, the penalty, the experts' width and dropout."""
        return {
            "num_experts": hp.Choice("dselectk_num_experts", [4, 8, 16], default=4),
            "num_selectors": hp.Int("dselectk_num_selectors", 1, 4, default=2),
            "entropy_weight": hp.Float("dselectk_entropy_weight", 1e-5, 1e-1, sampling="log", default=1e-3),
            "units": (hp.Choice("dselectk_units", [16, 32, 64], default=32),),
            "dropout": hp.Float("dselectk_dropout", 0.0, 0.4, step=0.1, default=0.0),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_selectors": self.num_selectors,
            "gamma": self.gamma,
            "static": self.static,
            "entropy_weight": self.entropy_weight,
        }

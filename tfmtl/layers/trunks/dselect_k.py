"""DSelect-k: a mixture of shared experts in which each task settles on few of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._keras import register, seed_of
from tfmtl.layers.dense_stack import StackArguments, search_dropout, search_units
from tfmtl.layers.experts.dselect_k_gate import DSelectKGate, require_selectors
from tfmtl.layers.experts.gating import Gate
from tfmtl.layers.trunks.mixture_of_experts import MixtureOfExperts


@register
class DSelectK(MixtureOfExperts):
    """DSelect-k: shared experts, of which each task learns to read at most k.

    Use it with many experts, when each task should read few of them and the choice should be visible.

    y_k = sum_e w_ke f_e(x), experts f_e of dense layers `units`, weights w from a `DSelectKGate`.

    Args:
        task_names: names of the tasks.
        num_experts: number of experts.
        units: widths of each expert's dense layers.
        num_selectors: k, the largest number of experts that a task reads once its gate has settled.
        gamma: width of the gates' smooth step.
        static: whether a task has one choice for all rows instead of one choice per row.
        entropy_weight: weight of the penalty on the entropy of every task's selectors.
        **kwargs: `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer` and `seed` of the experts: see
            `MMoE`. The initial values of the gates are near 0 for every initializer.

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
        Learning", NeurIPS 2021, https://arxiv.org/abs/2106.03760; `DSelectKGate` lists the differences from it. The
        gates have no temperature, since `gamma` has the same effect, and never drop experts in training: a selector
        that has settled has no other expert to read.

    Cost: that of `MMoE`; experts without weight are computed, too.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        num_experts: int = 4,
        num_selectors: int = 2,
        *,
        units: Sequence[int] = (32,),
        gamma: float = 1.0,
        static: bool = False,
        entropy_weight: float = 1e-3,
        **kwargs: Unpack[StackArguments],
    ) -> None:
        super().__init__(task_names, num_experts, units, **kwargs)
        require_selectors(num_experts, num_selectors, gamma, entropy_weight)
        self.num_selectors = num_selectors
        self.gamma = gamma
        self.static = static
        self.entropy_weight = entropy_weight

    def make_gate(self, kernel_initializer: Any) -> Gate:
        """Return a gate with initial values near 0, independent of the experts' initializer."""
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
            "units": search_units(hp, "dselectk", 32),
            "dropout": search_dropout(hp, "dselectk"),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_selectors": self.num_selectors,
            "gamma": self.gamma,
            "static": self.static,
            "entropy_weight": self.entropy_weight,
        }

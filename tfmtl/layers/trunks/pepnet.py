"""PEPNet: one tower per task, with gates by the domain and by the user on its input and hidden layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.dense_stack import StackArguments, search_dropout, search_units
from tfmtl.layers.experts.gate_nu import GateNU
from tfmtl.layers.experts.prior_gate import PriorGate
from tfmtl.layers.trunks.base import FeatureEncodings
from tfmtl.layers.trunks.dense_trunk import DenseTrunk, width_of

_INPUTS = ("pair", "domain", "personal")


@register
class PEPNet(DenseTrunk):
    """PEPNet: one tower of dense layers per task, gated by the domain (EPNet) and by user and item (PPNet, as in LHUC).

    Use it when one model serves several domains or pages, and users differ strongly in their behaviour.

    h_0 = x * gate([domain, stop(x)]) for all tasks; h_k,l = act(W_k,l (h_k,l-1 * gate_k,l([personal, stop(h_0)]))
    + b_k,l) for task k and level l, elementwise products, gates of `GateNU`: 2 sigmoid of two dense layers, around 1 at
    the start. `stop` blocks the gradient.

    In a network, `connect` encodes the features of both priors with the shared tables.

    Args:
        task_names: names of the tasks.
        domain: names of the features of a row's domain, scenario or context, such as the page.
        personal: names of the features that identify user and item, such as their ids.
        units: widths of each tower.
        gate_units: width of the gates' hidden layers.
        **kwargs: `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`: see `SharedBottom`.

    Call arguments:
        inputs: {"pair": [B, d], "domain": [B, p], "personal": [B, q]}, or one tensor [B, d] for all.

    Returns:
        {task: [B, units[-1]]}.

    Raises:
        ValueError: if an argument is out of range, or the schema lacks a feature.

    Example:
        >>> trunk = PEPNet(["click", "buy"], domain=["page"], personal=["user", "item"], units=[8, 4])
        >>> trunk({"pair": tf.ones([2, 5]), "domain": tf.ones([2, 1]), "personal": tf.ones([2, 4])})["buy"].shape
        TensorShape([2, 4])

    Reference:
        Chang et al., "PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized Prior
        Information", KDD 2023, https://arxiv.org/abs/2302.01115. Each level's input has a gate, also
        the first one's; the last level's output, the input of the task's head, has none.

    Cost: one matrix product per level and input for all towers and two for their gates; a gate of the first level has
    gate_units (q + 2 d) weights per task.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        *,
        domain: Sequence[str],
        personal: Sequence[str],
        units: Sequence[int] = (64, 32),
        gate_units: int = 32,
        **kwargs: Unpack[StackArguments],
    ) -> None:
        super().__init__(task_names, units, **kwargs)
        for argument, names in (("domain", domain), ("personal", personal)):
            valid = not isinstance(names, str) and bool(names) and len(set(names)) == len(names)
            require(valid, f"`{argument}` must name one or more distinct features.", **{argument: names})
        require_positive_int(gate_units=gate_units)
        self.domain = tuple(domain)
        self.personal = tuple(personal)
        self.gate_units = gate_units

    def connect(self, pair: Any, features: FeatureEncodings) -> dict[str, Any]:
        """Add the trunk to a network, with the encodings of the features that are its priors."""
        priors = {"domain": features.encode(self.domain), "personal": features.encode(self.personal)}
        outputs: dict[str, Any] = self({"pair": pair, **priors})
        return outputs

    def build_layers(self, input_shape: Any) -> None:
        """Create gates and towers."""
        width, domain, personal = (width_of(self._by_name(input_shape)[name]) for name in _INPUTS)
        tasks = len(self.task_names)
        self._towers = [self.make_experts(f"tower_{i}", tasks, [units]) for i, units in enumerate(self.units)]
        self._domain_gate = PriorGate(
            self.gate_units, kernel_regularizer=self.kernel_regularizer,
            **{**self.part_arguments("domain_gate"), "seed": self.seed},
        )  # fmt: skip
        self.build_part(self._domain_gate, ([None, width], [None, domain]))
        depths = (width, *self.units[:-1])
        self._gates = [self._make_gate(f"tower_gate_{i}", depth) for i, depth in enumerate(depths)]
        for gate, tower, depth in zip(self._gates, self._towers, depths, strict=True):
            self.build_part(gate, [None, personal + width])
            self.build_part(tower, [None, tasks, depth])

    def _make_gate(self, name: str, units: int) -> GateNU:
        return GateNU(
            len(self.task_names), units, self.gate_units, kernel_regularizer=self.kernel_regularizer,
            **self.part_arguments(name),
        )  # fmt: skip

    def _by_name(self, inputs: Any) -> Mapping[str, Any]:
        """Return the inputs, or their shapes, by name."""
        return inputs if isinstance(inputs, Mapping) else dict.fromkeys(_INPUTS, inputs)

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, tf.Tensor]:
        pair, domain, personal = (self._by_name(inputs)[name] for name in _INPUTS)
        gated = self.mark_shared(self._domain_gate((pair, domain)))
        # A copy: the domain's gate may read the same tensor, and the towers' gates must read a marked one only.
        prior = self.mark_shared(tf.identity(personal))
        context = tf.concat([prior, tf.stop_gradient(gated)], 1)
        hidden = gated[:, tf.newaxis]
        for gate, tower in zip(self._gates, self._towers, strict=True):
            hidden = tower(hidden * gate(context), training=training)
        return self.by_task(hidden)

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """The variables of the domain's gate; each tower and its gates belong to one task."""
        return list(self._domain_gate.trainable_weights)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search widths, depth and dropout."""
        return {
            "units": search_units(hp, "pepnet", 64, depth=2),
            "gate_units": hp.Choice("pepnet_gate_units", [8, 16, 32], default=16),
            "dropout": search_dropout(hp, "pepnet"),
        }

    def get_config(self) -> dict[str, Any]:
        own = {"domain": list(self.domain), "personal": list(self.personal), "gate_units": self.gate_units}
        return {**super().get_config(), **own}

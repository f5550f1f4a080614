"""PEPNet: a tower a task, its inputs and hidden layers scaled by gates that know the domain and the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, seed_of, tf
from tfmtl.layers.experts.gate_nu import GateNU
from tfmtl.layers.experts.prior_gate import PriorGate
from tfmtl.layers.trunks.base import FeatureEncodings
from tfmtl.layers.trunks.dense_trunk import DenseTrunk, width_of

_INPUTS = ("pair", "domain", "personal")


@register
class PEPNet(DenseTrunk):
    """Towers of dense layers, one a task, gated by the domain (EPNet) and by user and item (PPNet).

    h_0 = x * gate([domain, stop(x)]) for all tasks; h_k,l = act(W_k,l (h_k,l-1 * gate_k,l([personal, stop(h_0)]))
    + b_k,l) for task k and level l, elementwise products, gates of `GateNU`: 2 sigmoid of two dense layers, around 1 at
    the start. `stop` passes no gradient on.

    In a network both priors are encodings of features, by the tables that all share (`connect`).

    Args:
        task_names, units, activation, dropout, kernel_initializer, kernel_regularizer, seed: see `DenseTrunk`; `units`
            are the widths of a tower, the regulariser is that of towers and gates.
        domain: names of the features that say in which domain, scenario or context a row arose.
        personal: names of the features that say who and what: the ids of user and item.
        gate_units: width of the gates' hidden layers.

    Call arguments:
        inputs: {"pair": [B, d], "domain": [B, p], "personal": [B, q]}, or one tensor [B, d] in place of all.

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
        Information", KDD 2023, https://arxiv.org/abs/2302.01115. A gate for each level's input, the first one's
        included, and none for the last level's output, which the task's head reads.

    Cost: one matrix product an input and level for all towers and two for their gates; a gate of the first level has
    gate_units (q + 2 d) weights a task.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        *,
        domain: Sequence[str],
        personal: Sequence[str],
        units: Sequence[int] = (64, 32),
        gate_units: int = 32,
        **kwargs: Any,
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
            self.gate_units, self.initializer_of("domain_gate"), self.kernel_regularizer, self.seed,
            name="domain_gate", dtype=self.dtype_policy,
        )  # fmt: skip
        self.build_part(self._domain_gate, ([None, width], [None, domain]))
        depths = (width, *self.units[:-1])
        self._gates = [self._make_gate(f"tower_gate_{i}", depth) for i, depth in enumerate(depths)]
        for gate, tower, depth in zip(self._gates, self._towers, depths, strict=True):
            self.build_part(gate, [None, personal + width])
            self.build_part(tower, [None, tasks, depth])

    def _make_gate(self, name: str, units: int) -> GateNU:
        return GateNU(
            len(self.task_names), units, self.gate_units, self.initializer_of(name), self.kernel_regularizer,
            seed_of(name, self.seed), name=name, dtype=self.dtype_policy,
        )  # fmt: skip

    def _by_name(self, inputs: Any) -> Mapping[str, Any]:
        """Return the inputs, or their shapes, by name."""
        return inputs if isinstance(inputs, Mapping) else dict.fromkeys(_INPUTS, inputs)

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, tf.Tensor]:
        """Return the towers' outputs."""
        pair, domain, personal = (self._by_name(inputs)[name] for name in _INPUTS)
        gated = self.mark_shared(self._domain_gate((pair, domain)))
        # A copy, since the gate of the domain may read the same tensor: the copy is all that the towers' gates read.
        prior = self.mark_shared(tf.identity(personal))
        context = tf.concat([prior, tf.stop_gradient(gated)], 1)
        hidden = gated[:, tf.newaxis]
        for gate, tower in zip(self._gates, self._towers, strict=True):
            hidden = tower(hidden * gate(context), training=training)
        return dict(zip(self.task_names, tf.unstack(hidden, axis=1), strict=True))

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """The variables of the domain's gate; towers and their gates serve one task."""
        return list(self._domain_gate.trainable_weights)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search widths, depth and dropout."""
        width = hp.Choice("pepnet_units", [32, 64, 128], default=64)
        return {
            "units": (width,) * hp.Int("pepnet_depth", 1, 3, default=2),
            "gate_units": hp.Choice("pepnet_gate_units", [8, 16, 32], default=16),
            "dropout": hp.Float("pepnet_dropout", 0.0, 0.4, step=0.1, default=0.0),
        }

    def get_config(self) -> dict[str, Any]:
        own = {"domain": list(self.domain), "personal": list(self.personal), "gate_units": self.gate_units}
        return {**super().get_config(), **own}

"""The gate of DSelect-k: it settles on few experts by a differentiable choice of their binary codes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, register, spawn, tf
from tfmtl.layers.experts.gating import Gate


@register
class DSelectKGate(Gate):
    """Gate of DSelect-k: a mixture of k selectors, each of which settles on one expert during training.

    Use it instead of `SoftmaxGate` if each reader should end with few experts; `DSelectK` is the trunk with this gate.

    w_g = sum_s softmax(a_g)_s r(z_gs). r(z)_e is the product over the bits of e's code of S(z_l) for a one and
    1 - S(z_l) for a zero, with the smooth step S(t) = -2 t^3 / gamma^3 + 3 t / (2 gamma) + 1/2, which is 0 below
    -gamma/2 and 1 above gamma/2. a and z are affine in the reader's input, or learned constants if `static`.

    Args:
        num_gates, num_experts, readable: see `Gate`.
        num_selectors: k, the largest number of experts that a settled gate reads.
        gamma: width of the smooth step; the smaller it is, the sooner a bit is decided, and then its gradient is 0.
        static: whether there is one choice for all rows instead of one choice per row.
        entropy_weight: weight of the penalty on the entropy of every reader's selectors r, summed over readers and
            selectors, mean over rows; raise it if selectors do not settle on one expert.
        seed: seed of the initial values.

    Call arguments:
        inputs: [B, d], or [B, G, d].

    Returns:
        [B, G, E].

    Example:
        >>> DSelectKGate(2, 5, num_selectors=1)(tf.ones([4, 3])).shape
        TensorShape([4, 2, 5])

    Reference:
        Hazimeh et al., "DSelect-k: Differentiable Selection in the Mixture of Experts with Applications to Multi-Task
        Learning", NeurIPS 2021, https://arxiv.org/abs/2106.03760. If the number of experts is no power of two, some
        codes have no expert. The authors penalise selectors with such a code, and weights may sum to less than 1. Here
        these codes belong to the first experts again: the weights sum to 1 without a penalty, but initially the first
        experts weigh up to twice as much as the others. z starts within gamma/100 of 0, where the step is steepest.
        Inputs should be of order 1, since large inputs may decide bits at the first step.

    Cost: one matrix product, and 2^bits products of `bits` factors per reader, selector and row.
    """

    def __init__(
        self,
        num_gates: int,
        num_experts: int,
        readable: Sequence[Sequence[bool]] | None = None,
        num_selectors: int = 2,
        gamma: float = 1.0,
        static: bool = False,
        entropy_weight: float = 1e-3,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_gates, num_experts, readable, **kwargs)
        require_selectors(num_experts, num_selectors, gamma, entropy_weight)
        self.num_selectors = num_selectors
        self.gamma = gamma
        self.static = static
        self.entropy_weight = entropy_weight
        self.seed = seed
        self._num_bits = max(1, math.ceil(math.log2(num_experts)))

    def build(self, input_shape: Any) -> None:
        """Create kernels [d, G * n] and biases [G, n] of the bits and of the selectors' mixture."""
        near_0 = keras.initializers.RandomUniform(-self.gamma / 100, self.gamma / 100)
        initializers = (spawn(near_0, i, self.seed) for i in itertools.count())
        depth, gates, selectors = int(input_shape[-1]), self.num_gates, self.num_selectors
        self._kernels, self._biases = {}, {}
        for part, width in {"bits": selectors * self._num_bits, "mixture": selectors}.items():
            self._biases[part] = self.add_weight(f"gate_{part}_bias", [gates, width], initializer=next(initializers))
            if not self.static:
                shape = [depth, gates * width]
                self._kernels[part] = self.add_weight(f"gate_{part}", shape, initializer=next(initializers))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return the weights [B, G, E] and add the penalty to the layer's losses."""
        selectors = self._selectors(self._affine("bits", inputs))
        if self.entropy_weight:
            chances = tf.cast(selectors, tf.float32)
            entropies = -tf.reduce_sum(tf.math.xlogy(chances, chances), axis=[1, 2, 3])
            rows = tf.cast(tf.size(entropies), tf.float32)
            self.add_loss(self.entropy_weight * tf.math.divide_no_nan(tf.reduce_sum(entropies), rows))
        weights = tf.einsum("bgs,bgse->bge", tf.nn.softmax(self._affine("mixture", inputs)), selectors)
        return tf.broadcast_to(weights, [tf.shape(inputs)[0], self.num_gates, self.num_experts])

    def _affine(self, part: str, inputs: tf.Tensor) -> tf.Tensor:
        """Return the affine function of the inputs [B, G, n], or [1, G, n] if it is the same for all rows."""
        bias = self._biases[part][tf.newaxis]
        return bias if self.static else self.project(inputs, self._kernels[part]) + bias

    def _selectors(self, bits: tf.Tensor) -> tf.Tensor:
        """Return the weights of the experts for each selector, [B, G, k, E], from z [B, G, k * bits]."""
        bits = tf.reshape(bits, [-1, self.num_gates, self.num_selectors, self._num_bits])
        ones = smooth_step(bits, self.gamma)
        codes = tf.ones_like(ones[..., :1])
        for bit in tf.split(ones, self._num_bits, axis=-1):
            codes = tf.concat([codes * (1 - bit), codes * bit], axis=-1)
        return tf.einsum("bgsc,gce->bgse", codes, tf.constant(self._experts_of_codes(), codes.dtype))

    def _experts_of_codes(self) -> np.ndarray:
        """Return [G, codes, E], 1 where a code belongs to an expert: cyclically over the readable experts."""
        table = np.zeros([self.num_gates, 2**self._num_bits, self.num_experts])
        for gate, mask in enumerate(self.readable or [[True] * self.num_experts] * self.num_gates):
            experts = itertools.cycle(np.flatnonzero(mask))
            for code in range(2**self._num_bits):
                table[gate, code, next(experts)] = 1
        return table

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_selectors": self.num_selectors,
            "gamma": self.gamma,
            "static": self.static,
            "entropy_weight": self.entropy_weight,
            "seed": self.seed,
        }


def require_selectors(num_experts: int, num_selectors: int, gamma: float, entropy_weight: float) -> None:
    """Raise `ValueError` unless the arguments of a `DSelectKGate` are in range."""
    require_positive_int(num_selectors=num_selectors)
    rule = f"`num_selectors` must be at most the number of experts, {num_experts}."
    require(num_selectors <= num_experts, rule, num_selectors=num_selectors)
    require(gamma > 0, "`gamma` must be above 0.", gamma=gamma)
    require(entropy_weight >= 0, "`entropy_weight` must be 0 or more.", entropy_weight=entropy_weight)


def smooth_step(t: tf.Tensor, gamma: float = 1.0) -> tf.Tensor:
    """Return the cubic step from 0 at -gamma/2 to 1 at gamma/2, constant outside.

    Example:
        >>> smooth_step(tf.constant([-9.0, -1.0, 0.0, 0.5, 1.0, 9.0]), gamma=2.0).numpy().tolist()
        [0.0, 0.0, 0.5, 0.84375, 1.0, 1.0]
    """
    u = tf.clip_by_value(t / gamma, -0.5, 0.5)
    return -2 * u**3 + 1.5 * u + 0.5

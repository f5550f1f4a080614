"""One optimiser with a learning rate of its own for each part of a network."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

from tfmtl._checks import require, require_type
from tfmtl._keras import keras, register
from tfmtl._trusted import deserialize
from tfmtl.training.split_optimizer import SplitOptimizer


@register
class ScaledRates(SplitOptimizer):
    """Trains some variables at a fraction of an optimiser's learning rate.

    rate(v) = factor(v) rate, for the same optimiser with the same settings: Adam at a tenth of the rate moves a
    weight a tenth as far on the same gradients.

    Args:
        optimizer: a Keras 2 optimiser; gives settings and rate, and is not used itself.
        factors: by pattern of variable names, such as `"query_tower_*"`, a number of at least 0; the first that fits
            counts, and 1 where none does. By parts of a model: `tfmtl.adaptation.layerwise_rates`.
        name: of the optimiser.
        **kwargs: `clipnorm`, `global_clipnorm` or `clipvalue`; by default those of `optimizer`, over all variables.

    `learning_rate` is that of `optimizer`, also for callbacks: the rate they set scales all parts.

    Raises:
        TypeError: if `optimizer` is no Keras 2 optimiser of the current kind.
        ValueError: if a factor is negative.

    Example:
        >>> import tensorflow as tf
        >>> low, high = tf.Variable(1.0, name="tower/kernel"), tf.Variable(1.0, name="head/kernel")
        >>> optimizer = ScaledRates(keras.optimizers.SGD(0.5), {"tower/*": 0.5})
        >>> optimizer.apply_gradients([(tf.constant(1.0), low), (tf.constant(1.0), high)]) and None
        >>> float(low), float(high)
        (0.75, 0.5)

    Reference:
        Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018,
        https://arxiv.org/abs/1801.06146, section 3.2.

    Cost: that of the optimiser.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        factors: Mapping[str, float],
        *,
        name: str = "ScaledRates",
        **kwargs: Any,
    ) -> None:
        require_type(optimizer, keras.optimizers.Optimizer, "optimizer", "Pass an instance such as LazyAdam().")
        require(
            not isinstance(optimizer, SplitOptimizer),
            f"A {type(optimizer).__name__} has several rates already; give a plain optimiser.",
        )
        for pattern, factor in factors.items():
            valid = isinstance(factor, int | float) and factor >= 0
            require(valid, f"The factor of {pattern!r} must be a number of at least 0.", factor=factor)
        clipping = {kind: getattr(optimizer, kind) for kind in _CLIPPING}
        super().__init__(name=name, **{**clipping, **kwargs})
        self.optimizer = optimizer
        self.factors = {pattern: float(factor) for pattern, factor in factors.items()}
        config = {**optimizer.get_config(), **dict.fromkeys(_CLIPPING)}
        self._parts = {
            factor: type(optimizer).from_config({**config, "learning_rate": _Scaled(optimizer, factor)})
            for factor in dict.fromkeys([1.0, *self.factors.values()])
        }

    @property
    def learning_rate(self) -> Any:
        """The rate where the factor is 1."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.optimizer.learning_rate = value

    def factor_of(self, variable: Any) -> float:
        """Return the factor of a variable's rate."""
        name = variable.name.split(":")[0]
        return next((f for pattern, f in self.factors.items() if fnmatch.fnmatchcase(name, pattern)), 1.0)

    def split(self, variables: Iterable[Any]) -> list[tuple[keras.optimizers.Optimizer, list[Any]]]:
        """Return the optimiser of each factor with its part of the variables, in their order."""
        groups: dict[float, list[Any]] = {factor: [] for factor in self._parts}
        for variable in variables:
            groups[self.factor_of(variable)].append(variable)
        return [(self._parts[factor], group) for factor, group in groups.items()]

    def get_config(self) -> dict[str, Any]:
        clipping = {kind: getattr(self, kind) for kind in _CLIPPING}
        inner = keras.optimizers.serialize(self.optimizer)
        return {"name": self.name, "optimizer": inner, "factors": self.factors, **clipping}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> ScaledRates:
        """Return an optimiser without state from its configuration."""
        inner = deserialize(keras.optimizers.deserialize, config["optimizer"], "ScaledRates", custom_objects)
        return cls(**{**config, "optimizer": inner})


_CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue")


class _Scaled(keras.optimizers.schedules.LearningRateSchedule):
    """A fraction of an optimiser's rate, or of its schedule, at a step."""

    def __init__(self, of: keras.optimizers.Optimizer, factor: float) -> None:
        self.of, self.factor = of, factor

    def __call__(self, step: Any) -> Any:
        rate = self.of._learning_rate
        schedule = isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
        return self.factor * (rate(step) if schedule else rate)

    def get_config(self) -> dict[str, Any]:
        return {"of": self.of, "factor": self.factor}

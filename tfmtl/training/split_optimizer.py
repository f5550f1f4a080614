"""The base of optimisers that leave each variable to one of several others."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.training.touched_rows import ExactClipping


class SplitOptimizer(ExactClipping, abc.ABC):
    """Applies gradients by the optimisers of groups of variables, under one clipping; a subclass implements `split`."""

    @abc.abstractmethod
    def split(self, variables: Iterable[Any]) -> list[tuple[keras.optimizers.Optimizer, list[Any]]]:
        """Return every group's optimiser with its part of the variables, in their order."""

    def build(self, var_list: Sequence[Any]) -> None:
        """Create the slots of all groups."""
        if getattr(self, "_built", False):
            return
        super().build(var_list)
        for optimizer, variables in self.split(var_list):
            optimizer.build(variables)
        self._variables.extend(v for part, _ in self.split([]) for v in part.variables)
        self._built = True

    def apply_gradients(
        self, grads_and_vars: Iterable[tuple[Any, Any]], name: str | None = None,
        skip_gradients_aggregation: bool = False, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Apply gradients, each by the optimiser of its variable's group."""
        pairs = list(grads_and_vars)
        if not skip_gradients_aggregation and kwargs.get("experimental_aggregate_gradients", True):
            pairs = self.aggregate_gradients(pairs)
        pairs = [(gradient, variable) for gradient, variable in pairs if gradient is not None]
        with tf.init_scope():
            self.build([variable for _, variable in pairs])
        clipped = self._clip_gradients([gradient for gradient, _ in pairs])
        gradients = {variable.ref(): g for g, (_, variable) in zip(clipped, pairs, strict=True)}
        for optimizer, variables in self.split([variable for _, variable in pairs]):
            if variables:
                own = [(gradients[variable.ref()], variable) for variable in variables]
                optimizer.apply_gradients(own, name=name, skip_gradients_aggregation=True)
            else:
                optimizer._internal_apply_gradients([])  # only counts the step, for its schedule
        return self._internal_apply_gradients([])

    def update_step(self, gradient: Any, variable: Any) -> None:
        """Update one variable."""
        ((optimizer, _),) = [part for part in self.split([variable]) if part[1]]
        optimizer.update_step(gradient, variable)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Finalize the variables of all groups at the end of `fit`."""
        for optimizer, variables in self.split(var_list):
            optimizer.finalize_variable_values(variables)

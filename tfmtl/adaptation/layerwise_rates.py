"""Learning rates by parts of a network."""

from __future__ import annotations

from collections.abc import Mapping

from tfmtl._checks import require_type
from tfmtl._keras import keras
from tfmtl.adaptation.parts import layers_of, variables_of
from tfmtl.models import MultiTaskModel
from tfmtl.training import ScaledRates


def layerwise_rates(
    model: MultiTaskModel, optimizer: keras.optimizers.Optimizer, factors: Mapping[str, float]
) -> ScaledRates:
    """Return an optimiser that trains parts of a model at a fraction of its rate, to compile the model with.

    Args:
        model: is not changed.
        optimizer: a Keras 2 optimiser.
        factors: by part, see `layers_of`, what multiplies the rate; of a layer in several parts the first counts.

    Raises:
        ValueError: if a part is unknown or a factor is negative.

    A usual choice for a warm-started model is `{"embeddings": 0.1, "towers": 0.3}`: what lies deepest knows most.
    """
    require_type(model, MultiTaskModel, "model")
    named: dict[str, float] = {}
    for part, factor in factors.items():
        for variable in variables_of(layers_of(model.network, part)):
            named.setdefault(variable.name.split(":")[0], factor)
    return ScaledRates(optimizer, named)

"""Models that the tests of ensembles combine; no test changes their weights."""

from __future__ import annotations

import functools

import numpy as np

from tests.models import small
from tfmtl.balancing import Uncertainty
from tfmtl.layers import PLE
from tfmtl.models import MultiTaskModel


@functools.cache
def members() -> list[MultiTaskModel]:
    """Return three models with different seeds, trunks, widths, balancers and arguments of the retrieval task."""
    ple = PLE(small.ON_PAIRS, num_shared_experts=1, num_task_experts=1, units=[3], num_levels=1)
    models = [
        small.model(seed=1),
        small.model(seed=2, trunk=ple, balancer=Uncertainty()),
        small.model(seed=3, tower_units=[2], heads=small.tasks(candidate_bias=True, temperature=0.5)),
    ]
    rng = np.random.default_rng(0)
    for model in models:
        for variable in model.network.trainable_variables:
            variable.assign(rng.normal(0, 0.5, variable.shape))
    return models

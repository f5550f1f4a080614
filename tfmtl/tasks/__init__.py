"""Tasks: what is predicted, its loss over the observed labels, its metrics."""

from __future__ import annotations

from tfmtl.tasks.binary import BinaryClassification
from tfmtl.tasks.chained_regression import ChainedRegression
from tfmtl.tasks.dependencies import in_order
from tfmtl.tasks.doubly_robust import DoublyRobustConversion
from tfmtl.tasks.entire_space import EntireSpaceConversion
from tfmtl.tasks.event import Event
from tfmtl.tasks.inverse_propensity import InversePropensityConversion
from tfmtl.tasks.multi_class import MultiClassClassification
from tfmtl.tasks.ranking import Ranking
from tfmtl.tasks.regression import Regression
from tfmtl.tasks.retrieval import Retrieval
from tfmtl.tasks.task import Encodings, LossInputs, Task, mean_over_observed, total_weight

__all__ = [
    "BinaryClassification",
    "ChainedRegression",
    "DoublyRobustConversion",
    "Encodings",
    "EntireSpaceConversion",
    "Event",
    "InversePropensityConversion",
    "LossInputs",
    "MultiClassClassification",
    "Ranking",
    "Regression",
    "Retrieval",
    "Task",
    "in_order",
    "mean_over_observed",
    "total_weight",
]

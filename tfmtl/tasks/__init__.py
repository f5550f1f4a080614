"""Tasks: what is predicted, its loss over the observed labels, its metrics."""

from __future__ import annotations

from tfmtl.tasks.binary import BinaryClassification
from tfmtl.tasks.binary_task import BinaryTask
from tfmtl.tasks.chained_regression import ChainedRegression
from tfmtl.tasks.doubly_robust import DoublyRobustConversion
from tfmtl.tasks.entire_space import EntireSpaceConversion
from tfmtl.tasks.inverse_propensity import InversePropensityConversion
from tfmtl.tasks.multi_class import MultiClassClassification
from tfmtl.tasks.ranking import Ranking
from tfmtl.tasks.regression import Regression
from tfmtl.tasks.retrieval import Retrieval
from tfmtl.tasks.task import HeadInputs, LossInputs, Task

__all__ = [
    "BinaryClassification",
    "BinaryTask",
    "ChainedRegression",
    "DoublyRobustConversion",
    "EntireSpaceConversion",
    "HeadInputs",
    "InversePropensityConversion",
    "LossInputs",
    "MultiClassClassification",
    "Ranking",
    "Regression",
    "Retrieval",
    "Task",
]

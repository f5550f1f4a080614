"""Multi-task recommenders on TensorFlow Recommenders: train, balance, tune, distil, prune and serve.

Importing the package settles that this process uses Keras 2; its packages are imported when they are first used.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmtl import adaptation as adaptation
    from tfmtl import allocation as allocation
    from tfmtl import balancing as balancing
    from tfmtl import baselines as baselines
    from tfmtl import compression as compression
    from tfmtl import data as data
    from tfmtl import ensembling as ensembling
    from tfmtl import evaluation as evaluation
    from tfmtl import interpretation as interpretation
    from tfmtl import layers as layers
    from tfmtl import models as models
    from tfmtl import recipes as recipes
    from tfmtl import reporting as reporting
    from tfmtl import serving as serving
    from tfmtl import tasks as tasks
    from tfmtl import training as training
    from tfmtl import tuning as tuning
    from tfmtl._keras import keras as keras
    from tfmtl._keras import register as register
    from tfmtl.balancing import FixedWeights as FixedWeights
    from tfmtl.balancing import Uncertainty as Uncertainty
    from tfmtl.compression import distil as distil
    from tfmtl.compression import prune_model as prune_model
    from tfmtl.data import Categorical as Categorical
    from tfmtl.data import IdSequence as IdSequence
    from tfmtl.data import Label as Label
    from tfmtl.data import LabelGraph as LabelGraph
    from tfmtl.data import MultiValued as MultiValued
    from tfmtl.data import Numeric as Numeric
    from tfmtl.data import Preprocessor as Preprocessor
    from tfmtl.data import Schema as Schema
    from tfmtl.data import Text as Text
    from tfmtl.data import Vector as Vector
    from tfmtl.data import fit_statistics as fit_statistics
    from tfmtl.evaluation import evaluate as evaluate
    from tfmtl.layers import MMoE as MMoE
    from tfmtl.layers import MultiTaskLayer as MultiTaskLayer
    from tfmtl.layers import SharedBottom as SharedBottom
    from tfmtl.models import Candidates as Candidates
    from tfmtl.models import MultiTaskModel as MultiTaskModel
    from tfmtl.models import Regularization as Regularization
    from tfmtl.models import build_network as build_network
    from tfmtl.models import load_model as load_model
    from tfmtl.models import save_model as save_model
    from tfmtl.serving import export as export
    from tfmtl.tasks import BinaryClassification as BinaryClassification
    from tfmtl.tasks import MultiClassClassification as MultiClassClassification
    from tfmtl.tasks import Regression as Regression
    from tfmtl.tasks import Retrieval as Retrieval
    from tfmtl.training import LazyAdam as LazyAdam

__version__ = "0.1.0"

_PACKAGES = (
    "adaptation",
    "allocation",
    "balancing",
    "baselines",
    "compression",
    "data",
    "ensembling",
    "evaluation",
    "interpretation",
    "layers",
    "models",
    "recipes",
    "reporting",
    "serving",
    "tasks",
    "training",
    "tuning",
)

_FLAGSHIPS = {
    "BinaryClassification": "tasks",
    "Candidates": "models",
    "Categorical": "data",
    "FixedWeights": "balancing",
    "IdSequence": "data",
    "Label": "data",
    "LabelGraph": "data",
    "LazyAdam": "training",
    "MMoE": "layers",
    "MultiClassClassification": "tasks",
    "MultiTaskLayer": "layers",
    "MultiTaskModel": "models",
    "MultiValued": "data",
    "Numeric": "data",
    "Preprocessor": "data",
    "Regression": "tasks",
    "Regularization": "models",
    "Retrieval": "tasks",
    "Schema": "data",
    "SharedBottom": "layers",
    "Text": "data",
    "Uncertainty": "balancing",
    "Vector": "data",
    "build_network": "models",
    "distil": "compression",
    "evaluate": "evaluation",
    "export": "serving",
    "fit_statistics": "data",
    "keras": "_keras",
    "load_model": "models",
    "prune_model": "compression",
    "register": "_keras",
    "save_model": "models",
}
"""The names offered at the top level, and the package that defines each."""

__all__ = ["__version__", *_PACKAGES, *_FLAGSHIPS]


def _is_doctor() -> bool:
    """Return whether `python -m tfmtl` imports the package: the doctor reports a refusal instead of raising it."""
    return sys.argv[:1] == ["-m"] and any(argument in ("tfmtl", "-mtfmtl") for argument in sys.orig_argv)


if not _is_doctor():
    importlib.import_module("tfmtl._keras")


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"tfmtl.{name}")
    if name in _FLAGSHIPS:
        return getattr(importlib.import_module(f"tfmtl.{_FLAGSHIPS[name]}"), name)
    hint = "" if name.startswith("_") else importlib.import_module("tfmtl._directory").hint(name, __all__)
    raise AttributeError(
        f"module 'tfmtl' has no attribute {name!r}{hint}. Its public names: {', '.join(sorted(__all__))}."
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

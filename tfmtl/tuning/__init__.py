"""Hyperparameter search: keras-tuner's tuners for Keras 2 models, and ready parts of a search space."""

from __future__ import annotations

from tfmtl.tuning._keras_tuner import keras_tuner
from tfmtl.tuning.cross_validation import CrossValidated, CrossValidation, cross_validate
from tfmtl.tuning.objectives import as_objective
from tfmtl.tuning.pareto import pareto_front, select_from_front
from tfmtl.tuning.search import loss_weights, sample_optimizer, sample_regularization, sample_trunk
from tfmtl.tuning.trials_table import trials_table
from tfmtl.tuning.tuner import Tuner
from tfmtl.tuning.tuners import BayesianOptimization, GridSearch, Hyperband, RandomSearch

Objective = keras_tuner.Objective

__all__ = [
    "BayesianOptimization",
    "CrossValidated",
    "CrossValidation",
    "GridSearch",
    "Hyperband",
    "Objective",
    "RandomSearch",
    "Tuner",
    "as_objective",
    "cross_validate",
    "loss_weights",
    "pareto_front",
    "sample_optimizer",
    "sample_regularization",
    "sample_trunk",
    "select_from_front",
    "trials_table",
]

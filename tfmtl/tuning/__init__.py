"""Hyperparameter search: keras-tuner's tuners for Keras 2 models, and ready parts of a search space."""

from __future__ import annotations

from tfmtl.tuning._keras_tuner import Objective as Objective
from tfmtl.tuning.cross_validation import CrossValidated as CrossValidated
from tfmtl.tuning.cross_validation import CrossValidation as CrossValidation
from tfmtl.tuning.cross_validation import cross_validate as cross_validate
from tfmtl.tuning.objectives import as_objective as as_objective
from tfmtl.tuning.pareto import pareto_front as pareto_front
from tfmtl.tuning.pareto import select_from_front as select_from_front
from tfmtl.tuning.search import loss_weights as loss_weights
from tfmtl.tuning.search import sample_optimizer as sample_optimizer
from tfmtl.tuning.search import sample_regularization as sample_regularization
from tfmtl.tuning.search import sample_trunk as sample_trunk
from tfmtl.tuning.trials_table import trials_table as trials_table
from tfmtl.tuning.tuner import Tuner as Tuner
from tfmtl.tuning.tuners import BayesianOptimization as BayesianOptimization
from tfmtl.tuning.tuners import GridSearch as GridSearch
from tfmtl.tuning.tuners import Hyperband as Hyperband
from tfmtl.tuning.tuners import RandomSearch as RandomSearch

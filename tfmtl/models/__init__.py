"""Models: the functional network and the training loop around it."""

from __future__ import annotations

from tfmtl.models.candidates import Candidates as Candidates
from tfmtl.models.multi_task import MultiTaskModel as MultiTaskModel
from tfmtl.models.network import build_network as build_network
from tfmtl.models.regularization import Regularization as Regularization
from tfmtl.models.saved import load_model as load_model
from tfmtl.models.saved import save_model as save_model

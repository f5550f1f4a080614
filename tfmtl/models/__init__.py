"""Models: the functional network and the training loop around it."""

from __future__ import annotations

from tfmtl.models.candidates import Candidates
from tfmtl.models.multi_task import MultiTaskModel
from tfmtl.models.network import build_network
from tfmtl.models.regularization import Regularization
from tfmtl.models.saved import load_model, save_model

__all__ = ["Candidates", "MultiTaskModel", "Regularization", "build_network", "load_model", "local_copy", "save_model"]

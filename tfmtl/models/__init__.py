"""Models: the functional network and the training loop around it."""

from __future__ import annotations

from tfmtl.models.candidates import Candidates
from tfmtl.models.local_copy import local_copy
from tfmtl.models.multi_task import MultiTaskModel
from tfmtl.models.network import build_network
from tfmtl.models.regularisation import Regularisation
from tfmtl.models.saved import load_model, save_model

__all__ = ["Candidates", "MultiTaskModel", "Regularisation", "build_network", "load_model", "local_copy", "save_model"]

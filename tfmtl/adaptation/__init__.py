"""Adaptation: begin with what another model knows, train parts of it, and learn to adapt to a user in a few steps."""

from __future__ import annotations

from tfmtl.adaptation.parts import layers_of
from tfmtl.adaptation.warm_start import WarmStart, warm_start

__all__ = ["WarmStart", "layers_of", "warm_start"]

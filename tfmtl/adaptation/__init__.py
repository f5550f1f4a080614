"""Adaptation: models that keep up with new data."""

from __future__ import annotations

from tfmtl.adaptation.growth import grow
from tfmtl.adaptation.replay import Replay
from tfmtl.adaptation.vocabulary import extend_statistics, leave_room

__all__ = [
    "Replay",
    "extend_statistics",
    "grow",
    "leave_room",
]

"""Adaptation: models that keep up with new data."""

from __future__ import annotations

from tfmtl.adaptation.drift import Alarm, DriftMonitor, psi
from tfmtl.adaptation.growth import grow
from tfmtl.adaptation.online import Increment, OnlineLearner
from tfmtl.adaptation.page_hinkley import PageHinkley
from tfmtl.adaptation.replay import Replay
from tfmtl.adaptation.vocabulary import extend_statistics, leave_room

__all__ = [
    "Alarm",
    "DriftMonitor",
    "Increment",
    "OnlineLearner",
    "PageHinkley",
    "Replay",
    "extend_statistics",
    "grow",
    "leave_room",
    "psi",
]

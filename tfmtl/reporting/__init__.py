"""Reporting: a model, its quality and its reasons as one page for people who do not program."""

from __future__ import annotations

from tfmtl.reporting.report import write_report as write_report

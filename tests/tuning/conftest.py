"""A program that a test starts in processes of its own; importing it would search."""

from __future__ import annotations

collect_ignore = ["parallel.py"]

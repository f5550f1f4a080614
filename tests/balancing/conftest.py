"""A program that a test starts in a process of its own; importing it would train."""

from __future__ import annotations

collect_ignore = ["distributed.py"]

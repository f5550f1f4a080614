"""Processes that run modules of the tests."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from servers.processes import SECONDS, printed

RUN = """
import runpy, sys, types
sys.path.append("benchmarks")
sys.modules["tests"] = types.ModuleType("tests")  # some distributions install a package of this name
sys.modules["tests"].__path__ = ["tests"]
from tests.tracing import trace_quickly
trace_quickly()
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""


def answers(
    module: str,
    environments: Sequence[Mapping[str, str]] = ({},),
    arguments: Sequence[str] = (),
    seconds: float = SECONDS,
) -> list[Any]:
    """Return the last line that each process of a module prints, read as JSON; it counts as hanging after `seconds`."""
    return printed([sys.executable, "-c", RUN, module, *arguments], environments, seconds)

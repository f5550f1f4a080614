"""The worker's side of the pipe: each line of standard input is a command in JSON, each answer one line of JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def serve(answered: Callable[[Iterator[dict[str, Any]]], Iterable[Any]]) -> None:
    """Write the answers to the commands until the input ends; all other output goes to standard error."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # the output of libraries
        for answer in answered(map(json.loads, sys.stdin)):
            print(json.dumps(answer), file=answers, flush=True)

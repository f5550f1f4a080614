"""Forward passes of one training step: the innermost one of a thread, and values that a repeated pass has again."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

P = TypeVar("P", bound="Pass")

_active = threading.local()  # each replica of a distribution strategy runs in its own thread


@dataclasses.dataclass
class Pass:
    """A forward pass, the first of a step or one that repeats it.

    Attributes:
        made: the values that the pass made in `once`, by key.
        given: those of the first pass, in a pass that repeats it; else None.
    """

    made: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    given: dict[str, list[Any]] | None = None

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Return `make()`, or the value of the first pass; see the function `once`."""
        made = self.made.setdefault(key, [])
        value = make() if self.given is None else self.given[key][len(made)]
        made.append(value)
        return value


def current() -> Pass | None:
    """Return the innermost pass of this thread, or None outside of any."""
    stack = getattr(_active, "stack", None)
    return stack[-1] if stack else None


@contextlib.contextmanager
def within(one: P) -> Iterator[P]:
    """Make a pass the innermost one inside the `with` block."""
    stack = _active.__dict__.setdefault("stack", [])
    stack.append(one)
    try:
        yield one
    finally:
        stack.pop()


def once(key: str, make: Callable[[], Any]) -> Any:
    """Return `make()`; in a repeated pass return the value that the first pass made at the same call instead.

    Use it for random draws, and for reads of state that the first pass changes.

    Args:
        key: name of the value; calls with one key are matched by their order.
        make: returns the value, tensors or a structure of them.

    Example:
        >>> with within(Pass()) as first:
        ...     once("seed", lambda: 7)
        7
        >>> with within(Pass(given=first.made)):
        ...     once("seed", lambda: 8)
        7
    """
    one = current()
    return make() if one is None else one.once(key, make)


def repeats() -> bool:
    """Return whether the innermost pass repeats another one of its step, so that state must stay as it is."""
    one = current()
    return one is not None and one.given is not None

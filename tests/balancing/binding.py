"""Task records to bind a balancer to without a model."""

from __future__ import annotations

from collections.abc import Iterable

from tfmtl.balancing import BalancedTask


def tasks_named(names: Iterable[str]) -> list[BalancedTask]:
    """Return one record per name."""
    return [BalancedTask(name) for name in names]

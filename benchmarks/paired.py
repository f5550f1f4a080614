"""Statistics of benchmarks: intervals over seeds, differences paired by seed, ratios paired by round."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from scipy import stats


def interval(values: Iterable[float], form: str = ".4f") -> str:
    """Return the mean and half the 95 % interval of Student's t; `form` is the format of the mean."""
    values = np.asarray(list(values))
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else float("nan")
    return f"{values.mean():{form}} ± {half:{form.lstrip('+')}}"


def spread(ratios: Iterable[float], form: str = ".2f", *, half: bool = False) -> str:
    """Return the median of ratios and their range, or the range of their middle half; `form` is their format."""
    low, middle, high = np.quantile(np.asarray(list(ratios)), [0.25, 0.5, 0.75] if half else [0, 0.5, 1])
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def compare(
    run: Callable[[str, int], Sequence[float]],
    variants: Sequence[str],
    metrics: Mapping[str, str] | Sequence[tuple[str, str]],
    seeds: int,
    first: str = "mean",
) -> None:
    """Print the metrics of variants and differences from the first variant, each line as soon as it is measured."""
    pairs = metrics.items() if isinstance(metrics, Mapping) else metrics
    names = [f"{task} {metric}" for task, metric in pairs]
    print(f"| variant | {' | '.join(names)} | {' | '.join(f'{name}, against {first}' for name in names)} | seconds |")
    print("|---" * (2 * len(names) + 2) + "|")
    reference: np.ndarray | None = None
    for name in sorted(variants, key=lambda variant: variant != first):
        start = time.perf_counter()
        found = np.array([run(name, seed) for seed in range(seeds)])
        reference = found if reference is None else reference
        seconds = (time.perf_counter() - start) / seeds
        cells = [interval(column) for column in (*found.T, *(found - reference).T)]
        print(f"| {name} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)

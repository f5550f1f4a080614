"""The growth of cost with rows, vocabulary, tasks, experts and candidates, each over three decades.

    python benchmarks/scaling.py [--only rows vocabulary ...] [--quick] [--picture docs/scaling.png]

Ids, labels and embeddings are random, which suffices to measure cost: ids follow Zipf's law, labels and embeddings are
uniform. This benchmark does not measure quality.

Each axis runs in a separate process. Sizes take turns; a cell is the median over the rounds and, in brackets, their
range. Times are CPU times except those marked "clock", so that other load on the machine matters less. Exponents are
slopes of log(cost) over log(size): 0 is constant, 1 linear, 2 quadratic; in the "last decade" fixed costs matter least.
The time to build and trace models by tasks and experts is measured once. It takes a quarter of an hour and 7 GB;
`--quick` leaves out the last decade and runs one round.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import pathlib
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from PIL import Image
from scaling_axes.curves import Curve
from scaling_axes.joint import candidates_axis, rows_axis
from scaling_axes.trunks import experts_axis, tasks_axis
from scaling_axes.vocabulary import vocabulary_axis

AXES = {
    "rows": rows_axis,
    "vocabulary": vocabulary_axis,
    "tasks": tasks_axis,
    "experts": experts_axis,
    "candidates": candidates_axis,
}
Panel = tuple[str, str, str, list[Curve]]  # axis, its size, the unit, the lines


def measure(name: str, quick: bool) -> tuple[str, list[Curve]]:
    """Measure an axis and return its size and its curves."""
    axis = AXES[name](quick)
    return axis.size, axis.measure(1 if quick else None)


def print_table(name: str, size: str, curves: Sequence[Curve]) -> None:
    """Print the curves of an axis as a Markdown table."""
    columns = sorted({column for curve in curves for column in curve.sizes})
    print(f"\n### {name.capitalize()}\n\n| {size} | {' | '.join(f'{column:,}' for column in columns)} |", end="")
    print(" exponent | last decade |\n" + "|---" * (len(columns) + 3) + "|")
    for curve in curves:
        cells = dict(zip(curve.sizes, map(_cell, curve.values.T), strict=True))
        line = " | ".join(cells.get(column, "") for column in columns)
        exponents = f"{curve.exponent():.2f} | {curve.exponent(1):.2f}"
        print(f"| {curve.name}, {curve.unit} | {line} | {exponents} |", flush=True)


def _cell(values: np.ndarray) -> str:
    low, middle, high = (f"{value:,.{_decimals(value)}f}" for value in np.quantile(values, [0, 0.5, 1]))
    return middle if low == high else f"{middle} ({low}-{high})"


def _decimals(value: float) -> int:
    """Return the number of decimals that show three digits."""
    return int(np.clip(2 - np.floor(np.log10(max(abs(value), 1e-3))), 0, 4))


def panels_of(name: str, size: str, curves: Sequence[Curve]) -> list[Panel]:
    """Return the pictures of an axis, one per unit."""
    units = dict.fromkeys(curve.unit for curve in curves)
    return [(name, size, unit, [curve for curve in curves if curve.unit == unit]) for unit in units]


def draw(panels: Sequence[Panel], path: pathlib.Path) -> None:
    """Draw small multiples, both scales logarithmic, with a dotted line of slope 1 in each."""
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(3.6 * columns, 4.0 * rows), squeeze=False, layout="constrained")
    for place, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(place, *panel)
    for place in grid.flat[len(panels) :]:
        place.set_axis_off()
    whole = io.BytesIO()
    figure.savefig(whole, dpi=80)
    Image.open(whole).convert("RGB").quantize(128).save(path, optimize=True)  # a third of the file size
    plt.close(figure)


def _draw_panel(place: Axes, name: str, size: str, unit: str, curves: Sequence[Curve]) -> None:
    for curve in curves:
        middle = curve.medians
        ends = np.abs(np.stack([curve.values.min(axis=0), curve.values.max(axis=0)]) - middle)
        label = f"{curve.name} ({curve.exponent(1):.1f})"
        place.errorbar(curve.sizes, middle, yerr=ends, marker="o", markersize=4, capsize=2, label=label)
    last = max(curves, key=lambda curve: curve.medians[-1])
    ends, top = np.array([last.sizes[0], last.sizes[-1]]), last.medians[-1]
    place.plot(ends, top * ends / ends[-1], ":", color="grey", label="slope 1")
    place.set(xscale="log", yscale="log", xlabel=size, ylabel=unit, title=name)
    everything = np.concatenate([curve.values.ravel() for curve in curves])
    place.set_ylim(everything.min() / 4, everything.max() * 4)
    place.yaxis.set_minor_formatter(NullFormatter())
    place.grid(alpha=0.3)
    title = "in brackets the slope of the last decade"
    place.legend(fontsize=8, title=title, title_fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17))


def main() -> None:
    """Parse the arguments, measure the axes and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(AXES), default=list(AXES), help="the axes to run")
    parser.add_argument("--quick", action="store_true", help="two decades, one round")
    parser.add_argument("--picture", type=pathlib.Path, help="path of a picture of the curves")
    arguments = parser.parse_args()
    panels: list[Panel] = []
    for name in arguments.only:
        with multiprocessing.get_context("spawn").Pool(1) as apart:  # frees the memory of an axis
            size, curves = apart.apply(measure, (name, arguments.quick))
        print_table(name, size, curves)
        panels += panels_of(name, size, curves)
    if arguments.picture:
        draw(panels, arguments.picture)


if __name__ == "__main__":
    main()

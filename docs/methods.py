"""Write docs/methods.md: registered classes and methods of allocation, each with its first sentence and its reference.

python docs/methods.py
"""

from __future__ import annotations

import importlib
import inspect
import pathlib
import re
from collections.abc import Callable

import tfmtl

PAGE = pathlib.Path(__file__).with_suffix(".md")

KINDS: dict[str, Callable[[type], bool]] = {
    "Trunks": lambda c: issubclass(c, tfmtl.layers.MultiTaskLayer),
    "Tasks": lambda c: issubclass(c, tfmtl.tasks.Task),
    "Gramian balancers": lambda c: issubclass(c, tfmtl.balancing.GramianBalancer),
    "Gradient balancers": lambda c: issubclass(c, tfmtl.balancing.GradientBalancer),
    "Loss weighting": lambda c: issubclass(c, tfmtl.balancing.Balancer),
    "Poolings": lambda c: c.__module__.startswith("tfmtl.layers.poolings"),
    "Fusions": lambda c: issubclass(c, tfmtl.layers.Fusion),
    "Interactions": lambda c: issubclass(c, tfmtl.layers.Interaction),
    "Embeddings": lambda c: issubclass(c, tfmtl.layers.CompressedEmbedding),
    "Decision trees": lambda c: c.__module__.startswith(("tfmtl.layers.boosted_trees", "tfmtl.layers.tree_columns")),
    "Adversarial training": lambda c: issubclass(c, (tfmtl.layers.AdversarialTraining, tfmtl.layers.DomainAdversary)),
    "Calibration": lambda c: c.__module__ == "tfmtl.layers.calibration",
    "Optimisers": lambda c: issubclass(c, tfmtl.keras.optimizers.Optimizer),
    "Metrics": lambda c: issubclass(c, tfmtl.keras.metrics.Metric),
}
"""The first kind that accepts a class is the kind of the class."""


def classes() -> dict[str, list[type]]:
    """Return the registered public classes by kind, and the methods of allocation that have a reference, by name."""
    for package in tfmtl._PACKAGES:
        importlib.import_module(f"tfmtl.{package}")
    registered = tfmtl.keras.saving.get_custom_objects()
    found: dict[str, list[type]] = {kind: [] for kind in KINDS}
    for name, value in sorted(registered.items(), key=lambda item: item[0].lower()):
        if not name.startswith("tfmtl>") or not _public(value):
            continue
        kind = next((kind for kind, accepts in KINDS.items() if accepts(value)), None)
        if kind is not None:
            found[kind].append(value)
    found["Allocation"] = [
        member
        for _, member in sorted(vars(tfmtl.allocation).items(), key=lambda item: item[0].lower())
        if callable(member) and "Reference:" in (inspect.getdoc(member) or "")
    ]
    return {kind: members for kind, members in found.items() if members}


def _public(member: type) -> bool:
    package = member.__module__.split(".")[1]
    return hasattr(importlib.import_module(f"tfmtl.{package}"), member.__name__)


def row(member: type) -> str:
    """Return the line of one class: name, first sentence, link of its reference."""
    text = inspect.getdoc(member) or ""
    first = re.sub(r"\s+", " ", text.split("\n\n", 1)[0]).strip()
    _, _, reference = text.partition("Reference:")
    found = re.search(r'"([^"]+)".*?(https?://\S+?)[,.;:)]*(?:\s|$)', reference, re.DOTALL)
    link = "" if found is None else f"[{' '.join(found[1].split())}]({found[2]})"
    package = member.__module__.split(".")[1]
    return f"| `{package}.{member.__name__}` | {first} | {link} |"


def page() -> str:
    """Return the whole page."""
    lines = [
        "# Methods",
        "",
        "Every registered class, and the methods of `tfmtl.allocation`; `python docs/methods.py` writes this page from "
        "the docstrings. Which one when, and what each brought: [balancing.md](balancing.md), "
        "[allocation.md](allocation.md), [architectures.md](architectures.md).",
        "",
    ]
    for kind, members in classes().items():
        lines += [f"## {kind}", "", "| class | summary | reference |", "| --- | --- | --- |", *map(row, members), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())

"""ModelCard: the description of a version, with its provenance, metrics and signatures."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import tfmtl
from tfmtl.models import MultiTaskModel
from tfmtl.serving.plain_text import code, inline, visible

_PACKAGES = ("tensorflow", "tf-keras", "tensorflow-recommenders", "numpy")


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Description of a version: the part that cannot be derived from the model.

    Pass it to an export, so that operators and later authors find the purpose, the metrics and the data of a version.

    Attributes:
        description: purpose of the model, in a sentence or more.
        metrics: report of `evaluation.evaluate` on the held-out split, or any mapping by (task, metric).
        data: hash of the training data, see `data.fingerprint`.

    Example:
        >>> ModelCard("Next purchases.", {("rating", "rmse"): 0.91}).metrics["rating", "rmse"]
        0.91
    """

    description: str = ""
    metrics: Any = None
    data: str | None = None

    def describe(self, model: MultiTaskModel) -> dict[str, Any]:
        """Return the card as plain values, with the facts about the model, the packages and the git revision."""
        statistics = json.dumps(model.preprocessor.statistics.get_config(), sort_keys=True, default=str)
        return {
            "description": self.description,
            "tasks": {task.name: type(task).__name__ for task in model.tasks},
            "metrics": _by_task(self.metrics),
            "schema": _plain(model.schema.get_config()),
            "parameters": model.network.count_params(),
            "data": {"sha256": self.data, "statistics_sha256": hashlib.sha256(statistics.encode()).hexdigest()},
            "versions": {"tfmtl": tfmtl.__version__, "python": platform.python_version(), **_versions()},
            "revision": _revision(),
        }


def markdown(manifest: Mapping[str, Any]) -> str:
    """Return the manifest of a version as Markdown.

    Texts of the manifest are shown without their markup and control characters, because a stranger may have written it.

    Args:
        manifest: from `read_manifest`, which checks its form.
    """
    card = manifest.get("card", {})
    lines = ["# Model card", "", *_paragraphs(card.get("description") or "No description was given."), ""]
    foreign = manifest.get("foreign_operations")
    if foreign:
        names = ", ".join(map(code, foreign))
        library = inline(manifest.get("search", {}).get("library", "the library that has them"))
        lines += [f"A stock TensorFlow server lacks operations that this model needs: {names}, of {library}.", ""]
    if card:
        lines += _table("tasks", ("task", "kind", "metrics of the held-out split"), _task_rows(card))
        lines += _table("features", ("feature", "role", "kind"), _feature_rows(card["schema"], manifest))
        facts = {
            "parameters": f"{card['parameters']:,}",
            "training data (sha256)": card["data"]["sha256"] or "not given",
            "training statistics (sha256)": card["data"]["statistics_sha256"],
            "revision": card["revision"] or "none",
            **card["versions"],
        }
        lines += _table("provenance", ("what", "value"), [(inline(n), inline(value)) for n, value in facts.items()])
    if "rerank_depth" in manifest:
        lines += _table("recommend", ("setting", "value"), _recommend_rows(manifest))
    if "explain" in manifest:
        lines += _table("explanations", ("setting", "value"), _explain_rows(manifest["explain"]))
    budget = [(inline(b["what"]), f"{b['measured']:.5g}", _limit(b)) for b in manifest.get("budget", [])]
    lines += _table("budget", ("what", "measured", "limit"), budget) if budget else []
    rows = [
        (
            inline(name),
            ", ".join(f"{code(i)} {inline(form)}" for i, form in s["inputs"].items()),
            ", ".join(map(code, s["outputs"])),
        )
        for name, s in manifest["signatures"].items()
    ]
    lines += _table("signatures", ("signature", "inputs", "outputs"), rows)
    if "serve" in manifest:
        lines += ["## Serve", "", "```", _lines_of_code(manifest["serve"]), "```", ""]
    return "\n".join(lines)


def _paragraphs(text: str) -> list[str]:
    return [inline(line) for line in text.splitlines()]


def _lines_of_code(text: str) -> str:
    return "\n".join(visible(line) for line in text.replace("`", "'").split("\n"))


def _limit(line: Mapping[str, Any]) -> str:
    return f"{'at most' if line['at_most'] else 'at least'} {line['limit']:.5g}"


def _recommend_rows(manifest: Mapping[str, Any]) -> list[tuple[str, Any]]:
    fusion = manifest["fusion"]
    origin = {name: "given" if name in fusion["chosen"] else "default" for name in fusion["weights"]}
    return [
        ("candidates retrieved and ranked (`rerank_depth`)", manifest["rerank_depth"]),
        ("candidates returned (`max_k`)", manifest["max_k"]),
        *((f"weight of {code(name)}", f"{weight:g}, {origin[name]}") for name, weight in fusion["weights"].items()),
        *_slice_rows(manifest.get("fusion_slices")),
        *_choice_rows(manifest.get("fusion_policy")),
    ]


def _explain_rows(explain: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        ("explained tasks", ", ".join(map(code, explain["tasks"]))),
        ("order of the features in `<task>_attributions`", ", ".join(map(code, explain["features"]))),
        *((f"positions of {code(name)}", length) for name, length in explain["lists"].items()),
        ("parts of each path (`steps`)", explain["steps"]),
        ("reasons of each candidate of `recommend`", explain["reasons"]),
    ]


def _slice_rows(sliced: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    """Return the weights of each value of the slice feature, if there is one."""
    if sliced is None:
        return []
    by = code(sliced["by"])
    return [(f"weights if {by} is {code(value)}", _weights(own)) for value, own in sliced["slices"].items()]


def _choice_rows(policy: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    """Return the weights of each choice of a policy, if there is one."""
    own = [] if policy is None else policy["choices"]
    return [(f"weights of choice {i}, chosen by the query", _weights(weights)) for i, weights in enumerate(own)]


def _weights(own: Mapping[str, float]) -> str:
    return ", ".join(f"{code(task)} {weight:g}" for task, weight in own.items())


def _task_rows(card: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    def metrics(task: str) -> str:
        return ", ".join(
            f"{inline(n)} {value:.4g}" for n, value in card["metrics"].get(task, {}).items() if value is not None
        )

    bad = {label["task"] for label in card["schema"].get("labels", ()) if not label.get("desired", True)}
    kinds = {task: f"{kind}, undesired" if task in bad else kind for task, kind in card["tasks"].items()}
    return [(inline(task), inline(kind), metrics(task) or "not given") for task, kind in kinds.items()]


def _feature_rows(schema: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    roles, sent = ("query", "candidate", "context"), manifest.get("input_names", {})
    names = {name: f"{inline(name)} (as a tensor, input `{inline(other)}`)" for name, other in sent.items()}
    features = [(role, feature) for role in roles for feature in schema[role]]
    return [(names.get(f["name"], inline(f["name"])), role, inline(f["kind"])) for role, f in features]


def _table(title: str, header: tuple[str, ...], rows: list[Any]) -> list[str]:
    cells = [header, ["---"] * len(header), *rows]
    return [f"## {title.capitalize()}", "", *(f"| {' | '.join(map(str, row))} |" for row in cells), ""]


def _by_task(metrics: Any) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for (task, metric), value in ({} if metrics is None else dict(metrics.items())).items():
        found.setdefault(task, {})[metric] = float(value) if math.isfinite(value) else None
    return found


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _versions() -> dict[str, str]:
    """Return the installed versions by package; a package built from source may have another name and be absent."""
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _revision() -> str | None:
    """Return the git revision of the working directory, marked `-dirty` if files differ from it."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None

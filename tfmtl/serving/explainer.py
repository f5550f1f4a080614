"""Explainer: the served computation of explanations, from encoded features to attributions and reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl._names import serving_names
from tfmtl.data.frames import rows_of_pass
from tfmtl.models import MultiTaskModel
from tfmtl.models.encodings import Encodings
from tfmtl.models.explained import Values, encoded_rows, rows_at
from tfmtl.models.path_gradients import PathGradients
from tfmtl.serving.explanations import Explanations
from tfmtl.serving.ranker import traced_once, unnamed
from tfmtl.serving.signature import Answer
from tfmtl.types import Features


class Explainer:
    """The attributions of a model's ranking tasks by integrated gradients, in one graph.

    Args:
        model: the trained model.
        settings: baseline, tasks and steps.

    Attributes:
        settings: baseline, tasks and steps.
        tasks: names of the K explained tasks.
        features: names of the F features.
        lists: lengths of the lists of ids, by feature.

    Raises:
        TypeError, ValueError: if a task is unknown, the baseline has no rows or lacks columns, or two outputs would
            have one name.
    """

    def __init__(self, model: MultiTaskModel, settings: Explanations) -> None:
        chosen = settings.tasks_of(model)
        self.settings, self.tasks = settings, [task.name for task in chosen]
        self._on_pairs = [k for k, task in enumerate(chosen) if not task.query_only]
        require(
            not settings.reasons or bool(self._on_pairs),
            "`reasons` explain candidates, so that a task must read them; name one in `tasks`, or leave out `reasons`.",
            tasks=self.tasks,
        )
        batch = encoded_rows(model, settings.baseline, name="baseline")
        encodings, values = Encodings(model.network, self.tasks), Values(model, chosen)
        self.features = encodings.features
        self.lists = {name: int(model.network.input[name].shape[1]) for name in encodings.lists}
        self._means = [np.asarray(mean, np.float32) for mean in encodings.means(batch)]
        self._paths = PathGradients(encodings, values)
        first = rows_at(batch.features, [0])
        self._several = [width > 1 for width in values.widths(first)]
        self._owners = _owners(encodings, [t.shape[1:].as_list() for t in encodings.of(first)[0]], self.lists)
        specs = {name: feature.encoded_spec for name, feature in model.schema.features.items()}
        self._rows = max(1, rows_of_pass(specs) // (settings.steps + 1))
        self._block = traced_once(self._of_block, unnamed(specs))
        self._names = serving_names(model.schema.features)
        self._check_names([task.name for task in model.tasks])

    def explain(self, encoded: Features) -> Answer:
        """Return the outputs of the signature `explain` for encoded features [B, ...]."""
        parts, base, output, classes = self._of_rows(encoded)
        count = len(self.features)
        answer = {"features": tf.repeat(tf.constant([self.features]), tf.shape(base)[0], axis=0)}
        for k, task in enumerate(self.tasks):
            attributions, *positions = tf.split(parts[:, k], [count, *self.lists.values()], axis=1)
            answer[f"{task}_attributions"] = attributions
            for name, own in zip(self.lists, positions, strict=True):
                answer[self._positions(task, name)] = own
            answer[f"{task}_base"], answer[f"{task}_output"] = base[:, k], output[:, k]
            answer[f"{task}_gap"] = output[:, k] - base[:, k] - tf.reduce_sum(attributions, axis=1)
            if self._several[k]:
                answer[f"{task}_class"] = tf.cast(classes[:, k], tf.int64)
        return answer

    def reasons(self, encoded: Features) -> Answer:
        """Return by output the names [B, reasons] of the greatest positive parts, and these parts [B, reasons].

        A list of ids has one part for each position, such as `recent[0]` for the first id. Reasons beyond the positive
        parts are empty. Tasks of the query alone have none.

        Args:
            encoded: encoded features of pairs [B, ...].
        """
        names, columns = self._elements()
        parts = tf.gather(self._of_rows(encoded)[0], columns, axis=2)
        shown = min(self.settings.reasons, len(names))
        best, which = tf.math.top_k(parts, shown)
        texts = tf.where(best > 0, tf.gather(tf.constant(names), which), "")
        best = tf.maximum(best, 0.0)
        answer = {}
        for k in self._on_pairs:
            answer[f"{self.tasks[k]}_reasons"], answer[f"{self.tasks[k]}_reason_parts"] = texts[:, k], best[:, k]
        return answer

    def describe(self) -> dict[str, Any]:
        """Return the names of tasks, features and lists, and the settings, as plain values."""
        settings = {"steps": self.settings.steps, "reasons": self.settings.reasons}
        return {"tasks": self.tasks, "features": self.features, "lists": self.lists, **settings}

    def _of_rows(self, encoded: Features) -> Any:
        """Return parts [B, K, F + positions], bases, outputs and classes [B, K], computed in blocks of rows."""
        rows = tf.shape(next(iter(encoded.values())))[0]
        blocks = tf.maximum(-(-rows // self._rows), 1)
        size = -(-rows // blocks)

        def of_block(block: tf.Tensor) -> Any:
            positions = tf.minimum(block * size + tf.range(size), rows - 1)  # the last block may reach beyond the end
            return self._block({name: tf.gather(column, positions) for name, column in encoded.items()})

        specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), self._block.structured_outputs)
        found = tf.map_fn(of_block, tf.range(blocks), fn_output_signature=specs, parallel_iterations=1)
        return tf.nest.map_structure(lambda t: tf.reshape(t, [blocks * size, *t.shape[2:]])[:rows], found)

    def _of_block(self, encoded: Features) -> Any:
        tensors, kept = self._paths.encodings.of(encoded)
        origin = [tf.broadcast_to(tf.cast(m, t.dtype), tf.shape(t)) for m, t in zip(self._means, tensors, strict=True)]
        shares = tf.constant(np.linspace(0, 1, self.settings.steps + 1), tf.float32)
        found = self._paths.along(origin, tensors, kept, encoded, shares)
        flat = tf.stack([self._flat(parts) for parts in found.parts], axis=1)
        parts = tf.einsum("bkd,df->bkf", flat, tf.constant(self._owners))
        return parts, found.values[0], found.values[-1], found.columns

    def _flat(self, parts: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return the parts of all coordinates, and the sums of each position of lists, side by side [B, d]."""
        flat = []
        for i, part in enumerate(parts):
            wide = tf.cast(part, tf.float32)
            if len(part.shape) == 2:
                flat.append(wide)
            else:
                owners = [p for p in self._paths.encodings.parts if p.tensor == i]
                flat += [tf.reduce_sum(wide[:, :, p.start : p.end], axis=2) for p in owners]
        return tf.concat(flat, axis=1)

    def _elements(self) -> tuple[list[str], list[int]]:
        """Return the names of reasons, features and positions of lists, and their columns among the parts."""
        single = [(name, i) for i, name in enumerate(self.features) if name not in self.lists]
        positions = [f"{name}[{i}]" for name, length in self.lists.items() for i in range(length)]
        count = len(self.features)
        names, columns = zip(*single, *((name, count + i) for i, name in enumerate(positions)), strict=True)
        return list(names), list(columns)

    def _positions(self, task: str, name: str) -> str:
        return f"{task}_{self._names[name]}_positions"

    def _check_names(self, tasks: Sequence[str]) -> None:
        own = [self._positions(task, name) for task in self.tasks for name in self.lists]
        twice = sorted({name for name in own if own.count(name) > 1})
        require(not twice, f"The outputs {twice} of `explain` would have two meanings; rename a task or a list.")
        reasons = [f"{self.tasks[k]}{end}" for k in self._on_pairs for end in ("_reasons", "_reason_parts")]
        taken = sorted({*reasons} & {*tasks}) if self.settings.reasons else []
        require(not taken, f"The tasks {taken} have names of reasons in `recommend`; choose other names.")


def _owners(encodings: Encodings, shapes: Sequence[Sequence[int]], lists: Mapping[str, int]) -> np.ndarray:
    """Return the matrix [d, F + positions] that sums coordinates of encodings to features and to positions of lists.

    Args:
        encodings: the network, cut at its encodings.
        shapes: shapes of the encodings of a row, [d] or [length, d].
        lists: lengths of the lists of ids, by feature.
    """
    count = len(encodings.features)
    starts = dict(zip(lists, count + np.cumsum([0, *lists.values()]), strict=False))
    blocks = []
    for i, shape in enumerate(shapes):
        parts = [part for part in encodings.parts if part.tensor == i]
        own = np.zeros([1 if len(shape) == 1 else len(parts), shape[0], count + sum(lists.values())], np.float32)
        for j, part in enumerate(parts):
            feature = encodings.features.index(part.feature)
            if len(shape) == 1:
                own[0, part.start : part.end, feature] = 1
            else:
                own[j, :, feature] = 1
            if len(shape) == 2 and part.feature in lists:
                own[j, range(shape[0]), starts[part.feature] + np.arange(shape[0])] = 1
        blocks += [*own]
    return np.concatenate(blocks)

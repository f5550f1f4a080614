"""EpochTable: one short line for each epoch, with the main metric of each task."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence

from tfmtl._keras import keras

_WIDTH = 120
_LEAST, _MOST = 8, 16
_PREFERRED = ("ndcg@", "recall@", "auc", "macro_auc", "rmse", "accuracy")
_RISING = ("ndcg@", "recall@", "mrr", "auc", "macro_auc", "gauc", "accuracy", "average_precision", "r2", "xauc")
_BARS = 20


class EpochTable(keras.callbacks.Callback):
    """Prints a row of a table for each epoch: the loss, the main metric of each task, the time and the time left.

    `fit` adds it with `verbose=1` or "auto"; `verbose=2` prints all values of the log. A task's value is its first rank
    metric, AUC or RMSE on validation, its loss on validation without one, and its training loss without validation. The
    loss is that of validation where there is one. An arrow shows whether a value is better (up) or worse (down) than in
    the epoch before. Rows have at most 120 columns; tasks that do not fit are counted. On a terminal a bar shows the
    steps of the running epoch. Weights of tasks that moved are printed after training.

    Args:
        tasks: names of the tasks, in the order of their columns.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = list(tasks)
        self._before: dict[str, float] = {}
        self._weights: dict[str, list[float]] = {}
        self._columns: list[str] = []
        self._begin = self._shown = 0.0
        self._ran = 0

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Forget an earlier training."""
        self._before, self._weights, self._columns, self._ran = {}, {}, [], 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Note the time."""
        self._begin = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Show the steps of the epoch on a terminal, every 0.2 seconds at most."""
        now, steps = time.perf_counter(), self.params.get("steps")
        if not sys.stdout.isatty() or not steps or now - self._shown < 0.2:
            return
        self._shown, done = now, min((batch + 1) / steps, 1.0)
        bar = "#" * round(_BARS * done)
        left = (now - self._begin) * (1 - done) / done
        sys.stdout.write(f"\r[{bar:<{_BARS}}] {batch + 1:,}/{steps:,} steps, {_duration(left)} left ")
        sys.stdout.flush()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Print the row of the epoch, and before the first one the heads of the columns."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        for task in self.tasks:
            if f"{task}_weight" in values:
                self._weights.setdefault(task, []).append(values[f"{task}_weight"])
        if not self._columns:
            self._columns = [_main(task, values) for task in self.tasks]
            self._write(*self._heads(values))
        self._ran += 1
        taken, last = time.perf_counter() - self._begin, self.params.get("epochs", epoch + 1)
        shown = {key: values[key] for key in (_loss(values), *self._columns) if key in values}
        cells = [self._cell(key, value) for key, value in shown.items()]
        self._before = shown
        left = _duration(taken * (last - epoch - 1)) if last > epoch + 1 else ""
        self._write(self._row(f"{epoch + 1}/{last}", cells, _duration(taken), left))

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Print the weights of tasks that moved."""
        moved = {task: found[-1] for task, found in self._weights.items() if max(found) - min(found) > 1e-4}
        if moved:
            self._write("weights in the end: " + ", ".join(f"{task} {value:.3g}" for task, value in moved.items()))

    @property
    def _size(self) -> int:
        """The width of a task's column, so that all fit if they can."""
        longest = max([_LEAST, *map(len, self.tasks)])
        return max(_LEAST, min(_MOST, longest, (_WIDTH - 35) // max(len(self.tasks), 1) - 1))

    @property
    def _fitting(self) -> int:
        return min(len(self.tasks), (_WIDTH - 45) // (self._size + 1)) if self._crowded else len(self.tasks)

    @property
    def _crowded(self) -> bool:
        return 35 + len(self.tasks) * (self._size + 1) > _WIDTH

    def _heads(self, values: Mapping[str, float]) -> list[str]:
        size = self._size
        names = [task if len(task) <= size else f"{task[: size - 2]}.." for task in self.tasks]
        metrics = [_metric(task, key) for task, key in zip(self.tasks, self._columns, strict=True)]
        kind = "val loss" if "val_loss" in values else "loss"
        return [self._row("epoch", [kind, *names], "time", "left"), self._row("", ["", *metrics], "", "")]

    def _row(self, epoch: str, cells: Sequence[str], taken: str, left: str) -> str:
        fitting = self._fitting
        tasks = " ".join(f"{cell:>{self._size}}" for cell in cells[1 : fitting + 1])
        hidden = f" +{len(self.tasks) - fitting} tasks" if self._crowded and epoch == "epoch" else ""
        return f"{epoch:>7} {cells[0]:>10} {tasks} {taken:>7} {left:>7}{hidden}".rstrip()

    def _cell(self, key: str, value: float) -> str:
        before = self._before.get(key)
        shown = f"{value:.4f}" if abs(value) < 100 else f"{value:.4g}"
        if before is None or math.isnan(before) or before == value:
            return f"{shown} "
        better = (value > before) == any(_of(key, name) for name in _RISING)
        return shown + _arrow(better)

    def _write(self, *lines: str) -> None:
        clear = f"\r{' ' * (_BARS + 50)}\r" if sys.stdout.isatty() else ""
        sys.stdout.write(clear + "".join(f"{line}\n" for line in lines))
        sys.stdout.flush()


def _loss(values: Mapping[str, float]) -> str:
    return "val_loss" if "val_loss" in values else "loss"


def _main(task: str, values: Mapping[str, float]) -> str:
    """Return the key of a task's main metric in the log of an epoch."""
    own = [key for key in values if key.startswith(f"val_{task}_")]
    for name in _PREFERRED:
        for key in own:
            if _of(key, name) and key.removeprefix(f"val_{task}_").startswith(name):
                return key
    return f"val_{task}_loss" if f"val_{task}_loss" in values else f"{task}_loss"


def _metric(task: str, key: str) -> str:
    return key.removeprefix("val_").removeprefix(f"{task}_")


def _of(key: str, name: str) -> bool:
    """Return whether a key ends with the name of a metric, or with that of a metric at a cut-off."""
    if name.endswith("@"):
        return f"_{name}" in key
    return key.endswith(f"_{name}")


def _arrow(better: bool) -> str:
    """Return an arrow, or a sign where the output cannot hold it."""
    arrow, sign = ("↑", "+") if better else ("↓", "-")
    try:
        arrow.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return sign
    return arrow


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"

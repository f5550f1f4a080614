"""Critics of sessions: weights of rows and tasks by the future error of a model in the session."""

from __future__ import annotations

import json
import pathlib
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int, require_several, require_type
from tfmtl._keras import tf
from tfmtl._staging import replace_file
from tfmtl.allocation.affinity import Floats
from tfmtl.allocation.discounted_sums import discounted_sums, require_discount
from tfmtl.allocation.regressor import Regressor
from tfmtl.allocation.row_losses import RowLosses, RowReader
from tfmtl.data import Batch, to_batch
from tfmtl.data.interchange import as_rows
from tfmtl.data.times import group_numbers, moments_of
from tfmtl.models import MultiTaskModel

_FORM = "tfmtl session critics 1"


class SessionCritics:
    r"""RMTL's session critics: weights of rows by the losses of a model in the rest of their session.

    Use them where rows come in sessions and errors at one moment announce errors to come; compare with the shuffled
    weights and with a strength of 0 before you keep them.

    - y_(k,t) = l_(k,t) + gamma y_(k,t+1): the loss of task k in row t, and the discounted losses of the later rows of
      its session; a row without a label has the loss 0
    - Q_k regresses y_k on the encodings of the row and on the outputs of all tasks for it
    - w_(k,t) = (1 + lambda Q_k(t)) / (mean over the rows with a label of task k)

    A critic of each task is an output of one network with shared hidden layers. The next row of a session does not
    depend on a prediction, so that the critics are plain regressors: they need neither target networks nor exploration.
    They read the same model, in inference mode, in `fit` and in `weigh`; the weights may train any model.

    Args:
        model: a trained model. Its losses on rows that did not train it are not too small.
        session: column with the session of each row, not shared by users; a row without one is a session of its own.
        time: column of times that orders the rows of a session.
        discount: gamma, in [0, 1]; with 0 a critic predicts the loss of the row alone.
        units: widths of the hidden layers.
        seed: seed of the initial values and of the order of the rows.

    Attributes:
        task_names: names of the K tasks: those with a label, without retrieval, of which a row alone has no loss.

    Raises:
        ValueError: if an argument is out of range, or no task has a label and losses of rows.

    Example:
        >>> # critics = SessionCritics(model, session="visit", time="clicked_at").fit(held_out)
        >>> # student.fit(critics.weigh(train, strength=0.5), epochs=3)
        >>> [round(float(weight), 2) for weight in row_weights(np.array([0.0, 1.0, 2.0]), strength=0.5)]
        [0.67, 1.0, 1.33]

    Reference:
        Liu et al., "Multi-Task Recommendations with Reinforcement Learning", WWW 2023,
        https://arxiv.org/abs/2302.03328, where the reward is -l and the weight 1 - lambda Q. There critics bootstrap
        from a target network and train beside the actor; here they regress the whole sum. There the mean weights of
        tasks differ; here each is 1, so that weights between tasks stay those of the balancer. A balancer
        `FixedWeights` with 1 + lambda times the mean of `values` restores them.

    Cost: `fit` and `weigh` take a forward pass over the rows, and `fit` some epochs of a small network.
    """

    def __init__(
        self, model: MultiTaskModel, *, session: str, time: str, discount: float = 0.9, units: Sequence[int] = (64,),
        seed: int = 0,
    ) -> None:  # fmt: skip
        require_type(model, MultiTaskModel, "model")
        require_type(session, str, "session", "Name the column with the session of each row.")
        require_type(time, str, "time", "Name the column by which the rows of a session are ordered.")
        require_discount(discount)
        require_several(units=units)
        for width in units:
            require_positive_int(units=width)
        self.model, self.session, self.time = model, session, time
        self.discount, self.units, self.seed = float(discount), tuple(units), seed
        labelled = model.schema.tasks
        self.task_names = tuple(t.name for t in model.tasks if t.name in labelled and not t.retrieves)
        require(bool(self.task_names), "Session critics need a task with a label that is no retrieval.")
        self._read = RowReader(model, self.task_names)
        self._regressor: Regressor | None = None
        self._checksum = -1

    def fit(
        self, table: Any, *, epochs: int = 10, batch_size: int = 1024, learning_rate: float = 1e-3
    ) -> SessionCritics:
        """Learn the critics from the losses of the model on the sessions of a table, and return the critics.

        Args:
            table: rows with labels, all rows of a session.
            epochs, batch_size, learning_rate: of the network of the critics.

        Raises:
            ValueError: if a column is absent, a time is missing, or a task has no label.
        """
        require_positive_int(epochs=epochs, batch_size=batch_size)
        rows, sums = self._rows(table)
        without = [name for i, name in enumerate(self.task_names) if np.isnan(sums[:, i]).all()]
        require(not without, f"The table has no label of the tasks {without}.")
        regressor = Regressor.of(rows.inputs, sums, self.units, self.seed)
        regressor.fit(rows.inputs, sums, epochs, batch_size, learning_rate, self.seed)
        self._regressor, self._checksum = regressor, checksum_of(self.model)
        return self

    def values(self, table: Any) -> dict[str, Floats]:
        """Return by task Q [N], the predicted discounted losses of the rows.

        Raises:
            ValueError: if the critics are not trained, or the model was trained after them.
        """
        return dict(zip(self.task_names, self._values(self._batch(table)).T, strict=True))

    def score(self, table: Any) -> dict[str, float]:
        """Return by task the R2 of the values: the share of the variance of the discounted losses that they explain.

        Near 0, the critics have learned nothing, and weights by them are noise.

        Args:
            table: rows with labels that did not train the critics, all rows of a session. Without labels of a task, or
                with equal losses, its R2 is NaN.
        """
        rows, sums = self._rows(table)
        errors = sums - self._trained().predict(rows.inputs)
        return {name: _explained(errors[:, i], sums[:, i]) for i, name in enumerate(self.task_names)}

    def weigh(self, table: Any, strength: float = 1.0, shuffle_seed: int | None = None) -> Batch:
        """Return the encoded rows of a table with the weights of the critics, for `fit` of any model of its schema.

        The weights multiply those of the table's weight columns; rows without a label keep the weight 0.

        Args:
            table: rows with labels; it needs no column of sessions.
            strength: lambda, 0 or more. With 0 the rows are those of `to_batch`, and train a model to the same bits.
            shuffle_seed: a seed to deal the same weights to random rows, as a control; None for their own rows.

        Raises:
            ValueError: if an argument is out of range, the critics are not trained, the model was trained after them,
                or negative losses make a weight 0 or less.
        """
        number = isinstance(strength, int | float) and not isinstance(strength, bool)
        require(number and 0 <= strength < np.inf, "`strength` must be a number of 0 or more.", strength=strength)
        batch = self._batch(table)
        values, weights = self._values(batch), dict(batch.weights)
        for i, name in enumerate(self.task_names):
            own = weights[name].numpy().copy()
            (kept,) = np.nonzero(own > 0)
            found = row_weights(values[kept, i], strength, name)
            if shuffle_seed is not None:
                found = np.random.default_rng([shuffle_seed, i]).permutation(found)
            own[kept] *= found.astype(np.float32)
            weights[name] = tf.constant(own)
        return batch._replace(weights=weights)

    def save(self, path: str | pathlib.Path) -> None:
        """Write the critics without their model to a file `.npz`; an older file is replaced in one step."""
        arrays: dict[str, Any] = self._trained().arrays()
        config = {name: getattr(self, name) for name in ("session", "time", "discount", "units", "seed", "task_names")}
        text = json.dumps({"form": _FORM, "model": self._checksum, **config})
        replace_file(pathlib.Path(path), lambda file: np.savez(file, config=text, **arrays))

    @classmethod
    def load(cls, path: str | pathlib.Path, model: MultiTaskModel) -> SessionCritics:
        """Return the critics of a file that `save` wrote.

        Args:
            path: of the file.
            model: the model that they read, with the weights that it had in `fit`.

        Raises:
            ValueError: if the file holds no critics, or those of another model.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            config = json.loads(str(arrays.pop("config")))
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile):
            config = {}
        require(isinstance(config, dict) and config.pop("form", None) == _FORM, f"{path} holds no session critics.")
        names, checksum = tuple(config.pop("task_names")), config.pop("model")
        critics = cls(model, **config)
        same = critics.task_names == names and checksum_of(model) == checksum
        require(same, f"The critics of {path} read another model, or other weights of it; load that model.")
        critics._regressor, critics._checksum = Regressor.from_arrays(arrays, critics.units), checksum
        return critics

    def _rows(self, table: Any) -> tuple[RowLosses, Floats]:
        """Return the rows and their discounted losses [N, K], NaN where the label is missing."""
        frame = as_rows(table, "table")
        sessions, times = group_numbers(frame, self.session), moments_of([frame], self.time)
        rows = self._read(self._batch(frame))
        missing = np.isnan(rows.losses)
        sums = discounted_sums(np.where(missing, 0.0, rows.losses), sessions, times, self.discount)
        return rows, np.where(missing, np.nan, sums)

    def _batch(self, table: Any) -> Batch:
        return to_batch(as_rows(table, "table"), self.model.preprocessor)

    def _values(self, batch: Batch) -> Floats:
        regressor = self._trained()
        return regressor.predict(self._read(batch).inputs)

    def _trained(self) -> Regressor:
        """Return the regressor, or raise unless it fits the model as it is now."""
        require(self._regressor is not None, "The critics are not trained; call `fit` first.")
        same = checksum_of(self.model) == self._checksum
        require(same, "The model was trained after its critics, which would read other inputs; call `fit` again.")
        assert self._regressor is not None
        return self._regressor


def _explained(errors: Floats, targets: Floats) -> float:
    """Return 1 - mean(e^2) / var(y) over the rows with a target; NaN if these do not vary."""
    known = ~np.isnan(targets)
    variance = float(targets[known].var()) if known.any() else 0.0
    return float(1 - np.square(errors[known]).mean() / variance) if variance > 0 else float("nan")


def row_weights(values: Floats, strength: float, task: str = "") -> Floats:
    """Return (1 + lambda Q) / mean(1 + lambda Q) [n] for the values Q [n] of the rows with a label of a task.

    Raises:
        ValueError: if a weight is 0 or less.
    """
    weights = 1 + strength * np.asarray(values, np.float64)
    rule = f"Negative losses of task {task!r} give rows a weight of 0 or less; take a smaller `strength`."
    require(bool((weights > 0).all()), rule, strength=strength)
    return weights / weights.mean() if len(weights) else weights


def checksum_of(model: MultiTaskModel) -> int:
    """Return a CRC-32 of the weights of a model's network."""
    checksum = 0
    for variable in model.network.weights:
        checksum = zlib.crc32(np.ascontiguousarray(variable.numpy()).tobytes(), checksum)
    return checksum

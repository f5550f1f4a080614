"""keras-tuner's search strategies, made to survive a kill at any moment."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from tfmtl._keras import tf
from tfmtl._saved_files import parse_json, to_json
from tfmtl.tuning._keras_tuner import MetricsTracker, Trial, keras_tuner

COMPLETED, FAILED, INVALID = "COMPLETED", "FAILED", "INVALID"


def write_json(path: str, state: Mapping[str, Any]) -> None:
    """Replace the file at `path` by `state` with a checksum in one step: a kill leaves the old file or the new one."""
    written = f"{path}.new"
    with tf.io.gfile.GFile(written, "w") as file:
        file.write(to_json(state))
    tf.io.gfile.rename(written, path, overwrite=True)


def check_json(path: str) -> dict[str, Any]:
    """Return the state that `write_json` wrote.

    Raises:
        DamagedFileError: a `ValueError`, if the file is damaged.
    """
    with tf.io.gfile.GFile(path, "rb") as file:
        return parse_json(pathlib.Path(path), file.read(), "restore it from a backup, or search in another folder")


class Resumable(keras_tuner.Oracle):
    """An oracle with files that are consistent after a kill; only completed trials count as best."""

    trials: dict[str, Any]
    _retry_queue: list[str]

    def get_best_trials(self, num_trials: int = 1) -> list[Any]:
        """Return at most `num_trials` completed trials, the best first."""
        ranked = super().get_best_trials(len(self.trials))
        return [trial for trial in ranked if trial.status == COMPLETED][:num_trials]

    def save(self) -> None:
        """Save the state of the search."""
        write_json(self._get_oracle_fname(), self.get_state())

    def reload(self) -> None:
        """Load the state of the search; a trial that was running when it was saved is the next to run.

        A kill can fall between the writing of a trial's file and of the search's file. A trial that only the
        former holds was never started; a trial that has ended according to the former is not run again.

        Raises:
            DamagedFileError: a `ValueError`, naming the file that is damaged.
        """
        check_json(self._get_oracle_fname())
        for name in tf.io.gfile.listdir(self._project_dir):  # keras-tuner takes brackets in its path for a pattern
            path = f"{self._project_dir}/{name.rstrip('/')}/trial.json"
            if name.startswith("trial_") and tf.io.gfile.exists(path):
                check_json(path)
                trial = Trial.load(path)
                self.trials[trial.trial_id] = trial
        super().reload()
        self.trials = {name: self.trials[name] for name in self.start_order if name in self.trials}
        ended = {name for name, trial in self.trials.items() if trial.status in (COMPLETED, FAILED)}
        self.end_order += [name for name in self.trials if name in ended and name not in self.end_order]
        self._retry_queue = [name for name in dict.fromkeys(self._retry_queue) if name not in ended]
        for name in self._retry_queue:
            self.trials[name].metrics = MetricsTracker()  # keras-tuner would keep the values of the interrupted run

    def _save_trial(self, trial: Any) -> None:
        write_json(f"{self._get_trial_dir(trial.trial_id)}/trial.json", trial.get_state())


class RandomSearchOracle(Resumable, keras_tuner.oracles.RandomSearchOracle):
    """Independent draws from the search space."""


class BayesianOptimizationOracle(Resumable, keras_tuner.oracles.BayesianOptimizationOracle):
    """A Gaussian process over the completed trials chooses the next one."""


class HyperbandOracle(Resumable, keras_tuner.oracles.HyperbandOracle):
    """Many short trials, of which the best are continued for more epochs."""


class GridSearchOracle(Resumable, keras_tuner.oracles.GridSearchOracle):
    """Every combination of the values.

    keras-tuner's own does not save how far it is and, reloaded, dies of a `KeyError`; the order of the combinations
    is a property of the trials' values, so it is found again from them.
    """

    def reload(self) -> None:
        """Load the state of the search and find its position in the grid."""
        super().reload()
        for name in sorted(self.trials, key=functools.cmp_to_key(self._compare_trials)):
            self._ordered_ids.insert(name)
        self._populate_next = list(self.end_order)

    def _compare_trials(self, one: str, other: str) -> int:
        order: int = self._compare(*(self.trials[name].hyperparameters.values for name in (one, other)))
        return order

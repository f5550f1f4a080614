"""What a search found, as rows."""

from __future__ import annotations

from typing import Any

from tfmtl.tuning._keras_tuner import keras_tuner
from tfmtl.tuning.oracles import COMPLETED


def trials_table(tuner: keras_tuner.Tuner, *, failed: bool = False) -> list[dict[str, Any]]:
    """Return one row per completed trial, the best first.

    Args:
        tuner: a tuner after `search`, or one that reloaded its project.
        failed: whether rows of the trials that failed or were interrupted follow, in the order of their start.

    Returns:
        Rows of `trial` (its id), `score` (the objective's best value, None if failed), `best_step` (the epoch of that
        value, from 0), `metrics` (all that was logged in that epoch, name to value; as `pareto_front` reads them),
        `status`, `hyperparameters` (name to value) and `message` (the error, or None).
    """
    trials = tuner.oracle.get_best_trials(len(tuner.oracle.trials))
    if failed:
        trials += [trial for trial in tuner.oracle.trials.values() if trial.status != COMPLETED]
    return [_row(trial) for trial in trials]


def _row(trial: Any) -> dict[str, Any]:
    completed = trial.status == COMPLETED
    return {
        "trial": trial.trial_id,
        "score": float(trial.score) if completed else None,
        "best_step": trial.best_step if completed else None,
        "metrics": _metrics(trial) if completed else {},
        "status": trial.status,
        "hyperparameters": dict(trial.hyperparameters.values),
        "message": None if completed or not trial.message else cause(trial.message),
    }


def _metrics(trial: Any) -> dict[str, float]:
    """Return the mean over the runs of each metric at the best step, where it has a value there."""
    found = {}
    for name in trial.metrics.metrics:
        for observation in trial.metrics.get_history(name):
            if observation.step == trial.best_step:
                found[name] = float(observation.mean())
    return found


def cause(traceback: str) -> str:
    r"""Return the line of a formatted traceback that names the error.

    Example:
        >>> cause('Traceback:\n  File "a.py", line 1, in f\n    g()\nValueError: no units\n')
        'ValueError: no units'
    """
    lines = traceback.splitlines()
    frames = [index for index, line in enumerate(lines) if line.startswith("  File ")]
    after = lines[frames[-1] + 1 :] if frames else lines
    return next((line for line in after if line and not line[0].isspace()), traceback.strip())

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuning.models import Scored, two_choices
from tfmtl import tuning
from tfmtl.tuning.trials_table import cause


def test_rows_hold_what_a_trial_was_and_came_to(tmp_path: Path) -> None:
    model = Scored(two_choices, lambda drawn: {"x_loss": drawn["a"] * drawn["b"], "other": 1.0})
    tuner = tuning.GridSearch(model, "x_loss", max_trials=2, directory=tmp_path)
    assert tuning.trials_table(tuner) == []
    tuner.search(verbose=0)
    common = {"best_step": 0, "status": "COMPLETED", "message": None}

    def logs(loss: float) -> dict[str, float]:
        return {"x_loss": loss, "other": 1.0}

    assert tuning.trials_table(tuner) == [
        {"trial": "0", "score": 10.0, "hyperparameters": {"a": 1, "b": 10}, "metrics": {"x_loss": 10.0, "other": 1.0}}
        | common,
        {"trial": "1", "score": 20.0, "hyperparameters": {"a": 1, "b": 20}, "metrics": {"x_loss": 20.0, "other": 1.0}}
        | common,
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Traceback:\n  File 'a'\n    f()\n    ^^^\nOSError: disk\n  details\n", "OSError: disk"),
        (
            "Traceback:\n  File 'a'\nKeyError: 1\n\nThen:\n  File 'b'\n    g()\nOSError: disk\nmore",
            "OSError: disk",
        ),
        ("Traceback:\n  File 'a'\nOSError: disk\nmore", "OSError: disk"),  # without the line of the source
        ("plain message", "plain message"),
        ("", ""),
    ],
)
def test_the_cause_is_the_line_that_names_the_last_error(text: str, line: str) -> None:
    assert cause(text) == line

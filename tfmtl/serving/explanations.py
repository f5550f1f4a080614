"""Explanations: which parts of the features moved the values of ranking tasks, as a signature and as reasons."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_known, require_positive_int, require_several
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import Task


@dataclasses.dataclass(frozen=True)
class Explanations:
    """The settings of the signatures `explain` and `explain_examples`, and of the reasons in `recommend`.

    Use it if a page shows users why they see a candidate, or if an operator must justify single predictions. The
    attributions are those of `tfmtl.interpretation.integrated_gradients` with the same `baseline` and `steps`. They
    explain the network's value: the logit of a task for events, after its calibration, otherwise the served value, and
    of several classes the largest one. Trees and bins compare numbers and keep the values of the row, so that their
    effect is in the base.

    Args:
        baseline: usually rows of the training table, a few thousand; the paths start at their mean encodings, which the
            version stores.
        tasks: names of ranking tasks, all by default.
        steps: parts of each path; the gaps show whether they suffice.
        reasons: number of reasons of each candidate that `recommend` returns; 0 for none.

    Raises:
        ValueError: if `steps` is not positive, or `reasons` is negative.

    Example:
        >>> Explanations(baseline=None, tasks=["click"], reasons=3).steps
        32

    Cost: `explain` computes `steps` + 1 rows of the network and their gradients for each row and task, and `recommend`
    with reasons as much for each returned candidate. Without `Explanations` a version has nothing of them.

    Reference: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017,
    https://arxiv.org/abs/1703.01365, equation 1.
    """

    baseline: Any
    tasks: Sequence[str] | None = None
    steps: int = 32
    reasons: int = 0

    def __post_init__(self) -> None:
        require_positive_int(steps=self.steps)
        valid = isinstance(self.reasons, int) and not isinstance(self.reasons, bool) and self.reasons >= 0
        require(valid, "`reasons` must be a number of reasons, or 0 for none.", reasons=self.reasons)
        require_several(tasks=self.tasks)

    def tasks_of(self, model: MultiTaskModel) -> list[Task]:
        """Return the tasks of a model that are explained.

        Raises:
            ValueError: if the model has no ranking task, or `tasks` names another task or none.
        """
        ranking = [task for task in model.tasks if not task.retrieves]
        others = [task.name for task in model.tasks if task.retrieves]
        require(bool(ranking), "Only ranking tasks are explained; export this model without `explain`.", tasks=others)
        require_known(
            self.tasks or (), [task.name for task in ranking], "task", "`explain` (the model's ranking tasks)"
        )
        require(
            self.tasks is None or len(self.tasks) > 0,
            "`tasks` is empty; leave it out to explain all tasks.",
            tasks=[],
        )
        return [task for task in ranking if self.tasks is None or task.name in self.tasks]

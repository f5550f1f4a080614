"""The verbs of a model over tables: recommend, rank, embed and similar items."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from tfmtl._checks import require_positive_int

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class TableVerbs:
    """Answers of a model as tables; the packages that compute them lie above models and are imported by a call."""

    candidates: Any

    def recommend(
        self,
        queries: Any,
        k: int = 10,
        *,
        exclude: Any = None,
        restrict: Any = None,
        fusion_weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """Return the best k candidates of each query as a table: user, rank, candidate, score, value of each task.

        Args:
            queries: a table with the columns of the query's features, one row as a `dict` or `Series`, or ids alone,
                where the id is the only feature of queries.
            k: length of each list; all candidates if they are fewer.
            exclude: candidates that no list holds: ids, or a table with the columns of user and candidate, such as the
                training rows.
            restrict: the only candidates that lists may hold, in the same form.
            fusion_weights: weights of the tasks in the order of a list; by default 1, or -1 for undesired labels.
            **options: others of `tfmtl.serving.RecommenderExporter`, such as `rerank_depth` and `retrieval`.

        Raises:
            ValueError: if the model retrieves nothing, a column is absent, or a name is unknown.

        Cost: the embeddings of all candidates in each call; keep a `tfmtl.serving.TableAnswers` for many calls.
        """
        require_positive_int(k=k)
        most = None if self.candidates is None else min(k, len(self.candidates))
        answers = _answers(self, max_k=most, fusion_weights=fusion_weights, **options)
        found: pd.DataFrame = answers.recommend(queries, exclude=exclude, restrict=restrict)
        return found

    def rank(self, table: Any) -> pd.DataFrame:
        """Return the value of each task for pairs, `task[class]` for each class, with the index of the table.

        Args:
            table: with the columns of all features; or one row as a `dict` or `Series`.
        """
        found: pd.DataFrame = _answers(self).rank(table)
        return found

    def embed(self, side: Literal["query", "candidate"], table: Any) -> np.ndarray:
        """Return embeddings [N, d], of which the dot products are the retrieval's scores.

        Args:
            side: `"query"` or `"candidate"`.
            table: with the columns of the features of this side; or as in `recommend`.
        """
        found: np.ndarray = _answers(self).embed(side, table)
        return found

    def similar_items(self, items: Any, k: int = 10, **options: Any) -> pd.DataFrame:
        """Return the k nearest candidates of each item; see `tfmtl.evaluation.similar_items`."""
        found: pd.DataFrame = importlib.import_module("tfmtl.evaluation").similar_items(self, items, k, **options)
        return found


def _answers(model: Any, **options: Any) -> Any:
    given = {name: value for name, value in options.items() if value is not None}
    return importlib.import_module("tfmtl.serving").TableAnswers.of_model(model, **given)

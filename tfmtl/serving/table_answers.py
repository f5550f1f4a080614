"""TableAnswers: the signatures of a model on tables, with tables as answers."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl._keras import tf
from tfmtl._names import weight_input
from tfmtl.data import Schema
from tfmtl.data.columns import to_columns
from tfmtl.data.preprocessor import MISSING_VALUES
from tfmtl.models import MultiTaskModel
from tfmtl.serving.limited_ids import Limit, limit_of
from tfmtl.serving.recommender_exporter import RecommenderExporter
from tfmtl.serving.table_requests import as_queries, as_text, column_names, named_values
from tfmtl.serving.versions import check_files, read_manifest, version_of

Tensors = Mapping[str, Any]
_FILTERS = ("exclude_ids", "restrict_ids")


class TableAnswers:
    """The signatures of a model on pandas tables: the same for a model in memory and for a SavedModel.

    `MultiTaskModel.recommend`, `rank` and `embed` make one for each call; keep one for many calls of `recommend`, since
    it holds the embeddings of all candidates.

    Args:
        signatures: functions of named tensors by name of the signature.
        schema: roles and columns of the features.
        description: the entries of a version's manifest that its exporter wrote: `max_k`, `retrieval`, `fusion`.
        tasks: names of the tasks, in the order of their columns.

    Attributes:
        path: the folder of the version, or None for a model in memory.

    Example:
        >>> from tfmtl import Categorical, MultiTaskModel, Preprocessor, Retrieval, build_network
        >>> table = pd.DataFrame({"user": ["ann", "bob"], "item": ["tea", "jam"]})
        >>> data = Preprocessor.fit(Schema([Categorical("user")], [Categorical("item")]), table)
        >>> tasks = [Retrieval("click")]
        >>> answers = TableAnswers.of_model(MultiTaskModel(build_network(data, tasks), tasks, data))
        >>> answers.recommend(["ann", "bob"], k=1, exclude=table)[["user", "rank", "item"]].to_numpy().tolist()
        [['ann', 1, 'jam'], ['bob', 1, 'tea']]

    Cost: that of the signatures; see `RecommenderExporter`.
    """

    def __init__(
        self,
        signatures: Mapping[str, Callable[..., Tensors]],
        schema: Schema,
        description: Mapping[str, Any],
        tasks: Sequence[str],
        path: pathlib.Path | None = None,
    ) -> None:
        self.signatures = signatures
        self.schema = schema
        self.description = description
        self.tasks = list(tasks)
        self.path = path

    @classmethod
    def of_model(cls, model: MultiTaskModel, **options: Any) -> TableAnswers:
        """Return the answers of a model in memory.

        Args:
            model: a model; later changes of its weights do not reach the embeddings of the candidates.
            **options: of `RecommenderExporter`, such as `max_k`, `rerank_depth` and `retrieval`.

        Cost: that of an export without its files: the embeddings of all candidates, and one trace for each signature
        that is used.
        """
        served = RecommenderExporter(**options).servable(model)
        signatures = {name: _Traced(signature) for name, signature in served.signatures.items()}
        return cls(signatures, model.schema, served.description, [task.name for task in model.tasks])

    @classmethod
    def load(cls, path: str | pathlib.Path) -> TableAnswers:
        """Return the answers of an exported version.

        Args:
            path: folder of a version, or of a model for its newest version.

        Raises:
            ValueError: if no version is there, or its files are damaged.
        """
        version = version_of(pathlib.Path(path))
        manifest = read_manifest(version)
        check_files(version)
        require("card" in manifest, f"{version} has no card, which holds its columns; export the model again.")
        card, signatures = manifest["card"], tf.saved_model.load(str(version)).signatures
        return cls(signatures, Schema.from_config(card["schema"]), manifest, list(card["tasks"]), version)

    def recommend(
        self,
        queries: Any,
        k: int | None = None,
        *,
        exclude: Any = None,
        restrict: Any = None,
        fusion_weights: Mapping[str, float] | None = None,
        batch_size: int = 1024,
    ) -> pd.DataFrame:
        """Return the best k candidates of each query, as the signature `recommend_filtered` does.

        Args:
            queries: a table with the columns of the query's features, and of the context's if they are known; one row
                as a `dict` or `Series`; or ids alone, where the id is the only feature of queries.
            k: length of each list; by default, and at most, the `max_k` of the export.
            exclude: candidates that no list holds: ids, or a table of pairs with the columns of user and candidate,
                such as the training rows.
            restrict: the only candidates that lists may hold, in the same form. A user without a pair gets no list.
            fusion_weights: by task, weights that replace the exported ones.
            batch_size: queries of one call.

        Returns:
            A table with a row for each list and rank: the user's id, or the label of the query's row as `query` if
            there is no id; `rank` from 1; the candidate's id; `score`; the value of each task, `task[class]` for each
            class; and the reasons of an export with `Explanations(reasons=...)`. Lists are in the order of the queries
            and can be shorter than k.

        Raises:
            ValueError: if a column is absent, `k` or a name is out of range, or the model retrieves nothing.
        """
        call = self._signature("recommend_filtered", "recommends nothing: it has no retrieval task with candidates")
        frame = as_queries(queries, self.schema)
        most = int(self.description["max_k"])
        k = most if k is None else k
        require_positive_int(k=k, batch_size=batch_size)
        require(k <= most, "`k` is longer than a list of the model; export it with a greater `max_k`.", k=k, max_k=most)
        limits = [limit_of(given, frame, self.schema) for given in (exclude, restrict)]
        weights = self._weights(fusion_weights)
        features = {**self._columns(frame, "query"), **self._context(frame)}
        kept = np.arange(len(frame)) if limits[1] is None else np.flatnonzero(limits[1].sizes > 0)
        asked = kept if len(kept) else np.arange(1)  # the answer of one query has the columns of none
        parts = []
        for start in range(0, len(asked), batch_size):
            rows = asked[start : start + batch_size]
            filters = {name: self._ids(limit, rows) for name, limit in zip(_FILTERS, limits, strict=True)}
            own = {name: np.full(len(rows), value, np.float32) for name, value in weights.items()}
            answer = call(
                **self._named({n: v[rows] for n, v in features.items()}),
                **filters, **_tensors(own), k=tf.fill([len(rows)], k),
            )  # fmt: skip
            parts.append(self._lists(frame, rows, answer, k))
        return pd.concat(parts, ignore_index=True) if len(kept) else parts[0].iloc[:0]

    def rank(self, table: Any, *, batch_size: int = 4096) -> pd.DataFrame:
        """Return the value of each task for pairs of query and candidate.

        Args:
            table: with the columns of all features; or one row as a `dict` or `Series`.
            batch_size: rows of one call.

        Returns:
            A column for each task, or `task[class]` for each class, with the index of the table.
        """
        require_positive_int(batch_size=batch_size)
        frame = as_queries(table, self.schema, ("query", "candidate", "context"))
        columns = self._columns(frame, "query", "candidate", "context")
        values = self._batches(self.signatures["rank"], columns, len(frame), batch_size)
        return pd.DataFrame(named_values(self._in_order(values), self.schema), index=frame.index)

    def embed(self, side: Literal["query", "candidate"], table: Any, *, batch_size: int = 4096) -> np.ndarray:
        """Return embeddings, of which the dot products are the retrieval's scores.

        Args:
            side: `"query"` or `"candidate"`.
            table: with the columns of the features of this side; or as in `recommend`.
            batch_size: rows of one call.

        Returns:
            [N, d], or [N, K, d] for queries with K vectors.
        """
        require_positive_int(batch_size=batch_size)
        require_known([side], ("query", "candidate"), "side", "`embed`")
        call = self._signature(f"embed_{side}", "has no embeddings: it has no retrieval task with candidates")
        frame = as_queries(table, self.schema, (side,))
        return self._batches(call, self._columns(frame, side), len(frame), batch_size)["embedding"]

    def _signature(self, name: str, fault: str) -> Callable[..., Tensors]:
        require(name in self.signatures, f"The model {fault}; use `rank`.", signatures=list(self.signatures))
        return self.signatures[name]

    def _batches(
        self, call: Callable[..., Tensors], columns: Mapping[str, np.ndarray], rows: int, batch_size: int
    ) -> dict[str, np.ndarray]:
        answers = [
            call(**self._named({name: column[start : start + batch_size] for name, column in columns.items()}))
            for start in range(0, rows, batch_size)
        ]
        return {name: np.concatenate([np.asarray(answer[name]) for answer in answers]) for name in answers[0]}

    def _columns(self, frame: pd.DataFrame, *roles: str) -> dict[str, np.ndarray]:
        return to_columns(frame, [feature for role in roles for feature in getattr(self.schema, role)])

    def _context(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return the columns of the context; features without a column in the table are missing."""
        missing = {f.column: [None] * len(frame) for f in self.schema.context if f.column not in frame}
        return to_columns(frame.assign(**missing), self.schema.context) if self.schema.context else {}

    def _named(self, columns: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
        names = self.description.get("input_names", {})
        return _tensors({names.get(name, name): column for name, column in columns.items()})

    def _in_order(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: values[name] for name in (*self.tasks, *sorted({*values} - {*self.tasks})) if name in values}

    def _weights(self, given: Mapping[str, float] | None) -> dict[str, float]:
        names = self.description["fusion"]["weights"]
        require_known(given or {}, names, "task", "the weights of `recommend`")
        return {weight_input(name): (given or {}).get(name, np.nan) for name in names}

    def _ids(self, limit: Limit | None, rows: np.ndarray) -> tf.Tensor:
        dtype = self._candidate.raw_spec.dtype
        if limit is None:
            return tf.zeros([len(rows), 0], dtype)
        return tf.constant(limit.padded(rows, MISSING_VALUES[dtype]), dtype)

    @property
    def _candidate(self) -> Any:
        return self.schema.features[str(self.schema.candidate_id)]

    def _lists(self, frame: pd.DataFrame, rows: np.ndarray, answer: Tensors, k: int) -> pd.DataFrame:
        """Return the lists of some queries as rows."""
        user, item = column_names(self.schema, frame)
        queries = frame[user] if user in frame else pd.Series(frame.index, index=frame.index)
        values = {name: np.asarray(tensor) for name, tensor in answer.items()}
        ids = values.pop("ids")
        valid = ids != (b"" if ids.dtype.kind == "O" else -1)
        query, position = np.nonzero(valid[:, :k])
        found = ids[query, position]
        table = {
            user: queries.iloc[rows[query]].to_numpy(),
            "rank": position + 1,
            item: as_text(found),
            "score": values.pop("scores")[query, position],
        }
        picked = {n: v[query, position] if v.shape[1:2] == ids.shape[1:] else v[query] for n, v in values.items()}
        own = {name: as_text(value) for name, value in picked.items()}
        return pd.DataFrame({**table, **named_values(self._in_order(own), self.schema, table)})


class _Traced:
    """A signature that is traced by its first call."""

    def __init__(self, signature: Any) -> None:
        self._signature = signature

    def __call__(self, **inputs: tf.Tensor) -> Tensors:
        answer: Tensors = self._signature.traced(**inputs)
        return answer


def load(path: str | pathlib.Path) -> TableAnswers:
    """Return an exported model that reads and writes pandas tables; see `TableAnswers`.

    Args:
        path: folder of a version, or of a model for its newest version.

    Raises:
        ValueError: if no version is there, or its files are damaged.
    """
    return TableAnswers.load(path)


def _tensors(columns: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.convert_to_tensor(column) for name, column in columns.items()}

"""The expected answers of a recommender, computed by NumPy over all pairs with the model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tfmtl.models import MultiTaskModel

FUSED = ("seen", "rating", "clicked")


class Reference:
    """Scores every query with every candidate.

    Args:
        model: from `servers.models.build`.
        frame: its table.
        query: raw query features.
        position: the context feature of each query, -1 for none; by default all are missing.
    """

    def __init__(
        self, model: MultiTaskModel, frame: pd.DataFrame, query: Mapping[str, Any], position: Any = None
    ) -> None:
        self.ids = model.candidates.ids
        self.missing: Any = "" if self.ids.dtype == object else -1
        items, rows = len(self.ids), len(query["age"])
        encoded = {name: value.numpy() for name, value in model.preprocessor(dict(query)).items()}
        user = model.tower("query")({n: np.copy(v) for n, v in encoded.items()})["seen"].numpy()
        item = model.tower("candidate")(model.candidates.features)["seen"].numpy()
        self.scores = user @ item.T
        pairs = {name: np.repeat(value, items, axis=0) for name, value in encoded.items()}
        pairs |= {name: np.concatenate([value.numpy()] * rows) for name, value in model.candidates.features.items()}
        position = model.preprocessor({"position": np.full(rows, -1) if position is None else position})["position"]
        pairs["position"] = np.repeat(position.numpy(), items)
        outputs = model(pairs)
        self.values = {t.name: t.predict(outputs[t.name]).numpy() for t in model.tasks}
        self.values = {n: v.reshape(rows, items, *v.shape[1:]) for n, v in self.values.items()}
        self.values["seen"] = self.scores
        known = {name: frame[name].dropna().astype(float) for name in ("rating", "clicked")}
        self.standard = {n: (self.values[n] - v.mean()) / v.std(ddof=0) for n, v in known.items()}
        mean, deviation = self.scores.mean(1, keepdims=True), self.scores.std(1, keepdims=True)
        self.standard["seen"] = np.divide(
            self.scores - mean, deviation, np.zeros_like(self.scores), where=deviation > 0
        )

    def retrieve(self, max_k: int, exclude: Any = None, k: Any = None, only: Any = None) -> dict[str, np.ndarray]:
        """Sort the scores of each query."""
        rows = [self._retrieved(i, max_k, exclude, only)[: _limit(k, i, max_k)] for i in range(len(self.scores))]
        scores = [self.scores[i][chosen] for i, chosen in enumerate(rows)]
        return {"ids": self._ids(rows, max_k), "scores": _pad(scores, max_k)}

    def recommend(
        self, max_k: int, exclude: Any = None, k: Any = None, weights: Any = None, only: Any = None, depth: int = 30
    ) -> dict[str, np.ndarray]:
        """Sort the first `depth` retrieved candidates of each query by the weighted sum of standardised values."""
        weights = weights or {name: np.ones(len(self.scores)) for name in FUSED}
        rows = []
        fused = sum(weights[name][:, None] * self.standard[name] for name in FUSED)
        for i in range(len(self.scores)):
            chosen = self._retrieved(i, depth, exclude, only)
            rows.append(chosen[np.argsort(-fused[i][chosen], kind="stable")][: _limit(k, i, max_k)])
        answer = {"ids": self._ids(rows, max_k), "scores": _pad([fused[i][r] for i, r in enumerate(rows)], max_k)}
        for name, value in self.values.items():
            answer[name] = value[:, 0] if name == "region" else _pad([value[i][r] for i, r in enumerate(rows)], max_k)
        return answer

    def _retrieved(self, query: int, max_k: int, exclude: Any, only: Any = None) -> np.ndarray:
        order = np.argsort(-self.scores[query], kind="stable")
        banned = set() if exclude is None else set(exclude[query])
        named = set() if only is None else set(only[query]) - {self.missing}
        allowed = [row for row in order if self.ids[row] not in banned and (not named or self.ids[row] in named)]
        return np.asarray(allowed[:max_k], int)

    def _ids(self, rows: list[np.ndarray], max_k: int) -> np.ndarray:
        return np.asarray([[*self.ids[r], *[self.missing] * (max_k - len(r))] for r in rows], self.ids.dtype)


def _limit(k: Any, query: int, max_k: int) -> int:
    return max_k if k is None or k[query] < 0 else min(int(k[query]), max_k)


def _pad(rows: list[np.ndarray], max_k: int) -> np.ndarray:
    return np.stack([np.concatenate([row, np.zeros((max_k - len(row), *row.shape[1:]))]) for row in rows])


def check_equal(answer: Mapping[str, Any], expected: Mapping[str, np.ndarray], tolerance: float = 1e-5) -> None:
    """Compare ids exactly and numbers to 1e-5."""
    assert set(answer) == set(expected)
    for name, value in expected.items():
        found = np.asarray(answer[name])
        if name == "ids":
            found = found.astype(str) if found.dtype == object else found
            np.testing.assert_array_equal(found, value.astype(found.dtype), err_msg=name)
        else:
            np.testing.assert_allclose(found, value, rtol=tolerance, atol=tolerance, err_msg=name)

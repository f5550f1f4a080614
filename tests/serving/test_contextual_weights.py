"""Weights by the embedding of the query: served lists in another process, requests, the card, and errors."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from servers.models import MAX_K, build, queries

from tests.serving.reference import FUSED, Reference, check_equal
from tfmtl._keras import tf
from tfmtl.serving import ContextualWeights, export
from tfmtl.serving.recommender import Recommender
from tfmtl.serving.versions import read_manifest

CHOICES = [{"seen": 0.5, "rating": 2.0}, {"seen": 0.0, "rating": 0.25, "clicked": 3.0}]
FULL = [{**dict.fromkeys(FUSED, 1.0), **own} for own in CHOICES]


def made(query: Any) -> tuple[ContextualWeights, dict[str, np.ndarray]]:
    """Return a policy that splits some queries by the median of their first value, and the weight of each query."""
    model, _ = build()
    vectors = Recommender(model, MAX_K).embed_query(**query)["embedding"].numpy()
    threshold = float(np.median(vectors[:, 0]))
    zeros = [0.0] * (vectors.shape[1] - 1)
    policy = ContextualWeights(CHOICES, [[0.0, 0.0, *zeros], [-threshold - 1e-4, 1.0, *zeros]])
    chosen = (vectors[:, 0] > threshold + 1e-4).astype(int)
    assert 0 < chosen.sum() < len(chosen)
    return policy, {name: np.asarray([FULL[i][name] for i in chosen], np.float32) for name in FUSED}


def test_each_query_has_the_weights_of_its_choice_in_another_process(tmp_path: pathlib.Path) -> None:
    model, frame = build()
    query = queries(model, frame)
    policy, weights = made(query)
    path = export(model, tmp_path / "model", max_k=MAX_K, fusion_weights=policy)
    np.savez(tmp_path / "query.npz", **{name: value.numpy() for name, value in query.items()})
    program = (
        "import sys, numpy as np, tensorflow as tf\n"
        "query = {k: tf.constant(v.tolist() if v.dtype == object else v) for k, v in "
        "np.load(sys.argv[2], allow_pickle=True).items()}\n"
        "answer = tf.saved_model.load(sys.argv[1]).signatures['recommend'](**query)\n"
        "np.savez(sys.argv[3], **{k: v.numpy() for k, v in answer.items()})\n"
    )
    answered = tmp_path / "answer.npz"
    subprocess.run([sys.executable, "-c", program, path, tmp_path / "query.npz", answered], check=True, timeout=300)
    found = dict(np.load(answered, allow_pickle=True).items())
    found["ids"] = found["ids"].astype(str)
    check_equal(found, Reference(model, frame, query).recommend(MAX_K, weights=weights))
    described = read_manifest(path)["fusion_policy"]
    assert described["choices"] == FULL
    np.testing.assert_allclose(described["coefficients"], policy.coefficients, rtol=1e-6)
    assert json.loads(json.dumps(described)) == described
    card = (path / "assets.extra" / "model_card.md").read_text()
    assert "| weights of choice 1, chosen by the query | `seen` 0, `rating` 0.25, `clicked` 3 |" in card


def test_weights_of_a_request_take_precedence() -> None:
    model, frame = build()
    query = queries(model, frame)
    policy, weights = made(query)
    recommender = Recommender(model, MAX_K, fusion_weights=policy)
    assert dict(recommender.fusion.weights) == FULL[0]
    request = {name: np.full(7, np.nan, np.float32) for name in FUSED}
    request["clicked"][:4] = -2.0
    nothing = tf.zeros([7, 0], tf.string)
    found = recommender.recommend_filtered(
        exclude_ids=nothing, restrict_ids=nothing, k=tf.fill([7], -1), position=tf.fill([7], tf.constant(-1, tf.int64)),
        **query, **{f"weight_{name}": tf.constant(values) for name, values in request.items()},
    )  # fmt: skip
    weights["clicked"][:4] = -2.0
    answer = {name: value.numpy() for name, value in found.items()}
    answer["ids"] = answer["ids"].astype(str)
    check_equal(answer, Reference(model, frame, query).recommend(MAX_K, weights=weights))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ContextualWeights([], []), "`ContextualWeights.choices` must hold at least two choices"),
        (ContextualWeights(CHOICES[:1], [[0.0]]), "`ContextualWeights.choices` must hold at least two choices"),
        (ContextualWeights(CHOICES, [[0.0], [1.0]]), r"must have the shape \(2, \d+\): .* Received: shape=\(2, 1\)"),
        (ContextualWeights([{}, {"likes": 1.0}], []), r"`ContextualWeights.coefficients` must have the shape"),
    ],
)
def test_bad_policies_are_one_sentence(given: ContextualWeights, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recommender(build()[0], MAX_K, fusion_weights=given)


def test_bad_values_are_one_sentence() -> None:
    model, frame = build()
    width = len(made(queries(model, frame))[0].coefficients[0])
    with pytest.raises(ValueError, match=r"`ContextualWeights\.coefficients` must be finite"):
        Recommender(model, MAX_K, fusion_weights=ContextualWeights(CHOICES, [[np.nan] * width, [0.0] * width]))
    with pytest.raises(ValueError, match=r"Unknown task \['likes'\]"):
        Recommender(model, MAX_K, fusion_weights=ContextualWeights([{}, {"likes": 1.0}], [[0.0] * width] * 2))

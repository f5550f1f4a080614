"""Weights by a feature of the query: served lists, requests with weights of their own, the card, and errors."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from servers.models import MAX_K, IdType, build, queries

from tests.serving.reference import FUSED, Reference, check_equal
from tfmtl._keras import tf
from tfmtl.serving import SliceWeights, export
from tfmtl.serving.recommender import Recommender
from tfmtl.serving.versions import read_manifest

OTHERS = {"seen": 0.5, "rating": 2.0, "clicked": 1.0}
OWN = [{"seen": 2.0, "rating": -1.0}, {"seen": 0.0, "rating": 0.25, "clicked": 3.0}]
"""Weights of two users; the first one has the weight 1 of the others for clicks."""


def sliced(ids: IdType, users: list[Any]) -> SliceWeights:
    return SliceWeights("user_id", dict(zip(users, OWN, strict=True)), OTHERS)


def users_of(query: Any) -> list[Any]:
    """Return the first two distinct users of some queries."""
    return list(dict.fromkeys(_names(query)))[:2]


def expected_weights(query: Any) -> dict[str, np.ndarray]:
    """Return the weight of each query by task; the last two users are unknown and missing."""
    own = dict(zip(users_of(query), OWN, strict=True))
    rows = [{**OTHERS, **own.get(user, {})} for user in _names(query)]
    assert 0 < sum(row == OTHERS for row in rows) < len(rows) - 1
    return {name: np.asarray([row[name] for row in rows], np.float32) for name in FUSED}


def _names(query: Any) -> list[Any]:
    found = query["user_id"].numpy().tolist()
    return [value.decode() if isinstance(value, bytes) else value for value in found]


@pytest.mark.parametrize("ids", ["string", "int64"])
def test_each_query_has_the_weights_of_its_value_in_another_process(tmp_path: pathlib.Path, ids: IdType) -> None:
    model, frame = build(ids)
    query = queries(model, frame)
    given = sliced(ids, users_of(query))
    path = export(model, tmp_path / "model", max_k=MAX_K, fusion_weights=given)
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
    found["ids"] = found["ids"].astype(str) if found["ids"].dtype == object else found["ids"]
    check_equal(found, Reference(model, frame, query).recommend(MAX_K, weights=expected_weights(query)))
    described = read_manifest(path)["fusion_slices"]
    first, second = map(str, users_of(query))
    assert described == {"by": "user_id", "slices": {first: {**OTHERS, **OWN[0]}, second: {**OTHERS, **OWN[1]}}}
    assert json.loads(json.dumps(described)) == described
    card = (path / "assets.extra" / "model_card.md").read_text()
    assert f"| weights if `user_id` is `{first}` | `seen` 2, `rating` -1, `clicked` 1 |" in card


def test_weights_of_a_request_take_precedence() -> None:
    model, frame = build()
    query = queries(model, frame)
    recommender = Recommender(model, MAX_K, fusion_weights=sliced("string", users_of(query)))
    nothing = tf.zeros([7, 0], tf.string)
    request = {name: np.full(7, np.nan, np.float32) for name in FUSED}
    request["clicked"][:4] = -2.0
    inputs = {f"weight_{name}": tf.constant(values) for name, values in request.items()}
    found = recommender.recommend_filtered(
        exclude_ids=nothing, restrict_ids=nothing, k=tf.fill([7], -1), position=tf.fill([7], tf.constant(-1, tf.int64)),
        **query, **inputs,
    )  # fmt: skip
    weights = expected_weights(query)
    weights["clicked"][:4] = -2.0
    answer = {name: value.numpy() for name, value in found.items()}
    answer["ids"] = answer["ids"].astype(str)
    check_equal(answer, Reference(model, frame, query).recommend(MAX_K, weights=weights))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (SliceWeights("mood", {"u0": {}}), r"Unknown query feature \['mood'\] in `SliceWeights.by`"),
        (SliceWeights("item_id", {"i0": {}}), r"Unknown query feature \['item_id'\] in `SliceWeights.by`"),
        (
            SliceWeights("age", {3.0: {}}),
            "`SliceWeights.by` must name a Categorical query feature. Received: by='age'",
        ),
        (SliceWeights("user_id", {}), "`SliceWeights.slices` must hold at least one value"),
        (
            SliceWeights("user_id", {"u0": {}, "nowhere": {}, "": {}}),
            r"must be known ones of 'user_id'. Received: values=\['nowhere', ''\]",
        ),
        (SliceWeights("user_id", {"u0": {"likes": 1.0}}), r"Unknown task \['likes'\] in `fusion_weights`"),
        (SliceWeights("user_id", {"u0": {"rating": float("nan")}}), "weight of task 'rating' must be a finite number"),
        (SliceWeights("user_id", {"u0": dict.fromkeys(FUSED, 0.0)}), "At least one fusion weight must differ from 0"),
    ],
)
def test_bad_slices_are_one_sentence(given: SliceWeights, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recommender(build()[0], MAX_K, fusion_weights=given)

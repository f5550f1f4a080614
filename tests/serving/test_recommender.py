from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from servers.models import MAX_K, IdType, build, queries, raw

from tests.serving.reference import FUSED, Reference, check_equal
from tfmtl._keras import tf
from tfmtl.data import Preprocessor
from tfmtl.models import MultiTaskModel
from tfmtl.serving import RecommenderExporter, export, to_examples
from tfmtl.serving.recommender import Recommender, _depths
from tfmtl.tasks import Regression

FILTERED = ("retrieve_filtered", "recommend_filtered")


@pytest.fixture(scope="module")
def answer(loaded: Any) -> Any:
    def ask(signature: str, **inputs: Any) -> dict[str, np.ndarray]:
        answer = loaded.signatures[signature](**{name: tf.convert_to_tensor(value) for name, value in inputs.items()})
        return {name: _decoded(tensor.numpy()) for name, tensor in answer.items()}

    return ask


def _decoded(array: np.ndarray) -> np.ndarray:
    return array.astype(str) if array.dtype == object else array


def filters(ids: IdType, reference: Reference, rows: int) -> dict[str, np.ndarray]:
    """Exclude the two best of each query, an id outside the corpus and padding; ask for 3, all, none, too many.

    Two queries in three are restricted: to their best, some twice, one of them excluded; to an id outside the corpus.
    """
    best = reference.retrieve(7)["ids"]
    outside, missing = ("elsewhere", "") if ids == "string" else (10**15, -1)
    extra = np.asarray([[outside, missing]] * rows, best.dtype)
    only = np.concatenate([best[:, 1:], best[:, 4:], extra], 1)
    only[::3] = missing
    only[5] = outside
    k = np.resize([3, -1, 0, 99], rows).astype(np.int32)
    return {"exclude_ids": np.concatenate([best[:, :2], extra], 1), "restrict_ids": only, "k": k}


def no_context(rows: int) -> dict[str, np.ndarray]:
    return {"position": np.full(rows, -1)}


def test_context_of_the_request_ranks(ids: IdType, answer: Any) -> None:
    """Known positions, one that no training row had and a missing one change the values, not the retrieval."""
    model, frame = build(ids)
    query, position = queries(model, frame), np.asarray([1, 2, 3, 1, 3, 77, -1])
    nothing = np.full([7, 0], "" if ids == "string" else -1)
    given = {"exclude_ids": nothing, "restrict_ids": nothing, "k": np.full(7, -1, np.int32), "position": position}
    weights = {f"weight_{name}": np.full(7, np.nan, np.float32) for name in FUSED}
    found = answer("recommend_filtered", **query, **given, **weights)
    check_equal(found, Reference(model, frame, query, position).recommend(MAX_K))
    examples = answer("recommend_examples", examples=to_examples({**query, "position": position}))
    check_equal(examples, found, 1e-6)
    without = answer("recommend", **query)
    assert (np.abs(found["clicked"] - without["clicked"]).max(1) > 1e-3).tolist() == [True] * 6 + [False]


@pytest.mark.parametrize("signature", ["recommend", "serving_default"])
def test_recommend_is_retrieve_rank_fuse_sort(ids: IdType, answer: Any, signature: str) -> None:
    model, frame = build(ids)
    query = queries(model, frame)
    check_equal(answer(signature, **query), Reference(model, frame, query).recommend(MAX_K))


def test_retrieve_is_exact_over_the_corpus(ids: IdType, answer: Any) -> None:
    model, frame = build(ids)
    query = queries(model, frame)
    check_equal(answer("retrieve", **query), Reference(model, frame, query).retrieve(MAX_K))


def test_rank_is_the_prediction_of_the_model(ids: IdType, answer: Any) -> None:
    model, frame = build(ids)
    check_equal(answer("rank", **raw(model, frame)), model.predict(frame, verbose=0))


def test_filters_match_brute_force(ids: IdType, answer: Any) -> None:
    model, frame = build(ids)
    query = queries(model, frame)
    reference = Reference(model, frame, query)
    cut = filters(ids, reference, 7)
    found = answer("retrieve_filtered", **query, **cut)
    check_equal(found, reference.retrieve(MAX_K, cut["exclude_ids"], cut["k"], cut["restrict_ids"]))
    assert (found["scores"][2] == 0).all()  # k = 0
    assert [(row != reference.missing).sum() for row in found["ids"]] == [3, 5, 0, MAX_K, 3, 0, 0]
    weights = {name: np.linspace(0, 2, 7, dtype=np.float32) ** power for power, name in enumerate(FUSED)}
    found = answer(
        "recommend_filtered", **query, **cut, **{f"weight_{n}": w for n, w in weights.items()}, **no_context(7)
    )
    check_equal(found, reference.recommend(MAX_K, cut["exclude_ids"], cut["k"], weights, cut["restrict_ids"]))


def test_missing_filters_change_nothing(answer: Any, ids: IdType) -> None:
    query = queries(*build(ids))
    nothing = np.full([7, 1], "" if ids == "string" else -1)
    inputs = {"exclude_ids": nothing, "restrict_ids": nothing, "k": np.full(7, -1, np.int32)}
    weights = {f"weight_{name}": np.full(7, np.nan, np.float32) for name in FUSED} | no_context(7)
    for plain, given in (("retrieve", inputs), ("recommend", {**inputs, **weights})):
        check_equal(answer(f"{plain}_filtered", **query, **given), answer(plain, **query), 0)


def test_negative_weight_lowers_the_score(answer: Any, ids: IdType) -> None:
    model, frame = build(ids)
    query = queries(model, frame)
    nothing = np.full([7, 0], "" if ids == "string" else -1)
    given = {"exclude_ids": nothing, "restrict_ids": nothing, "k": np.full(7, -1, np.int32)}
    weights = {name: np.full(7, -3.0 if name == "clicked" else 0.5, np.float32) for name in FUSED}
    weighted = {f"weight_{n}": w for n, w in weights.items()} | no_context(7)
    found = answer("recommend_filtered", **query, **given, **weighted)
    check_equal(found, Reference(model, frame, query).recommend(MAX_K, weights=weights))


def with_undesired(*tasks: str) -> tuple[MultiTaskModel, pd.DataFrame]:
    """Return the model of `build` with undesired labels."""
    model, frame = build()
    labels = [dataclasses.replace(label, desired=label.task not in tasks) for label in model.schema.labels]
    schema = dataclasses.replace(model.schema, labels=labels)
    preprocessor = Preprocessor(schema, model.preprocessor.statistics)
    return MultiTaskModel(model.network, model.tasks, preprocessor, candidates=model.candidates), frame


def test_undesired_event_is_not_promoted(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    model, frame = with_undesired("clicked")
    path = export(model, tmp_path, max_k=MAX_K, fusion_weights={"rating": 2.0})
    assert caplog.messages == [
        "`recommend` sorts by the weights seen 1, rating 2, clicked -1, of which you did not give those of seen, "
        "clicked; give them in `fusion_weights`, and `desired=False` to the label of a bad event."
    ]
    query = queries(model, frame)
    weights = {name: np.full(7, weight) for name, weight in zip(FUSED, (1.0, 2.0, -1.0), strict=True)}
    found = {n: _decoded(v.numpy()) for n, v in tf.saved_model.load(str(path)).signatures["recommend"](**query).items()}
    check_equal(found, Reference(model, frame, query).recommend(MAX_K, weights=weights))
    card = (path / "assets.extra" / "model_card.md").read_text()
    assert "| clicked | BinaryClassification, undesired | not given |" in card
    assert "| weight of `rating` | 2, given |\n| weight of `clicked` | -1, default |\n" in card


def test_a_chosen_fusion_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    RecommenderExporter(fusion_weights={"seen": 1.0, "rating": 1.0, "clicked": -0.1}).servable(build()[0])
    RecommenderExporter().servable(build(retrieval=False)[0])
    assert caplog.messages == []


def test_retrieval_of_an_undesired_event_is_served_only_by_name() -> None:
    model, _ = with_undesired("seen")
    with pytest.raises(ValueError, match=r"All labels of the retrieval tasks \['seen'\] are undesired; name the task"):
        Recommender(model)
    assert Recommender(model, max_k=3, retrieval="seen").fusion.weights == {"seen": -1.0, "rating": 1.0, "clicked": 1.0}


def test_few_candidates_left_are_padded(answer: Any, ids: IdType) -> None:
    model, frame = build(ids)
    query = queries(model, frame)
    reference = Reference(model, frame, query)
    exclude = np.tile(reference.ids[4:], (7, 1)).astype(object if ids == "string" else np.int64)
    given = {"exclude_ids": exclude, "restrict_ids": exclude[:, :0], "k": np.full(7, MAX_K, np.int32)}
    found = answer("retrieve_filtered", **query, **given)
    check_equal(found, reference.retrieve(MAX_K, exclude))
    assert (found["ids"][:, 4:] == reference.missing).all()
    assert (found["scores"][:, 4:] == 0).all()
    weights = {f"weight_{name}": np.ones(7, np.float32) for name in FUSED} | no_context(7)
    check_equal(answer("recommend_filtered", **query, **given, **weights), reference.recommend(MAX_K, exclude))


def test_embeddings_multiply_to_the_scores(answer: Any, ids: IdType) -> None:
    model, frame = build(ids)
    query, items = queries(model, frame), frame.drop_duplicates("item_id")
    columns = raw(model, items)
    left = answer("embed_query", **query)["embedding"]
    right = answer("embed_candidate", **{f.name: columns[f.name] for f in model.schema.candidate})["embedding"]
    found = answer("retrieve", **query)
    column = {value: i for i, value in enumerate(columns["item_id"].numpy().astype(found["ids"].dtype).tolist())}
    scores = [[(left @ right.T)[i, column[value]] for value in row] for i, row in enumerate(found["ids"].tolist())]
    np.testing.assert_allclose(found["scores"], scores, rtol=1e-5, atol=1e-5)


def test_examples_are_answered_as_tensors(answer: Any, ids: IdType) -> None:
    model, frame = build(ids)
    query = queries(model, frame)
    cut = filters(ids, Reference(model, frame, query), 7)
    weights = {f"weight_{name}": np.linspace(0, 2, 7, dtype=np.float32) for name in FUSED}
    columns, pairs = raw(model, frame[:7]), raw(model, frame)
    candidate = {f.name: columns[f.name] for f in model.schema.candidate}
    requests = {
        "retrieve": ("retrieve_filtered", {**query, **cut}),
        "recommend": (
            "recommend_filtered",
            {**query, **cut, **weights, "position": np.asarray([1, 3, -1, 2, 9, 1, 1])},
        ),
        "rank": ("rank", pairs),
        "embed_query": ("embed_query", query),
        "embed_candidate": ("embed_candidate", candidate),
    }
    for name, (plain, request) in requests.items():
        check_equal(answer(f"{name}_examples", examples=to_examples(request)), answer(plain, **request), 1e-6)


def test_an_example_may_leave_out_everything(answer: Any, ids: IdType) -> None:
    query = queries(*build(ids))
    for name in ("retrieve", "recommend"):
        found = answer(f"{name}_examples", examples=to_examples(query))  # no filter
        check_equal(found, answer(name, **query), 1e-6)
        empty = answer(f"{name}_examples", examples=[b"", b""])
        assert np.isfinite(empty["scores"]).all()
        assert answer(f"{name}_examples", examples=np.asarray([], object))["ids"].shape == (0, MAX_K)


@pytest.mark.parametrize("signature", ["retrieve", "recommend", "rank"])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_rows_do_not_depend_on_their_batch(answer: Any, ids: IdType, signature: str, rows: int) -> None:
    model, frame = build(ids)
    features = raw(model, frame[:7]) if signature == "rank" else queries(model, frame)
    whole = answer(signature, **features)
    part = answer(signature, **{name: value[:rows] for name, value in features.items()})
    check_equal(part, {name: value[:rows] for name, value in whole.items()})


def test_lists_of_any_width_are_taken(answer: Any, ids: IdType) -> None:
    model, frame = build(ids)
    query = queries(model, frame)
    narrow = {**query, "recent": query["recent"][:, :0]}
    missing = tf.fill([7, 5], tf.constant("" if ids == "string" else -1, query["recent"].dtype))
    check_equal(answer("retrieve", **narrow), answer("retrieve", **{**query, "recent": missing}), 0)


def test_without_retrieval_or_corpus_it_ranks(tmp_path: pathlib.Path) -> None:
    model, frame = build(retrieval=False)
    loaded = tf.saved_model.load(str(export(model, tmp_path)))
    assert set(loaded.signatures) == {"rank", "rank_examples", "serving_default"}
    answer = loaded.signatures["serving_default"](**raw(model, frame))
    check_equal({n: v.numpy() for n, v in answer.items()}, model.predict(frame, verbose=0))


def test_only_what_is_read_is_saved(ids: IdType, exported: pathlib.Path) -> None:
    """No slots of an optimizer, no step counters of layers that act in training, and no variable twice."""
    model, _ = build(ids)
    listed = tf.train.list_variables(str(exported / "variables" / "variables"))
    saved = [name for name, _ in listed if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    own = len(model.network.trainable_variables)
    corpus = len(model.candidates.features) + 1  # encoded features and ids; embeddings are computed on load
    assert len(saved) == own + corpus


def test_indices_of_candidates_are_stored_small() -> None:
    """30 items, 3 genres, few words: an index takes one byte instead of four."""
    recommender = Recommender(build()[0], max_k=MAX_K)
    stored = {name: column.dtype for name, column in recommender._columns.items()}
    assert stored == {
        "item_id": tf.uint8, "price": tf.float32, "genres": tf.uint8, "title": tf.uint8, "picture": tf.float32,
    }  # fmt: skip


def test_manifest_describes_inputs_and_outputs(ids: IdType, exported: pathlib.Path) -> None:
    manifest = json.loads((exported / "assets.extra" / "tfmtl.json").read_text())
    assert manifest["signatures"]["retrieve_filtered"] == {
        "inputs": {
            "user_id": f"{ids} [B]",
            "age": "float32 [B]",
            "interests": "string [B, n]",
            "recent": f"{ids} [B, n]",
            "exclude_ids": f"{ids} [B, n]",
            "restrict_ids": f"{ids} [B, n]",
            "k": "int32 [B]",
        },
        "outputs": {"ids": f"{ids} [B, 10]", "scores": "float32 [B, 10]"},
    }
    assert manifest["fusion"]["weights"] == {"seen": 1.0, "rating": 1.0, "clicked": 1.0}
    assert (manifest["candidates"], manifest["max_k"], manifest["rerank_depth"]) == (30, 10, 30)
    assert manifest["retrieval"] == "seen"
    assert max(manifest["largest_difference_after_reload"].values()) <= 1e-5


@pytest.mark.parametrize(
    ("candidates", "given", "expected"),
    [
        (30, {}, (30, 30)),
        (30, {"max_k": 4}, (4, 30)),
        (5000, {}, (100, 100)),
        (5000, {"max_k": 300}, (300, 300)),
        (5000, {"max_k": 4, "rerank_depth": 20}, (4, 20)),
        (5000, {"rerank_depth": 500}, (100, 500)),
    ],
)
def test_length_and_depth(candidates: int, given: dict[str, int], expected: tuple[int, int]) -> None:
    assert _depths(candidates, **{"max_k": None, "rerank_depth": None, **given}) == expected


@pytest.mark.parametrize("depth", [3, 8, 30])
def test_more_candidates_are_ranked_than_returned(depth: int) -> None:
    """A candidate of low retrieval score may be the best of the fusion only if it is ranked."""
    model, frame = build()
    query = queries(model, frame)
    recommender, reference = Recommender(model, max_k=3, rerank_depth=depth), Reference(model, frame, query)
    found = {name: _decoded(value.numpy()) for name, value in recommender.recommend(**query).items()}
    check_equal(found, reference.recommend(3, depth=depth))
    found = {name: _decoded(value.numpy()) for name, value in recommender.retrieve(**query).items()}
    check_equal(found, reference.retrieve(3))
    nothing = tf.fill([7, 1], "")
    limits = {"exclude_ids": nothing, "restrict_ids": nothing, "k": tf.constant([2, -1, 9, 3, 1, 0, 3])}
    found = {name: _decoded(v.numpy()) for name, v in recommender.retrieve_filtered(**query, **limits).items()}
    check_equal(found, reference.retrieve(3, k=limits["k"].numpy()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"max_k": 31},
            r"`max_k` must be at most the number of candidates, 30; give a smaller one. Received: max_k=31.",
        ),
        ({"max_k": 0}, r"`max_k` must be a positive integer. Received: max_k=0."),
        ({"rerank_depth": 31}, r"`rerank_depth` must be at most the number of candidates, 30; give a smaller one."),
        ({"rerank_depth": 2.0}, r"`rerank_depth` must be a positive integer. Received: rerank_depth=2.0."),
        (
            {"max_k": 5, "rerank_depth": 4},
            r"`rerank_depth` must be at least `max_k`, .* that it ranks. Received: rerank_depth=4, max_k=5.",
        ),
        (
            {"fusion_weights": {"ratin": 1.0}},
            r"Unknown task \['ratin'\] in `fusion_weights` .* Did you mean 'rating'\?",
        ),
        (
            {"fusion_weights": {"mood": 1.0}},
            r"Unknown task \['mood'\] in `fusion_weights` .*; known: \['seen', 'rating', 'clicked'\]",
        ),
        (
            {"fusion_weights": {"rating": float("inf")}},
            r"The fusion weight of task 'rating' must be a finite number. Received: weight=inf",
        ),
        ({"retrieval": "rating"}, r"Unknown task \['rating'\] in `retrieval` .*; known: \['seen'\]"),
    ],
)
def test_bad_argument_is_one_sentence_and_leaves_nothing(tmp_path: pathlib.Path, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export(build()[0], tmp_path / "model", **arguments)
    assert not (tmp_path / "model").exists()


def test_arguments_of_retrieval_are_refused_for_a_ranking_model() -> None:
    with pytest.raises(ValueError, match=r"Only a model with a retrieval task and .* can retrieve\. Received: max_k=5"):
        RecommenderExporter(max_k=5).servable(build(retrieval=False)[0])


def test_task_that_reads_the_query_alone_is_answered_per_query(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attribute of the task decides, not its class: a value of the query takes no part in the fusion."""
    model, frame = build()
    monkeypatch.setattr(Regression, "query_only", True)
    recommender = Recommender(model, max_k=3)
    assert list(recommender.fusion.weights) == ["seen", "clicked"]
    answer = recommender.recommend(**queries(model, frame))
    assert {name: value.shape.as_list() for name, value in answer.items() if name in ("rating", "clicked")} == {
        "rating": [7],
        "clicked": [7, 3],
    }

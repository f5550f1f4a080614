"""The table of signatures, and entries that are written outside of the package."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from servers.models import build, raw

from tests.serving.reference import check_equal
from tfmtl._keras import tf
from tfmtl.serving import Entry, RecommenderExporter, to_examples
from tfmtl.serving.exporter import CARD
from tfmtl.serving.ranker import Ranker
from tfmtl.serving.recommender import Recommender
from tfmtl.serving.signature import Answer, Signature
from tfmtl.serving.signatures import ENTRIES, signatures_of

NAMES = [
    "serving_default",
    "recommend",
    "recommend_filtered",
    "recommend_examples",
    "retrieve",
    "retrieve_filtered",
    "retrieve_examples",
    "rank",
    "rank_examples",
    "embed_query",
    "embed_query_examples",
    "embed_candidate",
    "embed_candidate_examples",
]


def similar(served: Recommender, /, *, item: tf.Tensor, k: tf.Tensor) -> Answer:
    """Return the candidates with the largest dot products of their embeddings with that of an item."""
    embeddings = served.index.embeddings_at(served.index.rows_of(item))
    hits = served.index.search(embeddings, exclude_ids=item[:, None])
    kept = hits.valid & (tf.range(served.index.max_k) < k[:, None])
    return {"ids": served.index.ids(hits.rows, kept), "scores": tf.where(kept, hits.scores, 0.0)}


def double_rating(served: Ranker, /, **features: tf.Tensor) -> Answer:
    return {"double": 2.0 * served.rank(**features)["rating"]}


class Shop(RecommenderExporter):
    """Adds the items that resemble an item, and doubled ratings."""

    entries = (
        *RecommenderExporter.entries,
        Entry(
            "similar",
            similar,
            lambda served: {
                "item": tf.TensorSpec([None], served.index.id_dtype, "item"),
                "k": tf.TensorSpec([None], tf.int32, "k"),
            },
            lambda served: {"item": served.last_ids, "k": np.asarray([2, 3], np.int32)},
            available=Recommender,
        ),
        Entry(
            "double_rating",
            double_rating,
            lambda served: served.specs("query", "candidate", "context"),
            also_from_examples="double_examples",
        ),
    )


def test_signature_from_outside_is_exported_and_answers(tmp_path: pathlib.Path) -> None:
    model, frame = build(retrieval=False)
    path = Shop().export(model, tmp_path)
    signatures = tf.saved_model.load(str(path)).signatures
    assert set(signatures) == {"serving_default", "rank", "rank_examples", "double_rating", "double_examples"}
    request, expected = raw(model, frame), {"double": 2.0 * model.predict(frame, verbose=0)["rating"]}
    check_equal(_plain(signatures["double_rating"](**request)), expected)
    check_equal(_plain(signatures["double_examples"](examples=to_examples(request))), expected)
    card = (path / CARD).read_text()
    assert "\n| double_examples | `examples` string [B] | `double` |\n" in card


def test_signature_from_outside_may_search_the_corpus() -> None:
    model, _ = build()
    vectors = model.tower("candidate")(model.candidates.features)["seen"].numpy()
    scores = vectors @ vectors.T
    order = [[i for i in np.argsort(-scores[row]) if i != row][:3] for row in (0, 7)]
    expected = {
        "ids": np.asarray([[*model.candidates.ids[o], ""] for o in order], object),
        "scores": np.stack([[*scores[row][o], 0.0] for row, o in zip((0, 7), order, strict=True)]),
    }
    signature = Shop(max_k=4, rerank_depth=4).servable(model).signatures["similar"]
    ids = tf.constant(model.candidates.ids[[0, 7]].tolist())
    check_equal(_plain(signature.traced(item=ids, k=tf.constant([3, 3]))), expected)
    probe = signature.request({"age": tf.zeros([6])})
    assert probe["item"].numpy().tolist() == [item.encode() for item in np.resize(model.candidates.ids[-4:], 6)]
    assert probe["k"].numpy().tolist() == [2, 3, 2, 3, 2, 3]


def _plain(answer: Answer) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in answer.items()}


def test_ranking_model_gets_the_entries_that_need_no_retrieval() -> None:
    model, _ = build(retrieval=False)
    servable = Shop().servable(model)
    assert list(servable.signatures) == ["serving_default", "rank", "rank_examples", "double_rating", "double_examples"]
    assert servable.description == {}
    assert servable.functions == {}
    assert servable.namespaces == ()


def test_default_is_the_same_function_as_the_signature_of_its_name() -> None:
    """The saved graph holds it once."""
    for model, default in ((build()[0], "recommend"), (build(retrieval=False)[0], "rank")):
        signatures = RecommenderExporter().servable(model).signatures
        assert signatures["serving_default"] is signatures[default]


def test_table_in_its_order() -> None:
    assert list(signatures_of(Recommender(build()[0], max_k=3), ENTRIES)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_signature_is_documented(name: str) -> None:
    assert f"`{name}`" in (RecommenderExporter.__doc__ or "")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_entry_of_the_table_has_a_documented_function(entry: Entry) -> None:
    assert (entry.function.__doc__ or "").startswith("Return ")


def specs(served: Ranker) -> dict[str, tf.TensorSpec]:
    return served.specs("query", "candidate", "context")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([Entry("rank", double_rating, specs)], r"The signatures \['rank'\] exist already.* Received: entry='rank'"),
        ([Entry("serving_default", double_rating, specs)], r"The signatures \['serving_default'\] exist already"),
        ([Entry("new", double_rating, specs, also_from_examples="rank_examples")], r"\['rank_examples'\] exist"),
    ],
)
def test_taken_name_is_refused(entries: list[Entry], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        signatures_of(Ranker(build(retrieval=False)[0]), [*ENTRIES, *entries])


def test_table_without_the_default_is_refused() -> None:
    entries = [Entry("double_rating", double_rating, specs)]
    with pytest.raises(ValueError, match=r"The table must hold the default signature 'rank'.*\['double_rating'\]"):
        signatures_of(Ranker(build(retrieval=False)[0]), entries)


def test_input_without_an_example_is_refused() -> None:
    signature = Signature(lambda x, y: {"z": x + y}, dict.fromkeys("xy", tf.TensorSpec([None])))
    with pytest.raises(ValueError, match=r"The inputs \['y'\] are no features; give values for the probe"):
        signature.request({"x": tf.zeros([3])})


def test_recommender_of_a_ranking_model_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a model with a retrieval task and `candidates`; use a `Ranker`"):
        Recommender(build(retrieval=False)[0])

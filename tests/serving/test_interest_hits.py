"""The largest of several dot products, evaluated, searched and served as NumPy computes it."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models.small import NO_NOISE
from tfmtl._keras import tf
from tfmtl.data import Categorical, IdSequence, Label, Preprocessor, Schema
from tfmtl.evaluation import evaluate, mined_negatives, rank_positives
from tfmtl.layers import MultiInterestPooling
from tfmtl.models import MultiTaskModel, build_network, load_model, save_model
from tfmtl.recipes import join_copy
from tfmtl.recipes.ease_part import EasePart
from tfmtl.serving import InvertedFile, export, replace_candidates
from tfmtl.serving.blocks import halves
from tfmtl.serving.index import CorpusIndex
from tfmtl.serving.interest_hits import search_each
from tfmtl.serving.inverted_file import InvertedFileIndex
from tfmtl.serving.recommender import Recommender
from tfmtl.tasks import HistoryCopy, Regression, Retrieval
from tfmtl.training import LazyAdam

USERS, ITEMS, LENGTH, K, DEPTH, INTERESTS = 8, 17, 6, 5, 7, 3
COPY = HistoryCopy("recent", weight=0.4, half_life=2.5)
SEARCHES: dict[str, Any] = {"exact": None, "inverted": InvertedFile(block=4, probes=99)}
VERSIONS = {"exact": ("exact", None), "inverted": ("inverted", None), "copied": ("inverted", COPY)}


def table() -> pd.DataFrame:
    rng, items = np.random.default_rng(3), np.tile(np.arange(ITEMS), 3)
    recent = [[f"i{i}" for i in rng.integers(0, ITEMS, row % (LENGTH + 1))] for row in range(len(items))]
    users = [f"u{u}" for u in np.resize(np.arange(USERS), len(items))]
    named = {"user": users, "recent": recent, "item": [f"i{i}" for i in items]}
    return pd.DataFrame({**named, "bought": 1.0, "stars": items % 5 + 1.0})


def asked() -> dict[str, Any]:
    frame = table()[:9]
    lists = [[*history, *[""] * (LENGTH - len(history))] for history in frame["recent"]]
    return {"user": frame["user"].to_numpy(object), "recent": np.asarray(lists, object)}


@functools.cache
def build(copy: HistoryCopy | None = None, interests: int = INTERESTS) -> MultiTaskModel:
    query = [Categorical("user"), IdSequence("recent", of="item", max_length=LENGTH)]
    schema = Schema(query, [Categorical("item")], labels=[Label("bought"), Label("stars")])
    preprocessor = Preprocessor.fit(schema, table())
    tasks = [Retrieval("bought", units=[4], num_interests=interests, copy=copy), Regression("stars")]
    network = build_network(
        preprocessor, tasks, embedding_dim=4, tower_units=(), regularization=NO_NOISE,
        poolings={"recent": MultiInterestPooling(interests, 5)},
    )  # fmt: skip
    rng = np.random.default_rng(11)
    for variable in network.trainable_variables:
        variable.assign(rng.normal(0, 0.6, variable.shape))
    model = MultiTaskModel(network, tasks, preprocessor)
    model.compile(LazyAdam())
    return model


def names() -> list[str]:
    return [i.decode() if isinstance(i, bytes) else str(i) for i in build().candidates.ids.tolist()]


def towers(model: MultiTaskModel) -> tuple[np.ndarray, np.ndarray]:
    encoded = model.preprocessor({name: tf.constant(value) for name, value in asked().items()})
    query = model.tower("query")({name: encoded[name] for name in ("user", "recent")})["bought"].numpy()
    return query, model.tower("candidate")(dict(model.candidates.features))["bought"].numpy()


def scores(copy: HistoryCopy | None = None) -> np.ndarray:
    """Return the scores [queries, candidates], one product at a time."""
    query, candidate = towers(build(copy))
    assert query.shape[1] == INTERESTS * candidate.shape[1]
    found = np.array([[max(u @ c for u in own) for c in candidate] for own in query.reshape(len(query), INTERESTS, -1)])
    for row, history in enumerate(asked()["recent"]):
        for place, entry in enumerate(history if copy else []):
            if entry:
                found[row, names().index(entry)] += COPY.weight / (1 + place / 2.5)
    return found


@pytest.fixture(scope="module", params=sorted(VERSIONS))
def version(request: Any, tmp_path_factory: Any) -> tuple[pathlib.Path, HistoryCopy | None]:
    search, copy = VERSIONS[request.param]
    weights = {"bought": 1.0, "stars": 0.0}
    options: Any = {"max_k": K, "rerank_depth": DEPTH, "search": SEARCHES[search], "fusion_weights": weights}
    return export(build(copy), tmp_path_factory.mktemp(request.param), **options), copy


def ask(folder: pathlib.Path, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
    answer = load(folder).signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in answer.items()}


@functools.cache
def load(folder: pathlib.Path) -> Any:
    return tf.saved_model.load(str(folder))


def check(found: dict[str, Any], values: np.ndarray, allowed: np.ndarray, score: str = "scores") -> None:
    """Assert that an answer holds the best K of the allowed candidates [queries, candidates]."""
    for row, own in enumerate(np.where(allowed, values, -np.inf)):
        best = [c for c in np.argsort(-own) if allowed[row, c]][:K]
        count = len(best)
        assert [i.decode() for i in found["ids"][row]] == [*[names()[c] for c in best], *[""] * (K - count)]
        np.testing.assert_allclose(found[score][row][:count], own[best], rtol=1e-4, atol=1e-5)


def test_answers_are_the_best_of_the_corpus(version: tuple[pathlib.Path, HistoryCopy | None]) -> None:
    folder, copy = version
    values = scores(copy)
    every = np.ones_like(values, bool)
    check(ask(folder, "retrieve", asked()), values, every)
    check(ask(folder, "recommend", asked()), values, every, "bought")


def test_limits_hold(version: tuple[pathlib.Path, HistoryCopy | None]) -> None:
    """The best two are excluded, and every second query is restricted to few candidates."""
    folder, copy = version
    values, rows = scores(copy), len(asked()["user"])
    exclude = np.array([[names()[c] for c in np.argsort(-own)[:2]] for own in values], object)
    only = [["i0", "i2", "i5", "i7", "i7", "i99"] if row % 2 else [""] * 6 for row in range(rows)]
    limits = {"exclude_ids": exclude, "restrict_ids": np.asarray(only, object), "k": np.full(rows, -1, np.int32)}
    allowed = [[n not in exclude[row] and (not row % 2 or n in only[row]) for n in names()] for row in range(rows)]
    check(ask(folder, "retrieve_filtered", {**asked(), **limits}), values, np.array(allowed))


@dataclasses.dataclass(frozen=True, eq=False)
class Recorded(InvertedFile):
    """Keeps the sample of vectors by which the search is chosen."""

    samples: list[np.ndarray] = dataclasses.field(default_factory=list)

    def build_index(self, ids: np.ndarray, embeddings: Any, max_k: int, queries: tf.Tensor) -> InvertedFileIndex:
        self.samples.append(queries.numpy())
        return super().build_index(ids, embeddings, max_k, queries)


def test_a_search_is_chosen_and_measured_by_vectors_of_every_interest() -> None:
    search = Recorded(block=4, queries=pd.concat([table(), table()]))
    served = Recommender(build(interests=2), max_k=K, rerank_depth=DEPTH, search=search)
    vectors = served.embed_query(**search.sample(build().preprocessor.schema, build().preprocessor.statistics))
    for half in halves(search.samples[0]):
        for interest in range(2):
            apart = np.abs(half[:, np.newaxis] - vectors["embedding"].numpy()[:, interest]).max(axis=2)
            assert (apart.min(axis=1) < 1e-6).sum() >= len(half) // 2


def test_embeddings_are_k_vectors(version: tuple[pathlib.Path, HistoryCopy | None]) -> None:
    query, candidate = towers(build(version[1]))
    found = ask(version[0], "embed_query", asked())["embedding"]
    np.testing.assert_allclose(found, query.reshape(len(query), INTERESTS, -1), rtol=1e-4, atol=1e-6)
    assert candidate.shape[1] == found.shape[2]


def test_replaced_candidates_are_searched(version: tuple[pathlib.Path, HistoryCopy | None]) -> None:
    folder, copy = version
    left = ["i9", "i2", "i16", "i5", "i1", "i0"]
    changed = replace_candidates(folder.parent, pd.DataFrame({"item": left}))
    values = scores(copy)
    check(ask(changed, "retrieve", asked()), values, np.tile(np.isin(names(), left), (len(values), 1)))


@pytest.mark.parametrize("copy", [None, COPY])
def test_predictions_and_ranks_are_those_of_the_scores(copy: HistoryCopy | None) -> None:
    values, frame = scores(copy), table()[:9]
    for column in (0, 4, ITEMS - 1):
        pairs = frame.assign(item=names()[column])
        predicted = build(copy).predict(pairs, verbose=0)["bought"]
        np.testing.assert_allclose(predicted, values[:, column], rtol=1e-4, atol=1e-5)
    for position in (1, 4):
        best = [names()[np.argsort(-own)[position]] for own in values]
        report = evaluate(build(copy), frame.assign(item=best), ks=[position, position + 1])
        assert report["bought", f"recall@{position + 1}"] == 1
        assert report["bought", f"recall@{position}"] == 0


def test_ranks_are_those_of_numpy() -> None:
    """With repeated candidates, which tie, in blocks of one query."""
    rng = np.random.default_rng(1)
    query, candidate = rng.normal(size=(6, 2 * 3)), rng.normal(size=(9, 3))
    candidate[4] = candidate[7]
    values = np.array([[max(u @ c for u in own) for c in candidate] for own in query.reshape(6, 2, 3)])
    rows, columns = np.repeat(np.arange(6), 9), np.tile(np.arange(9), 6)
    target = values[rows, columns, np.newaxis]
    ties = (np.abs(values[rows] - target) < 1e-12).sum(1) - 1
    expected = (values[rows] > target + 1e-12).sum(1) + ties / 2
    for block in (1, 2**20):
        found = rank_positives(query, candidate, rows, columns, num_interests=2, block_bytes=block)
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="Query embeddings must have 2 times the dimension of candidate embeddings"):
        rank_positives(query, query, rows, columns, num_interests=2)


@pytest.mark.parametrize("excluded", [0, 4, 9])
def test_a_search_of_each_vector_is_the_exact_search(excluded: int) -> None:
    """Also where fewer than `max_k` candidates are left, and a vector occurs twice."""
    rng = np.random.default_rng(2)
    embeddings, query = rng.normal(size=(11, 3)).astype(np.float32), rng.normal(size=(5, 4, 3)).astype(np.float32)
    query[:, 1] = query[:, 0]
    index = CorpusIndex(np.arange(11), tf.constant(embeddings), max_k=6)
    exclude = tf.constant(np.array([rng.permutation(11)[:excluded] for _ in range(5)], np.int64).reshape(5, -1))
    values = (query @ embeddings.T).max(axis=1)
    np.put_along_axis(values, exclude.numpy(), -np.inf, axis=1)
    for found in (index.search(query, exclude), search_each(index, tf.constant(query), exclude)):
        for row, own in enumerate(values):
            best = np.argsort(-own)[: min(6, 11 - excluded)]
            kept = found.valid[row].numpy()
            assert found.rows[row].numpy()[kept].tolist() == best.tolist()
            np.testing.assert_allclose(found.scores[row].numpy()[kept], own[best], rtol=1e-5)
        products = np.float64(query) @ embeddings.T
        np.testing.assert_allclose(found.mean[:, 0], products.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.deviation[:, 0], products.std(axis=(1, 2)), rtol=1e-4)


def test_a_saved_model_and_another_process_answer_alike(tmp_path: pathlib.Path) -> None:
    save_model(build(), tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    np.testing.assert_array_equal(
        loaded.predict(table(), verbose=0)["bought"], build().predict(table(), verbose=0)["bought"]
    )
    folder = export(build(), tmp_path / "served", max_k=K, fusion_weights={"bought": 1.0, "stars": 1.0})
    here = ask(folder, "recommend", asked())
    np.savez(tmp_path / "asked.npz", **{name: value.astype(str) for name, value in asked().items()})
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "asked = np.load(sys.argv[2])\n"
        "served = tf.saved_model.load(sys.argv[1]).signatures['recommend']\n"
        "found = served(**{n: tf.constant(asked[n].astype(object)) for n in asked})\n"
        "np.savez(sys.argv[3], ids=found['ids'].numpy().astype(str), scores=found['scores'].numpy())\n"
    )
    paths = [str(folder), str(tmp_path / "asked.npz"), str(tmp_path / "found.npz")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True)
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_allclose(found["scores"], here["scores"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["ids"], here["ids"].astype(str))


def test_mined_negatives_are_the_best_by_the_scores() -> None:
    """Of the candidates that occur in the table and that the user did not choose."""
    frame, values = table()[:9], scores()
    mined = mined_negatives(build(), frame, "bought", ranks=(1, 1))
    assert mined["user"].tolist() == frame["user"].tolist()
    for row, user in enumerate(frame["user"]):
        allowed = set(frame["item"]) - set(frame.loc[frame["user"] == user, "item"])
        best = next(names()[c] for c in np.argsort(-values[row]) if names()[c] in allowed)
        assert mined["item"].iloc[row] == best


@pytest.mark.parametrize("weights", [(0.5, 2.0, 0.3), (1.0, 1.0, 0.0), (0.0, 1.0, 0.5)])
def test_ease_joins_every_vector(weights: tuple[float, float, float]) -> None:
    rng, model = np.random.default_rng(4), build()
    size = model.preprocessor.statistics.size
    query, candidate = (rng.normal(size=(size(n), 2)).astype(np.float32) for n in ("user", "item"))
    popularity = rng.uniform(size=size("item")).astype(np.float32)
    joined = EasePart("bought", "user", query, candidate, popularity, weights).join(model)
    frame = table()[:9]
    encoded = model.preprocessor({name: tf.constant(frame[name].to_numpy(object)) for name in ("user", "item")})
    users, items = encoded["user"].numpy(), encoded["item"].numpy()
    expected = weights[0] * model.predict(frame, verbose=0)["bought"] + weights[2] * popularity[items]
    expected = expected + weights[1] * (query[users] * candidate[items]).sum(1)
    np.testing.assert_allclose(joined.predict(frame, verbose=0)["bought"], expected, rtol=1e-4, atol=1e-5)


def test_a_copy_is_judged_by_the_served_scores() -> None:
    """The value before the copy is the NDCG of the evaluation."""
    found = join_copy(build(), table()[:9], task="bought", k=5)
    report = evaluate(build(), table()[:9], ks=[5])
    assert found.values["model"] == pytest.approx(report["bought", "ndcg@5"], rel=1e-6)

"""The exact top k of dot products and copied parts, served as it is evaluated, over hostile histories."""

from __future__ import annotations

import functools
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from servers.models import IdType, identifier

from tests.models.small import NO_NOISE
from tfmtl._keras import tf
from tfmtl.data import Categorical, IdSequence, Label, Numeric, Preprocessor, Schema, to_batch
from tfmtl.evaluation import evaluate
from tfmtl.models import MultiTaskModel, build_network, load_model, save_model
from tfmtl.serving import InvertedFile, export, replace_candidates
from tfmtl.serving.versions import read_manifest
from tfmtl.tasks import HistoryCopy, Regression, Retrieval
from tfmtl.training import LazyAdam

USERS, ITEMS, RARE, LENGTH, K, DEPTH = 8, 17, 3, 24, 6, 9
COPY = HistoryCopy("recent", weight=0.4, half_life=2.5)
SEARCHES: dict[str, Any] = {"exact": None, "inverted": InvertedFile(block=4, probes=99)}


def table(ids: IdType) -> pd.DataFrame:
    """Return rows of all users and items; the last items are too rare for the vocabulary."""
    items = [*np.repeat(np.arange(ITEMS - RARE), 3), *range(ITEMS - RARE, ITEMS)]
    users = np.resize(np.arange(USERS), len(items))
    return pd.DataFrame(
        {
            "user": [identifier(ids, "u", u) for u in users],
            "recent": [[] for _ in items],
            "item": [identifier(ids, "i", i) for i in items],
            "price": [price(i) for i in items],
            "bought": 1.0,
            "stars": np.arange(len(items)) % 5 + 1.0,
        }
    )


def price(item: int) -> float:
    """Return a number by which the candidates outside the vocabulary differ."""
    return float(np.sin(3 * item))


def queries(ids: IdType) -> dict[str, Any]:
    """Return histories: random with repetitions, one item, only rare or foreign ids, none, the whole corpus, cut."""
    rng = np.random.default_rng(3)
    none = "" if ids == "string" else -1
    name = functools.partial(identifier, ids, "i")
    random = [[name(i) for i in rng.integers(0, ITEMS + 3, 11)] for _ in range(4)]
    every = [name(i) for i in range(ITEMS)]
    lists = [*random, [name(2)] * 5, [name(ITEMS - 1), name(99), name(ITEMS - 1)], [], every, every + random[0] + every]
    width = max(map(len, lists))
    users = [identifier(ids, "u", u % USERS) for u in range(len(lists))]
    dtype = object if ids == "string" else np.int64
    return {
        "user": np.asarray(users, dtype),
        "recent": np.asarray([h + [none] * (width - len(h)) for h in lists], dtype),
    }


@functools.cache
def build(ids: IdType = "string", copied: bool = True) -> MultiTaskModel:
    item = Categorical("item", dtype=ids, min_count=2)
    query = [Categorical("user", dtype=ids), IdSequence("recent", of="item", max_length=LENGTH, dtype=ids)]
    schema = Schema(query, [item, Numeric("price")], labels=[Label("bought"), Label("stars")])
    preprocessor = Preprocessor.fit(schema, table(ids))
    tasks = [Retrieval("bought", copy=COPY if copied else None), Regression("stars")]
    network = build_network(preprocessor, tasks, embedding_dim=4, tower_units=(4,), regularization=NO_NOISE)
    rng = np.random.default_rng(11)
    for variable in network.trainable_variables:
        variable.assign(rng.normal(0, 0.6, variable.shape))
    model = MultiTaskModel(network, tasks, preprocessor)
    model.compile(LazyAdam())
    return model


def scores(ids: IdType) -> np.ndarray:
    """Return the scores [queries, candidates] by NumPy from raw ids."""
    model, asked = build(ids), queries(ids)
    encoded = model.preprocessor({name: tf.constant(value) for name, value in asked.items()})
    query = model.tower("query")({name: encoded[name] for name in ("user", "recent")})["bought"].numpy()
    candidate = model.tower("candidate")(dict(model.candidates.features))["bought"].numpy()
    found = query @ candidate.T
    known = {identifier(ids, "i", i) for i in range(ITEMS - RARE)}
    for row, history in enumerate(asked["recent"]):
        for column, name in enumerate(_names(model.candidates.ids)):
            where = [j for j, entry in enumerate(history[:LENGTH]) if entry == name]
            if name in known:
                found[row, column] += sum(COPY.weight / (1 + j / COPY.half_life) for j in where)
    return np.asarray(found)


def _names(ids: np.ndarray) -> list[Any]:
    return [i.decode() if isinstance(i, bytes) else i for i in ids.tolist()]


def top(ids: IdType, row: int, k: int, exclude: Any = (), only: Any = ()) -> tuple[list[Any], list[float]]:
    """Return the first ids and scores of a query among the allowed ones."""
    names, values = _names(build(ids).candidates.ids), scores(ids)[row]
    allowed = [c for c in np.argsort(-values) if names[c] not in exclude and (len(only) == 0 or names[c] in only)]
    return [names[c] for c in allowed[:k]], [float(values[c]) for c in allowed[:k]]


@pytest.fixture(scope="module", params=["string", "int64"])
def ids(request: Any) -> IdType:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=["exact", "inverted"])
def version(request: Any, ids: IdType, tmp_path_factory: Any) -> pathlib.Path:
    folder = tmp_path_factory.mktemp(f"{ids}_{request.param}")
    weights = {"bought": 1.0, "stars": 0.0}
    search = SEARCHES[request.param]
    return export(build(ids), folder, max_k=K, rerank_depth=DEPTH, search=search, fusion_weights=weights)


@functools.cache
def load(version: pathlib.Path) -> Any:
    return tf.saved_model.load(str(version))


def ask(version: pathlib.Path, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
    answer = load(version).signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in answer.items()}


def test_retrieve_is_the_exact_top_k(version: pathlib.Path, ids: IdType) -> None:
    found = ask(version, "retrieve", queries(ids))
    for row, (names, values) in enumerate(zip(found["ids"], found["scores"], strict=True)):
        wanted, best = top(ids, row, K)
        assert _names(names) == wanted
        np.testing.assert_allclose(values, best, rtol=1e-5, atol=1e-5)
    assert not np.array_equal(scores(ids), _plain(ids))


def _prices(ids: IdType) -> list[float]:
    found = table(ids).drop_duplicates("item").set_index("item")["price"]
    return [np.float32(found[name]) for name in _names(build(ids).candidates.ids)]


def _plain(ids: IdType) -> np.ndarray:
    asked = queries(ids)
    encoded = build(ids).preprocessor({name: tf.constant(value) for name, value in asked.items()})
    query = build(ids).tower("query")({name: encoded[name] for name in ("user", "recent")})["bought"].numpy()
    return np.asarray(query @ build(ids).tower("candidate")(dict(build(ids).candidates.features))["bought"].numpy().T)


def test_filters_hold_for_the_history(version: pathlib.Path, ids: IdType) -> None:
    """The best two are excluded, and every second query is restricted to some of its history and others."""
    asked = queries(ids)
    none, rows = "" if ids == "string" else -1, len(asked["user"])
    exclude = [top(ids, row, 2)[0] for row in range(rows)]
    name = functools.partial(identifier, ids, "i")
    only = [[name(i) for i in (0, 2, 5, 7, 7, 16, 99)] if row % 2 else [none] * 7 for row in range(rows)]
    dtype = object if ids == "string" else np.int64
    limits = {"exclude_ids": np.asarray(exclude, dtype), "restrict_ids": np.asarray(only, dtype)}
    limits["k"] = np.full(rows, -1, np.int32)
    weights = {"weight_bought": np.full(rows, np.nan, np.float32)}
    for signature in ("retrieve_filtered", "recommend_filtered"):
        given = weights | {"weight_stars": weights["weight_bought"]} if signature == "recommend_filtered" else {}
        found = ask(version, signature, {**asked, **limits, **given})
        for row, names in enumerate(found["ids"]):
            wanted, _ = top(ids, row, K, exclude[row], [i for i in only[row] if i != none])
            assert _names(names) == [*wanted, *[none] * (K - len(wanted))]


def test_recommend_ranks_the_same_hits(version: pathlib.Path, ids: IdType) -> None:
    found = ask(version, "recommend", queries(ids))
    for row, (names, values) in enumerate(zip(found["ids"], found["bought"], strict=True)):
        wanted, best = top(ids, row, K)
        assert _names(names) == wanted
        np.testing.assert_allclose(values, best, rtol=1e-5, atol=1e-5)


def test_rank_and_predict_return_the_same_scores(version: pathlib.Path, ids: IdType) -> None:
    asked, values = queries(ids), scores(ids)
    names, rows = _names(build(ids).candidates.ids), len(asked["user"])
    for column in (0, 2, len(names) - 1):
        dtype = object if ids == "string" else np.int64
        pairs = {
            **asked,
            "item": np.asarray([names[column]] * rows, dtype),
            "price": np.full(rows, _prices(ids)[column]),
        }
        np.testing.assert_allclose(ask(version, "rank", pairs)["bought"], values[:, column], rtol=1e-5, atol=1e-5)
        frame = pd.DataFrame({**pairs, "recent": [[*h] for h in asked["recent"]], "bought": 1.0, "stars": 1.0})
        np.testing.assert_allclose(
            build(ids).predict(frame, verbose=0)["bought"], values[:, column], rtol=1e-5, atol=1e-5
        )


def test_evaluation_ranks_as_the_version_serves(ids: IdType) -> None:
    """One positive per query: the k-th of the reference has rank k - 1, so that recall changes at its position."""
    asked = queries(ids)
    for position in (0, 1, 4):
        names = [top(ids, row, 5)[0][position] for row in range(len(asked["user"]))]
        frame = pd.DataFrame({"user": asked["user"], "recent": [[*h] for h in asked["recent"]], "item": names})
        frame["price"] = frame["item"].map(dict(zip(_names(build(ids).candidates.ids), _prices(ids), strict=True)))
        report = evaluate(build(ids), frame.assign(bought=1.0, stars=1.0), ks=[position, position + 1][position == 0 :])
        assert report["bought", f"recall@{position + 1}"] == 1
        assert position == 0 or report["bought", f"recall@{position}"] == 0
        assert report["bought", "mrr"] == pytest.approx(1 / (position + 1))


def test_replaced_candidates_are_copied_from_their_new_positions(version: pathlib.Path, ids: IdType) -> None:
    numbers = (9, 2, ITEMS - 1, 5, 77)
    kept = pd.DataFrame({"item": [identifier(ids, "i", i) for i in numbers], "price": [price(i) for i in numbers]})
    changed = replace_candidates(version.parent, kept)
    found = ask(changed, "retrieve", queries(ids))
    none = "" if ids == "string" else -1
    left = [identifier(ids, "i", i) for i in (9, 2, ITEMS - 1, 5)]
    for row, (names, values) in enumerate(zip(found["ids"], found["scores"], strict=True)):
        wanted, best = top(ids, row, 4, only=left)
        old = [(n, v) for n, v in zip(_names(names), values, strict=True) if n in left]
        assert [n for n, _ in old] == wanted
        np.testing.assert_allclose([v for _, v in old], best, rtol=1e-5, atol=1e-5)
        assert _names(names)[-1] == none


def test_a_saved_model_and_another_process_answer_alike(tmp_path: pathlib.Path) -> None:
    save_model(build(), tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    assert loaded.tasks[0].copy == COPY
    asked = queries("string")
    frame = pd.DataFrame({**asked, "recent": [[*h] for h in asked["recent"]], "item": "i2", "price": 0.5})
    predicted = build().predict(frame, verbose=0)["bought"]
    np.testing.assert_array_equal(loaded.predict(frame, verbose=0)["bought"], predicted)
    version = export(build(), tmp_path / "served", max_k=K)
    assert read_manifest(version)["copy"] == {"history": "recent", "weight": 0.4, "half_life": 2.5}
    here = ask(version, "retrieve", asked)
    np.savez(tmp_path / "asked.npz", user=asked["user"].astype(str), recent=asked["recent"].astype(str))
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "asked = np.load(sys.argv[2])\n"
        "served = tf.saved_model.load(sys.argv[1]).signatures['retrieve']\n"
        "found = served(**{n: tf.constant(asked[n].astype(object)) for n in asked})\n"
        "np.savez(sys.argv[3], ids=found['ids'].numpy().astype(str), scores=found['scores'].numpy())\n"
    )
    paths = [str(version), str(tmp_path / "asked.npz"), str(tmp_path / "found.npz")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True)
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_array_equal(found["scores"], here["scores"])
    np.testing.assert_array_equal(found["ids"], here["ids"].astype(str))


def test_the_loss_is_that_of_dot_products() -> None:
    batch = to_batch(table("string"), build().preprocessor)
    losses = [float(m.compute_losses(batch, False)["bought"][0]) for m in (build(), build("string", copied=False))]
    assert losses[0] == losses[1]


def test_another_feature_is_refused() -> None:
    model = build()
    tasks = [Retrieval("bought", copy=HistoryCopy("user")), Regression("stars")]
    with pytest.raises(ValueError, match=r"Unknown history \['user'\] in `copy` of task 'bought'"):
        MultiTaskModel(model.network, tasks, model.preprocessor)

"""Lists of users' neighbors: loops over pairs, and where they join EASE."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from tests.models.small import NO_NOISE
from tfmtl import adaptation, ensembling, serving
from tfmtl._keras import tf
from tfmtl.data import Categorical, Label, Preprocessor, Schema, random_split, to_batch
from tfmtl.evaluation import evaluate
from tfmtl.evaluation.corpus import Seen, locate
from tfmtl.models import MultiTaskModel, build_network, load_model, save_model
from tfmtl.recipes import EaseParts, JoinedEase, join_ease, neighbor_part
from tfmtl.recipes.mixture_judge import MixtureJudge
from tfmtl.recipes.neighbor_part import Similarities
from tfmtl.tasks import Regression, Retrieval, UserNeighbors
from tfmtl.training import LazyAdam

USERS, ITEMS = 60, 90


@functools.cache
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Candidates in thirty groups of three, which users choose together: near neighbors beyond a small rank."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{3 * group + member}", 1.0, float(member))
        for user in range(USERS)
        for group in rng.choice(ITEMS // 3, 4, replace=False)
        for member in range(3)
    ]
    table = pd.DataFrame(rows, columns=["user", "item", "bought", "stars"])
    return random_split(table, test_fraction=0.3, seed=1)


def _model() -> MultiTaskModel:
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("bought"), Label("stars")])
    preprocessor = Preprocessor.fit(schema, tables()[0])
    tasks = [Retrieval("bought"), Regression("stars")]
    network = build_network(preprocessor, tasks, embedding_dim=4, tower_units=(4,), regularization=NO_NOISE)
    model = MultiTaskModel(network, tasks, preprocessor)
    model.compile(LazyAdam(0.02))
    return model


@functools.cache
def joined() -> tuple[MultiTaskModel, JoinedEase]:
    model = _model()
    return model, join_ease(model, *tables(), rank=2, regularizations=(20.0,), refit=False)


@pytest.mark.parametrize("exponent", [0.25, 0.5])
def test_lists_are_those_of_loops(exponent: float) -> None:
    rng = np.random.default_rng(0)
    matrix = np.where(rng.random([12, 15]) < 0.3, rng.integers(1, 4, [12, 15]), 0)
    matrix[:, :2] = matrix[3] = 0
    chosen = matrix > 0
    counts = chosen.sum(axis=0)
    wanted = np.zeros([12, 15])
    for user in range(12):
        for i in range(15):
            for j in np.flatnonzero(chosen[user]):
                both = (chosen[:, i] & chosen[:, j]).sum()
                if i != j and both and not chosen[user, i]:
                    wanted[user, i] += both / (counts[i] * counts[j]) ** exponent
    found = Similarities(scipy.sparse.csr_matrix(matrix)).lists([0, 3, 7, 11], exponent, width=4)
    for row, user in enumerate([0, 3, 7, 11]):
        best = np.sort(wanted[user])[::-1][:4]
        np.testing.assert_allclose(np.sort(found.parts[row])[::-1], best, rtol=1e-5)
        for item, part in zip(found.ids[row], found.parts[row], strict=True):
            assert part == pytest.approx(wanted[user, item], rel=1e-5) or (item, part) == (0, 0)


def test_users_with_too_many_pairs_have_no_similarities() -> None:
    few, many = (scipy.sparse.csr_matrix(np.ones([2, n])) for n in (100, 10_001))
    assert Similarities.cheap(few)
    assert not Similarities.cheap(many)
    assert not Similarities.cheap(scipy.sparse.csr_matrix((500_001, 3)))


def test_blocks_of_users_have_the_same_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = scipy.sparse.random(50, 30, 0.2, "csr", random_state=1)
    similar = Similarities(matrix)
    whole = similar.lists(np.arange(50), 0.5, 5)
    monkeypatch.setattr(neighbor_part, "_USERS", 7)
    for ours, theirs in zip(similar.lists(np.arange(50), 0.5, 5), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_neighbors_join_ease_of_a_small_rank() -> None:
    model, found = joined()
    assert isinstance(found.copy, UserNeighbors)
    assert "100 neighbors of each user" in found.mixture
    assert found.values["neighbors"] > found.values["mixture"] + 0.1
    report = evaluate(found.model, tables()[1], seen=tables()[0], ks=10)
    assert report["bought", "ndcg@10"] == pytest.approx(found.values["neighbors"], abs=1e-6)
    assert getattr(model.tasks[0], "copy", None) is None
    assert join_ease(model, *tables(), rank=60, regularizations=(20.0,)).copy is None


def test_all_rows_make_the_lists_of_the_result() -> None:
    model, found = joined()
    every = join_ease(model, *tables(), rank=2, regularizations=(20.0,))
    assert every.values == found.values
    users = tf.range(2, 12)
    ours, theirs = (each.copy.of_history(users)[0].numpy() for each in (found, every) if each.copy is not None)
    assert (ours != theirs).any()


def test_the_factor_of_lists_is_relative_to_their_size() -> None:
    model, (train, validation) = _model(), tables()
    batches = [to_batch(part, model.preprocessor, labels=["bought"]) for part in (train, validation)]
    corpus = locate(model, "bought", batches[1], Seen.from_frame(model, "bought", train))
    judge, parts = MixtureJudge(model, "bought", corpus, k=10), EaseParts(model.preprocessor, "bought", 2, 0)
    settings, part = next(iter(parts.options(batches[:1], [20.0]).items()))
    weights, values = judge.weights(part)
    similar = parts.similarities(batches[:1], settings)
    assert similar is not None
    lists = similar.lists(judge.users("user"), 0.5)
    found = judge.neighbors(part, weights, {0.5: lists}, values)
    louder = judge.neighbors(part, weights, {0.5: lists._replace(parts=7 * lists.parts)}, values)
    assert found is not None
    assert louder == (0.5, pytest.approx(found[1] / 7))
    none = judge.neighbors(part, weights, {0.5: lists._replace(ids=0 * lists.ids)}, dict(values))
    assert none is None


def _pairs(users: list[str]) -> pd.DataFrame:
    items = [str(i) for i in np.asarray(joined()[0].candidates.ids)]
    return pd.DataFrame({"user": np.repeat(users, len(items)), "item": np.tile(items, len(users))})


def test_saved_grown_and_exported_models_answer_alike(tmp_path: pathlib.Path) -> None:
    found, users = joined()[1].model, ["u1", "u7", "new"]
    pairs = _pairs(users)
    wanted = found.predict(pairs, verbose=0)["bought"].reshape(3, -1)
    plain = joined()[0].predict(pairs, verbose=0)["bought"].reshape(3, -1)
    assert not np.allclose(wanted[:2] - plain[:2], (wanted - plain)[:2].mean(axis=1, keepdims=True), atol=0.1)
    save_model(found, tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.predict(pairs, verbose=0)["bought"].reshape(3, -1), wanted)
    new = tables()[0].head(3).assign(user="later")
    grown = adaptation.extend_vocabularies(found, new)
    np.testing.assert_allclose(grown.predict(pairs, verbose=0)["bought"].reshape(3, -1), wanted, rtol=1e-5, atol=1e-5)
    assert np.isfinite(grown.predict(new, verbose=0)["bought"]).all()
    version = serving.export(loaded, tmp_path / "served", max_k=7)
    served = tf.saved_model.load(str(version)).signatures["retrieve"](user=tf.constant(users))
    best = np.sort(wanted, axis=1)[:, ::-1][:, :7]
    np.testing.assert_allclose(served["scores"].numpy(), best, rtol=1e-4, atol=1e-5)


def test_further_training_keeps_the_lists_and_ensembles_refuse_them() -> None:
    found = joined()[1].model
    copy: Any = found.tasks[0].copy  # type: ignore[attr-defined]
    before = [weight.copy() for weight in copy.get_weights()]
    trained = found.with_network(found.network)
    trained.compile(LazyAdam(0.001))
    trained.fit(tables()[0], epochs=1, verbose=0)
    for ours, theirs in zip(trained.tasks[0].copy.get_weights(), before, strict=True):  # type: ignore[attr-defined]
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="bought"):
        ensembling.ensemble([found, trained])


def test_lists_must_read_the_id_of_a_user() -> None:
    batch = to_batch(tables()[0].head(4), joined()[0].preprocessor, labels=False)
    assert "user" in batch.features
    schema = joined()[0].schema
    tasks = [Retrieval("bought", copy=UserNeighbors("item", 4, 2)), Regression("stars")]
    preprocessor = Preprocessor.fit(schema, tables()[0])
    network = build_network(preprocessor, tasks, embedding_dim=4, tower_units=(4,))
    with pytest.raises(ValueError, match=r"Unknown query feature of ids .*`copy` of task 'bought'"):
        MultiTaskModel(network, tasks, preprocessor)

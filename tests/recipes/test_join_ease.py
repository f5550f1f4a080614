"""EASE and popularity beside a network: one dot product, chosen by ranks on validation."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models.small import NO_NOISE
from tfmtl._keras import tf
from tfmtl.baselines import decompose
from tfmtl.data import Categorical, IdSequence, Label, Preprocessor, Schema, random_split, to_batch
from tfmtl.evaluation import evaluate
from tfmtl.evaluation.corpus import Seen, locate
from tfmtl.models import MultiTaskModel, build_network, load_model, save_model
from tfmtl.recipes import EaseParts, EaseSettings, JoinedEase, ease_part, join_ease
from tfmtl.recipes.ease_part import mean, sources_of, without_ease
from tfmtl.recipes.join_ease import _averaged
from tfmtl.recipes.mixture_judge import MixtureJudge, discounted, near_best
from tfmtl.serving import export
from tfmtl.tasks import Regression, Retrieval
from tfmtl.training import LazyAdam

USERS, ITEMS = 40, 24


@functools.cache
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Users of four tastes with six items each; a pair occurs once."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", 1.0, float(item % 5))
        for user in range(USERS)
        for item in range(ITEMS)
        if rng.random() < (0.75 if item % 4 == user % 4 else 0.04)
    ]
    table = pd.DataFrame(rows, columns=["user", "item", "bought", "stars"])
    table["history"] = [["i0", "i4", ""][: k % 4] for k in range(len(table))]
    train, validation = random_split(table, test_fraction=0.25, seed=1)
    return train, validation


def _model(history: bool = False, min_count: int = 1) -> MultiTaskModel:
    query: list[Any] = [Categorical("user")]
    if history:
        query.append(IdSequence("history", of="item", max_length=3))
    schema = Schema(query, [Categorical("item", min_count=min_count)], labels=[Label("bought"), Label("stars")])
    preprocessor = Preprocessor.fit(schema, tables()[0])
    tasks = [Retrieval("bought"), Regression("stars")]
    network = build_network(preprocessor, tasks, embedding_dim=4, tower_units=(4,), regularization=NO_NOISE)
    model = MultiTaskModel(network, tasks, preprocessor)
    model.compile(LazyAdam(0.02))
    return model


@functools.cache
def joined() -> tuple[MultiTaskModel, JoinedEase]:
    model = _model()
    return model, join_ease(model, *tables(), regularizations=(1.0, 20.0), refit=False)


def _scores(model: MultiTaskModel, users: list[str]) -> np.ndarray:
    """Return the retrieval scores of users and all candidates."""
    features = to_batch(pd.DataFrame({"user": users, "item": "i0"}), model.preprocessor, labels=[]).features
    query = model.tower("query")({"user": features["user"]})["bought"].numpy()
    candidate = model.tower("candidate")(dict(model.candidates.features))["bought"].numpy()
    return np.asarray(query @ candidate.T)


def _reference(model: MultiTaskModel, regularizations: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return EASE's mean scores [users, candidates] by inverses, and log(1 + n), in the order of the corpus."""
    train, _ = tables()
    items = [str(name) for name in np.asarray(model.candidates.ids).astype(str)]
    matrix = np.zeros([USERS, len(items)])
    for user, item in zip(train["user"], train["item"], strict=True):
        matrix[int(user[1:]), items.index(item)] = 1.0
    found = []
    for regularization in regularizations:
        precision = np.linalg.inv(matrix.T @ matrix + regularization * np.eye(len(items)))
        weights = -precision / np.diag(precision)
        np.fill_diagonal(weights, 1 / (regularization * np.diag(precision)) - 1)
        found.append(matrix @ weights)
    return np.mean(found, axis=0), np.log1p(matrix.sum(axis=0))


def test_scores_are_the_weighted_sum_of_three_parts() -> None:
    model, found = joined()
    users = [f"u{k}" for k in range(USERS)]
    ease, popularity = _reference(model, found.settings.regularizations)
    assert found.settings.weighting == "binary"  # pairs occur once: both weightings are equal, and the first one wins
    parts = [_scores(model, users), ease, np.broadcast_to(popularity, ease.shape)]
    got = _scores(found.model, users)
    coefficients, *_ = np.linalg.lstsq(np.stack([p.ravel() for p in parts], 1), got.ravel(), rcond=None)
    fitted = sum(c * p for c, p in zip(coefficients, parts, strict=True))
    np.testing.assert_allclose(got, fitted, atol=1e-4)
    wanted = np.asarray(found.weights)
    assert (np.abs(coefficients[wanted == 0]) < 1e-4).all()
    assert (coefficients[wanted > 0] > 0).all()


def test_an_untrained_network_is_joined_by_a_closed_form_that_ranks() -> None:
    model, found = joined()
    train, validation = tables()
    before, after = (
        evaluate(m, validation, seen=train, ks=10).loc[("bought", "ndcg@10")] for m in (model, found.model)
    )
    assert found.values["mixture"] == pytest.approx(after, abs=1e-6)
    assert found.values["network"] == pytest.approx(before, abs=1e-6)
    assert found.values["mixture"] >= max(found.values[name] for name in ("network", "ease", "popularity")) - 0.02
    assert sum(found.weights) == pytest.approx(1.0)
    assert after > before + 0.2
    assert found.weights[1] > 0
    assert "EASE of 'user'" in str(found)


def test_regularizations_within_one_standard_error_are_averaged() -> None:
    best = [0.5, 0.6, 0.7, 0.8]
    values = {
        "a": best,
        "b": [0.6, 0.5, 0.8, 0.6],  # behind by .025 on average; the standard error is sqrt(.0169) / 2 = .065
        "c": [0.4, 0.5, 0.6, 0.7],  # behind by .1 in every query
        "d": [0.6, 0.5, 0.8, 0.6],
    }
    options: dict[EaseSettings, str] = {
        EaseSettings("binary", "user", (10.0,)): "a",
        EaseSettings("binary", "user", (20.0,)): "b",
        EaseSettings("binary", "user", (30.0,)): "c",
        EaseSettings("log", "user", (20.0,)): "d",  # another weighting has another matrix
        EaseSettings("binary", "user", (20.0,), normalized=True): "d",  # as another normalization has
        EaseSettings("binary", "user", (20.0,), recency=1.0): "d",  # as other entries have
    }
    found = {settings: np.asarray(values[name]) for settings, name in options.items()}
    assert _averaged(found) == EaseSettings("binary", "user", (10.0, 20.0))


def test_settings_are_compared_by_the_mean_of_two_ndcgs() -> None:
    train, validation = tables()
    model = _model()
    batches = [to_batch(part, model.preprocessor, labels=["bought"]) for part in (train, validation)]
    part = next(iter(EaseParts(model.preprocessor, "bought", rank=8, seed=0).options(batches[:1], [20.0]).values()))
    corpus = locate(model, "bought", batches[1], Seen.from_frame(model, "bought", train))
    found = MixtureJudge(model, "bought", corpus, k=2).values(part, (1.0, 0.0, 0.0))
    report = evaluate(model, validation, seen=train, ks=(2, 20))
    wanted = [report["bought", f"ndcg@{k}"] for k in (2, 20)]
    assert wanted[1] > wanted[0] + 0.05
    assert found.mean() == pytest.approx(np.mean(wanted), abs=1e-6)


def test_the_network_has_half_of_the_weight_of_the_rows_that_chose_its_epoch() -> None:
    assert discounted([0.5, 0.5, 0.0]) == pytest.approx((1 / 3, 2 / 3, 0.0))
    assert discounted([0.4, 0.2, 0.4]) == pytest.approx((0.25, 0.25, 0.5))
    assert discounted([1.0, 0.0, 0.0]) == (1.0, 0.0, 0.0)


def test_the_tables_of_all_rows_start_from_those_of_the_training_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation = tables()
    preprocessor = _model().preprocessor
    batches = [to_batch(part, preprocessor, labels=["bought"]) for part in (train, validation)]
    starts: list[Any] = []
    monkeypatch.setattr(ease_part, "decompose", lambda *args: starts.append(args[3]) or decompose(*args))
    parts = EaseParts(preprocessor, "bought", rank=8, seed=0)
    options = parts.options(batches[:1], [20.0])
    parts.fit(batches, next(iter(options)))
    assert starts[0] is None
    assert starts[1] is parts.decomposed["binary", False]


def _interactions(rank: int) -> tuple[EaseParts, list[Any], np.ndarray]:
    preprocessor = _model(history=True).preprocessor
    batches = [to_batch(tables()[0], preprocessor, labels=["bought"])]
    parts = EaseParts(preprocessor, "bought", rank=rank, seed=0)
    return parts, batches, parts.counts(batches).toarray()


def test_normalized_entries_are_an_option_where_the_rank_holds_less_than_half_of_the_squares() -> None:
    for rank in (2, 24):
        parts, batches, matrix = _interactions(rank)
        values = np.linalg.svd(matrix, compute_uv=False)
        held = (values[:rank] ** 2).sum() / (values**2).sum()
        assert (held < 0.5) == (rank == 2)
        found = parts.options(batches, [20.0])
        assert {settings.normalized for settings in found} == ({False, True} if rank == 2 else {False})


@pytest.mark.parametrize("source", ["user", "history"])
def test_normalized_ease_equals_the_inverse_of_normalized_entries(source: str) -> None:
    parts, batches, matrix = _interactions(rank=64)
    settings = EaseSettings("binary", source, (20.0,), normalized=True)
    part = parts.fit(batches, settings)
    rows, columns = (np.maximum(matrix.sum(axis=axis), 1.0) for axis in (1, 0))
    scaled = matrix / rows[:, None] ** 0.5 / columns**0.25
    regularization = 20.0 * (scaled**2).sum() / (matrix**2).sum()
    precision = np.linalg.inv(scaled.T @ scaled + regularization * np.eye(len(columns)))
    weights = -precision / np.diag(precision)
    np.fill_diagonal(weights, 1 / (regularization * np.diag(precision)) - 1)
    weights = weights * columns[:, None] ** -0.25 * columns**0.25  # of entries that are not normalized
    wanted = matrix @ weights if source == "user" else weights
    np.testing.assert_allclose(part.query @ part.candidate.T, wanted, atol=1e-5)


def test_settings_within_one_standard_error_are_near_the_best() -> None:
    values = {"best": [0.5, 0.7], "near": [0.6, 0.5], "behind": [0.4, 0.6], "far": [0.1, 0.6]}
    # "near" is behind by .05 on average with a standard error of .15 / sqrt(2), "behind" by .1 in both queries,
    # "far" by .25 with a standard error of .15 / sqrt(2).
    assert near_best({name: np.asarray(found) for name, found in values.items()}) == ["best", "near"]


def test_other_tasks_are_unchanged() -> None:
    model, found = joined()
    table = tables()[1]
    np.testing.assert_array_equal(
        model.predict(table, verbose=0)["stars"], found.model.predict(table, verbose=0)["stars"]
    )


def test_saved_and_exported_models_answer_alike(tmp_path: pathlib.Path) -> None:
    _, found = joined()
    users = ["u1", "new"]
    save_model(found.model, tmp_path / "saved")
    np.testing.assert_array_equal(_scores(load_model(tmp_path / "saved"), users), _scores(found.model, users))
    version = export(found.model, tmp_path / "served", max_k=5)
    served = tf.saved_model.load(str(version)).signatures["retrieve"](user=tf.constant(users))
    best = np.sort(_scores(found.model, users), axis=1)[:, ::-1][:, :5]
    np.testing.assert_allclose(served["scores"].numpy(), best, rtol=1e-5, atol=1e-6)


def test_a_user_without_interactions_has_no_score_of_ease() -> None:
    model, found = joined()
    table = next(v for v in found.model.network.weights if "ease_query" in v.name).numpy()
    np.testing.assert_array_equal(table[:2], 0)
    assert np.abs(table[2:]).sum() > 0
    assert len(found.model.network.trainable_weights) == len(model.network.trainable_weights)


def test_ids_outside_the_vocabulary_have_no_row() -> None:
    model = _model(min_count=8)
    batch = to_batch(tables()[0], model.preprocessor)
    counts = EaseParts(model.preprocessor, "bought", rank=8, seed=0).counts([batch]).toarray()
    assert counts.shape[1] < ITEMS + 2
    assert counts[:2].sum() == counts[:, :2].sum() == 0
    inside = batch.features["item"].numpy() >= 2
    assert counts.sum() == inside.sum()


def test_the_history_of_a_request_is_a_source() -> None:
    model = _model(history=True)
    assert sources_of(model.schema) == ["user", "history"]
    found = join_ease(model, *tables(), regularizations=(1.0,), refit=False)
    assert found.settings.source == "user"  # the histories of this table are of other users


def test_repeated_pairs_decide_whether_seen_candidates_stay() -> None:
    model, (train, _) = _model(), tables()
    assert joined()[1].excludes_seen
    again = join_ease(model, train, train.sample(frac=0.3, random_state=0), regularizations=(1.0,))
    assert not again.excludes_seen
    assert again.values["ease"] > 0.3


def test_the_same_seed_gives_the_same_result() -> None:
    model, found = joined()
    again = join_ease(model, *tables(), regularizations=(1.0, 20.0), refit=False)
    assert (again.weights, again.values) == (found.weights, found.values)


def test_the_mean_of_regularizations_has_the_mean_of_their_scores() -> None:
    model, (train, _) = _model(), tables()
    batch = to_batch(train, model.preprocessor, labels=["bought"])
    parts = EaseParts(model.preprocessor, "bought", rank=8, seed=0)
    options = parts.options([batch], [1.0, 20.0])
    both = EaseSettings("binary", "user", (1.0, 20.0))
    single = [options[both._replace(regularizations=(value,))] for value in both.regularizations]
    wanted = np.mean([part.query @ part.candidate.T for part in single], axis=0)
    for part in (mean(options, both), parts.fit([batch], both)):
        np.testing.assert_allclose(part.query @ part.candidate.T, wanted, rtol=1e-4, atol=1e-6)


def test_joining_again_starts_from_the_network() -> None:
    model, found = joined()
    assert without_ease(model, "bought") is model
    again = join_ease(found.model, *tables(), regularizations=(1.0, 20.0), refit=False)
    assert (again.weights, again.values) == (found.weights, found.values)
    np.testing.assert_allclose(_scores(again.model, ["u1", "new"]), _scores(found.model, ["u1", "new"]), rtol=1e-6)
    ones = np.ones([60, 2], np.float32)
    alone = ease_part.EasePart("bought", "user", ones, ones, popularity=ones[:, 0])
    with pytest.raises(ValueError, match="'bought' has EASE alone, without a network"):
        without_ease(dataclasses.replace(alone, weights=(0.0, 1.0, 0.0)).join(model), "bought")


def test_a_refit_reads_both_tables() -> None:
    model, found = joined()
    refitted = join_ease(model, *tables(), regularizations=(1.0, 20.0))
    assert refitted.weights == found.weights
    assert not np.allclose(_scores(refitted.model, ["u1"]), _scores(found.model, ["u1"]))


def test_wrong_arguments_are_named() -> None:
    model = _model()
    with pytest.raises(ValueError, match="`task`"):
        join_ease(model, *tables(), task="stars")
    with pytest.raises(RuntimeError, match="`join_ease` needs a compiled model"):
        join_ease(model.with_network(model.network), *tables())
    with pytest.raises(ValueError, match="`regularizations`"):
        join_ease(model, *tables(), regularizations=())
    with pytest.raises(ValueError, match="No positive"):
        join_ease(model, tables()[0].assign(bought=0.0), tables()[1])


def test_als_is_an_option_where_the_rank_holds_less_than_half_of_the_squares() -> None:
    for rank in (2, 24):
        parts, batches, _ = _interactions(rank)
        settings = next(iter(parts.options(batches, [20.0])))
        for source in ("user", "history"):
            found = parts.als(batches, settings._replace(source=source))
            assert (found is not None) == (rank == 2 and source == "user")


def test_als_beside_ease_adds_its_scores() -> None:
    parts, batches, matrix = _interactions(rank=2)
    settings = next(iter(parts.options(batches, [20.0])))
    alone, als = parts.fit(batches, settings), parts.als(batches, settings)
    assert als is not None
    both = parts.fit(batches, settings._replace(als=0.5))
    wanted = alone.query @ alone.candidate.T + 0.5 * als.query @ als.candidate.T
    np.testing.assert_allclose(both.query @ both.candidate.T, wanted, atol=0.02)  # three passes more
    assert not both.query[matrix.sum(axis=1) == 0].any()


def test_the_scale_of_als_is_that_which_ranks_best() -> None:
    train, validation = tables()
    model = _model()
    batches = [to_batch(part, model.preprocessor, labels=["bought"]) for part in (train, validation)]
    parts = EaseParts(model.preprocessor, "bought", rank=2, seed=0)
    options = parts.options(batches[:1], [20.0])
    settings, part = next(iter(options.items()))
    als = parts.als(batches[:1], settings)
    assert als is not None
    corpus = locate(model, "bought", batches[1], Seen.from_frame(model, "bought", train))
    judge = MixtureJudge(model, "bought", corpus, k=5)
    scale = judge.scale(part, als)
    values = {share: judge.values(part.beside(als, share), (0.0, 1.0, 0.0)).mean() for share in (0.0, scale, -scale)}
    assert scale > 0
    assert values[scale] == max(values.values())
    louder = dataclasses.replace(als, candidate=7 * als.candidate)
    assert judge.scale(part, louder) == pytest.approx(scale / 7)  # relative to the deviations of both
    assert judge.scale(dataclasses.replace(part, candidate=7 * part.candidate), als) == pytest.approx(scale * 7)
    nothing = dataclasses.replace(als, candidate=als.candidate * 0 + 1, query=als.query * 0 + 1)
    judged = judge.scale(part, nothing)  # equal scores change no rank: all scales are alike, none is harmful
    equal = judge.values(part.beside(nothing, judged), (0.0, 1.0, 0.0))
    np.testing.assert_allclose(equal, judge.values(part, (0.0, 1.0, 0.0)), atol=1e-6)


def test_a_sparse_catalogue_is_joined_by_als() -> None:
    model = _model()
    found = join_ease(model, *tables(), regularizations=(20.0,), rank=2, refit=False)
    assert found.settings.als > 0
    assert "beside ALS" in str(found)
    assert found.values["mixture"] >= found.values["network"]
    assert joined()[1].settings.als == 0
    assert "ALS" not in str(joined()[1])

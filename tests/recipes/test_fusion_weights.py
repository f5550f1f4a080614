"""Fusion weights: the search, users outside of it, slices, the verdict, and errors."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from servers.models import build

from tests.recipes.test_judged_lists import rows
from tfmtl.data import Label, Preprocessor, Schema
from tfmtl.models import MultiTaskModel
from tfmtl.recipes import FoundWeights, fusion_weights
from tfmtl.recipes.fusion_weights import _Chooser, _found
from tfmtl.recipes.judged_lists import JudgedLists
from tfmtl.recipes.weight_search import directed, mixed, search_weights, starts_of
from tfmtl.serving.recommender import Recommender

DEPTH, K = 15, 5
DEFAULT = {"seen": 1.0, "rating": 1.0, "clicked": 1.0}


def made(signal: int, queries: int = 200, noise: float = 0.3, seed: int = 0) -> JudgedLists:
    """Return lists of which one task orders the grades, with noise, and the others have numbers by chance."""
    rng = np.random.default_rng(seed)
    grades = (rng.random([queries, DEPTH]) < 0.2).astype(float)
    grades[:, 0] = 1.0
    standard = rng.normal(size=[3, queries, DEPTH]).astype(np.float32)
    standard[signal] = grades + noise * standard[signal]
    ideal = np.asarray([(1 / np.log2(np.arange(min(K, int(n))) + 2)).sum() for n in grades.sum(axis=1)])
    valid, users = np.ones(grades.shape, bool), np.arange(queries)
    return JudgedLists(tuple(DEFAULT), standard, valid, grades, ideal, users, users, K)


@pytest.mark.parametrize("signal", [0, 1, 2])
def test_the_search_finds_the_task_that_orders_the_grades(signal: int) -> None:
    lists = made(signal)
    starts = [[1.0, 1.0, 1.0]]
    found = search_weights(lists, starts)
    assert found[signal] > 0.8
    assert lists.ndcg(found).mean() > lists.ndcg(starts[0]).mean() + 0.2
    assert sum(map(abs, found)) == pytest.approx(1.0, abs=2e-4)
    assert found == search_weights(lists, starts)


def test_a_start_is_never_lost() -> None:
    """One query with one relevant candidate, found by one direction alone: a random population rarely has it."""
    lists, best = made(1, queries=3, noise=5.0), [0.01, 0.98, 0.01]
    for seed in range(3):
        found = search_weights(lists, [[1.0, 1.0, 1.0], best], seed=seed)
        assert lists.ndcg(found).sum() >= max(lists.ndcg(best).sum(), lists.ndcg([1.0, 1.0, 1.0]).sum()) - 1e-9


def test_default_weights_stay_where_no_others_are_better() -> None:
    """With a single candidate per query every order is the same."""
    lists = made(0, queries=20)
    single = dataclasses.replace(lists, standard=lists.standard[..., :1], valid=lists.valid[:, :1])
    single = dataclasses.replace(single, grades=lists.grades[:, :1])
    assert search_weights(single, [[1.0, -1.0, 1.0]]) == (1.0, -1.0, 1.0)
    nothing = dataclasses.replace(single, grades=0 * single.grades)
    assert search_weights(nothing, [[1.0, -1.0, 1.0]]) == (1.0, -1.0, 1.0)


def test_signs_are_those_of_the_default_weights() -> None:
    lists = made(1)
    flipped = dataclasses.replace(lists, standard=lists.standard * np.float32([[[1]], [[-1]], [[1]]]))
    free = search_weights(flipped, [[1.0, 1.0, 1.0]], any_sign=True)
    kept = search_weights(flipped, [[1.0, 1.0, 1.0]])
    undesired = search_weights(flipped, [[1.0, -1.0, 1.0]])
    assert free[1] < -0.6
    assert min(kept) >= 0
    assert undesired[1] < -0.8
    assert min(undesired[0], undesired[2]) >= 0


def test_starts() -> None:
    assert starts_of({"seen": 1.0, "rating": 1.0, "returned": -1.0}, "seen") == [
        [1.0, 1.0, -1.0],
        [1.0, 0.0, 0.0],
        [0.0, 1.0, 0.0],
        [0.0, 0.0, -1.0],
        [1.0, 1.0, 0.0],
        [1.0, 0.0, -1.0],
    ]
    assert directed([0.0, 0.0]) == (0.0, 0.0)
    assert str(directed([1.0, -1e-9])) == "(1.0, 0.0)"


@functools.cache
def preferred() -> pd.DataFrame:
    """Return all pairs of twenty queries and thirty items, of which those with the largest served click are clicked."""
    model, frame = build()
    users = frame.drop_duplicates("user_id")
    items = frame.drop_duplicates("item_id")[["item_id", "price", "genres", "title", "picture"]]
    pairs = users.drop(columns=items.columns).merge(items, how="cross").assign(position=None)
    served = model.predict(pairs.assign(position=-1), verbose=0)["clicked"]
    rank = pd.Series(served).groupby(pairs["user_id"]).rank(ascending=False)
    return pairs.assign(position=-1, clicked=(rank <= 3).astype(float))


def found(**arguments: Any) -> FoundWeights:
    given = {"main": "clicked", "k": K, "rerank_depth": 30, "folds": 2, **arguments}
    return fusion_weights(build()[0], given.pop("table", preferred()), **given)


def test_users_outside_of_the_search_confirm_a_gain() -> None:
    """The grades follow the served click, so that its weight must grow."""
    result = found()
    assert result.weights["clicked"] > 0.6
    value, low, high = result.gain
    assert 0 < low < value < high
    assert result.verdict.startswith("The found weights are better: ndcg@5 changes by +0.")
    assert (result.queries, result.users, result.ceiling) == (20, 20, 1.0)
    lists = JudgedLists.of(Recommender(build()[0], K, 30), preferred(), {"clicked": 1.0}, None, None)
    compared = result.comparison["value"].droplevel("metric")
    assert compared["default weights"] == pytest.approx(lists.ndcg([1.0, 1.0, 1.0]).mean())
    assert compared["retrieval alone"] == pytest.approx(lists.ndcg([1.0, 0.0, 0.0]).mean())
    assert lists.ndcg([*result.weights.values()]).mean() >= compared["default weights"]


def test_chance_is_no_gain() -> None:
    result = found(table=rows(), rerank_depth=None)
    low, high = result.gain[1:]
    assert low < high
    assert low <= 0
    assert "better:" not in result.verdict
    assert result.weights.keys() == DEFAULT.keys()
    assert result.defaults == DEFAULT


def test_print() -> None:
    text = str(found())
    lines = text.splitlines()
    assert lines[0].split() == ["seen", "rating", "clicked"]
    assert lines[1].split() == ["default", "weights", "1.0000", "1.0000", "1.0000"]
    assert [line.split("  ")[0] for line in lines[5:8]] == ["default weights", "retrieval alone", "found weights"]
    assert lines[8].split() == ["best", "order", "1.0000"]
    assert lines[-1].startswith("20 queries of 20 users. The found weights are better: ")


def comparison(low: float, high: float) -> FoundWeights:
    columns = ["value", "low", "high", "difference", "difference_low", "difference_high"]
    index = pd.MultiIndex.from_tuples([("found weights", "ndcg@5")])
    table = pd.DataFrame([[0.5, 0.4, 0.6, (low + high) / 2, low, high]], index, columns)
    return FoundWeights({}, {}, None, {}, table, "ndcg@5", 1.0, 9, 9)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.03, "are better: ndcg@5 changes by +0.0200 (+0.0100 to +0.0300) on users outside of the search."),
        (
            -0.01,
            0.03,
            "may be no better than the default ones: ndcg@5 changes by +0.0100 (-0.0100 to +0.0300) on users",
        ),
        (0.0, 0.02, "may be no better than the default ones: "),
        (-0.03, -0.01, "are worse, keep the default ones: ndcg@5 changes by -0.0200"),
    ],
)
def test_the_verdict_follows_the_interval(low: float, high: float, verdict: str) -> None:
    assert comparison(low, high).verdict.startswith(f"The found weights {verdict}")


def sliced_lists() -> tuple[JudgedLists, np.ndarray]:
    """The first task orders the grades of one value, the second task those of the other; the third value is rare."""
    parts = [made(0, seed=1), made(1, seed=2), made(1, queries=20, seed=3)]
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=1 if name == "standard" else 0)
        for name in ("standard", "valid", "grades", "ideal")
    }
    users = np.arange(420)
    lists = JudgedLists(parts[0].tasks, **arrays, users=users, rows=users, k=K)
    return lists, np.asarray(["at"] * 200 + ["de"] * 200 + ["fr"] * 20)


def test_slices_with_other_orders_gain() -> None:
    lists, values = sliced_lists()
    chooser = _Chooser(starts_of(DEFAULT, "seen"), False, 0, (100,))
    result = _found(lists, values, "country", chooser, 4)
    every = tuple(result.weights.values())
    assert list(result.slices) == ["at", "de"]
    own = search_weights(lists.of_queries(values == "de"), [every, *chooser.starts])
    assert tuple(result.slices["de"].values()) == mixed(own, every, 200 / 300)
    compared = result.comparison["value"].droplevel("metric")
    assert compared["found by slice"] > compared["found weights"] + 0.1
    assert result.slice_gain is not None
    assert result.slice_gain[0] == pytest.approx(compared["found by slice"] - compared["found weights"])
    assert 0.1 < result.slice_gain[1] < result.slice_gain[0] < result.slice_gain[2]
    assert result.slice_verdict.startswith(
        "The weights by slice are better than those of all queries: ndcg@5 changes by +0."
    )
    assert str(result).endswith(result.slice_verdict)


def test_the_folds_choose_the_shrinkage() -> None:
    """A reference in plain loops: each fold has the level that is best on the queries of the other folds."""
    lists, values = sliced_lists()
    chooser = _Chooser(starts_of(DEFAULT, "seen"), False, 0, (1000, 5, 100))
    result = _found(lists, values, "country", chooser, 3)
    fold = np.random.default_rng(0).permutation(420) % 3
    levels = [None, 1000, 100, 5]
    table = np.zeros([4, 420])
    for number in range(3):
        own = chooser.choose(lists.of_queries(fold != number), values[fold != number])
        for row, level in enumerate(levels):
            for query in np.flatnonzero(fold == number):
                weights = own.every
                if level is not None and values[query] in own.slices:
                    alone, users = own.slices[values[query]]
                    assert users == (values[fold != number] == values[query]).sum()
                    weights = mixed(alone, own.every, users / (users + level)) if users >= level else own.every
                table[row, query] = lists.of_queries(np.asarray([query])).ndcg(weights)[0]
    expected = np.mean([table[table[:, fold != fold[q]].mean(1).argmax(), q] for q in range(420)])
    compared = result.comparison["value"].droplevel("metric")
    assert compared["found by slice"] == pytest.approx(expected)
    assert compared["found weights"] == pytest.approx(table[0].mean())
    np.testing.assert_allclose(table[0], table[1])  # no slice has 1000 users
    assert result.min_users == levels[int(table.mean(1).argmax())]
    assert result.min_users in (5, 100)


def test_slices_by_chance_are_not_better() -> None:
    lists = made(0, noise=2.0)
    values = np.random.default_rng(0).permutation(np.repeat(["at", "de"], 100))
    result = _found(lists, values, "country", _Chooser(starts_of(DEFAULT, "seen"), False, 0, (10, 50)), 3)
    assert result.slice_gain is not None
    assert result.slice_gain[1] <= 0
    assert "are not shown to be better than" in result.slice_verdict


def test_slices_of_one_user_are_never_chosen() -> None:
    """A user outside of the searches has no slice, so that no level is better than no slices."""
    result = found(slices="user_id", min_users=[1, 2])
    assert (result.min_users, result.slices, result.slice_gain) == (None, {}, (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="or the folds chose none; use `weights`, or a lower `min_users`"):
        result.by_slice  # noqa: B018


def test_slices_have_weights_of_their_own() -> None:
    result = found(slices="user_id", min_users=1)
    assert len(result.slices) == 20
    assert all(sum(map(abs, own.values())) == pytest.approx(1.0, abs=3e-4) for own in result.slices.values())
    by_user = result.comparison["value"].droplevel("metric")
    assert by_user["found by slice"] == by_user["found weights"]  # a user outside of the search has no slice
    served = result.by_slice
    assert (served.by, served.weights, served.slices) == ("user_id", result.weights, result.slices)
    assert Recommender(build()[0], K, 30, fusion_weights=served).max_k == K


@pytest.mark.parametrize(
    ("slices", "message"), [(None, "without `slices`"), ("user_id", "No slice has `min_users` users")]
)
def test_no_slices(slices: str | None, message: str) -> None:
    result = found(slices=slices)
    assert result.slices == {}
    assert (result.slice_gain is None) == (slices is None)
    assert result.slice_verdict == "" or slices is not None
    with pytest.raises(ValueError, match=message):
        result.by_slice  # noqa: B018


ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"main": "bought"}, r"Unknown label \['bought'\] in `main`; known: "),
    ({"main": {}}, "`main` must name at least one label"),
    (
        {"main": {"clicked": float("inf")}},
        "utility of label 'clicked' must be a finite number. Received: utility=inf",
    ),
    ({"k": 0}, "`k` must be a positive integer. Received: k=0"),
    ({"k": 31}, "31"),
    ({"folds": 1}, "`folds` must be at least 2"),
    ({"min_users": []}, r"`min_users` must hold at least one number. Received: min_users=\[\]"),
    ({"min_users": [5, 0]}, "`min_users` must be a positive integer. Received: min_users=0"),
    ({"slices": "country"}, r"Unknown query feature \['country'\] in `slices`"),
    ({"slices": "age"}, "`slices` must name a Categorical query feature"),
    ({"retrieval": "rating"}, r"Unknown task \['rating'\] in `retrieval`"),
    ({"table": lambda: rows().assign(clicked=0.0)}, r"The validation rows have no positive of \['clicked'\]"),
    (
        {"table": lambda: preferred()[preferred()["user_id"] == "u3"]},
        "of at least two users. Received: users=1",
    ),
    ({"seen": preferred}, r"All validation rows with a positive of \['clicked'\] are in `seen`"),
    ({"main": {"clicked": -1.0}}, r"No query of the validation rows has a positive utility by \['clicked'\]"),
    ({"table": lambda: preferred()[:0]}, "The table is empty"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=[message[:30] for _, message in ERRORS])
def test_errors_are_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        found(**{name: value() if callable(value) else value for name, value in arguments.items()})


def test_a_model_without_a_ranking_task_has_nothing_to_weigh() -> None:
    model, frame = build()
    tasks = [task for task in model.tasks if task.name in ("seen", "mood")]
    outputs = {name: model.network.output[name] for name in ("seen", "mood")}
    network = type(model.network)(model.network.input, outputs)
    alone = MultiTaskModel(network, tasks, model.preprocessor, candidates=model.candidates)
    with pytest.raises(
        ValueError, match=r"Weights need a ranking task .* beside the retrieval. Received: tasks=\['seen'\]"
    ):
        fusion_weights(alone, frame, main="clicked", k=K)


def test_a_label_with_classes_is_no_event() -> None:
    model, frame = build()
    labels = [Label("mood", classes=(0, 1, 2)) if label.task == "mood" else label for label in model.schema.labels]
    schema = Schema(model.schema.query, model.schema.candidate, model.schema.context, labels)
    other = MultiTaskModel(
        model.network, model.tasks, Preprocessor(schema, model.preprocessor.statistics), candidates=model.candidates
    )
    with pytest.raises(ValueError, match="The label 'mood' of `main` holds classes; name one of numbers"):
        fusion_weights(other, frame, main="mood", k=K)

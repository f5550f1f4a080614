"""Tables in, tables out: lists by the scores of all pairs, limits by pairs, and a SavedModel beside the model."""

from __future__ import annotations

import pathlib

import tfmtl

# isort: split
import numpy as np
import pandas as pd
import pytest
from servers.models import IdType, build, identifier

from tfmtl.serving import Explanations, TableAnswers, load

RETRIEVAL_ALONE = {"seen": 1.0, "rating": 0.0, "clicked": 0.0}


@pytest.fixture(scope="module")
def answers(ids: IdType) -> TableAnswers:
    return TableAnswers.of_model(build(ids)[0], max_k=10)


@pytest.fixture(scope="module")
def frame(ids: IdType) -> pd.DataFrame:
    return build(ids)[1]


def _expected(answers: TableAnswers, frame: pd.DataFrame, queries: pd.DataFrame, allowed: list[set]) -> list[list]:
    """Return the ids of the lists of 10 by the dot products of all pairs."""
    items = frame.drop_duplicates("item_id")
    scores = answers.embed("query", queries) @ answers.embed("candidate", items).T
    ids = items["item_id"].to_numpy()
    return [
        [ids[i] for i in np.argsort(-row, kind="stable") if ids[i] in own][:10]
        for row, own in zip(scores, allowed, strict=True)
    ]


def _lists(table: pd.DataFrame, queries: pd.DataFrame) -> list[list]:
    return [table.loc[table["user_id"] == user, "item_id"].tolist() for user in queries["user_id"]]


def test_lists_are_those_of_all_scores_without_the_pairs_of_the_user(
    answers: TableAnswers, frame: pd.DataFrame
) -> None:
    queries = frame.drop_duplicates("user_id").sample(frac=1, random_state=1)
    everything = set(frame["item_id"])
    seen = frame.groupby("user_id")["item_id"].agg(set)
    known = frame[frame["user_id"] != queries["user_id"].iloc[0]]  # one user has no pair
    allowed = [everything - (seen[user] if i else set()) for i, user in enumerate(queries["user_id"])]
    found = answers.recommend(queries, exclude=known, fusion_weights=RETRIEVAL_ALONE, batch_size=7)
    assert _lists(found, queries) == _expected(answers, frame, queries, allowed)
    assert found["rank"].tolist() == [*range(1, 11)] * len(queries)
    assert (np.diff(found["score"].to_numpy().reshape(-1, 10)) <= 0).all()


def test_pairs_restrict_lists_and_users_without_pairs_get_none(answers: TableAnswers, frame: pd.DataFrame) -> None:
    queries = frame.drop_duplicates("user_id")
    pairs = frame[frame["user_id"].isin(queries["user_id"].iloc[:3])]
    some = frame["item_id"].unique()[:15].tolist()
    found = answers.recommend(queries, restrict=pairs, exclude=some, fusion_weights=RETRIEVAL_ALONE)
    seen = pairs.groupby("user_id")["item_id"].agg(set)
    allowed = [seen.get(user, set()) - set(some) for user in queries["user_id"]]
    expected = _expected(answers, frame, queries, allowed)
    assert 0 < sum(map(bool, expected)) <= 3
    assert _lists(found, queries) == expected
    none = answers.recommend(queries.iloc[5:], restrict=pairs)
    assert len(none) == 0
    pd.testing.assert_series_equal(none.dtypes, found.dtypes)


def test_values_of_a_list_are_those_of_the_pairs_in_their_context(answers: TableAnswers, frame: pd.DataFrame) -> None:
    query = frame.drop_duplicates("user_id").iloc[[4]]
    items = frame.drop_duplicates("item_id").set_index("item_id")
    candidates = ["price", "genres", "title", "picture"]
    bare = query.drop(columns="position")
    for row, position in ((query, query["position"].iloc[0]), (bare, None)):
        found = answers.recommend(row, k=4)
        pairs = found[["item_id"]].join(items[candidates], on="item_id")
        own = {c: [query[c].iloc[0]] * 4 for c in ("user_id", "age", "interests", "recent")}
        pairs = pairs.assign(**own, position=pd.array([position] * 4, "Int64"))
        expected = answers.rank(pairs.set_axis(list("wxyz")))
        assert expected.index.tolist() == list("wxyz")
        names = ["rating", "clicked", *(f"{task}[{i}]" for task in ("mood", "region") for i in range(3))]
        np.testing.assert_allclose(found[names], expected[names], atol=1e-5)
    assert not np.allclose(answers.recommend(bare, k=4)["rating"], answers.recommend(query, k=4)["rating"])


def test_a_loaded_model_has_the_same_answers(
    answers: TableAnswers, frame: pd.DataFrame, exported: pathlib.Path, ids: IdType
) -> None:
    queries = frame.drop_duplicates("user_id").set_axis(range(100, 120))
    served = load(exported.parent)
    assert served.path == exported
    options = {"exclude": frame, "fusion_weights": {"rating": -0.5}}
    pd.testing.assert_frame_equal(served.recommend(queries, **options), answers.recommend(queries, **options))
    pd.testing.assert_frame_equal(served.rank(frame), answers.rank(frame))
    np.testing.assert_array_equal(served.embed("query", queries), answers.embed("query", queries))
    assert served.embed("candidate", frame).shape == (len(frame), answers.embed("query", queries).shape[1])


def test_one_row_is_a_table_of_one_row(answers: TableAnswers, frame: pd.DataFrame) -> None:
    row = frame.iloc[3]
    expected = answers.recommend(frame.iloc[[3]], k=3)
    for given in (row, row.to_dict()):
        pd.testing.assert_frame_equal(answers.recommend(given, k=3), expected)
    pd.testing.assert_frame_equal(
        answers.rank(row).reset_index(drop=True), answers.rank(frame.iloc[[3]]).iloc[:1].reset_index(drop=True)
    )


def test_unknown_users_and_missing_values_get_lists(answers: TableAnswers, frame: pd.DataFrame, ids: IdType) -> None:
    stranger = {"user_id": identifier(ids, "u", 999), "age": np.nan, "interests": [], "recent": []}
    missing = {**stranger, "user_id": None}
    found = answers.recommend(pd.DataFrame([stranger, missing]), k=5, exclude=frame)
    assert len(found) == 10
    assert found["item_id"].isin(frame["item_id"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 11}, "`k` is longer than a list of the model"),
        ({"k": 0}, "`k` must be a positive integer"),
        ({"fusion_weights": {"colour": 1.0}}, "colour"),
        ({"exclude": pd.DataFrame({"user_id": ["u1"]})}, "item_id"),
    ],
)
def test_bad_arguments_name_the_fault(
    answers: TableAnswers, frame: pd.DataFrame, arguments: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        answers.recommend(frame.iloc[:2], **arguments)


def test_ids_alone_need_a_query_of_one_feature(answers: TableAnswers, frame: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"give a table with the columns \['user_id', 'age', 'interests', 'recent'\]"):
        answers.recommend(["u1", "u2"])
    with pytest.raises(ValueError, match="empty"):
        answers.recommend(frame.iloc[:0])
    with pytest.raises(ValueError, match="lacks the columns"):
        answers.recommend(frame[["user_id"]])


def test_a_ranker_ranks_and_refuses_to_recommend() -> None:
    model, table = build("string", retrieval=False)
    ranker = TableAnswers.of_model(model)
    assert list(ranker.rank(table))[:2] == ["rating", "clicked"]
    for call in (lambda: ranker.recommend(table), lambda: ranker.embed("query", table)):
        with pytest.raises(ValueError, match="no retrieval task with candidates; use `rank`"):
            call()


def test_classes_of_text_and_names_of_columns() -> None:
    """A task that is called as a column of the answer gets another name; classes of text name their columns."""
    table = pd.DataFrame({"who": ["a", "b", "c"] * 4, "thing": ["x", "y", "z", "x"] * 3, "tone": ["low", "high"] * 6})
    table = table.assign(score=1.0)
    schema = tfmtl.Schema(
        [tfmtl.Categorical("user", column="who")], [tfmtl.Categorical("item", column="thing")],
        labels=[tfmtl.Label("score"), tfmtl.Label("tone", classes=("low", "high"))],
    )  # fmt: skip
    data = tfmtl.Preprocessor.fit(schema, table)
    tasks = [tfmtl.Retrieval("score"), tfmtl.MultiClassClassification("tone", num_classes=2)]
    model = tfmtl.MultiTaskModel(tfmtl.build_network(data, tasks), tasks, data)
    found = TableAnswers.of_model(model).recommend(["c", "dan"], k=2)
    assert list(found) == ["who", "rank", "thing", "score", "score_value", "tone[low]", "tone[high]"]
    assert found["who"].tolist() == ["c", "c", "dan", "dan"]


def test_methods_of_the_model_are_those_answers(answers: TableAnswers, frame: pd.DataFrame, ids: IdType) -> None:
    model, queries = build(ids)[0], frame.drop_duplicates("user_id").iloc[:4]
    weights = {"seen": 1.0, "rating": 0.3, "clicked": -2.0}
    found = model.recommend(queries, k=6, exclude=frame, fusion_weights=weights)
    expected = answers.recommend(queries, k=6, exclude=frame, fusion_weights=weights)
    pd.testing.assert_frame_equal(found, expected)
    assert len(model.recommend(queries.iloc[:1], k=99, rerank_depth=30)) == 30
    pd.testing.assert_frame_equal(model.rank(frame), answers.rank(frame))
    np.testing.assert_array_equal(model.embed("query", queries), answers.embed("query", queries))
    assert model.similar_items(frame["item_id"].iloc[:1], k=3)["rank"].tolist() == [1, 2, 3]


def test_values_are_those_of_predict(answers: TableAnswers, frame: pd.DataFrame, ids: IdType) -> None:
    predicted = build(ids)[0].predict(frame, verbose=0)
    found = answers.rank(frame, batch_size=64)
    np.testing.assert_allclose(found["rating"], predicted["rating"], atol=1e-5)
    np.testing.assert_allclose(found[[f"mood[{i}]" for i in range(3)]], predicted["mood"], atol=1e-5)


def test_reasons_are_columns(frame: pd.DataFrame, ids: IdType) -> None:
    explain = Explanations(frame, tasks=["rating"], steps=2, reasons=2)
    answers = TableAnswers.of_model(build(ids)[0], max_k=3, explain=explain, rerank_depth=5)
    found = answers.recommend(frame.iloc[:2], exclude=frame)
    names = [feature.name for feature in build(ids)[0].schema.features.values()]
    for i in range(2):
        assert found[f"rating_reasons[{i}]"].str.split("[").str[0].isin(names).all()
        assert np.isfinite(found[f"rating_reason_parts[{i}]"]).all()
    assert len(found) == 6

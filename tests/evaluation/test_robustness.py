"""The robustness report: plain `evaluate` on tables perturbed by hand, `attack`, slices, hostile inputs."""

from __future__ import annotations

import functools
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tests.models.linear import linear_model, linear_rows
from tfmtl.data import Categorical, IdSequence, Label, Numeric, Preprocessor, Schema, Text, to_batch
from tfmtl.evaluation import Robustness, attack, bootstrap_comparison, evaluate, popularity_tiers, robustness
from tfmtl.evaluation.reports import report
from tfmtl.evaluation.reports.perturbations import drawn, generator
from tfmtl.models import Candidates, MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification, Retrieval

RANKING = ["rating", "liked", "mood"]
NONE: dict[str, Any] = {"attacks": [], "noise": [], "missing": [], "unknown": [], "popularity": False}


@functools.cache
def _model() -> MultiTaskModel:
    return small.model(eager=True)


@functools.cache
def _linear() -> MultiTaskModel:
    return linear_model(None)[0]


def _values(found: Robustness, kind: str, column: str = "", strength: float = 1.0, part: str = "") -> pd.Series:
    """Return the values of one condition, as `evaluate` returns them."""
    table = found.table
    chosen = (table["kind"] == kind) & (table["column"] == column) & (table["strength"] == strength)
    if part:
        chosen &= table["part"] == part
    own = table[chosen].set_index(["task", "metric"])["value"]
    assert len(own), (kind, column, strength, part)
    return own


def _same(found: pd.Series, expected: pd.Series) -> None:
    assert list(found.index) == list(expected.index)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_without_strength_every_value_is_the_plain_one() -> None:
    given: dict[str, Any] = {"noise": [0.0], "missing": [0.0], "unknown": [0], "attacks": [], "popularity": False}
    found = robustness(_model(), small.table(), **given)
    clean = found.table[found.table["kind"] == "clean"].set_index(["task", "metric"])["value"]
    pd.testing.assert_series_equal(clean, evaluate(_model(), small.table()), check_names=False)
    assert set(found.table["kind"]) == {"clean", "noise", "missing", "missing_group", "unknown"}
    assert (found.table["change"].fillna(0.0) == 0.0).all()
    assert found.metrics == {"seen": "ndcg@9", "rating": "rmse", "liked": "auc", "mood": "macro_auc"}
    assert set(found.main["metric"]) == set(found.metrics.values())


def test_noise_is_that_of_the_table_with_noise() -> None:
    rows = linear_rows()
    rows.loc[3, "age"] = np.nan
    found = robustness(_linear(), rows, **NONE | {"noise": [0.3, 2.0]}, seed=5)
    z = generator(5, "noise", "age").standard_normal(len(rows))
    for strength in (0.3, 2.0):
        disturbed = rows.assign(age=rows["age"] + strength * rows["age"].std(ddof=0) * z)
        expected = evaluate(_linear(), disturbed)
        _same(_values(found, "noise", "age", strength), expected)
        table = found.table[found.table["strength"] == strength].set_index(["task", "metric"])
        np.testing.assert_allclose(table["change"], expected - evaluate(_linear(), rows), atol=1e-6)
        assert np.abs(table["change"]).max() > 1e-3


@pytest.mark.parametrize("column", ["user", "recent", "item", "price"])
def test_missing_columns_are_those_of_the_table_without_values(column: str) -> None:
    found = robustness(_model(), small.table(), **NONE | {"missing": [0.4, 1.0]}, columns=[column], tasks=RANKING)
    _same(_values(found, "missing", column), evaluate(_model(), small.table().assign(**{column: None}), tasks=RANKING))
    rows = small.table()
    gone = drawn(len(rows), 0.4, generator(0, "missing", column))
    some = rows.assign(**{column: rows[column].astype(object).where(~gone, None)})
    _same(_values(found, "missing", column, 0.4), evaluate(_model(), some, tasks=RANKING))
    assert set(found.table["kind"]) == {"clean", "missing"}


def test_groups_are_missing_in_the_same_rows() -> None:
    found = robustness(_model(), small.table(), **NONE | {"missing": [1.0]}, tasks=RANKING)
    groups = {"query": ["user", "age", "recent"], "candidate": ["item", "price"]}
    kinds = found.table[found.table["kind"] == "missing_group"]
    assert set(kinds["column"]) == set(groups)
    for name, columns in groups.items():
        rows = small.table().assign(**dict.fromkeys(columns))
        _same(_values(found, "missing_group", name), evaluate(_model(), rows, tasks=RANKING))


def test_unknown_ids_are_those_of_the_table_with_other_ids() -> None:
    found = robustness(_model(), small.table(), **NONE | {"unknown": [0.5, 1.0]}, tasks=RANKING)
    assert set(found.table["column"]) == {"", "user", "item", "recent"}
    rows = small.table()
    strange = {
        "user": "stranger", "item": "nothing", "recent": rows["recent"].map(lambda ids: ["nothing"] * len(ids)),
    }  # fmt: skip
    for column, values in strange.items():
        _same(_values(found, "unknown", column), evaluate(_model(), rows.assign(**{column: values}), tasks=RANKING))
    half = drawn(len(rows), 0.5, generator(0, "unknown", "item"))
    some = rows.assign(item=rows["item"].where(~half, "nothing"))
    _same(_values(found, "unknown", "item", 0.5), evaluate(_model(), some, tasks=RANKING))


def test_a_retrieval_of_one_row_per_user_is_that_of_the_perturbed_table() -> None:
    rows = small.table()[small.table()["seen"] > 0].drop_duplicates("user")
    found = robustness(_model(), rows, **NONE | {"missing": [1.0], "noise": [1.0]}, tasks=["seen"])
    _same(_values(found, "missing", "age"), evaluate(_model(), rows.assign(age=np.nan), tasks=["seen"]))
    z = generator(0, "noise", "age").standard_normal(len(rows))
    noisy = rows.assign(age=rows["age"] + rows["age"].std(ddof=0) * z)
    _same(_values(found, "noise", "age"), evaluate(_model(), noisy, tasks=["seen"]))
    perturbed = set(found.table["column"])
    assert "item" not in perturbed, "the answer of a retrieval is no input"
    assert "price" not in perturbed


def test_a_retrieval_keeps_its_queries_users_positives_and_seen() -> None:
    rows, seen = small.table(), small.table().head(10)
    found = robustness(_model(), rows, **NONE | {"unknown": [1.0]}, tasks=["seen"], seen=seen)
    clean = to_batch(rows, _model().preprocessor)
    strange = to_batch(rows.assign(user="stranger"), _model().preprocessor)
    corpus = report.corpus_of(_model(), "seen", strange._replace(ids=clean.ids), seen)
    ranks = corpus.rank(_model().tower("query"), _model().tower("candidate"), "seen")
    expected = corpus.metrics(ranks, None)
    own = _values(found, "unknown", "user")["seen"]
    assert own.to_dict() == pytest.approx(expected)
    assert set(found.table["rows"]) == {len(corpus.items)}


def test_attacks_are_those_of_attack() -> None:
    given: dict[str, Any] = {**NONE, "attacks": [0.2, 0.7], "tasks": ["b"]}
    found = robustness(_linear(), linear_rows(), **given, steps=3)
    for kind, strength, steps in [("fgsm", 0.7, 1), ("pgd", 0.2, 3)]:
        expected = attack(_linear(), linear_rows(), strength=strength, steps=steps, tasks=["b"])
        _same(_values(found, kind, "", strength), expected)
    assert set(found.table["kind"]) == {"clean", "fgsm", "pgd"}
    assert set(found.table["task"]) == {"b"}


def test_parts_are_those_of_the_rows_alone() -> None:
    rows = small.table().assign(day=np.arange(50)[::-1] % 48, when=pd.Timestamp("2024-01-01"))
    rows["when"] += pd.to_timedelta(rows["day"], "D")
    rows.loc[[7, 8], ["day", "when"]] = [np.nan, pd.NaT]
    found = robustness(_model(), rows, **NONE | {"popularity": True}, time="when", seen=rows.head(5))
    known = small.statistics()  # equally frequent items have their order
    tiers = popularity_tiers(rows["item"], np.repeat(known.vocabularies["item"], known.counts["item"]))
    for i, part in enumerate(["head", "middle", "tail"]):
        own = evaluate(_model(), rows[tiers == part], seen=rows.head(5))
        _same(_values(found, "popularity", "item", i + 1, part), own)
    edges = np.nanquantile(rows["day"], [0.25, 0.5, 0.75])
    quarters = np.where(rows["day"].isna(), -1, np.searchsorted(edges, rows["day"]))
    for i in range(4):
        own = evaluate(_model(), rows[quarters == i], seen=rows.head(5))
        _same(_values(found, "time", "when", i + 1, f"quarter {i + 1}"), own)
    numbers = robustness(_model(), rows, **NONE, time="day", seen=rows.head(5)).table
    whens = found.table[found.table["kind"] == "time"]["value"]
    np.testing.assert_array_equal(numbers[numbers["kind"] == "time"]["value"], whens)
    parts = found.main[(found.main["kind"] == "popularity") & (found.main["task"] == "rating")]
    assert parts["rows"].tolist() == [(tiers == part).sum() for part in ("head", "middle", "tail")]


def test_intervals_are_paired_by_user_and_hold_the_change() -> None:
    model, rows = _linear(), linear_rows()
    found = robustness(model, rows, **NONE | {"missing": [1.0]}, samples=40, seed=3, columns=["age"])
    batches = {"clean": to_batch(rows, model.preprocessor)}
    batches["own"] = to_batch(rows.assign(age=np.nan), model.preprocessor)
    served = {name: report.predict(model, batch) for name, batch in batches.items()}
    labels = rows["a"].to_numpy()
    task = model.tasks[0]
    measures = {name: (lambda w, p=values["a"]: task.report(labels, p, w)) for name, values in served.items()}
    drawn_rows = bootstrap_comparison(measures, batches["clean"].ids["query"], baseline="clean", samples=40, seed=3)
    own = found.table[(found.table["kind"] == "missing") & (found.table["task"] == "a")].set_index("metric")
    expected = drawn_rows.loc["own"]
    np.testing.assert_allclose(own["low"], expected["difference_low"], atol=1e-6)
    np.testing.assert_allclose(own["high"], expected["difference_high"], atol=1e-6)
    assert (own["low"] <= own["high"]).all()
    assert own.loc["log_loss", "high"] > own.loc["log_loss", "low"]
    plain = robustness(model, rows, **NONE | {"missing": [1.0]}, columns=["age"]).table
    assert plain["low"].isna().all()


def test_one_seed_gives_one_table_for_any_other_columns() -> None:
    given: dict[str, Any] = {**NONE, "noise": [1.0], "missing": [0.5], "seed": 4}
    first, second = (robustness(_linear(), linear_rows(), **given).table for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    alone = robustness(_linear(), linear_rows(), **given, columns=["age"]).table
    own = first[first["column"].isin(["", "age"]) & (first["kind"] != "missing_group")].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, own)
    other = robustness(_linear(), linear_rows(), **{**given, "seed": 5}).table
    assert not np.array_equal(first["value"], other["value"])


def test_the_table_of_the_caller_stays_and_its_index_does_not_matter() -> None:
    rows = linear_rows()
    strange = rows.set_index(pd.Index([7] * 10 + list("abcdefghij")))
    before = strange.copy(deep=True)
    found = robustness(_linear(), strange, attacks=[])
    pd.testing.assert_frame_equal(strange, before)
    pd.testing.assert_frame_equal(found.table, robustness(_linear(), rows, attacks=[]).table)


def test_integers_scripts_texts_and_tables_without_candidates() -> None:
    count = np.arange(24)
    rows = pd.DataFrame(
        {
            "用户": count % 5 + 2**62, "возраст": np.where(count % 7 == 0, np.nan, count),
            "título": ["a b", "b c"] * 12, "history": [[k % 5 + 2**62] * (k % 3) for k in count],
            "clic": count % 2.0, "one": 1.0, "none": np.nan,
        }
    )  # fmt: skip
    user = Categorical("user", column="用户", dtype="int64")
    schema = Schema(
        [user, Numeric("age", column="возраст"), Numeric("sure", column="clic", missing="error"),
         Text("title", column="título"), IdSequence("history", of="user", max_length=2, dtype="int64")],
        labels=[Label("clic"), Label("one"), Label("none")],
    )  # fmt: skip
    preprocessor = Preprocessor.fit(schema, rows.assign(none=count % 2, one=count % 2))
    heads = [BinaryClassification(name, scope="query") for name in ("clic", "one", "none")]
    model = MultiTaskModel(build_network(preprocessor, heads, embedding_dim=2), heads, preprocessor)
    found = robustness(model, rows, attacks=[], missing=[1.0], unknown=[1.0], noise=[1.0])
    missing = found.table[found.table["kind"] == "missing"]
    assert set(missing["column"]) == {"用户", "возраст", "título", "history"}, "clic must have values"
    assert set(found.table["task"]) == {"clic", "one"}, "there is no label of the third task"
    assert found.main.loc[found.main["task"] == "one", "value"].isna().all(), "one class has no AUC"
    strange = rows.assign(用户=1, history=rows["history"].map(lambda ids: [1] * len(ids)))
    _same(_values(found, "unknown", "用户"), evaluate(model, rows.assign(用户=strange["用户"])))
    _same(_values(found, "unknown", "history"), evaluate(model, rows.assign(history=strange["history"])))
    empty = rows.assign(用户=-1, возраст=np.nan, título="", history=None)
    _same(_values(found, "missing_group", "query"), evaluate(model, empty))
    with pytest.raises(ValueError, match=r"Column 'clic' has 24 missing values"):
        robustness(model, rows, **NONE | {"missing": [1.0]}, columns=["clic"])
    with pytest.raises(ValueError, match="`popularity` needs candidates, and the schema has none"):
        robustness(model, rows, **NONE | {"popularity": True})


def test_retrieval_alone_has_neither_attacks_nor_numbers() -> None:
    rows = pd.DataFrame({"user": list("aabbcc"), "item": list("xyzxyz")})
    schema = Schema([Categorical("user")], [Categorical("item")])
    preprocessor, heads = Preprocessor.fit(schema, rows), [Retrieval("taken")]
    network, candidates = build_network(preprocessor, heads), Candidates.from_frame(rows, preprocessor)
    model = MultiTaskModel(network, heads, preprocessor, candidates=candidates)
    found = robustness(model, rows)
    assert set(found.table["kind"]) == {"clean", "missing", "unknown", "popularity"}
    assert set(found.table[found.table["kind"] != "popularity"]["column"]) == {"", "user"}
    with pytest.raises(ValueError, match="`attacks` needs a ranking task with labels; there is none"):
        robustness(model, rows, attacks=[0.1])
    with pytest.raises(ValueError, match=r"`noise` needs a column of numbers; there is none among \['user', 'item'\]"):
        robustness(model, rows, noise=[0.1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attacks": [-0.1]}, r"`attacks` must hold strengths of 0 or more. Received: attacks=-0.1"),
        ({"noise": [float("nan")]}, "`noise` must hold strengths of 0 or more"),
        ({"noise": ["1"]}, "`noise` must hold strengths of 0 or more"),
        ({"noise": 0.5}, "`noise` must be a list of numbers"),
        ({"missing": [1.1]}, r"`missing` must hold shares in \[0, 1\]. Received: missing=1.1"),
        ({"unknown": [-0.1]}, r"`unknown` must hold shares in \[0, 1\]"),
        ({"columns": ["size"]}, r"Unknown column \['size'\] in `columns`"),
        ({"columns": "age"}, "`columns` must be a list, not one string"),
        ({"tasks": ["c"]}, r"Unknown task \['c'\] in `tasks`"),
        ({"time": "day"}, r"Unknown column \['day'\] in the table"),
        ({"steps": 0}, "`steps` must be a positive integer"),
        ({"samples": -1}, "`samples` must be 0 or more"),
        ({"level": 1.5}, "`level` must be a number in"),
        ({"noise": [1.0], "columns": ["city"]}, r"`noise` needs a column of numbers; there is none among \['city'\]"),
        ({"unknown": [1.0], "columns": ["age"]}, "`unknown` needs a column of ids; there is none among"),
        ({"popularity": True}, "`popularity` needs candidates"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        robustness(_linear(), linear_rows(), **{"attacks": [], **arguments})


def test_bad_tables_are_refused() -> None:
    rows = linear_rows()
    with pytest.raises(ValueError, match="The table is empty"):
        robustness(_linear(), rows[:0])
    with pytest.raises(ValueError, match=r"The table has no label of the tasks \['a'\]"):
        robustness(_linear(), rows.assign(a=np.nan), tasks=["a"])
    with pytest.raises(ValueError, match="lacks the columns \\['age'\\]"):
        robustness(_linear(), rows.drop(columns="age"))
    with pytest.raises(TypeError, match="must hold datetimes or numbers"):
        robustness(_linear(), rows.assign(day="monday"), **NONE, time="day")
    with pytest.raises(ValueError, match="Column 'day' of `time` has no value"):
        robustness(_linear(), rows.assign(day=np.nan), **NONE, time="day")


def test_progress_counts_the_conditions_and_the_plot_has_their_values() -> None:
    calls: list[tuple[int, int]] = []
    found = robustness(
        _linear(), linear_rows().assign(day=np.arange(20)), **NONE | {"noise": [2.0, 1.0]}, time="day",
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert calls == [(i + 1, 7) for i in range(7)]
    axes = found.plot().axes
    assert plt.get_fignums() == []
    assert [axis.get_title() for axis in axes] == ["noise", "time", "", ""]
    main = found.main[found.main["task"] == "b"].set_index(["kind", "strength"])["value"]
    curve = axes[2].lines[1]
    assert list(curve.get_xdata()) == [0.0, 1.0, 2.0]
    assert list(curve.get_ydata()) == [main["clean", 0.0], main["noise", 1.0], main["noise", 2.0]]
    np.testing.assert_array_equal(axes[3].lines[1].get_ydata(), [main["time", i] for i in (1.0, 2.0, 3.0, 4.0)])
    assert "noise" in str(found)
    assert "<table" in found._repr_html_()
    with pytest.raises(ValueError, match="The report holds no value under a perturbation"):
        robustness(_linear(), linear_rows(), **NONE).plot()

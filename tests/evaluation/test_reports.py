"""Reports of a model against plain loops over its scores, scikit-learn and values by hand."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk

from tfmtl import evaluation
from tfmtl._keras import keras
from tfmtl.data import Categorical, Label, Numeric, Preprocessor, Schema, to_batch
from tfmtl.evaluation.retrieval_metrics import retrieval_metrics
from tfmtl.layers import SharedBottom
from tfmtl.models import Candidates, MultiTaskModel, Regularization, build_network
from tfmtl.tasks import BinaryClassification, MultiClassClassification, Regression, Retrieval
from tfmtl.training import LazyAdam

NAN = float("nan")
SCHEMA = Schema(
    query=[Categorical("user"), Numeric("hour")],
    candidate=[Categorical("item")],
    labels=[
        Label("bought"),
        Label("liked"),
        Label("stars", sample_weight="trust"),
        Label("mood", classes=("sad", "glad")),
    ],
)
TRAIN = pd.DataFrame(
    [
        ("ann", 1.0, "a", 1.0, 1.0, 5.0, 1.0, "glad"),
        ("ann", 1.0, "b", 1.0, 0.0, 3.0, 2.0, "glad"),
        ("ann", 2.0, "c", 0.0, NAN, 1.0, 1.0, "sad"),
        ("bob", 1.0, "a", 1.0, 1.0, NAN, 1.0, "glad"),
        ("bob", 2.0, "d", 1.0, 0.0, 2.0, 0.0, None),
        ("cem", 2.0, "a", NAN, 1.0, 4.0, 1.0, "sad"),
        ("cem", 1.0, "e", 1.0, 0.0, 2.0, 1.0, "sad"),
    ],
    columns=["user", "hour", "item", "bought", "liked", "stars", "trust", "mood"],
)
# "xia" and "yul" are outside the vocabulary: both are encoded as the unknown user. "zzz" is outside the corpus.
TEST = pd.DataFrame(
    [
        ("ann", 1.0, "d", 1.0, 1.0, 4.0, 1.0, "glad"),
        ("ann", 1.0, "e", 1.0, 0.0, 2.0, 3.0, "sad"),
        ("ann", 2.0, "d", 1.0, NAN, 5.0, 1.0, "glad"),
        ("ann", 1.0, "d", 1.0, 1.0, NAN, 1.0, None),
        ("bob", 3.0, "c", 1.0, 0.0, 1.0, 0.0, "sad"),
        ("bob", 3.0, "b", 0.0, 1.0, 3.0, 2.0, "glad"),
        ("xia", 1.0, "a", 1.0, 1.0, 2.0, 1.0, "sad"),
        ("yul", 1.0, "b", 1.0, 0.0, 4.0, 1.0, "glad"),
        ("yul", 1.0, "zzz", 1.0, 0.0, 1.0, 1.0, None),
        ("cem", 1.0, "c", NAN, NAN, NAN, 1.0, "glad"),
    ],
    columns=TRAIN.columns,
)
# Each has seen the positive of the other: if the two users were confused, their positives would be left out.
SEEN = pd.concat(
    [TRAIN, pd.DataFrame({"user": ["xia", "xia", "xia", "yul", "yul"], "item": list("bdeae"), "bought": 1.0})],
    ignore_index=True,
)


@functools.cache
def model() -> MultiTaskModel:
    preprocessor = Preprocessor.fit(SCHEMA, TRAIN)
    tasks = [
        Retrieval("bought"),
        BinaryClassification("liked"),
        Regression.from_statistics("stars", preprocessor.statistics),
        MultiClassClassification("mood", num_classes=2),
    ]
    trunk = SharedBottom(["liked", "stars", "mood"], units=[4], seed=3)
    network = build_network(
        preprocessor,
        tasks,
        trunk=trunk,
        embedding_dim=3,
        tower_units=[4],
        seed=3,
        regularization=Regularization(unknown_rate=0.0),
    )
    built = MultiTaskModel(network, tasks, preprocessor, candidates=Candidates.from_frame(TRAIN, preprocessor))
    built.compile(LazyAdam(0.05), run_eagerly=True)  # tracing would cost more than the few steps
    return built


def scores(frame: pd.DataFrame) -> np.ndarray:
    """Return scores [rows, candidates] of the retrieval task, pair by pair."""
    batch = to_batch(frame, model().preprocessor, labels=False)
    queries = model().tower("query")({name: batch.features[name] for name in ("user", "hour")})["bought"]
    items = model().tower("candidate")(model().candidates.features)["bought"]
    return np.array([[float(np.dot(q, c)) for c in items.numpy()] for q in queries.numpy()])


def reference(frame: pd.DataFrame, seen: pd.DataFrame | None, ks: Sequence[int]) -> dict[str, float]:
    """Return the metrics from the list of each positive row, by raw ids."""
    ids = model().candidates.ids.tolist()
    known = set() if seen is None else set(zip(seen["user"], seen["item"], strict=True))
    rows = frame[frame["bought"] > 0]
    rows = rows[[pair not in known for pair in zip(rows["user"], rows["item"], strict=True)]]
    queries = list(zip(rows["user"], rows["hour"], strict=True))
    chosen = set(zip(queries, rows["item"], strict=True))
    ranks = []
    for (user, hour), item, score in zip(queries, rows["item"], scores(rows), strict=True):
        listed = [i for i in ids if (user, i) not in known or ((user, hour), i) in chosen]
        own = score[ids.index(item)] if item in ids else -np.inf
        ranks.append(sum(score[ids.index(i)] > own for i in listed) if item in ids else np.inf)
    groups = [sorted(set(queries)).index(query) for query in queries]
    items = [ids.index(item) if item in ids else -1 for item in rows["item"]]
    found = retrieval_metrics(ranks, groups, ks, items=items)
    inside = [row for row, rank in enumerate(ranks) if rank < np.inf]
    ranks, groups, items = ([column[row] for row in inside] for column in (ranks, groups, items))
    within = {f"{k}_in_corpus": v for k, v in retrieval_metrics(ranks, groups, ks, items=items).items()}
    return {**found, **within, "corpus_coverage": 7 / 8}  # all except "zzz"


@pytest.mark.parametrize("seen", [None, SEEN, SEEN[["user", "item"]], SEEN[:0]], ids=["none", "labels", "ids", "empty"])
def test_retrieval_is_measured_on_the_list_of_each_raw_user(seen: pd.DataFrame | None) -> None:
    progress: list[tuple[int, int]] = []
    found = evaluation.evaluate(
        model(), TEST, seen=seen, ks=(1, 3), tasks=["bought"], progress=lambda *done: progress.append(done)
    )
    positive = seen if seen is None or "bought" not in seen else seen[seen["bought"] > 0]
    assert found.loc["bought"].to_dict() == pytest.approx(reference(TEST, positive, (1, 3)))
    assert progress == [(5, 5)]  # ann at 1 and at 2, bob at 3, xia and yul; cem has no label
    assert found.index.names == ["task", "metric"]


def test_positives_that_were_seen_are_left_out_and_counted() -> None:
    seen = pd.concat([SEEN, TEST[TEST["user"] == "xia"]])
    found = evaluation.evaluate(model(), TEST, seen=seen, ks=(1, 3), tasks=["bought"])
    assert found["bought", "seen_share"] == pytest.approx(1 / 8)
    rest = evaluation.evaluate(model(), TEST[TEST["user"] != "xia"], seen=SEEN, ks=(1, 3), tasks=["bought"])
    assert found.drop(("bought", "seen_share")).to_dict() == pytest.approx(rest.to_dict())
    with pytest.raises(ValueError, match="All 8 positives of the retrieval task 'bought' are in `seen`"):
        evaluation.evaluate(model(), TEST, seen=TEST, tasks=["bought"], ks=(1,))


def test_positives_outside_the_corpus_are_misses_or_do_not_count() -> None:
    missed, ignored = (
        evaluation.evaluate(model(), TEST, ks=(1, 3), tasks=["bought"], outside=outside).loc["bought"]
        for outside in ("miss", "ignore")
    )
    assert ignored["recall@3"] == missed["recall@3_in_corpus"] > missed["recall@3"]
    inside = evaluation.evaluate(model(), TEST[TEST["item"] != "zzz"], ks=(1, 3), tasks=["bought"]).loc["bought"]
    assert inside.to_dict() == pytest.approx(ignored[inside.index].to_dict())
    with pytest.raises(ValueError, match="`outside`"):
        evaluation.evaluate(model(), TEST, outside="keep")  # type: ignore[arg-type]


def test_each_item_outside_the_corpus_is_a_positive_of_its_own() -> None:
    """Ten positives of one user, nine of them outside the corpus: at most one tenth can be found."""
    rows = pd.concat([TEST[:1].assign(item="d")] + [TEST[:1].assign(item=f"new {i}") for i in range(9)])
    found = evaluation.evaluate(model(), rows, ks=(5,), tasks=["bought"])
    assert found["bought", "recall@5"] == pytest.approx(0.1)
    assert found["bought", "corpus_coverage"] == pytest.approx(0.1)


def test_bytes_are_the_ids_that_they_spell() -> None:
    encoded = SEEN[["user", "item"]].map(str.encode)
    expected = evaluation.evaluate(model(), TEST, seen=SEEN, ks=(1, 3), tasks=["bought"])
    positive = SEEN["bought"] > 0
    found = evaluation.evaluate(model(), TEST, seen=encoded[positive], ks=(1, 3), tasks=["bought"])
    pd.testing.assert_series_equal(found, expected)


def test_only_the_columns_of_the_measured_tasks_are_needed() -> None:
    alone = TEST[["user", "hour", "item", "liked"]]
    expected = evaluation.evaluate(model(), TEST, tasks=["liked"])
    pd.testing.assert_series_equal(evaluation.evaluate(model(), alone, tasks=["liked"]), expected)
    labels = ["user", "item", "bought", "liked", "stars", "trust", "mood"]
    found = evaluation.trivial_baseline(model(), TRAIN[labels], TEST[labels], ks=(1,))
    assert found["liked", "log_loss"] == pytest.approx(np.log(2))
    assert "recall@1" in found["bought"]


def test_taking_the_unknown_users_for_one_another_would_show() -> None:
    pooled = pd.concat([SEEN, SEEN.replace({"user": {"xia": "yul", "yul": "xia"}})])
    assert reference(TEST, pooled, (1,))["mrr"] != pytest.approx(reference(TEST, SEEN, (1,))["mrr"])
    assert reference(TEST, None, (1,))["mrr"] != pytest.approx(reference(TEST, SEEN, (1,))["mrr"])


def test_ranking_metrics_are_those_of_the_served_predictions() -> None:
    found = evaluation.evaluate(model(), TEST, tasks=["liked", "stars", "mood"])
    served = model().predict(TEST, verbose=0)
    rows = TEST["liked"].notna().to_numpy()
    liked, probability = TEST["liked"][rows], served["liked"][rows]
    assert found["liked", "auc"] == pytest.approx(sk.roc_auc_score(liked, probability))
    assert found["liked", "log_loss"] == pytest.approx(sk.log_loss(liked, probability), rel=1e-5)
    rows = TEST["stars"].notna().to_numpy()
    stars, value, trust = TEST["stars"][rows], served["stars"][rows], TEST["trust"][rows]
    assert found["stars", "rmse"] == pytest.approx(
        sk.root_mean_squared_error(stars, value, sample_weight=trust), rel=1e-5
    )
    assert found["stars", "mae"] == pytest.approx(sk.mean_absolute_error(stars, value, sample_weight=trust), rel=1e-5)
    rows = TEST["mood"].notna().to_numpy()
    mood = TEST["mood"][rows] == "glad"
    assert found["mood", "accuracy"] == pytest.approx(sk.accuracy_score(mood, served["mood"][rows].argmax(1)))
    assert found["mood", "log_loss"] == pytest.approx(sk.log_loss(mood, served["mood"][rows]), rel=1e-5)


def test_rows_without_a_label_count_for_no_task() -> None:
    silent = TEST.assign(bought=NAN, liked=NAN, stars=NAN, mood=None)
    both = pd.concat([TEST, silent.assign(user="ann", hour=7.0)], ignore_index=True)
    whole = evaluation.evaluate(model(), TEST, seen=SEEN, ks=(2,))
    pd.testing.assert_series_equal(evaluation.evaluate(model(), both, seen=SEEN, ks=(2,)), whole)
    assert set(whole.index.unique("task")) == {"bought", "liked", "stars", "mood"}
    unbought = evaluation.evaluate(model(), TEST.assign(bought=0.0, liked=NAN), ks=(2,))
    assert set(unbought.index.unique("task")) == {"stars", "mood"}


def test_trivial_baseline_golden_values() -> None:
    found = evaluation.trivial_baseline(model(), TRAIN, TEST, seen=SEEN, ks=(1, 3))
    # Positives of TRAIN by item: a 2, b 1, d 1, e 1, c 0. Lists by popularity, the rows' own positives kept:
    # ann at 1 (seen a, b): d = e > c, ranks of d and e 1/2, spread to 0 and 1; ann at 2: d = e > c, rank of d 1/2;
    # bob (seen a, d): b = e > c, rank of c 2; xia (seen b, d, e): a > c, rank of a 0;
    # yul (seen a, e): b = d > c, rank of b 1/2, and "zzz" is outside the corpus.
    assert found["bought", "recall@1"] == pytest.approx(np.mean([1 / 2, 1, 0, 1, 1 / 2]))
    assert found["bought", "recall@1_in_corpus"] == pytest.approx(np.mean([1 / 2, 1, 0, 1, 1]))
    assert found["bought", "recall@3"] == pytest.approx(np.mean([1, 1, 1, 1, 1 / 2]))
    assert found["bought", "mrr"] == pytest.approx(np.mean([1, 1 / 1.5, 1 / 3, 1, 1 / 1.5]))
    assert found["bought", "top_k_accuracy@1"] == pytest.approx(6 / 8)  # ann's four rows, xia's, and yul's b
    # Half of the six training labels are 1: the log loss of the constant 1/2, and the AUC 1/2 of a constant.
    assert found["liked", "log_loss"] == pytest.approx(np.log(2))
    assert found["liked", "auc"] == pytest.approx(0.5)
    # The mean of 5, 3, 1, 4, 2 with weights 1, 2, 1, 1, 1 is 3 (the label 2 of weight 0 does not count). In TEST the
    # errors are 1, -1, 2, 0, -1, 1, -2 with weights 1, 3, 1, 2, 1, 1, 1: sums 10 (weights), 14 (squares), 10 (sizes).
    assert found["stars", "rmse"] == pytest.approx(np.sqrt(14 / 10))
    assert found["stars", "mae"] == pytest.approx(1.0)
    # Three of six are "glad": a tie, so that the first class is predicted; 3 of the 8 in TEST are "sad".
    assert found["mood", "accuracy"] == pytest.approx(3 / 8)
    assert found["mood", "log_loss"] == pytest.approx(np.log(2))


def test_a_model_without_a_corpus_is_refused() -> None:
    unfitted = Preprocessor(model().schema, model().preprocessor.statistics)
    bare = MultiTaskModel(model().network, **{**model().arguments(), "candidates": None, "preprocessor": unfitted})
    with pytest.raises(ValueError, match=r"The retrieval tasks \['bought'\] need the corpus: pass `candidates`"):
        evaluation.evaluate(bare, TEST)
    with pytest.raises(ValueError, match="Did you mean 'liked'"):
        evaluation.evaluate(model(), TEST, tasks=["likd"])


def series(**values: float) -> pd.Series:
    index = pd.MultiIndex.from_tuples([(name, "m") for name in values], names=["task", "metric"])
    return pd.Series(list(values.values()), index, name="value")


def test_reports_side_by_side() -> None:
    table = evaluation.side_by_side({"teacher": series(a=1.0, b=2.0), "student": series(b=3.0)})
    assert table.columns.tolist() == ["teacher", "student"]
    assert table.loc[("b", "m")].tolist() == [2.0, 3.0]
    assert np.isnan(table.loc[("a", "m"), "student"])
    with pytest.raises(ValueError, match="`reports` must hold at least one report"):
        evaluation.side_by_side({})


def test_retained_margin_golden_values() -> None:
    # a rises from 0.5 to 0.9 and the model has 0.8: 3/4. b falls from 2 to 1 and the model has 0.9: 11/10. c is worse
    # than the baseline: -1. The teacher of d equals the baseline.
    found = evaluation.retained_margin(
        series(a=0.8, b=0.9, c=0.4, d=3.0),
        series(a=0.9, b=1.0, c=0.6, d=2.0),
        series(a=0.5, b=2.0, c=0.5, d=2.0),
        dict.fromkeys("abcd", "m"),
    )
    assert found.to_dict() == pytest.approx({"a": 0.75, "b": 1.1, "c": -1.0, "d": NAN}, nan_ok=True)


@pytest.fixture(scope="module")
def history() -> Any:
    callback = evaluation.RetrievalEvaluation(TEST, SEEN, ks=(1, 3), every=2)
    return model().fit(TRAIN, batch_size=7, epochs=3, callbacks=[callback], verbose=0).history


def test_the_callback_logs_what_evaluate_measures(history: dict[str, list[float]]) -> None:
    assert len(history["val_bought_recall@1"]) == 3
    # Epoch 1 measures because there is no value to repeat, epoch 2 measures, epoch 3 repeats.
    assert history["val_bought_recall@3"][2] == history["val_bought_recall@3"][1]
    callback = evaluation.RetrievalEvaluation(TEST, SEEN, ks=(1, 3))
    again = model().fit(TRAIN, batch_size=7, epochs=1, callbacks=[callback], verbose=0).history
    expected = evaluation.evaluate(model(), TEST, seen=SEEN, ks=(1, 3), tasks=["bought"]).loc["bought"]
    logged = {name: again[f"val_bought_{name}"][0] for name in expected.index}
    assert logged == pytest.approx(expected.to_dict())


def test_the_names_of_the_callback_suit_other_callbacks(tmp_path: pathlib.Path) -> None:
    name = "val_bought_recall@3"
    callbacks = [
        evaluation.RetrievalEvaluation(TEST, SEEN, ks=3),
        keras.callbacks.EarlyStopping(name, mode="max", patience=2),
        keras.callbacks.ModelCheckpoint(
            str(tmp_path / f"best-{{{name}:.2f}}.weights.h5"), name, mode="max", save_best_only=True,
            save_weights_only=True,
        ),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
        keras.callbacks.TensorBoard(str(tmp_path / "board")),
    ]  # fmt: skip
    logged = model().fit(TRAIN, batch_size=7, callbacks=callbacks, verbose=0).history[name]
    assert (tmp_path / f"best-{logged[0]:.2f}.weights.h5").exists()
    assert pd.read_csv(tmp_path / "log.csv")[name].tolist() == pytest.approx(logged)
    (events,) = (tmp_path / "board" / "validation").glob("events*")
    assert f"epoch_{name.removeprefix('val_')}".encode() in events.read_bytes()


def test_cut_offs_default_to_those_that_the_corpus_has() -> None:
    """100 is above the number of candidates; one cut-off needs no tuple."""
    found = evaluation.evaluate(model(), TEST, tasks=["bought"]).loc["bought"]
    size = len(model().candidates)
    assert size < 10
    assert {name.removesuffix("_in_corpus") for name in found.index if "recall" in name} == {f"recall@{size}"}
    one = evaluation.evaluate(model(), TEST, ks=2, tasks=["bought"]).loc["bought"]
    assert one.to_dict() == evaluation.evaluate(model(), TEST, ks=(2,), tasks=["bought"]).loc["bought"].to_dict()
    with pytest.raises(ValueError, match="where every metric is trivial; leave it out"):
        evaluation.evaluate(model(), TEST, ks=(2, 100), tasks=["bought"])


def test_learning_curves_have_a_panel_a_metric(history: dict[str, list[float]]) -> None:
    from tfmtl.evaluation import plots

    logs = {"one": {**history, "val_loss": [3.0, 2.0, 1.0]}, "two": {"loss": [1.0, 2.0]}}
    figure = plots.learning_curves(logs)
    panels = {axis.get_title(): axis for axis in figure.axes}
    losses = ["loss", "bought_loss", "liked_loss", "stars_loss", "mood_loss", "unweighted_loss"]
    assert sorted(panels) == sorted(losses)
    drawn = {line.get_label(): line.get_ydata().tolist() for line in panels["loss"].get_lines()}
    assert drawn == {"one": history["loss"], "one (validation)": [3.0, 2.0, 1.0], "two": [1.0, 2.0]}
    assert [axis.get_title() for axis in plots.learning_curves(logs, ["mood_loss"]).axes] == ["mood_loss"]
    with pytest.raises(ValueError, match="None of the metrics was logged"):
        plots.learning_curves(logs, ["accuracy"])
    with pytest.raises(ValueError, match="at least one history"):
        plots.learning_curves({})

"""Users and candidates are compared by identity: ids that share an embedding row are not one item.

Each property is checked where one vocabulary holds all ids against where it holds few of them: the embeddings differ,
and nothing else.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl import evaluation
from tfmtl._keras import tf
from tfmtl.data import Categorical, Label, Preprocessor, Schema, cache, keys_of, open_files, to_batch
from tfmtl.models import Candidates, MultiTaskModel, build_network, load_model, save_model
from tfmtl.tasks import BinaryClassification, LossInputs, Retrieval

ROWS = 15


def table(prefix: str = "i", dtype: str = "string") -> pd.DataFrame:
    """Each item and user occurs once, so that `min_count=2` leaves none of them in the vocabulary."""
    number = np.arange(ROWS)
    name = (lambda n, p: n + 100) if dtype == "int64" else (lambda n, p: f"{p}{n}")
    return pd.DataFrame(
        {
            "user": [name(n, "u") for n in number],
            "item": [name(n, prefix) for n in number],
            "brand": [f"b{n % 5}" for n in number],
            "bought": 1.0,
        }
    )


def model_of(min_count: int, frame: pd.DataFrame, dtype: Any = "string", **retrieval: Any) -> MultiTaskModel:
    schema = Schema(
        [Categorical("user", min_count=min_count, dtype=dtype)],
        [Categorical("item", min_count=min_count, dtype=dtype), Categorical("brand")],
        labels=[Label("bought")],
    )
    preprocessor = Preprocessor.fit(schema, frame)
    tasks = [Retrieval("bought", **retrieval)]
    network = build_network(preprocessor, tasks, embedding_dim=3, tower_units=[4], seed=1)
    return MultiTaskModel(network, tasks, preprocessor)


def with_equal_scores(model: MultiTaskModel) -> MultiTaskModel:
    """Make all embeddings zero, so that each candidate has the same score."""
    for variable in model.network.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    return model


def loss_of(model: MultiTaskModel, frame: pd.DataFrame) -> float:
    batch = to_batch(frame, model.preprocessor)
    return float(model.compute_losses(batch, training=False)["bought"][0])


@pytest.mark.parametrize("arguments", [{}, {"distinct_candidates": False}, {"full_softmax": True}], ids=str)
@pytest.mark.parametrize("dtype", ["string", "int64"])
def test_rare_items_are_as_many_candidates_as_there_are_items(arguments: dict[str, Any], dtype: str) -> None:
    """15 candidates with equal scores: each loss is log(15) = 2.708; as one item they would give 0."""
    frame = table(dtype=dtype)
    for min_count in (1, 2):
        model = with_equal_scores(model_of(min_count, frame, dtype, sampling_correction=False, **arguments))
        assert loss_of(model, frame) == pytest.approx(np.log(ROWS), rel=1e-6)


@pytest.mark.parametrize("arguments", [{}, {"num_uniform_negatives": 4}, {"num_hard_negatives": 5}], ids=str)
def test_moving_ids_out_of_the_vocabulary_changes_embeddings_alone(arguments: dict[str, Any]) -> None:
    frame = pd.concat([table(), table()[:6]], ignore_index=True)
    losses = []
    for min_count in (1, 100):
        model = with_equal_scores(model_of(min_count, frame, **arguments))
        model.compile("sgd", run_eagerly=True)
        batch = to_batch(frame, model.preprocessor)
        model.compute_losses(batch, training=True)  # counts the positives
        losses.append(float(model.compute_losses(batch, training=True)["bought"][0]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_renaming_ids_changes_nothing() -> None:
    frames = [pd.concat([table(prefix), table(prefix)[:6]], ignore_index=True) for prefix in ("i", "ж№")]
    losses = []
    for frame in frames:
        model = model_of(100, frame)
        batch = to_batch(frame, model.preprocessor)
        model.compute_losses(batch, training=True)
        losses.append(loss_of(model, frame))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("arguments", [{}, {"full_softmax": True}], ids=str)
def test_rows_without_an_item_do_not_count(arguments: dict[str, Any]) -> None:
    frame = table()
    model = model_of(1, frame, **arguments)
    absent = pd.concat([frame, frame[:3].assign(item=None)], ignore_index=True)
    assert loss_of(model, absent) == pytest.approx(loss_of(model, frame), rel=1e-6)


def test_evaluation_finds_every_rare_candidate() -> None:
    """All 15 candidates fit into a list of 15, so that the recall is 1; as one unknown item it was 0."""
    frame = table()
    for min_count in (1, 2):
        found = evaluation.evaluate(model_of(min_count, frame), frame, ks=(ROWS,))
        assert found["bought", f"recall@{ROWS}"] == 1.0


def test_popularity_and_seen_do_not_depend_on_the_vocabulary() -> None:
    frame = table()
    train = pd.concat([frame, *[frame.assign(user=f"more {n}")[:n] for n in range(ROWS)]], ignore_index=True)
    test = pd.DataFrame({"user": ["u0", "u1", "new"], "item": ["i3", "i0", "i9"], "brand": ["b3", "b0", "b4"]})
    test["bought"] = 1.0
    baselines = [
        evaluation.trivial_baseline(model_of(min_count, frame), train, test, seen=frame, ks=(1, 5))
        for min_count in (1, 100)
    ]
    pd.testing.assert_series_equal(*baselines)


def test_files_and_caches_hold_the_keys(tmp_path: pathlib.Path) -> None:
    frame = table()
    model = model_of(2, frame)
    frame.to_parquet(tmp_path / "rows.parquet")
    expected = to_batch(frame, model.preprocessor)
    encoded = cache(open_files(tmp_path / "rows.parquet"), model.preprocessor, tmp_path / "rows.cache")
    tf.nest.map_structure(np.testing.assert_array_equal, encoded.to_batch(), expected)  # type: ignore[union-attr]
    assert expected.ids["candidate"].numpy().tolist() == keys_of(tf.constant(frame["item"].tolist())).numpy().tolist()


def test_a_saved_model_keeps_the_counts_of_rare_items(tmp_path: pathlib.Path) -> None:
    frame = table()
    model = model_of(2, frame)
    model.compute_losses(to_batch(frame, model.preprocessor), training=True)
    loaded = load_model(save_model(model, tmp_path / "model"))
    np.testing.assert_array_equal(loaded.tasks[0]._counts.rare, model.tasks[0]._counts.rare)
    assert float(loaded.tasks[0]._counts.total) == ROWS
    assert loss_of(loaded, frame) == loss_of(model, frame)


def test_a_corpus_finds_its_positions_by_key() -> None:
    ids = np.array(["c", "a", "b"], object)
    corpus = Candidates(ids, {"item": tf.constant([1, 1, 1])})
    assert corpus.positions(keys_of(tf.constant(["b", "zzz", "c", "", "a"]))).numpy().tolist() == [2, -1, 0, -1, 1]
    with pytest.raises(ValueError, match=r"Two candidates must not have one key; .* Received: ids=\[\['a', 'a'\]\]"):
        Candidates(np.array(["a", "b", "a"], object), {"item": tf.constant([1, 1, 1])})


def test_a_batch_without_keys_is_refused() -> None:
    frame = table()
    model = model_of(2, frame)
    batch = to_batch(frame, model.preprocessor)
    with pytest.raises(ValueError, match="The batch has no `ids` of its candidates; make it by `to_batch`"):
        model.compute_losses(batch._replace(ids={}), training=False)


def test_the_grouped_auc_tells_unknown_users_apart() -> None:
    """Two unknown users, in each of which the positive has the higher score: GAUC 1; pooled it would be 3/4."""
    frame = pd.DataFrame({"user": ["x", "x", "y", "y"], "item": list("abab"), "brand": "b0", "bought": [1.0, 0, 1, 0]})
    model = model_of(2, table())
    keys = to_batch(frame, model.preprocessor).ids["query"]
    metric = evaluation.GroupedAUC("user")
    task = BinaryClassification("bought", extra_metrics=[metric])
    logits, labels = (tf.constant(x, tf.float32) for x in ([[0.9], [0.5], [0.4], [0.1]], frame["bought"]))
    task.update_extra_metrics(labels, logits, tf.ones([4]), LossInputs({}, keys={"user": keys}))
    assert float(metric.result()) == 1.0


def test_a_second_model_of_the_same_tasks_starts_with_counts_of_its_own() -> None:
    """As in a notebook where the cell that makes the model runs twice."""
    frame = table()
    first = model_of(2, frame)
    first.compute_losses(to_batch(frame, first.preprocessor), training=True)
    second = MultiTaskModel(first.network, first.tasks, first.preprocessor)
    assert [variable.name for variable in second.state] == ["counts:0", "rare_counts:0"]
    assert float(second.tasks[0]._counts.total) == 0.0
    assert second.with_network(second.network).state[0].shape == second.state[0].shape

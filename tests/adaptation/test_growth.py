from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.adaptation import newcomers
from tests.models import small
from tfmtl import adaptation
from tfmtl._keras import keras, tf
from tfmtl.adaptation.grown_rows import Rows, grow_network, grow_optimizer
from tfmtl.balancing import PCGrad, Uncertainty
from tfmtl.data import Preprocessor, fit_statistics, to_batch
from tfmtl.layers import PLE, STEM, QuotientRemainderEmbedding
from tfmtl.models import Candidates, MultiTaskModel
from tfmtl.models.optimizer_parts import variables_of
from tfmtl.training import ASGD, GroupedOptimizer, LazyAdam, LazyAdamW, RowWiseAdagrad

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "LazyAdam": lambda **lazy: LazyAdam(0.02, **lazy),
    "LazyAdam of small tables": lambda **lazy: LazyAdam(0.02, catch_up=False, **lazy),
    "LazyAdamW": lambda **lazy: LazyAdamW(0.02, weight_decay=0.01, **lazy),
    "ASGD": lambda **_: ASGD(0.1),
    "Adam with averages": lambda **_: keras.optimizers.Adam(0.02, use_ema=True),
    "Adagrad": lambda **_: keras.optimizers.Adagrad(0.1, initial_accumulator_value=0.3),
    "legacy Adam": lambda **_: keras.optimizers.legacy.Adam(0.02),
    "legacy Nadam": lambda **_: keras.optimizers.legacy.Nadam(0.02),
    "scaled": lambda **_: keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(0.02)),
    "groups": lambda **lazy: GroupedOptimizer(RowWiseAdagrad(0.05), LazyAdam(0.01, **lazy), global_clipnorm=1.0),
}


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    """A trained model; growth without free rows does not change it."""
    made = small.model(GroupedOptimizer(RowWiseAdagrad(0.05), LazyAdam(0.01)), balancer=Uncertainty(), eager=True)
    made.fit(small.table(), batch_size=25, verbose=0)
    return made


def with_room(optimizer: Any = None, headroom: float = 1.0, **arguments: Any) -> MultiTaskModel:
    """Return a model like `small.model` with free rows in its tables."""
    statistics = adaptation.reserve_rows(small.statistics(), headroom)
    preprocessor = Preprocessor(small.SCHEMA, statistics)
    heads = small.tasks(**arguments)
    network = small.build_network(
        preprocessor, heads, small.trunk(), embedding_dim=3, tower_units=[4, 3],
        regularization=small.NO_NOISE,
    )  # fmt: skip
    corpus = Candidates.from_frame(small.table(), preprocessor)
    model = MultiTaskModel(network, heads, preprocessor, candidates=corpus)
    model.compile(optimizer or LazyAdam(0.02))
    return model


def predictions(model: MultiTaskModel, table: Any) -> dict[str, np.ndarray]:
    """Return all outputs, of one call: batches of several sizes differ in their last digit."""
    batch = to_batch(table, model.preprocessor)
    return {name: np.asarray(value) for name, value in model.predict_step(batch).items()}


def test_growth_changes_no_prediction_of_old_or_new_ids(model: MultiTaskModel) -> None:
    week = newcomers.week(3)
    before = predictions(model, small.table()), predictions(model, week)
    grown = adaptation.extend_vocabularies(model, week)
    assert grown is not model
    assert grown.preprocessor.statistics.size("user") > model.preprocessor.statistics.size("user")
    for expected, table in zip(before, (small.table(), week), strict=True):
        for name, values in predictions(grown, table).items():
            np.testing.assert_array_equal(values, expected[name], err_msg=name)
    for name, values in predictions(model, week).items():
        np.testing.assert_array_equal(values, before[1][name], err_msg=f"{name} of the model before growth")


def test_old_ids_keep_their_indices_and_new_ones_follow(model: MultiTaskModel) -> None:
    week = newcomers.week(1)
    grown = adaptation.extend_vocabularies(model, week)
    in_lists = {item for items in week["recent"] for item in items}
    for name, values in {"user": set(week["user"]), "item": set(week["item"]) | in_lists}.items():
        old, new = (m.preprocessor.vocabulary(name).tolist() for m in (model, grown))
        assert new[: len(old)] == old
        assert set(new) == set(old) | values
    assert grown.preprocessor.statistics.moments == model.preprocessor.statistics.moments
    encoded, later = (to_batch(small.table(), m.preprocessor).features for m in (model, grown))
    for name, column in encoded.items():
        np.testing.assert_array_equal(later[name], column, err_msg=name)


def test_training_goes_on_as_if_the_rows_had_always_been_there(model: MultiTaskModel) -> None:
    """Trained on one batch without new values, old rows move as in the model that did not grow."""
    grown = adaptation.extend_vocabularies(model, newcomers.week(2))
    batch = to_batch(small.table(), model.preprocessor)
    before = [v.numpy() for v in grown.trainable_variables]
    assert int(grown.optimizer.iterations) == int(model.optimizer.iterations) == 2
    grown.make_step(batch)
    reference = small.model(
        GroupedOptimizer(RowWiseAdagrad(0.05), LazyAdam(0.01)), balancer=Uncertainty(), eager=True
    ).adopt_state(model)
    reference.network.set_weights(model.network.get_weights())
    reference.optimizer.build(reference.trainable_variables)
    for own, theirs in zip(reference.optimizer.variables, model.optimizer.variables, strict=True):
        own.assign(theirs)
    reference.make_step(batch)
    for old, new, was in zip(reference.trainable_variables, grown.trainable_variables, before, strict=True):
        rows = slice(None) if not old.shape.rank else slice(0, old.shape[0])
        np.testing.assert_allclose(new.numpy()[rows] if old.shape.rank else new, old, rtol=1e-5, atol=1e-7)
        if old.shape.rank and old.shape != new.shape:
            np.testing.assert_array_equal(new.numpy()[old.shape[0] :], was[old.shape[0] :])
    np.testing.assert_array_equal(grown.tasks[0]._counts.known[: small.ITEMS + 2], reference.tasks[0]._counts.known)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("large", [False, True])
def test_optimizers_keep_every_slot(name: str, large: bool) -> None:
    """Old rows and dense weights go on bit by bit as without growth."""
    table, kernel = (tf.Variable(tf.ones([n, 2]), name=f"{what}") for n, what in ((4, "e/embeddings"), (3, "kernel")))
    other = tf.Variable(tf.ones([3, 2]), name="f/embeddings")
    optimizer = OPTIMIZERS[name](dense_rows=3 if large else 100)
    random = np.random.default_rng(0)

    def step(by: Any, variables: list[Any], rows: list[int], values: np.ndarray) -> None:
        sizes = [tf.constant(v.shape) for v in variables]
        slices = [tf.IndexedSlices(tf.constant(values[:2]), tf.constant(rows), sizes[i]) for i in (0, 1)]
        by.apply_gradients([*zip(slices, variables[:2], strict=True), (tf.constant(values), variables[2])])

    draws = [([0, 1], random.normal(size=[3, 2]).astype(np.float32)) for _ in range(4)]
    draws[1] = [2, 0], draws[1][1]
    variables_of(optimizer, [table, other, kernel])
    for rows, values in draws[:2]:
        step(optimizer, [table, other, kernel], rows, values)
    variables = [tf.Variable(table.numpy()[[0, 1, 2, 3, 1, 1]], name="e/embeddings"), *map(_copy, (other, kernel))]
    grown = grow_optimizer(optimizer, [table, other, kernel], variables, {0: Rows.of([(4, 6)])})
    for rows, values in draws[2:]:
        step(optimizer, [table, other, kernel], rows, values)
        step(grown, variables, rows, values)
    np.testing.assert_array_equal(variables[0][:4], table)
    np.testing.assert_array_equal(variables[1], other)
    np.testing.assert_array_equal(variables[2], kernel)


def _copy(variable: tf.Variable) -> tf.Variable:
    return tf.Variable(variable.numpy(), name=variable.name.split(":")[0])


def test_growth_by_nothing_is_no_growth(worker: MultiTaskModel) -> None:
    before = worker.network.get_weights()
    assert adaptation.extend_vocabularies(worker, small.table()) is worker
    for variable, expected in zip(worker.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(variable, expected)


def test_counts_and_corpus_take_the_new_candidates(model: MultiTaskModel) -> None:
    week = newcomers.week(2)
    counts = model.tasks[0]._counts.known.numpy()
    grown = adaptation.extend_vocabularies(model, week)
    after = grown.tasks[0]._counts.known.numpy()
    np.testing.assert_array_equal(after[: len(counts)], counts)
    assert counts.sum() > 0
    assert not after[len(counts) :].any()
    assert len(after) == grown.preprocessor.statistics.size("item")
    assert grown.candidates.ids.tolist()[: small.ITEMS] == model.candidates.ids.tolist()
    assert set(grown.candidates.ids) == set(model.candidates.ids) | set(week["item"])
    prices = dict(zip(grown.candidates.ids.tolist(), grown.candidates.features["price"].numpy()[:, 0], strict=True))
    encoded = to_batch(week, grown.preprocessor).features["price"].numpy()[:, 0]
    assert [prices[item] for item in week["item"]] == encoded.tolist()


def test_a_given_corpus_replaces_the_old_one(model: MultiTaskModel) -> None:
    week = newcomers.week(1)
    corpus = week.drop_duplicates("item")
    grown = adaptation.extend_vocabularies(model, week, candidates=corpus)
    assert grown.candidates.ids.tolist() == corpus["item"].tolist()


def test_a_model_that_never_trained_grows_too() -> None:
    model, week = small.model(), newcomers.week(1)
    once = adaptation.extend_vocabularies(model, week, headroom=2.0)
    assert once is not model
    assert adaptation.extend_vocabularies(once, newcomers.week(2), headroom=2.0) is once
    once.optimizer.build(once.trainable_variables)


def test_room_is_filled_without_a_new_network() -> None:
    model = with_room(num_uniform_negatives=3)
    model.fit(small.table(), batch_size=25, epochs=1, verbose=0)
    network, week = model.network, newcomers.week(1)
    before = predictions(model, small.table())
    assert adaptation.extend_vocabularies(model, week) is model
    assert model.network is network
    for name, values in predictions(model, small.table()).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)
    index = to_batch(week, model.preprocessor).features["user"].numpy()
    assert index.max() >= small.statistics().size("user")
    table = network.get_layer("user_embedding").embeddings
    start = table.numpy()
    model.fit(week, batch_size=30, epochs=1, verbose=0)
    changed = (table.numpy() != start).any(axis=1)
    assert changed[index].all()
    assert not changed[index.max() + 1 :].any()


@pytest.mark.parametrize("trunk", [PLE, STEM])
def test_every_table_of_a_trunk_grows(trunk: Any) -> None:
    model = small.model(trunk=trunk(small.ON_PAIRS), balancer=PCGrad(), eager=True)
    week = newcomers.week(2)
    before = predictions(model, week)
    grown = adaptation.extend_vocabularies(model, week)
    for name, values in predictions(grown, week).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)
    sizes = {grown.preprocessor.statistics.size(name) for name in ("user", "item")}
    tables = [layer for layer in grown.network.layers if isinstance(layer, keras.layers.Embedding)]
    assert {layer.input_dim for layer in tables} <= sizes
    grown.make_step(to_batch(week, grown.preprocessor))


def test_a_table_that_becomes_large_had_every_row_touched() -> None:
    """LazyAdam counts the steps of rows only in tables above a size; up to it Adam's step moves all rows."""
    before, after = tf.Variable(tf.ones([4, 1]), name="e/embeddings"), tf.Variable(tf.ones([6, 1]), name="e/embeddings")
    optimizer = LazyAdam(0.1, dense_rows=4)
    for row in (0, 1, 1):
        optimizer.apply_gradients(
            [(tf.IndexedSlices(tf.ones([1, 1]), tf.constant([row]), tf.constant([4, 1])), before)]
        )
    grown = grow_optimizer(optimizer, [before], [after], {0: Rows.of([(4, 6)])})
    assert grown.row_steps[0].numpy().tolist() == [[3, 0]] * 4 + [[0, 0]] * 2
    np.testing.assert_array_equal(grown._momentums[0][:4], optimizer._momentums[0])
    np.testing.assert_array_equal(grown._momentums[0][4:], 0)


def test_variables_that_do_not_decay_still_do_not() -> None:
    before, after = (tf.Variable(tf.ones([n, 1]), name="e/embeddings") for n in (2, 3))
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay([before])
    optimizer.build([before])
    grown = grow_optimizer(optimizer, [before], [after], {0: Rows.of([(2, 3)])})
    grown.apply_gradients([(tf.zeros([3, 1]), after)])
    np.testing.assert_array_equal(after, 1)


def test_rows_of_joined_vocabularies() -> None:
    """Two vocabularies of 3 and 2 indices, one grows by 2, the other by 1: by hand."""
    rows = Rows.of([(3, 5), (2, 3)])
    assert rows.sources.tolist() == [0, 1, 2, 1, 1, 3, 4, 4]
    assert rows.new.tolist() == [False, False, False, True, True, False, False, True]


def test_joined_tables_grow_block_by_block() -> None:
    schema = small.Schema(query=[small.Categorical("a"), small.Categorical("b")], labels=[small.Label("y")])
    table = small.pd.DataFrame({"a": ["p", "q"], "b": ["r", "r"], "y": [0.0, 1.0]})
    statistics = fit_statistics(schema, table)
    network = small.build_network(
        Preprocessor(schema, statistics), [small.Regression("y")], embedding_dim=2, tower_units=[3]
    )
    week = small.pd.DataFrame({"a": ["new", "q"], "b": ["r", "other"], "y": [0.0, 1.0]})
    later = adaptation.extend_statistics(schema, statistics, week)
    grown, rows = grow_network(network, schema, {name: later.size(name) for name in ("a", "b")})
    assert len(rows) == 1
    both = small.pd.concat([table, week], ignore_index=True)
    encoded = [to_batch(both, Preprocessor(schema, s)).features for s in (statistics, later)]
    np.testing.assert_array_equal(network(encoded[0])["y"], grown(encoded[1])["y"])


def test_a_compact_table_is_refused() -> None:
    indices = keras.Input([], dtype="int32", name="user")
    table = QuotientRemainderEmbedding(8, 2, divisor=4, name="user_embedding")
    network = keras.Model({"user": indices}, table(indices))
    with pytest.raises(ValueError, match="compact table 'user_embedding' cannot grow"):
        grow_network(network, small.SCHEMA, {"user": 20, "item": 11})


def test_other_things_than_models_are_refused(worker: MultiTaskModel) -> None:
    with pytest.raises(TypeError, match="MultiTaskModel"):
        adaptation.extend_vocabularies(worker.network, small.table())
    with pytest.raises(ValueError, match="headroom"):
        adaptation.extend_vocabularies(worker, small.table(), headroom=-1)
    with pytest.raises(ValueError, match="lacks the columns"):
        adaptation.extend_vocabularies(worker, small.table().drop(columns="user"))


def test_counts_are_scaled_down_but_never_up() -> None:
    """Counts 30 and 10 limited to 20 become 15 and 5; limited to 100 they stay."""
    retrieval = small.tasks()[0]
    retrieval.prepare(3)
    retrieval._counts.known.assign([30.0, 10.0, 0.0])
    retrieval.limit_counts(100)
    assert retrieval._counts.known.numpy().tolist() == [30, 10, 0]
    retrieval.limit_counts(20)
    assert retrieval._counts.known.numpy().tolist() == [15, 5, 0]
    retrieval._counts.known.assign([0.0, 0.0, 0.0])
    retrieval.limit_counts(20)
    assert retrieval._counts.known.numpy().tolist() == [0, 0, 0]
    small.tasks()[1].limit_counts(20)  # a regression counts nothing

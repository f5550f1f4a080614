"""Meta-learning over users and over tables, with any part, trunk and balancer; adapted models are served."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl import balancing, serving
from tfmtl._keras import keras, tf
from tfmtl.adaptation import MAML, MetaLearner, Reptile, layers_of
from tfmtl.adaptation.episodes import Episodes
from tfmtl.adaptation.meta_learner import support_loss
from tfmtl.data import Categorical, Label, Preprocessor, Schema, to_batch
from tfmtl.layers import PLE
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import Regression
from tfmtl.training import LazySGD

FIT: dict[str, Any] = {"group": "user", "support": 3, "query": 4, "tasks_per_step": 3}


def weights(model: MultiTaskModel) -> dict[str, list[np.ndarray]]:
    return {layer.name: layer.get_weights() for layer in layers_of(model.network)}


def changed(model: MultiTaskModel, before: dict[str, list[np.ndarray]]) -> set[str]:
    after = weights(model)
    return {n for n, ws in before.items() if any((a != b).any() for a, b in zip(after[n], ws, strict=True))}


def test_episodes_take_each_task_once_and_never_a_row_twice() -> None:
    episodes = Episodes(small.table(), small.preprocessor(), "user", support=2, query=3)
    users = small.table()["user"].to_numpy()
    drawn = list(episodes.draw(np.random.default_rng(0)))
    assert sorted({users[s[0]] for s, _ in drawn}) == sorted(set(users))
    for support, query in drawn:
        assert len(support) == 2
        assert 1 <= len(query) <= 3
        assert len({*support, *query}) == len(support) + len(query)
        assert len({*users[support], *users[query]}) == 1
    again = list(episodes.draw(np.random.default_rng(0)))
    np.testing.assert_array_equal(np.concatenate(sum(drawn, ())), np.concatenate(sum(again, ())))


def test_tables_are_tasks_and_small_ones_are_left_out() -> None:
    tables = [small.table().head(7), small.table().tail(2), small.table().tail(9)]
    episodes = Episodes(tables, small.preprocessor(), support=2)
    assert [list(rows) for rows in episodes.rows] == [list(range(7)), list(range(9, 18))]
    with pytest.raises(ValueError, match="No task has more than 40 rows"):
        Episodes(tables, small.preprocessor(), support=40)
    with pytest.raises(ValueError, match="no column 'absent'"):
        Episodes(small.table(), small.preprocessor(), "absent")
    with pytest.raises(ValueError, match="no tasks"):
        Episodes([], small.preprocessor())


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("balancer", ["UPGrad", "Uncertainty"])
def test_maml_trains_everything_and_adapts_what_it_is_told_to(second_order: bool, balancer: str) -> None:
    trunk = PLE(small.ON_PAIRS, 1, 1, num_levels=1, units=[4])
    model = small.model(heads=small.tasks()[1:3], trunk=trunk, balancer=getattr(balancing, balancer)())
    meta = MAML(model, 0.1, second_order=second_order)
    before = weights(model)
    history = meta.fit(small.table(), **FIT)
    assert np.isfinite(history["loss"]).all()
    assert changed(model, before) == set(before)
    state = meta.state_of(small.table().head(4), steps=2)
    assert {name.split("/")[0] for name in state} == {"liked_output", "rating_output"}


def test_one_outer_step_is_that_of_the_mean_of_the_tasks_gradients() -> None:
    """The first-order gradient of plain weights, and SGD: theta - rate mean_t dL_q(phi_t) by hand, with eager tapes."""
    model = small.model(LazySGD(0.5), heads=small.tasks()[1:3])
    other = small.model(LazySGD(0.5), heads=small.tasks()[1:3])
    table = small.table()
    tasks = [table[table["user"] == user].head(6) for user in ("u0", "u2")]
    MAML(model, 0.1, second_order=False, adapt="all").fit(tasks, support=3, query=3, tasks_per_step=2, seed=4)
    episodes = Episodes(tasks, small.preprocessor(), support=3, query=3)
    tables = {id(v) for layer in layers_of(other.network, "embeddings") for v in layer.weights}
    variables = other.trainable_variables
    inner = [v for v in variables if id(v) not in tables]
    start, total = [v.numpy() for v in variables], [np.zeros(v.shape, np.float32) for v in variables]
    for rows in episodes.draw(np.random.default_rng(4)):
        support, query = (tf.nest.map_structure(lambda t, r=r: tf.gather(t, r), episodes.batch) for r in rows)
        with tf.GradientTape() as tape:
            loss = support_loss(other, support)
        for v, g in zip(inner, tape.gradient(loss, inner), strict=True):
            v.assign_sub(0.1 * g)
        with tf.GradientTape() as tape:
            loss = other.compute_loss(query, training=True)
        for t, g in zip(total, tape.gradient(loss, variables), strict=True):
            t += tf.convert_to_tensor(g).numpy()
        for v, s in zip(variables, start, strict=True):
            v.assign(s)
    for v, s, t in zip(model.trainable_variables, start, total, strict=True):
        np.testing.assert_allclose(v.numpy(), s - 0.5 * t / 2, rtol=1e-4, atol=1e-5)


def test_reptile_goes_the_mean_way() -> None:
    """theta + eps (theta' - theta) with one task: eps = 1 ends where the descent does, eps = 1/2 half way."""
    ends, ways = {}, {}
    for rate in (1.0, 0.5):
        model = small.model(heads=small.tasks()[1:3])
        meta = Reptile(model, 0.1, 2, meta_rate=rate, adapt="heads")
        start = [v.numpy() for v in meta.adapted]
        before = weights(model)
        meta.fit([small.table()], support=10, query=100)
        assert changed(model, before) == {"liked_output", "rating_output"}
        ends[rate] = [v.numpy() for v in meta.adapted]
        ways[rate] = [e - s for e, s in zip(ends[rate], start, strict=True)]
    adapted = Reptile(small.model(heads=small.tasks()[1:3]), 0.1, 2, adapt="heads").state_of(small.table())
    for end, expected in zip(ends[1.0], adapted.values(), strict=True):
        np.testing.assert_allclose(end, expected, rtol=1e-4, atol=1e-6)
    for half, whole in zip(ways[0.5], ways[1.0], strict=True):
        np.testing.assert_allclose(half, whole / 2, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", [MAML, Reptile])
def test_an_adapted_model_is_a_model_of_its_own_and_is_served(kind: type[MetaLearner], tmp_path: pathlib.Path) -> None:
    model = small.model(negatives=3)
    meta = kind(model, 0.1, 2, adapt=["query_tower_*", "heads"])  # type: ignore[call-arg]
    before, rows = weights(model), small.table()[small.table()["user"] == "u1"]
    adapted = meta.adapt(rows)
    assert changed(model, before) == set()
    moved = changed(adapted, before)
    assert moved <= {layer.name for layer in layers_of(model.network, meta.parts)}
    assert "query_tower_0" in moved
    batch = to_batch(rows, model.preprocessor)
    assert float(support_loss(adapted, batch)) < float(support_loss(model, batch))
    expected = adapted.predict(rows, verbose=0)
    with meta.adapted_to(rows) as inside:  # the same steps in place, traced
        for name, values in inside.predict(rows, verbose=0).items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-5)
    assert changed(model, before) == set()
    if kind is MAML:
        served = tf.saved_model.load(str(serving.export(adapted, tmp_path / "served")))
        assert served.signatures  # the exporter has compared their answers with the adapted model's


def test_learning_to_adapt_helps_users_that_differ() -> None:
    """Users of two opposite tastes: no single model fits, three steps of adaptation fit either."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"user": np.repeat([f"u{i}" for i in range(20)], 8), "item": np.tile(list("ab"), 80)})
    taste = np.where(table["user"].str[1:].astype(int) % 2 == 0, 1.0, -1.0) * np.where(table["item"] == "a", 1, -1)
    table["rating"] = taste + 0.01 * rng.normal(size=len(table))
    schema = Schema([Categorical("city")], [Categorical("item")], labels=[Label("rating")])
    table["city"] = "here"
    preprocessor = Preprocessor.fit(schema, table)
    network = build_network(preprocessor, [Regression("rating")], embedding_dim=4, tower_units=[8])
    model = MultiTaskModel(network, [Regression("rating")], preprocessor)
    model.compile(keras.optimizers.Adam(0.03))
    history = MAML(model, 0.3, 2).fit(table, "user", support=4, query=4, epochs=25, tasks_per_step=10)["loss"]
    assert history[0] > 0.7
    assert history[-1] < 0.2


def test_wrong_arguments_are_refused() -> None:
    model = small.model()
    with pytest.raises(ValueError, match="`inner_rate` must be above 0"):
        MAML(model, 0.0)
    with pytest.raises(ValueError, match="`inner_steps` must be a positive integer"):
        MAML(model, 0.1, 0)
    with pytest.raises(ValueError, match="Unknown part"):
        MAML(model, adapt="hads")
    with pytest.raises(ValueError, match="`meta_rate` must lie in"):
        Reptile(model, meta_rate=1.5)
    plain = model.with_network(keras.models.clone_model(model.network))
    with pytest.raises(ValueError, match="compile it first"):
        MAML(plain)

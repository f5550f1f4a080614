"""What a new model takes over from a trained one: rows by id, kernels by feature, heads by task; and saved models."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl._keras import tf
from tfmtl.adaptation import warm_start
from tfmtl.adaptation.tables import tables_of
from tfmtl.balancing import Uncertainty
from tfmtl.compression import prune, shrink_tables
from tfmtl.data import Categorical, Feature, Label, Numeric, Preprocessor, Schema
from tfmtl.layers import PLE, CrossNetwork, LowRankEmbedding, MMoE, MultiTaskLayer, SharedBottom
from tfmtl.models import MultiTaskModel, build_network, save_model
from tfmtl.tasks import BinaryClassification, Regression, Task

pytestmark = pytest.mark.usefixtures("eager_steps")

AGE, PRICE = Numeric("age"), Numeric("price")
USER, ITEM = Categorical("user"), Categorical("item")


def build(
    table: pd.DataFrame, query: Sequence[Feature], heads: list[Task], trunk: MultiTaskLayer | None = None, seed: int = 0
) -> MultiTaskModel:
    labels = [Label(task.name) for task in heads]
    schema = Schema(query, [ITEM, PRICE], labels=labels, query_id="user", candidate_id="item")
    preprocessor = Preprocessor.fit(schema, table)
    network = build_network(
        preprocessor, heads, trunk or MMoE([t.name for t in heads], 2, units=[4]), embedding_dim=3,
        tower_units=[4, 3], interactions=[CrossNetwork()], seed=seed,
    )  # fmt: skip
    return MultiTaskModel(network, heads, preprocessor)


def both() -> list[Task]:
    return [Regression("rating"), BinaryClassification("liked")]


def randomize(model: MultiTaskModel) -> MultiTaskModel:
    """Give every weight a different value, as training would."""
    rng = np.random.default_rng(3)
    model.network.set_weights([rng.normal(size=w.shape).astype(w.dtype) for w in model.network.get_weights()])
    return model


def predict(model: MultiTaskModel, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the outputs of the heads, before they are scaled by the labels' statistics."""
    features = {name: tf.constant(table[name].to_numpy()) for name in model.schema.features}
    return {n: v.numpy() for n, v in model(model.preprocessor(features), training=False).items()}


def test_a_copy_of_the_schema_predicts_the_same() -> None:
    model = small.model()
    randomize(model)
    other = small.model(seed=5)
    report = warm_start(other, model)
    assert not report.fresh
    assert not report.unused
    assert report.aligned == {"user": (6, 6), "item": (9, 9)}
    for found, expected in zip(other.network.get_weights(), model.network.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_features_and_tasks_that_come_go_or_move_leave_the_rest_in_place() -> None:
    """Features in another order and tasks in another order: the very same function."""
    table = small.table()
    model = randomize(build(table, [USER, AGE], both()))
    turned = build(table.iloc[::-1], [AGE, USER], both()[::-1], seed=7)
    report = warm_start(turned, model)
    assert not report.fresh, report
    expected = predict(model, table)
    for name, values in predict(turned, table).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)


def test_a_new_feature_with_a_zero_kernel_changes_nothing() -> None:
    table = small.table().assign(shop="s", late=np.arange(small.ROWS) % 2.0)
    model = randomize(build(table, [USER, AGE], both()))
    more = build(table, [Categorical("shop"), USER, AGE], [*both(), BinaryClassification("late")], seed=7)
    report = warm_start(more, model)
    assert set(report.fresh) == {"shop", "late_output/kernel", "late_output/bias"}
    assert report.aligned["query_tower_0/kernel"] == (5 * 4, 8 * 4)
    more.network.get_layer("query_embedding_3").embeddings.assign(  # the encoding of "shop" to zero, as its kernel
        np.where(np.arange(11)[:, np.newaxis] < 3, 0, more.network.get_layer("query_embedding_3").embeddings)
    )
    expected = predict(model, table)
    for name in ("rating", "liked"):
        np.testing.assert_allclose(predict(more, table)[name], expected[name], rtol=1e-4, atol=1e-5)


def test_a_missing_feature_is_left_out() -> None:
    table = small.table()
    model, less = randomize(build(table, [USER, AGE], both())), build(table, [USER], both()[:1], seed=7)
    report = warm_start(less, model)
    assert not report.fresh
    kernels = (m.network.get_layer("query_tower_0").kernel.numpy() for m in (less, model))
    np.testing.assert_array_equal(*(kernel[:3] for kernel in kernels))
    assert "liked_output" in report.unused
    assert "unused: liked_output" in str(report)


@pytest.mark.parametrize("new_ids", ["mean", "unknown", "initial"])
def test_rows_by_id(new_ids: str) -> None:
    table = small.table()
    model = randomize(build(table, [USER, AGE], both()))
    moved = table[table["user"] != "u1"].assign(user=lambda t: t["user"].replace({"u2": "new", "u3": "newer"}))
    other = build(moved, [USER, AGE], both(), seed=7)
    before = tables_of(other.network, ["user"])["", "user"].read()
    report = warm_start(other, model, new_ids=new_ids)  # type: ignore[arg-type]
    assert report.aligned["user"] == (3, 5)
    ours, theirs = (tables_of(m.network, ["user"])["", "user"].read() for m in (other, model))
    place = {name: 2 + i for i, name in enumerate(model.preprocessor.vocabulary("user"))}
    expected = {"mean": theirs[2:].mean(0), "unknown": theirs[1]}
    np.testing.assert_array_equal(ours[:2], theirs[:2])
    for i, name in enumerate(other.preprocessor.vocabulary("user"), start=2):
        row = theirs[place[name]] if name in place else expected.get(new_ids, before[i])
        np.testing.assert_allclose(ours[i], row, rtol=1e-6)


def test_tables_of_every_kind_pass_rows_on() -> None:
    """From a table to fewer parameters and back: rank 3 of width 3 loses nothing."""
    model = randomize(small.model())
    make = functools.partial(LowRankEmbedding, rank=3)
    compact = model.with_network(shrink_tables(small.network(seed=5), {"item_embedding": make}))
    assert warm_start(compact, model).aligned["item"] == (9, 9)
    again = small.model(seed=6)
    warm_start(again, compact)
    found, expected = (m.network.get_layer("item_embedding").embeddings.numpy() for m in (again, model))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_pruned_network_gives_and_takes() -> None:
    model = randomize(small.model())
    wrapped = small.model(seed=5).with_network(prune(small.network(seed=5), 0.5, end_step=2))
    assert not warm_start(wrapped, model).fresh
    back = small.model(seed=6)
    assert not warm_start(back, wrapped).fresh
    for name in ("query_tower_0", "rating_output"):
        np.testing.assert_array_equal(*(m.network.get_layer(name).get_weights()[0] for m in (back, model)))


@pytest.mark.parametrize("make", [MMoE, PLE, SharedBottom])
def test_the_trunk_follows_its_tasks(make: type[MultiTaskLayer]) -> None:
    """Weights of a task are taken over for that task; those of an unknown task are fresh, never those of another."""
    table, options = small.table().assign(late=np.arange(small.ROWS) % 2.0), {"units": [4]}
    model = randomize(build(table, [USER, AGE], both(), make(["rating", "liked"], **options)))
    heads = [BinaryClassification("late"), *both()]
    wider = build(table, [USER, AGE], heads, make([t.name for t in heads], **options), seed=7)
    report = warm_start(wider, model)
    taken = [n for n in report.fresh if not n.startswith("late")]
    if make is PLE:
        assert taken
    else:
        assert not taken
        expected = predict(model, table)
        for name in ("rating", "liked"):
            np.testing.assert_allclose(predict(wider, table)[name], expected[name], rtol=1e-4, atol=1e-5)


def test_two_shops_with_some_users_in_common() -> None:
    """Cross-domain: the schemas share only the users, so that their rows and the towers above are taken over."""
    first = randomize(small.model())
    table = pd.DataFrame({"user": ["u0", "u3", "v9"], "song": ["a", "b", "a"], "played": [1.0, 0.0, 1.0]})
    schema = Schema([USER], [Categorical("song")], labels=[Label("played")])
    preprocessor, heads = Preprocessor.fit(schema, table), [BinaryClassification("played")]
    network = build_network(preprocessor, heads, embedding_dim=3, tower_units=[4, 3])
    second = MultiTaskModel(network, heads, preprocessor, Uncertainty())
    report = warm_start(second, first)
    assert report.aligned["user"] == (2, 3)
    assert "query_tower_0/kernel" in report.copied  # all rows that are left of it
    assert "song" in report.fresh
    second.compile("adam")
    second.fit(table, verbose=0)


@pytest.mark.parametrize("new_heads", ["zero", "initial"])
def test_heads_of_new_tasks_say_nothing_at_first(new_heads: Any) -> None:
    """They are trained from the first step on, since their inputs are not zero."""
    table = small.table()
    source = randomize(build(table, [USER, AGE], [Regression("rating")]))
    target = build(table, [USER, AGE], both(), seed=1)
    kernel = target.network.get_layer("liked_output").kernel
    report = warm_start(target, source, new_heads=new_heads)
    assert "liked_output/kernel" in report.fresh
    assert (kernel.numpy() == 0).all() == (new_heads == "zero")
    assert (target.network.get_layer("rating_output").kernel.numpy() != 0).all()
    probabilities = target.predict(table, verbose=0)["liked"]
    assert (np.ptp(probabilities) < 1e-6) == (new_heads == "zero")
    target.compile("adam")
    target.fit(table, verbose=0)
    assert (kernel.numpy() != 0).all()


def test_a_new_retrieval_keeps_its_towers() -> None:
    source = randomize(small.model(heads=small.tasks()[1:]))
    target = small.model(seed=5)
    warm_start(target, source)
    features = target.candidates.features  # type: ignore[union-attr]
    assert np.abs(target.tower("candidate")(features)["seen"].numpy()).max() > 0


def test_wrong_arguments_are_refused() -> None:
    model = small.model()
    with pytest.raises(ValueError, match="cannot be warm-started from itself"):
        warm_start(model, model)
    with pytest.raises(ValueError, match="`new_ids` must be one of"):
        warm_start(model, small.model(), new_ids="zero")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`new_heads` must be one of"):
        warm_start(model, small.model(), new_heads="mean")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="from_model"):
        warm_start(model, model.network)


def test_a_saved_model_warms_another(tmp_path: pathlib.Path) -> None:
    model = randomize(small.model(negatives=3, balancer=Uncertainty(0.5)))
    other = small.model(seed=5)
    assert not warm_start(other, save_model(model, tmp_path / "model")).fresh

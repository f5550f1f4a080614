from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.interpretation.test_gradients import spread
from tests.interpretation.test_plots import saved
from tests.models import small
from tfmtl._nearest import best_of
from tfmtl.interpretation import EmbeddingMap, embedding_map, embedding_scatter, nearest_neighbors
from tfmtl.interpretation.embeddings import embeddings_of, principal_plane
from tfmtl.layers import MMoE
from tfmtl.models import MultiTaskModel


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    return spread(small.model())


def vectors(model: MultiTaskModel, feature: str) -> dict[str, np.ndarray]:
    """Return the rows of the only table of a feature by id."""
    table = model.network.get_layer(f"{feature}_embedding").get_weights()[0]
    return dict(zip(model.preprocessor.vocabulary(feature).tolist(), table[2:], strict=True))


@pytest.mark.parametrize("feature", ["user", "item"])
def test_embeddings_are_the_rows_of_the_table(model: MultiTaskModel, feature: str) -> None:
    ids, table = embeddings_of(model, feature)
    expected = vectors(model, feature)
    assert ids == list(expected)
    np.testing.assert_array_equal(table, list(expected.values()))


def test_neighbors_are_those_of_a_plain_loop(model: MultiTaskModel) -> None:
    table = {name: vector / np.linalg.norm(vector) for name, vector in vectors(model, "item").items()}
    found = nearest_neighbors(model, "item", ["i3", "i0", "i3"], k=4)
    assert list(found) == ["id", "rank", "neighbor", "score"]
    assert found["id"].tolist() == ["i3"] * 4 + ["i0"] * 4
    assert found["rank"].tolist() == [1, 2, 3, 4] * 2
    for own in ("i3", "i0"):
        scores = sorted(((float(table[own] @ v), name) for name, v in table.items() if name != own), reverse=True)
        lines = found[found["id"] == own]
        assert lines["neighbor"].tolist() == [name for _, name in scores[:4]]
        np.testing.assert_allclose(lines["score"], [score for score, _ in scores[:4]], atol=1e-6)
    assert len(nearest_neighbors(model, "item", ["i1"], k=50)) == small.ITEMS - 1


def test_tables_of_isolated_tasks_are_joined() -> None:
    model = spread(small.model(isolate=[["rating"]], trunk=MMoE(num_experts=2, units=[4])))
    own, others = (embeddings_of(model, "item", tasks)[1] for tasks in (["rating"], ["liked"]))
    assert own.shape == others.shape == (small.ITEMS, 3)
    assert np.abs(own - others).max() > 0.1
    assert sorted(embeddings_of(model, "item")[1].T.tolist()) == sorted(np.hstack([own, others]).T.tolist())


def test_the_plane_is_that_of_the_eigenvectors_of_the_covariance() -> None:
    table = np.random.default_rng(0).normal(size=[40, 5]) * [3.0, 1.0, 2.0, 0.5, 0.1]
    points, shares = principal_plane(table)
    values, axes = np.linalg.eigh(np.cov(table.T))
    np.testing.assert_allclose(shares, values[::-1][:2] / values.sum())
    for k in range(2):
        axis = axes[:, -1 - k] * np.sign(axes[np.abs(axes[:, -1 - k]).argmax(), -1 - k])
        np.testing.assert_allclose(points[:, k], (table - table.mean(axis=0)) @ axis, atol=1e-12)
    turned, same = principal_plane(-table)
    np.testing.assert_allclose(turned, -points, atol=1e-12)  # the axes keep their directions
    np.testing.assert_allclose(same, shares)


def test_the_plane_of_hostile_vectors() -> None:
    points, shares = principal_plane(np.ones([4, 3]))
    assert (points == 0).all()
    assert (shares == 0).all()
    points, shares = principal_plane(np.array([[1.0], [2.0], [6.0]]))
    np.testing.assert_allclose(points, [[-2, 0], [-1, 0], [3, 0]])
    np.testing.assert_allclose(shares, [1, 0])


def test_the_map_has_ids_labels_and_the_share_of_its_variance(model: MultiTaskModel) -> None:
    labels = pd.DataFrame({"item": ["i0", "i1", "i2", "i4"], "genre": ["a", "b", "a", None]}).set_index("item")["genre"]
    found = embedding_map(model, "item", labels=labels)
    assert found.labels[found.ids.index("i4")] is None
    table = np.stack(list(vectors(model, "item").values())).astype(np.float64)
    points, shares = principal_plane(table)
    np.testing.assert_allclose(found.points, points)
    frame = found.to_frame().set_index("id")
    assert frame.loc[["i0", "i1", "i2"], "label"].tolist() == ["a", "b", "a"]
    assert pd.isna(frame.loc["i5", "label"])
    np.testing.assert_allclose(frame["share"], shares.sum())
    np.testing.assert_allclose(frame.loc[found.ids, ["x", "y"]], points)


def test_of_many_ids_some_are_drawn(model: MultiTaskModel) -> None:
    drawn = embedding_map(model, "item", most=4, seed=1)
    assert len(set(drawn.ids)) == 4
    assert drawn.ids == embedding_map(model, "item", most=4, seed=1).ids
    assert drawn.ids != embedding_map(model, "item", most=4, seed=2).ids
    table = np.stack([vectors(model, "item")[name] for name in drawn.ids]).astype(np.float64)
    np.testing.assert_allclose(drawn.points, principal_plane(table)[0])
    assert len(embedding_map(model, "item", most=small.ITEMS).ids) == small.ITEMS


def test_the_picture_has_a_colour_per_frequent_label_and_grey_others() -> None:
    points = np.arange(12.0).reshape(6, 2)
    found = EmbeddingMap("film", list("abcdef"), points, np.array([0.5, 0.25]), ["x", "y", None, "x", "y", "z"])
    figure = embedding_scatter(found, most=2)
    axis = figure.axes[0]
    drawn = {part.get_label(): part.get_offsets().tolist() for part in axis.collections}
    assert drawn == {"others": points[[2, 5]].tolist(), "x": points[[0, 3]].tolist(), "y": points[[1, 4]].tolist()}
    assert [axis.get_xlabel(), axis.get_ylabel()] == ["axis 1 (50 % of the variance)", "axis 2 (25 % of the variance)"]
    assert len({tuple(part.get_facecolor()[0]) for part in axis.collections}) == 3
    assert saved(figure).startswith(b"\x89PNG")
    plain = embedding_scatter(EmbeddingMap("film", list("abcdef"), points, np.array([0.5, 0.25]), [None] * 6))
    assert len(plain.axes[0].collections) == 1
    assert not plain.legends
    with pytest.raises(ValueError, match="`most` must be a positive integer"):
        embedding_scatter(found, most=0)


def test_wrong_arguments_are_named(model: MultiTaskModel) -> None:
    with pytest.raises(ValueError, match="Unknown categorical feature"):
        nearest_neighbors(model, "age", ["u1"])
    with pytest.raises(ValueError, match="Unknown categorical feature"):
        embedding_map(model, "recent")
    with pytest.raises(ValueError, match="`ids` must be in the vocabulary of feature 'item'"):
        nearest_neighbors(model, "item", ["i1", "i99"])
    with pytest.raises(ValueError, match="`ids` must hold at least one id"):
        nearest_neighbors(model, "item", [])
    with pytest.raises(ValueError, match="Unknown task"):
        nearest_neighbors(model, "item", ["i1"], tasks=["like"])
    with pytest.raises(ValueError, match="Feature 'item' has no embedding that these tasks read"):
        nearest_neighbors(model, "item", ["i1"], tasks=["mood"])
    with pytest.raises(ValueError, match="`k` must be a positive integer"):
        nearest_neighbors(model, "item", ["i1"], k=0)
    with pytest.raises(ValueError, match="A map needs two ids or more"):
        embedding_map(model, "item", most=1)


def test_equal_scores_keep_the_order_of_the_columns() -> None:
    found, scores = best_of(np.array([[1.0, 2.0, 2.0, 2.0]], np.float32), np.array([-1]), 3)
    assert found.tolist() == [[1, 2, 3]]
    assert scores.tolist() == [[2.0, 2.0, 2.0]]

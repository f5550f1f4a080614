"""Rates of unknown ids by feature: which inputs they change, and new candidates that are described by their content."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.data import Categorical, Preprocessor, Schema, to_batch
from tfmtl.layers.noise.randomness import RandomUnknown
from tfmtl.models import Candidates, MultiTaskModel, Regularization, build_network
from tfmtl.tasks import Retrieval
from tfmtl.training import LazyAdam


def rates(network: keras.Model) -> dict[str, Any]:
    return {layer.name: layer.rate for layer in network.layers if isinstance(layer, RandomUnknown)}


def network(unknown_rate: Any) -> keras.Model:
    return small.network(regularization=Regularization(unknown_rate=unknown_rate, context_dropout=0.0))


def test_each_feature_has_its_own_rate() -> None:
    every = rates(network(0.2))
    assert set(every) == {"user_unknown", "item_unknown", "recent_unknown"}
    assert set(every.values()) == {0.2}
    own = rates(network({"item": 0.4, "": 0.2}))
    assert own == {**every, "item_unknown": 0.4}
    assert rates(network({"item": 0.4, "": 0.0})) == {"item_unknown": 0.4}
    assert rates(network({"item": 0.4})) == {"user_unknown": 0.01, "item_unknown": 0.4, "recent_unknown": 0.01}


def test_a_history_keeps_the_ids_that_the_candidate_loses() -> None:
    layers = network({"item": 0.9, "": 0.0})
    batch = to_batch(small.table(), small.preprocessor())
    found = layers.get_layer("item_unknown")(batch.features["item"], training=True).numpy()
    assert 0.7 < np.mean(found == 1) < 1.0
    query = keras.Model(layers.inputs, layers.output["seen"]["query"])
    candidate = keras.Model(layers.inputs, layers.output["seen"]["candidate"])
    served = [part(batch.features, training=False).numpy() for part in (query, candidate)]
    drawn = [part(batch.features, training=True).numpy() for part in (query, candidate)]
    np.testing.assert_allclose(drawn[0], served[0], rtol=1e-6)
    assert np.any(np.abs(drawn[1] - served[1]) > 1e-6)


SCHEMA = Schema([Categorical("user")], [Categorical("item"), Categorical("genre")])


def films() -> pd.DataFrame:
    """Every user likes the films of one genre; each film has an id that identifies it as well."""
    items = pd.DataFrame({"item": [f"i{n}" for n in range(24)], "genre": list("abcd") * 6})
    users = pd.DataFrame({"user": [f"u{n}" for n in range(24)], "genre": list("abcd") * 6})
    return users.merge(items, on="genre")


def trained(unknown_rate: Any) -> MultiTaskModel:
    table = films()
    preprocessor, tasks = Preprocessor.fit(SCHEMA, table), [Retrieval("like")]
    new = pd.DataFrame({"item": [f"new {genre}" for genre in "abcd"], "genre": list("abcd")})
    corpus = pd.concat([table[["item", "genre"]], new]).drop_duplicates("item")
    noise = Regularization(unknown_rate=unknown_rate)
    built = build_network(preprocessor, tasks, embedding_dim=8, tower_units=(16, 8), regularization=noise, seed=1)
    model = MultiTaskModel(built, tasks, preprocessor, candidates=Candidates.from_frame(corpus, preprocessor), seed=1)
    model.compile(LazyAdam(0.02))
    model.fit(table, epochs=30, batch_size=48, verbose=0)
    return model


def margins(model: MultiTaskModel) -> tuple[float, float]:
    """Return the least cosine of a new film with films of its genre, and the largest one with other films."""
    ids = model.candidates.ids.astype(str)
    table = model.tower("candidate")(model.candidates.features)["like"].numpy()
    units = table / np.linalg.norm(table, axis=1, keepdims=True)
    genre = np.array([i[-1] if i.startswith("new") else "abcd"[int(i[1:]) % 4] for i in ids])
    new = np.char.startswith(ids, "new")
    cosines, same = units[new] @ units[~new].T, genre[new][:, None] == genre[~new]
    return float(cosines[same].min()), float(cosines[~same].max())


def unknown_row(model: MultiTaskModel) -> np.ndarray:
    """Return the embedding of unknown candidates; those of items and genres share one table, items first."""
    (layer,) = [layer for layer in model.network.layers if list(getattr(layer, "sizes", {})) == ["item", "genre"]]
    row: np.ndarray = layer.embeddings.numpy()[1]
    return row


@pytest.mark.usefixtures("eager_steps")
def test_a_new_candidate_lies_near_those_of_its_content() -> None:
    model, without = trained({"item": 0.4, "": 0.0}), trained(0.0)
    (own, other), (own_without, other_without) = margins(model), margins(without)
    assert own > 0.9
    assert own - other > own_without - other_without + 0.2  # 0.57 and 0.17
    ranks = rank_of_new(model)
    assert ranks.max() < 7  # six known films of the genre may be better, none of the 21 others
    assert ranks.mean() < rank_of_new(without).mean() - 1  # 1.2 and 4.5
    initial = build_network(model.preprocessor, [Retrieval("like")], embedding_dim=8, tower_units=(16, 8), seed=1)
    start = MultiTaskModel(initial, [Retrieval("like")], model.preprocessor, candidates=model.candidates, seed=1)
    np.testing.assert_array_equal(unknown_row(without), unknown_row(start))
    assert np.all(unknown_row(model) != unknown_row(start))


def rank_of_new(model: MultiTaskModel) -> np.ndarray:
    """Return the rank of the new film of each user's genre among all films."""
    users = pd.DataFrame({"user": [f"u{n}" for n in range(24)], "item": "i0", "genre": "a"})
    batch = to_batch(users, model.preprocessor)
    query = model.tower("query")({"user": batch.features["user"]})["like"].numpy()
    scores = query @ model.tower("candidate")(model.candidates.features)["like"].numpy().T
    new = [model.candidates.ids.tolist().index(f"new {'abcd'[n % 4]}") for n in range(24)]
    ranks: np.ndarray = (scores > np.take_along_axis(scores, np.array(new)[:, None], 1)).sum(1)
    return ranks


@pytest.mark.parametrize(
    ("unknown_rate", "sentence"),
    [
        ({"film": 0.1}, "film"), ({"age": 0.1}, "feature with a vocabulary"), ({"item": 1.0}, "`unknown_rate` must be"),
        ({"": -0.1}, "`unknown_rate` must be"), ({"item": "0.1"}, "`unknown_rate` must be"),
    ],
)  # fmt: skip
def test_bad_rates_are_named(unknown_rate: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        network(unknown_rate)


def test_one_table_of_two_features_has_a_rate_for_each() -> None:
    data = Preprocessor.fit(SCHEMA, films())
    noise = Regularization(unknown_rate={"item": 0.5, "": 0.0})
    built = build_network(data, [Retrieval("like")], regularization=noise)
    assert list(rates(built).values()) == [[0.5, 0.0]]
    clone = keras.models.model_from_json(built.to_json())
    assert rates(clone) == rates(built)
    (layer,) = [layer for layer in clone.layers if isinstance(layer, RandomUnknown)]
    found = layer(tf.fill([400, 2], 7), training=True).numpy()
    assert np.mean(found[:, 0] == 1) == pytest.approx(0.5, abs=0.1)
    assert (found[:, 1] == 7).all()

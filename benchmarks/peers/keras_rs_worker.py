"""Trains the joint model of retrieval and rating of Keras RS, in a separate environment, by commands over a pipe.

    python keras_rs_worker.py --data FILE.npz

The file holds the columns `user` and `movie` of integers from 0, and `rating`; see `pipe.py` for the pipe.

    {"do": "train", "epochs": 3}
        continues training; returns "seconds" and "cpu" (of the process) per epoch, from the end of the first to the end
        of the last, and "loss" of the last epoch

The model has the form of https://keras.io/keras_rs/examples/multi_task: embeddings of 32, a rating head of 256, 128 and
1 units, the sum of a softmax over the batch and of the squared error, Adagrad at 0.1, rows shuffled once and cached.
Batches have 8,192 rows. Metrics are off, and so is the autotuning of tf.data, which saves it idle waits.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import keras_rs
import numpy as np
import pipe
import tensorflow as tf

EMBEDDING, UNITS, BATCH_SIZE, LEARNING_RATE = 32, (256, 128), 8192, 0.1


class Joint(keras.Model):
    """Two embedding tables, a rating head over a pair of embeddings, and the search for serving."""

    def __init__(self, users: int, movies: int) -> None:
        super().__init__()
        self.user, self.movie = (keras.layers.Embedding(count, EMBEDDING) for count in (users, movies))
        dense = [keras.layers.Dense(units, activation="relu") for units in UNITS]
        self.rating = keras.Sequential([*dense, keras.layers.Dense(1)])
        self.search = keras_rs.layers.BruteForceRetrieval(k=100, return_scores=False)
        self.softmax = keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")
        self.squared = keras.losses.MeanSquaredError()

    def build(self, input_shape: Any) -> None:
        """Build the tables; the search reads the table of movies."""
        self.user.build(None)
        self.movie.build(None)
        self.search.candidate_embeddings = self.movie.embeddings
        self.search.build([None, EMBEDDING])
        self.rating.build([None, 2 * EMBEDDING])
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Return the embeddings and the rating and, outside of training, the movies found."""
        user, movie = self.user(inputs["user"]), self.movie(inputs["movie"])
        found = {"user": user, "movie": movie, "rating": self.rating(keras.ops.concatenate([user, movie], axis=1))}
        return found if training else {**found, "found": self.search(user)}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the sum of both losses."""
        scores = keras.ops.matmul(y_pred["user"], keras.ops.transpose(y_pred["movie"]))
        rows = keras.ops.shape(scores)[0]
        retrieval = self.softmax(keras.ops.eye(rows, rows), scores, sample_weight)
        return retrieval + self.squared(keras.ops.expand_dims(y, -1), y_pred["rating"], sample_weight)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Return the loss alone."""
        return self.get_metrics_result()


def batches(columns: dict[str, np.ndarray]) -> Any:
    """Return the training rows."""
    inputs = {name: columns[name].astype("int32") for name in ("user", "movie")}
    rows = tf.data.Dataset.from_tensor_slices((inputs, columns["rating"].astype("float32")))
    shuffled = rows.shuffle(len(columns["rating"]), seed=0, reshuffle_each_iteration=False)
    options = tf.data.Options()
    options.autotune.enabled = False
    return shuffled.batch(BATCH_SIZE).cache().with_options(options)


def answered(commands: Iterator[dict[str, Any]], columns: dict[str, np.ndarray]) -> Iterator[dict[str, float]]:
    """Yield the answer to each command."""
    keras.utils.set_random_seed(0)
    model = Joint(*(int(columns[name].max()) + 1 for name in ("user", "movie")))
    model.compile(keras.optimizers.Adagrad(LEARNING_RATE))
    rows = batches(columns)
    ends: list[tuple[float, float]] = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append((time.perf_counter(), time.process_time()))
    )
    for command in commands:
        ends.clear()
        log = model.fit(rows, epochs=command["epochs"], verbose=0, callbacks=[clock]).history
        seconds, cpu = np.subtract(ends[-1], ends[0]) / (len(ends) - 1)
        yield {"seconds": float(seconds), "cpu": float(cpu), "loss": float(log["loss"][-1])}


def main() -> None:
    """Answer commands until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    with np.load(parser.parse_args().data) as file:
        columns = dict(file)
    pipe.serve(lambda commands: answered(commands, columns))


if __name__ == "__main__":
    main()

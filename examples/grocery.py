"""The main workflow on a year of a grocery store: tune, train a teacher, distil, prune, export, recommend.

    python examples/grocery.py            # everything, about five minutes on two cores
    python examples/grocery.py --quick    # a small part of the rows and products, as a check that it runs

One model predicts the next product (retrieval), its spend (regression), the response to a coupon (advertising) and the
household's income, age and children (profile, observed for a third of the households).
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import time
from typing import Any

import grocery_models
import numpy as np
import pandas as pd
import tensorflow as tf
from grocery_models import PAIR_TASKS, PROFILE, Recipe, Workshop

from tfmtl import compression, data, evaluation, models, serving, tuning
from tfmtl.evaluation import plots
from tfmtl.serving.versions import version_of

ROOT = pathlib.Path(__file__).resolve().parents[1]
JUDGED_BY = {"purchase": "ndcg@100", "spend": "r2", "coupon": "auc", **dict.fromkeys(PROFILE, "macro_auc")}
SPARSITY = 0.65
LESSONS = {"alpha": 0.9, "temperature": 1.0}
VERBOSE = 1 if sys.stdout.isatty() else 2
START = time.perf_counter()


def say(text: str) -> None:
    """Print a heading with the time since the start."""
    print(f"\n[{time.perf_counter() - START:5.0f} s] {text}", flush=True)


def tune(shop: Workshop) -> Recipe:
    """Search loss weights, trunk, dropout and learning rate of the teacher on half of the rows."""
    half: data.Batch = tf.nest.map_structure(lambda column: column[: len(column) // 2], shop.train)

    def build(hp: Any) -> models.MultiTaskModel:
        return shop.model(grocery_models.teacher(hp), 1, shop.rows // 2)

    tuner = tuning.RandomSearch(
        build,
        objective=tuning.Objective("val_unweighted_loss", "min"),
        max_trials=2 if shop.quick else 3,
        seed=1,
        directory=shop.output / "tuning",
        project_name="teacher",
        overwrite=True,
    )
    tuner.search(half, validation_data=shop.validation, epochs=1, verbose=VERBOSE)
    best = tuner.get_best_hyperparameters()[0]
    print("best:", {name: round(v, 5) if isinstance(v, float) else v for name, v in best.values.items()})
    return grocery_models.teacher(best)


def train_single_tasks(shop: Workshop, epochs: int) -> pd.Series:
    """Train one model per task on the rows that have its label, and join their reports."""
    reports = []
    for task in shop.schema.tasks:
        rows = tf.where(shop.train.weights[task] > 0)[:, 0]
        labelled = tf.nest.map_structure(lambda column, rows=rows: tf.gather(column, rows), shop.train)
        model = shop.model(grocery_models.alone(task), epochs, len(rows), (task,))
        model.fit(labelled, epochs=epochs, verbose=0)
        reports.append(shop.report(model))
        value = reports[-1][task, JUDGED_BY[task]]
        print(f"  {task}: {JUDGED_BY[task]} {value:.4f} from {len(rows):,} rows", flush=True)
    return pd.concat(reports)


def distil(shop: Workshop, teacher: models.MultiTaskModel, recipe: Recipe, epochs: int) -> models.MultiTaskModel:
    """Train a small model to imitate the predictions of the teacher for every row."""
    untaught = shop.model(recipe, epochs, shop.rows)
    fit = {"epochs": epochs, "validation_data": shop.validation, "verbose": VERBOSE}
    return compression.distil(teacher, untaught, shop.train, **LESSONS, **fit)


def prune(
    shop: Workshop, teacher: models.MultiTaskModel, student: models.MultiTaskModel, rate: float, epochs: int
) -> models.MultiTaskModel:
    """Prune the student while it still learns from the teacher."""
    pupil = compression.DistilledModel.of(student, teacher, **LESSONS)
    pupil.compile(grocery_models.optimizer(rate, epochs, shop.rows))
    fit = {"epochs": epochs, "validation_data": shop.validation, "verbose": VERBOSE}
    pruned = compression.prune_model(pupil, shop.train, SPARSITY, ramp=0.3, **fit)
    result: models.MultiTaskModel = pruned.without_teacher()
    result.history = pruned.history
    return result


def export(shop: Workshop, model: models.MultiTaskModel, name: str) -> dict[str, float]:
    """Export a model and measure its size and its latency for a client."""
    fusion = {"purchase": 1.0, "spend": 0.2, "coupon": 0.2}
    path = serving.export(model, shop.exports / name, max_k=100, fusion_weights=fusion)
    recommend = tf.saved_model.load(str(path)).signatures["recommend"]
    request = request_of(shop, shop.data.queries.iloc[:1])
    times = []
    for _ in range(50):
        start = time.perf_counter()
        recommend(**request)
        times.append(time.perf_counter() - start)
    return {
        "parameters": model.network.count_params(),
        "kB compressed": serving.compressed_size(path) / 1000,
        "recommend ms": 1000 * float(np.median(times)),
    }


def request_of(shop: Workshop, rows: pd.DataFrame) -> dict[str, tf.Tensor]:
    """Return the raw query features of some rows in the form of a client's request."""
    columns = data.to_columns(rows, shop.schema.query)
    return {name: tf.constant(column) for name, column in columns.items()}


def recommend(shop: Workshop, name: str) -> None:
    """Print the recommendations of the newest exported version for one household."""
    served = tf.saved_model.load(str(version_of(shop.exports / name)))
    row = shop.data.queries[shop.data.queries["history"].str.len() >= 20].iloc[:1]
    answer = served.signatures["recommend"](**request_of(shop, row))
    print(f"household {row['household_id'].item()} last bought:")
    for product in shop.data.names(row["history"].item()[:5]):
        print(f"      {product}")
    print("and is recommended:")
    for i, product in enumerate(shop.data.names(answer["ids"].numpy()[0][:10])):
        spend, coupon = float(answer["spend"][0, i]), float(answer["coupon"][0, i])
        print(f"{i + 1:4d}  {product}  (spend ${spend:.2f}, coupon {coupon:.1%})")


def print_tables(reports: dict[str, pd.Series], sizes: dict[str, dict[str, float]]) -> None:
    """Print the metrics and sizes of all models, and the share of the teacher's margin that the others keep."""
    table = evaluation.side_by_side(reports)
    rows = [("purchase", "recall@100"), ("new purchase", "recall@100"), ("spend", "rmse"), *JUDGED_BY.items()]
    table = table.loc[sorted(rows, key=lambda row: list(table.index).index(row))]
    table.index = [" ".join(row) for row in table.index]
    print(pd.concat([table, pd.DataFrame(sizes)]).to_string(float_format="{:,.4g}".format, na_rep="-"))
    print("\nshare of the teacher's margin over the trivial baseline:")
    averaged = {name: with_profile(report) for name, report in reports.items()}
    judged_by = {**{task: JUDGED_BY[task] for task in ("purchase", *PAIR_TASKS)}, "profile": "mean macro_auc"}
    kept = {
        name: evaluation.retained_margin(averaged[name], averaged["teacher"], averaged["trivial"], judged_by)
        for name in ("student", "pruned student", "single-task")
    }
    print(pd.DataFrame(kept).to_string(float_format="{:.3f}".format))


def with_profile(report: pd.Series) -> pd.Series:
    """Add the mean over income, age and children: on 316 test households a single one of them is mostly noise."""
    mean = float(np.mean([report[task, "macro_auc"] for task in PROFILE]))
    index = pd.MultiIndex.from_tuples([("profile", "mean macro_auc")], names=report.index.names)
    return pd.concat([report, pd.Series([mean], index)])


def main() -> None:
    """Run the whole workflow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use a small part of the rows and products")
    parser.add_argument("--output", type=pathlib.Path, help="folder for pictures, trials and exports")
    arguments = parser.parse_args()
    output = arguments.output or ROOT / "examples/output"
    say("Preparing a year of purchases, coupons and household profiles")
    shop = Workshop(arguments.quick, output, (arguments.output or ROOT) / "saved_models")
    print(f"{shop.rows:,} rows to train, {len(shop.data.test):,} to test, {len(shop.candidates):,} products")
    epochs, short, long = (1, 1, 1) if arguments.quick else (5, 3, 8)

    say("Tuning the teacher")
    recipe = tune(shop)
    say("Training the teacher")
    teacher = shop.model(recipe, epochs, shop.rows)
    teacher.fit(shop.train, validation_data=shop.validation, epochs=epochs, verbose=VERBOSE)
    say("Training one model per task, for comparison")
    single = train_single_tasks(shop, short)
    say("Distilling the teacher into a student")
    small = grocery_models.student(recipe)
    student = distil(shop, teacher, small, short)
    say(f"Pruning the student to {SPARSITY:.0%} zeros")
    pruned = prune(shop, teacher, student, small.learning_rate, long)

    say("Measuring on the test weeks and exporting")
    named = {"teacher": teacher, "student": student, "pruned student": pruned}
    histories = {name: model.history.history for name, model in named.items()}  # evaluation starts a new history
    reports = {name: shop.report(model) for name, model in named.items()}
    best, names = shop.best_baselines(teacher)
    reports |= {"single-task": single, "best baseline": best, "trivial": shop.trivial(teacher)}
    sizes = {name: export(shop, model, f"grocery_{name.replace(' ', '_')}") for name, model in named.items()}
    print_tables(reports, sizes)
    print("\nbest baselines:", ", ".join(f"{task} {name}" for task, name in names.items()))
    picture = output / "learning_curves.png"
    plots.learning_curves(histories, [f"{task}_loss" for task in shop.schema.tasks]).savefig(picture, dpi=110)
    print(f"\nLearning curves: {os.path.relpath(picture)}")
    say("Recommending with the exported student")
    recommend(shop, "grocery_pruned_student")
    say("Done")


if __name__ == "__main__":
    main()

"""Negative transfer: each task of a joint model against a model of this task alone, on public data sets.

    python benchmarks/transfer.py FOLDER/ml_100k FOLDER/steam_reviews ... [--seeds 2] [--rows 15000] [--epochs 12]
        [--recipe]

Users are drawn until they have `--rows` rows; a random fifth of the rows is the test split, and a tenth of the others
is held out to choose the epoch by. "Alone" is a network in which every task is isolated, so that each is trained
exactly as a model of this task alone, with its own best epoch. Against it: all tasks share (beside a retrieval the
others weigh a tenth), the ranking tasks share, and the groups of the recipe. Batch size, optimizer and rate are those
of the recipe, without EASE. A gain is above 0 where the joint model is better; its interval is that of a bootstrap over
users, averaged over the seeds. Seen pairs leave the lists where pairs do not repeat.

With `--recipe` the model of all tasks by `recipes.fit` is compared with a model of each task alone by it, both
with all defaults.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from census import QUESTIONS

import tfmtl
from tfmtl import evaluation, recipes
from tfmtl.balancing import FixedWeights
from tfmtl.data import Feature, random_split
from tfmtl.recipes.sharing import apart

RETRIEVED = "chosen"
Columns = Callable[[pd.DataFrame], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A data set and its tasks.

    Attributes:
        files: tables that are concatenated.
        labels: the labels of the rows by task; a label with more than two values is a regression.
        query, candidate: names of the features; `candidate` is empty for tasks without candidates.
        numbers: those of them that are numbers.
        repeats: whether a pair occurs again in the test rows, so that seen pairs stay in the lists.
        retrieves: whether the candidates are retrieved, too.
    """

    files: Sequence[str]
    labels: Columns
    query: Sequence[str] = ("user_id",)
    candidate: Sequence[str] = ()
    numbers: Sequence[str] = ()
    repeats: bool = False
    retrieves: bool = True


_CENSUS = (
    "age", "class_worker", "det_ind_code", "det_occ_code", "hs_college", "major_ind_code", "major_occ_code", "race",
    "hisp_origin", "sex", "union_member", "unemp_reason", "full_or_part_emp", "capital_losses", "stock_dividends",
    "region_prev_res", "weeks_worked",
)  # fmt: skip
PROBLEMS = {
    "ml_100k": Problem(
        ["ratings"],
        lambda t: {"rating": t["rating"], "liked": t["rating"] >= 4, "hated": t["rating"] == 1},
        candidate=["movie_id"],
    ),
    "ml_1m": Problem(
        ["ratings"],
        lambda t: {"rating": t["rating"], "liked": t["rating"] >= 4, "hated": t["rating"] == 1},
        candidate=["movie_id"],
    ),
    "steam_reviews": Problem(
        ["reviews"],
        lambda t: {"recommend": t["recommend"], "helpful": t["helpful_votes"] > 0, "funny": t["funny_votes"] > 0},
        candidate=["item_id"],
    ),
    "tmall_brands": Problem(
        ["events"],
        lambda t: {"buy": t["action"] == "buy", "favourite": t["action"] == "favourite"},
        candidate=["brand_id"],
        repeats=True,
    ),
    "tmall": Problem(
        ["train"],
        lambda t: {"buy": t["behavior"] == "buy", "cart": t["behavior"] == "cart"},
        candidate=["item_id"],
        repeats=True,
    ),
    "instacart_sample": Problem(
        ["order_products"],
        lambda t: {"reordered": t["reordered"], "first": t["add_to_cart_order"] == 1},
        candidate=["product_id"],
        repeats=True,
    ),
    "ciao": Problem(
        ["ratings"],
        lambda t: {"rating": t["rating"], "helpfulness": t["helpfulness"], "low": t["rating"] <= 2},
        candidate=["item_id"],
    ),
    "hillstrom": Problem(
        ["hillstrom"],
        lambda t: {"visit": t["visit"], "conversion": t["conversion"]},
        query=("recency", "history_segment", "history", "mens", "womens", "zip_code", "newbie", "channel", "segment"),
        numbers=("recency", "history"),
        retrieves=False,
    ),
    "census_income": Problem(
        ["census_income_train"],
        lambda t: {name: QUESTIONS[name](t) for name in ("income", "never_married", "capital_gain")},
        query=_CENSUS,
        numbers=("age", "capital_losses", "stock_dividends", "weeks_worked"),
        retrieves=False,
    ),
    "open_bandit_small": Problem(
        ["random_men", "bts_men", "random_women", "bts_women"],
        lambda t: {"click": t["click"], "top": t["position"] == 1},
        query=tuple(f"user_feature_{i}" for i in range(4)),
        candidate=["item_id"],
        retrieves=False,
    ),
}


def read(folder: pathlib.Path, rows: int, seed: int) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of some users, and the names of the labels."""
    problem = PROBLEMS[folder.name]
    table = pd.concat([pd.read_parquet(folder / f"{name}.parquet") for name in problem.files], ignore_index=True)
    table = _drawn(table, rows, seed)
    labels = {name: column.astype(float) for name, column in problem.labels(table).items()}
    features = {
        name: table[name].astype(float) if name in problem.numbers else table[name].astype(str)
        for name in (*problem.query, *problem.candidate)
    }
    chosen = {RETRIEVED: np.ones(len(table))} if problem.retrieves else {}
    kept = pd.DataFrame({**features, **chosen, **labels})
    if problem.retrieves and not problem.repeats:
        kept = kept.drop_duplicates([*problem.query, *problem.candidate])
    return kept.reset_index(drop=True), [*chosen, *labels]


def _drawn(table: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    """Return random users with about `rows` rows, or random rows without users."""
    if "user_id" not in table.columns:
        return table.sample(min(rows, len(table)), random_state=seed)
    users = np.random.default_rng(seed).permutation(table["user_id"].unique())
    total = table.groupby("user_id").size().reindex(users).cumsum()
    return table[table["user_id"].isin(total.index[: max(1, int((total <= rows).sum()))])]


def _feature(problem: Problem, name: str) -> Feature:
    return tfmtl.Numeric(name) if name in problem.numbers else tfmtl.Categorical(name)


def task_of(name: str, statistics: Any) -> tfmtl.Task:
    """Return the task of a label with its defaults."""
    if name == RETRIEVED:
        return tfmtl.Retrieval(name)
    if len(statistics.labels[name].frequencies) == 2:
        return tfmtl.BinaryClassification(name)
    return tfmtl.Regression.from_statistics(name, statistics)


def groupings(tasks: Sequence[tfmtl.Task], statistics: Any) -> dict[str, list[list[str]]]:
    """Return the groups of isolated tasks by method, each grouping once."""
    retrieved = [task.name for task in tasks if task.retrieves]
    found = {
        "alone": [[task.name] for task in tasks],
        "all share": [],
        "ranking tasks share": [retrieved] if retrieved and len(tasks) > 2 else [],
        "recipe": [group.tasks for group in apart(tasks, statistics)],
    }
    first: dict[str, str] = {}
    for name, groups in found.items():
        rest = [task.name for task in tasks if not any(task.name in group for group in groups)]
        same = first.setdefault(str(sorted([*groups, rest] if rest else groups)), name)
        if same != name and name == "recipe":
            print(f"  the recipe: {same}", flush=True)
    return {name: found[name] for name in first.values()}


def parts(folder: pathlib.Path, rows: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, list[str], Any]:
    """Return the training and test rows, the names of the labels, and the preprocessor."""
    problem = PROBLEMS[folder.name]
    table, names = read(folder, rows, seed)
    rest, test = random_split(table, test_fraction=0.2, seed=seed)
    sides = [[_feature(problem, name) for name in part] for part in (problem.query, problem.candidate)]
    schema = tfmtl.Schema(*sides, labels=[tfmtl.Label(name) for name in names])
    return rest, test, names, tfmtl.Preprocessor.fit(schema, rest)


def measure_recipe(
    folder: pathlib.Path, rows: int, seed: int, epochs: int
) -> tuple[dict[str, pd.DataFrame], dict[str, float]]:
    """Return the report of the recipe for all tasks against the recipe for each task, and the seconds of each."""
    problem = PROBLEMS[folder.name]
    rest, test, names, known = parts(folder, rows, seed)
    seconds: dict[str, float] = {}

    def fitted(method: str, chosen: Sequence[str]) -> tfmtl.MultiTaskModel:
        start = time.process_time()
        tasks = [task_of(name, known.statistics) for name in chosen]
        model = recipes.fit(known, tasks, rest, epochs=epochs, seed=seed, verbose=0).model
        seconds[method] = seconds.get(method, 0.0) + time.process_time() - start
        return model

    joint = fitted("joint", names)
    alone = {name: fitted("alone", [name]) for name in names}
    seen = rest if problem.retrieves and not problem.repeats else None
    return {"joint": evaluation.transfer_report(joint, alone, test, seen=seen)}, seconds


def measure(
    folder: pathlib.Path, rows: int, seed: int, epochs: int
) -> tuple[dict[str, pd.DataFrame], dict[str, float]]:
    """Return the reports of the joint models, and the seconds of a training epoch, by method."""
    problem = PROBLEMS[folder.name]
    rest, test, names, known = parts(folder, rows, seed)
    train, held_out = random_split(rest, test_fraction=0.1, seed=seed)
    exclude = problem.retrieves and not problem.repeats
    models: dict[str, tfmtl.MultiTaskModel] = {}
    seconds: dict[str, float] = {}
    for method, groups in groupings([task_of(name, known.statistics) for name in names], known.statistics).items():
        tasks = [task_of(name, known.statistics) for name in names]
        beside = {name: 1.0 if name == RETRIEVED else 0.1 for name in names}
        weights = FixedWeights(beside if problem.retrieves and not groups else None)
        network = tfmtl.build_network(known, tasks, isolate=groups, seed=seed)
        model = models[method] = tfmtl.MultiTaskModel(network, tasks, known, weights, seed=seed)
        model.compile(tfmtl.LazyAdam(1e-2))
        best = recipes.BestEpoch(held_out, train if exclude else None)
        batch = int(min(1024, max(64, 2 ** round(np.log2(len(train) / 100)))))
        start = time.process_time()
        run = model.fit(train, validation_data=held_out, epochs=epochs, batch_size=batch, callbacks=[best], verbose=0)
        seconds[method] = (time.process_time() - start) / len(run.epoch)
        print(f"  {method}: {best.groups} of {len(run.epoch)} epochs", flush=True)
    seen = rest if exclude else None
    alone = dict.fromkeys(names, models.pop("alone"))
    return {name: evaluation.transfer_report(model, alone, test, seen=seen) for name, model in models.items()}, seconds


def _gain(parts: Sequence[pd.DataFrame], task: str) -> str:
    gain, low, high = np.mean([part.loc[task, ["gain", "gain_low", "gain_high"]] for part in parts], axis=0)
    return f"{gain:+.4f} ({low:+.4f} to {high:+.4f})"


def main() -> None:
    """Parse the arguments, measure and print a table for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=15_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--recipe", action="store_true")
    arguments = parser.parse_args()
    compared = measure_recipe if arguments.recipe else measure
    for folder in arguments.folders:
        print(f"{folder.name}", flush=True)
        runs = [compared(folder, arguments.rows, seed, arguments.epochs) for seed in range(arguments.seeds)]
        reports = {kind: [run[0][kind] for run in runs if kind in run[0]] for kind in runs[0][0]}
        head = [f"{kind}, gain" for kind in reports]
        print(f"\n| set | task | metric | alone | {' | '.join(head)} |\n|{'---|' * (4 + len(head))}")
        for task, row in next(iter(reports.values()))[0].iterrows():
            alone = np.mean([part.loc[task, "alone"] for part in next(iter(reports.values()))])
            cells = " | ".join(_gain(parts, str(task)) for parts in reports.values())
            print(f"| {folder.name} | {task} | {row['metric']} | {alone:.4f} | {cells} |")
        for kind, parts in reports.items():
            print(f"{kind}: Delta_m {np.mean([part.attrs['delta_m'] for part in parts]):+.4f}")
        spent = {kind: np.mean([run[1][kind] for run in runs if kind in run[1]]) for kind in runs[0][1]}
        print(
            f"CPU seconds{'' if arguments.recipe else ' of an epoch'}: "
            + ", ".join(f"{kind} {value:.1f}" for kind, value in spent.items()),
            flush=True,
        )


if __name__ == "__main__":
    main()

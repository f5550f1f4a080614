"""Cold candidates: retrieval of films that have no training row, by their content, with and without dropout of the id.

    PYTHONPATH=.:examples python benchmarks/cold_candidates.py FOLDER/ml_1m [--rates 0.01 0.3] [--epochs 3] [--seed 0]
    PYTHONPATH=.:examples python benchmarks/cold_candidates.py FOLDER/ml_1m --rates 0.3 --contrast 0 0.1

Positives are ratings of 4 or more. A tenth of the films, drawn at random, is cold: all of their rows are test rows. Of
the other rows a tenth is the warm test part. The content is genres, year and words of the title. Both test parts are
ranked among all films, without those that the user has rated in the training rows; the cold part also among cold films
alone, where popularity plays no part. Scores are an estimate of preference (with the correction of the sampling), or of
preference relative to popularity (without it, and without a popularity bias). With `--contrast` a late fusion joins the
id and the content, and in training a contrastive loss with these weights draws the two together.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import time
from typing import Any

import numpy as np
import pandas as pd

from tfmtl import Preprocessor, data, evaluation, layers, models, tasks, training

ITEM = [
    data.Categorical("movie_id"), data.MultiValued("genres", max_length=6), data.Categorical("year"),
    data.Text("words"),
]  # fmt: skip
QUERY = [data.Categorical(name) for name in ("user_id", "gender", "occupation", "age")]
POPULAR = {"candidate_bias": True, "num_uniform_negatives": 200}
RELATIVE = {"sampling_correction": False}


def read(folder: pathlib.Path) -> pd.DataFrame:
    """Return the liked films of users, with the features of both."""
    movies, users, ratings = (pd.read_parquet(folder / f"{name}.parquet") for name in ("movies", "users", "ratings"))
    year = movies["title"].str.extract(r"\((\d{4})\)")[0].fillna("")
    words = movies["title"].str.replace(r"\(\d{4}\)", "", regex=True)
    movies = movies.assign(genres=movies["genres"].str.split("|"), year=year, words=words)
    table = ratings[ratings["rating"] >= 4].merge(movies, on="movie_id").merge(users, on="user_id")
    names = ["movie_id", "user_id", "occupation", "age"]
    return table.astype(dict.fromkeys(names, str)).drop_duplicates(["user_id", "movie_id"]).reset_index(drop=True)


def split(table: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    """Return the training rows, and the warm and cold test rows of their users."""
    rng = np.random.default_rng(seed)
    films = rng.permutation(np.sort(table["movie_id"].unique()))
    cold = table["movie_id"].isin(films[: len(films) // 10])
    held_out = ~cold & (rng.random(len(table)) < 0.1)
    train = table[~cold & ~held_out]
    known = table["user_id"].isin(train["user_id"])
    warm = table[held_out & known & table["movie_id"].isin(train["movie_id"])]
    return {"train": train, "warm": warm, "cold": table[cold & known]}


def fusion_of(contrast: float | None) -> dict[str, layers.Fusion]:
    """Return the fusion of id and content with a weight of the contrastive loss; none for None."""
    if contrast is None:
        return {}
    content = [feature.name for feature in ITEM[1:]]
    late = layers.DecisionFusion({"id": ["movie_id"], "content": content}, units=64)
    return {"candidate": layers.ContrastiveFusion(late, weight=contrast)}


def trained(
    parts: dict[str, pd.DataFrame], rate: float, options: dict[str, Any], contrast: float | None, epochs: int, seed: int
) -> Any:
    """Return a trained model with all films as candidates."""
    preprocessor = Preprocessor.fit(data.Schema(QUERY, ITEM), parts["train"])
    heads = [tasks.Retrieval("like", units=(32,), **options)]
    noise = models.Regularization(unknown_rate={"movie_id": rate, "": 0.01})
    network = models.build_network(
        preprocessor, heads, tower_units=(64,), regularization=noise, fusion=fusion_of(contrast), seed=seed
    )
    model = models.MultiTaskModel(network, heads, preprocessor, candidates=corpus(preprocessor, *parts.values()))
    model.compile(training.LazyAdam(2e-3))
    model.fit(parts["train"], epochs=epochs, batch_size=1024, verbose=0)
    return model


def corpus(preprocessor: Preprocessor, *tables: pd.DataFrame) -> models.Candidates:
    """Return the films of some tables as candidates."""
    columns = [feature.column for feature in ITEM]
    films = pd.concat([table[columns] for table in tables]).drop_duplicates("movie_id")
    return models.Candidates.from_frame(films, preprocessor)


def line(model: Any, parts: dict[str, pd.DataFrame], name: str, start: float, *, popularity: bool = False) -> str:
    """Return the line of a model, or of the popularity in its training rows."""
    train, values = parts["train"], []
    whole, cold = model.candidates, corpus(model.preprocessor, parts["cold"])
    for part, among, k in (("warm", whole, 100), ("cold", whole, 100), ("cold", cold, 10)):
        model.candidates = among
        given: dict[str, Any] = {"seen": train, "ks": (k,)}
        report = (
            evaluation.trivial_baseline(model, train, parts[part], **given)
            if popularity
            else evaluation.evaluate(model, parts[part], **given)
        )
        values.append(report.loc[("like", f"recall@{k}")])
    model.candidates = whole
    cells = " | ".join(f"{value:.4f}" for value in values)
    return f"| {name} | {cells} | {time.perf_counter() - start:.0f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.3])
    parser.add_argument("--contrast", type=float, nargs="*", help="weights of the contrastive loss")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    parts = split(read(options.folder), options.seed)
    counts = {name: len(part) for name, part in parts.items()}
    films = {name: part["movie_id"].nunique() for name, part in parts.items()}
    print(f"Rows {counts}, films {films}; one seed, {options.epochs} epochs.\n")
    print(
        "| scores | warm, Recall@100 | cold, Recall@100 | cold among cold, Recall@10 | seconds |\n|---|---|---|---|---|"
    )
    model = None
    for scores, given in {"preference": POPULAR, "relative to popularity": RELATIVE}.items():
        for rate, contrast in itertools.product(options.rates, options.contrast or [None]):
            start = time.perf_counter()
            model = trained(parts, rate, given, contrast, options.epochs, options.seed)
            fusion = "" if contrast is None else f", late fusion, contrast {contrast:g}"
            print(line(model, parts, f"{scores}, rate of the id {rate:g}{fusion}", start), flush=True)
    print(line(model, parts, "popularity", time.perf_counter(), popularity=True))


if __name__ == "__main__":
    main()

"""Conversions after visits on the Hillstrom campaign: the naive model against ESMM, ESCM2 and AITM.

    python benchmarks/label_chains.py --hillstrom FILE.parquet [--seeds 5]

Of 64,000 customers, 14.7 % visit and 0.9 % convert. Each seed draws another split into 60 % training, 20 % validation
and 20 % test rows; early stopping uses validation rows only. All methods have the same trunk, heads and training.
`visit` and `conversion` are the AUCs of P(visit) and P(conversion) = P(visit) P(conversion | visit) over all customers,
`given visit` is the AUC of P(conversion | visit) among the visitors.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import numpy as np
import pandas as pd
from paired import interval
from sklearn.metrics import roc_auc_score

from tfmtl import data, keras, layers, models, tasks

NAMES = ["visit", "conversion"]
GRAPH = tfmtl.LabelGraph.chain(*NAMES)
Head = Callable[[], tasks.Task]

METHODS: dict[str, tuple[Head, bool, bool]] = {
    "naive, visitors only": (lambda: tasks.BinaryClassification("conversion", units=(8,)), True, False),
    "direct, all customers": (lambda: tasks.BinaryClassification("conversion", units=(8,)), False, False),
    "ESMM": (lambda: tasks.EntireSpaceConversion("conversion", after="visit", units=(8,)), False, False),
    "ESCM2, inverse propensity": (
        lambda: tasks.InversePropensityConversion("conversion", after="visit", units=(8,)), False, False,
    ),
    "ESCM2, doubly robust": (
        lambda: tasks.DoublyRobustConversion("conversion", after="visit", units=(8,)), False, False,
    ),
    "AITM": (
        lambda: tasks.BinaryClassification("conversion", units=(8,), after="visit", order_penalty=0.6), False, True,
    ),
}  # fmt: skip
"""The head of the conversion, whether its labels are those of visitors only, and whether the trunk is AITM."""


def split(table: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """Return training, validation and test rows."""
    order = np.random.default_rng(seed).permutation(len(table))
    cuts = np.split(order, [int(0.6 * len(table)), int(0.8 * len(table))])
    return [table.iloc[rows].reset_index(drop=True) for rows in cuts]


def schema() -> data.Schema:
    """Return the roles of the columns."""
    categories = ("history_segment", "zip_code", "channel", "segment", "mens", "womens", "newbie")
    return data.Schema(
        query=[*map(data.Categorical, categories), data.Numeric("recency"), data.Numeric("history", transform="log1p")],
        labels=[data.Label(name) for name in NAMES],
    )


def run(table: pd.DataFrame, method: str, seed: int) -> tuple[float, float, float]:
    """Train once and return the test AUCs of visit, of conversion, and of conversion among visitors."""
    make, visitors_only, transfers = METHODS[method]
    train, validation, test = split(table, seed)
    shown = [data.mask_unreached(part, GRAPH) if visitors_only else part for part in (train, validation)]
    preprocessor = data.Preprocessor.fit(schema(), shown[0])
    heads = [tasks.BinaryClassification("visit", units=(8,)), make()]
    trunk: layers.MultiTaskLayer = layers.SharedBottom(units=[32], seed=seed)
    if transfers:
        trunk = layers.AITM(trunk, after={"conversion": "visit"}, units=16, seed=seed)
    network = models.build_network(preprocessor, heads, trunk, embedding_dim=4, seed=seed)
    model = models.MultiTaskModel(network, heads, preprocessor, seed=seed)
    model.compile(tfmtl.LazyAdam(2e-3))
    stop = keras.callbacks.EarlyStopping("val_loss", patience=4, restore_best_weights=True)
    batches = [data.to_batch(part, preprocessor) for part in shown]
    model.fit(batches[0], validation_data=batches[1], batch_size=512, epochs=40, callbacks=[stop], verbose=0)
    outputs = model(data.to_batch(test, preprocessor).features, training=False)
    visit = 1 / (1 + np.exp(-np.asarray(outputs["visit"])[:, 0]))
    logit = np.asarray(outputs["conversion"])[:, 0]
    given = 1 / (1 + np.exp(-logit))
    joint = given if isinstance(heads[1], tasks.BinaryClassification) and not visitors_only else visit * given
    visitors = test["visit"] == 1
    given = given if joint is not given else given / np.maximum(visit, 1e-6)  # P(conversion) as a share of P(visit)
    return (
        float(roc_auc_score(test["visit"], visit)),
        float(roc_auc_score(test["conversion"], joint)),
        float(roc_auc_score(test["conversion"][visitors], given[visitors])),
    )


def main() -> None:
    """Parse the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hillstrom", type=pathlib.Path, required=True, help="the campaign's table as Parquet")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    table = pd.read_parquet(arguments.hillstrom)
    table = table.assign(**{name: table[name].astype(str) for name in ("mens", "womens", "newbie")})
    print("| method | visit | conversion | given visit | conversion against naive, paired |\n|---|---|---|---|---|")
    reference: list[float] = []
    for method in METHODS:
        found = np.array([run(table, method, seed) for seed in range(arguments.seeds)])
        reference = reference or found[:, 1].tolist()
        cells = [interval(column.tolist()) for column in (*found.T, found[:, 1] - reference)]
        print(f"| {method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

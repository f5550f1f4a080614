"""The schema and the models of the grocery example."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import grocery_data
import pandas as pd

from tfmtl import balancing, baselines, data, evaluation, keras, layers, models, tasks, training, tuning

PROFILE = {"income": ("low", "middle", "high"), "age": ("young", "middle", "old"), "children": ("none", "some")}
PAIR_TASKS = ("spend", "coupon")
BATCH_SIZE = 1024
BASELINE_ROWS = 20_000  # to fit the baselines of ranking tasks in seconds


def schema() -> data.Schema:
    """Return the roles of the columns of `grocery_data`."""
    return data.Schema(
        query=[
            data.Categorical("household_id", dtype="int64"),
            data.Categorical("store", dtype="int64", min_count=50),
            *(
                data.Numeric(name, transform="log1p")
                for name in ("visits_per_week", "basket_spend", "coupons_per_visit")
            ),
            data.Numeric("private_share"),
            data.Numeric("discount_share"),
            data.Vector("mix", size=grocery_data.MIX_SIZE),
            data.IdSequence("history", of="product_id", max_length=30, dtype="int64"),
        ],
        candidate=[
            data.Categorical("product_id", dtype="int64"),
            data.Categorical("department"),
            data.Categorical("product_category"),
            data.Categorical("brand"),
            data.Categorical("manufacturer_id", dtype="int64", min_count=20),
            data.Text("product_type", max_length=6),
            data.Numeric("ounces", transform="log1p"),
            data.Numeric("price", transform="log1p"),
        ],
        context=[data.Categorical("campaign_type"), data.Numeric("coupon_breadth", transform="log1p")],
        labels=[
            data.Label("purchase"),
            data.Label("spend"),
            data.Label("coupon"),
            *(data.Label(task, classes=classes) for task, classes in PROFILE.items()),
        ],
    )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The differences between the models of this example; arguments as in `build_network`."""

    embedding_dim: Mapping[str, int]
    tower_units: tuple[int, ...]
    trunk: Any
    learning_rate: float = 3e-3
    weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(PROFILE, 0.1))
    dropout: float = 0.1


class Workshop:
    """The prepared data, and the parts that all models share."""

    def __init__(self, quick: bool, output: pathlib.Path, exports: pathlib.Path, **sizes: int) -> None:
        self.output, self.exports = output, exports
        output.mkdir(parents=True, exist_ok=True)
        small = {"min_households": 300, "purchase_rows": 3_000}  # a twentieth of the products
        self.data = grocery_data.load(**small) if quick else grocery_data.load(**sizes)
        self.quick = quick
        self.schema = schema()
        self.preprocessor = data.Preprocessor.fit(self.schema, self.data.train)
        self.candidates = models.Candidates.from_frame(self.data.candidates, self.preprocessor)
        self.train, self.validation, self.test = (
            data.to_batch(frame, self.preprocessor) for frame in (self.data.train, self.data.validation, self.data.test)
        )

    @property
    def rows(self) -> int:
        """Rows to train on."""
        return len(self.data.train)

    def heads(self, names: tuple[str, ...] | None = None) -> list[tasks.Task]:
        """Return new tasks; all of them, or those with given names."""
        everything = [
            tasks.Retrieval("purchase", candidate_bias=True),
            tasks.Regression.from_statistics("spend", self.preprocessor.statistics, transform="log1p"),
            tasks.BinaryClassification("coupon"),
            *(tasks.MultiClassClassification(task, len(c), scope="query") for task, c in PROFILE.items()),
        ]
        return [task for task in everything if names is None or task.name in names]

    def model(
        self, recipe: Recipe, epochs: int, rows: int, names: tuple[str, ...] | None = None, seed: int = 0
    ) -> models.MultiTaskModel:
        """Build and compile a model; its learning rate falls to zero over the epochs."""
        heads = self.heads(names)
        network = models.build_network(
            self.preprocessor,
            heads,
            recipe.trunk,
            embedding_dim={**recipe.embedding_dim, "household_id": 4},  # wider, it would memorize households
            tower_units=recipe.tower_units,
            regularization=models.Regularization(dropout=recipe.dropout),
            seed=seed,
        )
        weights = {task.name: recipe.weights.get(task.name, 1.0) for task in heads}
        balancer = balancing.FixedWeights(weights)
        model = models.MultiTaskModel(network, heads, self.preprocessor, balancer, self.candidates, seed=seed)
        model.compile(optimizer(recipe.learning_rate, epochs, rows))
        return model

    def report(self, model: models.MultiTaskModel) -> pd.Series:
        """Measure a model on the test weeks: on all purchases, and on those of products new to the household."""
        everything = evaluation.evaluate(model, bought(self.data.test))
        if "purchase" not in everything:
            return everything
        seen = self.data.seen(grocery_data.FIRST_TEST_WEEK)
        return pd.concat([everything, new(evaluation.evaluate(model, self.data.test, seen=seen, tasks=["purchase"]))])

    def trivial(self, model: models.MultiTaskModel) -> pd.Series:
        """Measure popularity and constant predictions in the same way."""
        train, test = self.data.train, self.data.test
        everything = evaluation.trivial_baseline(model, train, bought(test))
        seen = self.data.seen(grocery_data.FIRST_TEST_WEEK)
        unseen = evaluation.trivial_baseline(model, train, test, seen=seen).loc[["purchase"]]
        return pd.concat([everything, new(unseen)])

    def best_baselines(self, model: models.MultiTaskModel) -> tuple[pd.Series, dict[str, str]]:
        """Measure the best simple baseline of each task in the same way; return one report, and the names by task."""
        train, test = self.data.train, self.data.test
        options = {"time": "week", "max_rows": BASELINE_ROWS}
        seen = self.data.seen(grocery_data.FIRST_TEST_WEEK)
        everything = baselines.measure(model, train, bought(test), **options)
        unseen = baselines.measure(model, train, test, seen=seen, tasks=["purchase"], **options)
        measured = {
            **dict.fromkeys(self.schema.tasks, everything),
            "new purchase": {name: new(report) for name, report in unseen.items()},
        }
        names = {task: baselines.strongest(reports, task) for task, reports in measured.items()}
        return pd.concat([measured[task][name].loc[[task]] for task, name in names.items()]), names


def bought(frame: pd.DataFrame) -> pd.DataFrame:
    """Count every purchase as a positive, including products that the household bought before."""
    return frame.assign(purchase=frame["bought"])


def new(report: pd.Series) -> pd.Series:
    """Rename the purchase task of a report to `new purchase`."""
    return report.rename({"purchase": "new purchase"}, level="task")


def optimizer(learning_rate: float, epochs: int, rows: int) -> keras.optimizers.Optimizer:
    """Return an optimizer with a learning rate that falls to zero over the epochs."""
    steps = epochs * -(-rows // BATCH_SIZE)
    return training.LazyAdam(keras.optimizers.schedules.CosineDecay(learning_rate, steps))


def teacher(hp: Any) -> Recipe:
    """Return the recipe of a teacher drawn from hyperparameters."""
    weights = tuning.loss_weights(hp, PAIR_TASKS, low=0.3, high=3.0)
    profile = hp.Float("weight/profile", 0.03, 0.3, sampling="log", default=0.1)
    trunk = hp.Choice("trunk", ["mmoe", "shared_bottom"])
    choices = {
        "mmoe": lambda: layers.MMoE(num_experts=4, units=(64, 64)),
        "shared_bottom": lambda: layers.SharedBottom(units=(256, 64)),
    }
    return Recipe(
        embedding_dim={"": 64, "product_id": 128},
        tower_units=(256, 128),
        trunk=choices[trunk](),
        learning_rate=hp.Float("learning_rate", 2e-3, 5e-3, sampling="log", default=3e-3),
        weights={**weights, **dict.fromkeys(PROFILE, profile)},
        dropout=hp.Float("dropout", 0.0, 0.2, step=0.1, default=0.1),
    )


def student(of: Recipe) -> Recipe:
    """Return the recipe of a student: the loss weights of its teacher and a third of the parameters."""
    return Recipe(
        embedding_dim={"": 8, "product_id": 64, "product_type": 16},
        tower_units=(192, 64),
        trunk=layers.MMoE(num_experts=4, units=(32,)),
        learning_rate=5e-3,
        weights=of.weights,
        dropout=0.0,
    )


def alone(task: str) -> Recipe:
    """Return the recipe of a model for one task alone."""
    trunk = layers.SharedBottom(units=(128, 64)) if task in PAIR_TASKS else None
    return Recipe(embedding_dim={"": 32}, tower_units=(128, 64), trunk=trunk)

"""The recipe: a model trained with settings that are read from the data and chosen on validation rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras
from tfmtl.balancing import Balancer, FixedWeights
from tfmtl.data import Preprocessor, Split, random_split, temporal_split, to_batch
from tfmtl.data.columns import to_labels
from tfmtl.data.interchange import as_frame
from tfmtl.data.times import moments_of
from tfmtl.evaluation.corpus import REPEATED, Seen, repeated
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.models.inputs import histories_of
from tfmtl.models.isolation import independent_groups
from tfmtl.recipes.best_epoch import BestEpoch
from tfmtl.recipes.history_order import history_orders, history_poolings
from tfmtl.recipes.join_boosting import JoinedBoosting, join_boosting
from tfmtl.recipes.join_ease import JoinedEase, join_ease
from tfmtl.recipes.ranking_inputs import fill_rates, ranking_inputs
from tfmtl.recipes.rates import RANKING_RATE, RETRIEVAL_RATE, SPARSE_WIDTH, recipe_optimizer, sparse_ids
from tfmtl.recipes.sharing import apart
from tfmtl.tasks import Task
from tfmtl.training import ScaledRates

_HELD_OUT = 0.1
_BESIDE_RETRIEVAL = 0.1
_STEPS = 100
_BATCHES = (64, 1024)
_WIDTH = 32
_INPUTS = {"bins": "bins of numbers", "rates": "counts and rates of categories"}


class Choice(NamedTuple):
    """One setting of a recipe.

    Attributes:
        name: the setting.
        value: its value.
        reason: the statistic or measurement that it was chosen by.
    """

    name: str
    value: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The result of `fit`.

    Attributes:
        model: the trained model, compiled.
        choices: every setting and its reason; `print` shows them.
        history: logged values by epoch.
        joined: the choice of the retrieval's parts, or None without retrieval and with more than one.
        boosted: the trees of the ranking tasks, or None if they were not compared.
    """

    model: MultiTaskModel
    choices: tuple[Choice, ...]
    history: dict[str, list[float]]
    joined: JoinedEase | None
    boosted: JoinedBoosting | None = None

    def __str__(self) -> str:
        widths = [max(len(choice[i]) for choice in self.choices) for i in (0, 1)]
        return "\n".join(f"{c.name:<{widths[0]}}  {c.value:<{widths[1]}}  {c.reason}" for c in self.choices)


def fit(
    preprocessor: Preprocessor,
    tasks: Sequence[Task],
    train: Any,
    *,
    validation: Any = None,
    time: str | None = None,
    network: keras.Model | None = None,
    balancer: Balancer | None = None,
    optimizer: Any = None,
    batch_size: int | None = None,
    epochs: int = 20,
    patience: int = 3,
    boosting: bool = True,
    seed: int = 0,
    verbose: Any = "auto",
) -> Fitted:
    """Train a model with settings chosen from the data; join EASE to its retrieval and boosted trees to its ranking.

    Use it for the first model on new data; print the result to see each setting. Every argument overrides a choice.

    The last tenth of the rows by `time`, or a random tenth, is held out. Retrieval tasks, and each rare task, have
    tables, towers and a trunk that no other task reads (`isolate` of `build_network`). A history of candidates is read
    by attention if its order counts, otherwise by its mean. Training stops by ranks and losses on the held-out rows,
    and each group of tasks keeps its best epoch (see `BestEpoch`). Tasks that share variables with a retrieval in a
    given `network` weigh a tenth. `join_ease` chooses the weights of network, EASE and popularity by the same rows,
    `join_boosting` those of network and trees in ranking tasks; both then read all rows.

    Args:
        preprocessor, tasks, train: from `Preprocessor.fit(schema, train)`, the tasks, and a table with their labels.
        validation: table outside `train` to choose by; by default a part of `train`.
        time: column of datetimes or numbers to hold out the latest rows by, not random ones; popularity may fade by it.
        network: from `build_network`; by default with the groups of tasks to isolate and with `ranking_inputs`.
        balancer, optimizer, batch_size: overrides of the choices.
        epochs, patience: largest number of epochs, and epochs without improvement after which training stops.
        boosting: whether to join boosted trees to ranking tasks.
        seed, verbose: seed of initial values, shuffling and draws; as in `keras.Model.fit`.

    Raises:
        ValueError: if a part of the rows has no label or no positive of a task, or an argument does not fit the data.

    Cost: that of `epochs` epochs at most, a ranking of the held-out rows per epoch, `join_ease` and `join_boosting`.
    """
    chosen: list[Choice] = []
    train, held_out = _split(as_frame(train), validation, time, seed, chosen)
    _require_labels(preprocessor, tasks, {"training": train, "held-out": held_out})
    retrieval = [task.name for task in tasks if task.retrieves]
    sparse = sparse_ids(preprocessor) if network is None and len(retrieval) < len(tasks) else ()
    network = _network(preprocessor, tasks, train, sparse, seed, chosen) if network is None else network
    balancer = balancer or _balancer(network, retrieval, chosen)
    batch_size = batch_size or _batch_size(len(train))
    chosen.append(Choice("batch size", str(batch_size), f"{math.ceil(len(train) / batch_size):,} steps per epoch"))
    model = MultiTaskModel(network, tasks, preprocessor, balancer, seed=seed)
    model.compile(optimizer or _optimizer(network, retrieval, sparse, chosen))
    best = BestEpoch(held_out, _seen(model, retrieval, train, held_out, chosen), patience)
    options = {"epochs": epochs, "batch_size": batch_size, "validation_data": held_out, "verbose": verbose}
    run = model.fit(train, callbacks=[best], **options)
    chosen += [_epochs(names, epoch, len(best.groups), len(run.epoch)) for names, epoch in best.groups]
    model, joined, boosted = _joined(model, Split(train, held_out), retrieval, time, boosting, seed, chosen)
    return Fitted(model, tuple(chosen), run.history, joined, boosted)


def _joined(
    model: MultiTaskModel,
    rows: Split,
    retrieval: list[str],
    time: str | None,
    boosting: bool,
    seed: int,
    chosen: list[Choice],
) -> tuple[MultiTaskModel, JoinedEase | None, JoinedBoosting | None]:
    """Return the model with EASE in its retrieval and trees in its ranking tasks, and both choices."""
    joined = boosted = None
    user = model.schema.query_id
    if len(retrieval) > 1:
        chosen.append(Choice("retrieval", "network alone", "EASE joins one retrieval; call `join_ease` with a `task`"))
    elif retrieval and user in {feature.name for feature in model.schema.query}:
        empty = [name for name in (user, model.schema.candidate_id) if not len(model.preprocessor.vocabulary(name))]
        if empty:
            chosen.append(Choice("retrieval", "network alone", f"no value of {empty[0]!r} is frequent enough for EASE"))
        else:
            joined = join_ease(model, rows.train, rows.test, time=time, seed=seed)
            model = joined.model
            chosen.append(Choice("retrieval", joined.mixture, f"{joined.metric}: {joined.found}; {joined.read}"))
    if boosting and len(retrieval) < len(model.tasks):
        boosted = join_boosting(model, rows.train, rows.test, seed=seed)
        model = boosted.model
        chosen += [
            Choice("trees", task.mixture, f"{name}, loss on held-out rows: {task.found}")
            for name, task in boosted.tasks.items()
        ]
    return model, joined, boosted


def _split(table: Any, validation: Any, time: str | None, seed: int, chosen: list[Choice]) -> Split:
    """Return the rows to learn from and those to choose by."""
    if validation is not None:
        given = as_frame(validation)
        if time is not None:
            moments_of([table, given], time)  # raises before the training
        chosen.append(Choice("validation", "given", f"{len(given):,} rows"))
        return Split(table, given)
    require(len(table) >= 2, "`train` must have two rows or more, of which one is held out.", rows=len(table))
    if time is not None:
        parts = temporal_split(table, time, test_fraction=_HELD_OUT)
        chosen.append(Choice("validation", f"last {len(parts.test):,} rows", f"a tenth by {time!r}"))
    else:
        parts = random_split(table, test_fraction=max(_HELD_OUT, 1 / len(table)), seed=seed)
        chosen.append(Choice("validation", f"{len(parts.test):,} random rows", "a tenth; pass `time` for the latest"))
    return parts


def _require_labels(preprocessor: Preprocessor, tasks: Sequence[Task], parts: dict[str, Any]) -> None:
    """Raise if a part has no label of a task: its inputs, its epoch and its trees could not be chosen."""
    schema = preprocessor.schema
    names = [task.name for task in tasks if task.name in schema.tasks]
    for part, table in parts.items():
        weights = to_labels(table, schema.with_labels_of(names), np.float64)[1]
        missing = [name for name in names if not (weights[name] > 0).any()]
        cure = "give `validation` rows so that both parts have labels of every task, or leave out `time`"
        require(not missing, f"The {part} rows have no label of some tasks; {cure}.", tasks=missing)


def _network(
    preprocessor: Preprocessor,
    tasks: Sequence[Task],
    train: Any,
    sparse: Sequence[str],
    seed: int,
    chosen: list[Choice],
) -> keras.Model:
    """Return the network, in which some tasks are apart from the others and ranking tasks have further inputs."""
    groups = apart(tasks, preprocessor.statistics)
    chosen += [Choice("apart", ", ".join(group.tasks), group.reason) for group in groups]
    named = {name for group in groups for name in group.tasks}
    others = [task.name for task in tasks if task.name not in named]
    if len(others) > 1:
        chosen.append(Choice("shared", ", ".join(others), "tables, towers and trunk; neither retrieval nor rare"))
    inputs = ranking_inputs(preprocessor, tasks, train)
    if inputs:
        value = " and ".join(_INPUTS[layer.name] for layer in inputs)
        chosen.append(Choice("inputs", value, "without them gradient boosting ranks better"))
    few = () if any(task.retrieves for task in tasks) else sparse
    network = build_network(
        preprocessor,
        tasks,
        embedding_dim={"": _WIDTH, **dict.fromkeys(few, SPARSE_WIDTH)},
        poolings=_poolings(preprocessor, tasks, train, seed, chosen),
        interactions=inputs,
        isolate=[group.tasks for group in groups],
        seed=seed,
    )
    fill_rates(network, preprocessor, tasks, train)
    return network


def _poolings(
    preprocessor: Preprocessor, tasks: Sequence[Task], train: Any, seed: int, chosen: list[Choice]
) -> dict[str, keras.layers.Layer]:
    """Return the layers that read the histories of candidates, where they are not the mean."""
    orders = history_orders(preprocessor, tasks, train, seed)
    found = history_poolings(orders, seed)
    schema = preprocessor.schema
    if schema.query_id and any(task.retrieves for task in tasks) and not histories_of(schema):
        cure = f"if rows have a time, `IdSequence(..., of={schema.candidate_id!r})` and `data.with_histories` add it"
        chosen.append(Choice("history", "none", cure))
    for name, order in orders.items():
        reason = f"its latest item is {order.lift:.2f} times as similar to the next one as an item of the history, and "
        reason += f"{order.rows:.0f} rows per candidate"
        chosen.append(Choice("history", f"{'attention over' if name in found else 'mean of'} {name}", reason))
    return found


def _balancer(network: keras.Model, retrieval: list[str], chosen: list[Choice]) -> Balancer:
    """Return the plain sum, or fixed weights for tasks that share variables with a retrieval."""
    groups = [names for names, _ in independent_groups(network) if set(names) & set(retrieval)]
    beside = [name for names in groups for name in names if name not in retrieval]
    if not beside:
        chosen.append(Choice("weights", "1 each", "no task shares variables with a retrieval"))
        return FixedWeights()
    reason = "beside a retrieval, which equal or learned weights can harm on sparse data"
    chosen.append(Choice("weights", f"{_BESIDE_RETRIEVAL:g} for {', '.join(beside)}", reason))
    return FixedWeights({name: _BESIDE_RETRIEVAL if name in beside else 1.0 for name in network.output})


def _epochs(names: list[str], epoch: int, groups: int, trained: int) -> Choice:
    reason = f"best quality on held-out rows of {trained} epochs"
    return Choice("epochs", str(epoch + 1), reason if groups == 1 else f"{', '.join(names)}: {reason}")


def _optimizer(network: keras.Model, retrieval: list[str], sparse: Sequence[str], chosen: list[Choice]) -> Any:
    """Return the optimizer, with a rate for retrieval and a lower one for ranking."""
    optimizer = recipe_optimizer(network, retrieval, sparse)
    rates = []
    if retrieval:
        rates.append(f"{RETRIEVAL_RATE:g} for {', '.join(retrieval)}")
    if len(retrieval) < len(network.output):
        rates.append(f"{RANKING_RATE:g} for ranking, a third for its embeddings")
    frozen = isinstance(optimizer, ScaledRates) and 0.0 in optimizer.factors.values()
    reason = f"few rows of each {', '.join(sparse)}: tables of these alone stay as drawn" if frozen else "by parts"
    chosen.append(Choice("rate", "; ".join(rates), reason))
    return optimizer


def _batch_size(rows: int) -> int:
    """Return the power of two nearest to a hundredth of the rows, within limits."""
    least, most = _BATCHES
    return int(min(most, max(least, 2 ** round(math.log2(max(rows / _STEPS, 1))))))


def _seen(model: MultiTaskModel, retrieval: list[str], train: Any, held_out: Any, chosen: list[Choice]) -> Any:
    """Return the rows to exclude from lists: the training rows, or None where pairs repeat."""
    if not retrieval or not model.schema.query_id:
        return None
    labels = [name for name in retrieval if name in model.schema.tasks]
    batch = to_batch(held_out, model.preprocessor, labels=labels)
    share = max(repeated(name, batch, Seen.from_frame(model, name, train)) for name in retrieval)
    value = "seen items leave the lists" if share < REPEATED else "seen items stay in the lists"
    chosen.append(Choice("ranks", value, f"{share:.1%} of the held-out positives are pairs of the training rows"))
    return train if share < REPEATED else None

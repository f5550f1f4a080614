"""Several models as one model, around one functional network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tfmtl._checks import require, require_known, require_type
from tfmtl._keras import keras
from tfmtl.models import MultiTaskModel
from tfmtl.models.graph import adopt, state_of
from tfmtl.tasks import Task
from tfmtl.training import LazyAdam

Weights: TypeAlias = "Sequence[float] | Mapping[str, Sequence[float]] | None"
Combine: TypeAlias = Callable[[Sequence[Any]], Any]


def ensemble(models: Sequence[MultiTaskModel], weights: Weights = None) -> MultiTaskModel:
    """Combine trained models of the same tasks into one, task by task.

    Numbers are averaged on the scale of their loss, events and classes as probabilities, retrieval scores as they are,
    by embeddings beside each other; see `Task.pool`, and the pools for their formulas. The result is a
    `MultiTaskModel` around one functional network that holds copies of the members side by side: evaluation, export,
    pruning and distillation take it like any other.

    Args:
        models: at least one; trunks, heads, towers and balancers may differ, preprocessor and tasks may not. They may
            be ensembles.
        weights: of the members [M], zero or more, for all tasks or by task ("" for the others), such as `fit_weights`
            returns; divided by their sum. Equal by default. Tasks that come after each other keep their order surely
            only with the same weights. A member without weight in any task is left out of the network.

    Returns:
        A compiled model with the first member's corpus and the state of its tasks; its balancer is the plain sum. `fit`
        trains all members jointly.

    Raises:
        ValueError: if the members differ in tasks or encoding, or weights are negative, all zero or not one a member.

    Example:
        >>> import pandas as pd
        >>> from tfmtl import Categorical, Label, Preprocessor, Regression, Schema, build_network, fit_statistics
        >>> table = pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "rating": [1.0, 5.0]})
        >>> schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("rating")])
        >>> preprocessor = Preprocessor.fit(schema, table)
        >>> def member(seed):
        ...     tasks = [Regression("rating")]
        ...     network = build_network(preprocessor, tasks, tower_units=[2], seed=seed)
        ...     return MultiTaskModel(network, tasks, preprocessor)
        >>> one, other = member(0), member(1)
        >>> both = ensemble([one, other], weights=[3, 1]).predict(table, verbose=0)["rating"]
        >>> apart = [m.predict(table, verbose=0)["rating"] for m in (one, other)]
        >>> bool(np.allclose(both, 0.75 * apart[0] + 0.25 * apart[1], atol=1e-6))
        True

    Cost: that of all members that have weight, in memory and in every forward pass.
    """
    require_alike(models)
    shares = shares_by_task(weights, models)
    return connected(models, {task.name: pooled(task, shares[task.name]) for task in models[0].tasks})


def pooled(task: Task, shares: np.ndarray) -> Combine:
    """Return what connects members' outputs of a task through its pool, without those of share 0."""
    kept = np.flatnonzero(shares).tolist()

    def combine(outputs: Sequence[Any]) -> Any:
        return task.pool.connect([outputs[i] for i in kept], shares[kept].tolist(), f"{task.name}_pool")

    return combine


def connected(models: Sequence[MultiTaskModel], combine: Mapping[str, Combine]) -> MultiTaskModel:
    """Return the model whose network is copies of the members' and, by task, what combines their outputs."""
    first = models[0]
    inputs = {
        name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
        for name, tensor in first.network.input.items()
    }
    members = [_copy(model.network, inputs, f"member_{i}") for i, model in enumerate(models)]
    outputs = {name: connect([member.output[name] for member in members]) for name, connect in combine.items()}
    given = MultiTaskModel.arguments(first) | {"balancer": None}
    model = MultiTaskModel(keras.Model(inputs, outputs, name="ensemble"), **given)
    for own, theirs in zip(model.tasks, first.tasks, strict=True):
        adopt(state_of([own]), state_of([theirs]))
    model.compile(LazyAdam())
    return model


def require_alike(models: Sequence[MultiTaskModel]) -> None:
    """Raise unless the models have the same tasks, up to what is inside of the network, and encode features alike."""
    require(len(models) > 0, "`models` must hold at least one model.", models=models)
    for i, model in enumerate(models):
        require_type(model, MultiTaskModel, f"models[{i}]")
    first = models[0]
    served = {task.name: _served(task) for task in first.tasks}
    for i, model in enumerate(models[1:], 1):
        other = {task.name: _served(task) for task in model.tasks}
        require(
            set(other) == set(served),
            f"The tasks of models[{i}] {sorted(other)} differ from those of models[0] {sorted(served)}.",
        )
        differing = [name for name in served if other[name] != served[name]]
        require(
            not differing,
            f"The tasks {differing} of models[{i}] read outputs otherwise than those of models[0]; give their "
            "constructors the same arguments but for `units`.",
        )
        require(
            first.preprocessor.encodes_like(model.preprocessor),
            f"models[{i}] encodes features otherwise than models[0]; build all members with one preprocessor.",
        )


def shares_by_task(weights: Weights, models: Sequence[MultiTaskModel]) -> dict[str, np.ndarray]:
    """Return each task's shares [M], which sum to 1."""
    names = [task.name for task in models[0].tasks]
    if not isinstance(weights, Mapping):
        weights = dict.fromkeys(names, [1.0] * len(models) if weights is None else weights)
    require_known([key for key in weights if key], names, "task", "`weights`")
    missing = [] if "" in weights else [name for name in names if name not in weights]
    require(not missing, f'`weights` names none for the tasks {missing}; add them, or "" for all others.')
    return {name: _shares(weights[name if name in weights else ""], len(models), name) for name in names}


def _shares(weights: Sequence[float], members: int, task: str) -> np.ndarray:
    values = np.asarray(weights, dtype=np.float64)
    require(
        values.shape == (members,),
        f"`weights` of task {task!r} must be {members}, one a member.",
        weights=weights,
    )
    valid = bool(np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0)
    require(valid, f"`weights` of task {task!r} must be 0 or more, and one above 0.", weights=weights)
    return values / values.sum()


def _served(task: Task) -> tuple[type, dict[str, Any]]:
    """Return the class and the arguments that must agree between the members."""
    return type(task), task.output_arguments()


def _copy(network: keras.Model, inputs: Mapping[str, Any], prefix: str) -> keras.Model:
    """Return a copy with the same weights on other inputs, its layers named apart from those of other members."""
    name_of = {id(tensor): name for name, tensor in network.input.items()}
    copy = keras.models.clone_model(
        network,
        input_tensors=[inputs[name_of[id(tensor)]] for tensor in network.inputs],
        clone_function=lambda layer: type(layer).from_config({**layer.get_config(), "name": f"{prefix}_{layer.name}"}),
    )
    copy.set_weights(network.get_weights())
    return copy

"""An ensemble of models as one model around one functional network."""

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
    """Combine trained models of the same tasks into one model, the weighted average of their predictions.

    Use it for a more accurate model at a multiple of the cost; `distil` can then train one small model on it.

    Each task combines the outputs of its members by its layer `Task.pool`: numbers are averaged on the scale of their
    loss, events and classes as probabilities, and retrieval scores by concatenated embeddings. The result is a
    `MultiTaskModel` around one functional network with copies of all members, which evaluation, export, pruning and
    distillation treat like any other model.

    Args:
        models: the members, at least one. Trunks, heads, towers and balancers may differ; preprocessor and tasks must
            be equal. A member may itself be an ensemble.
        weights: weight of each member [M], 0 or more, for all tasks or by task ("" for the other tasks), such as the
            result of `fit_weights`; equal by default. They are divided by their sum. The probabilities of events that
            follow each other are certain to stay in order only if their tasks have equal weights. Members with weight 0
            in all tasks are left out of the network.

    Returns:
        A compiled model with the candidates of the first member and the state of its tasks. Its balancer is the plain
        sum; `fit` trains all members jointly.

    Raises:
        ValueError: if the members differ in tasks or encoding, or the weights are negative, all 0, or not one for each
            member.

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

    Cost: the sum over the members with a weight above 0, in memory and in every forward pass.
    """
    require_alike(models)
    shares = shares_by_task(weights, models)
    return connected(models, {task.name: pooled(task, shares[task.name]) for task in models[0].tasks})


def pooled(task: Task, shares: np.ndarray) -> Combine:
    """Return the function that adds the pool of a task to a network, for the members with a share above 0."""
    kept = np.flatnonzero(shares).tolist()

    def combine(outputs: Sequence[Any]) -> Any:
        return task.pool.connect([outputs[i] for i in kept], shares[kept].tolist(), f"{task.name}_pool")

    return combine


def connected(models: Sequence[MultiTaskModel], combine: Mapping[str, Combine]) -> MultiTaskModel:
    """Return a model around copies of the members' networks; `combine` joins their outputs by task."""
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
    """Raise unless the models have equal tasks, except for the widths of hidden layers, and encode features alike."""
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
            f"The tasks {differing} of models[{i}] have other arguments than those of models[0]; only `units` may "
            "differ.",
        )
        require(
            first.preprocessor.encodes_like(model.preprocessor),
            f"models[{i}] encodes features differently from models[0]; build all members with one preprocessor.",
        )


def shares_by_task(weights: Weights, models: Sequence[MultiTaskModel]) -> dict[str, np.ndarray]:
    """Return the shares [M] of each task, with sum 1."""
    names = [task.name for task in models[0].tasks]
    if not isinstance(weights, Mapping):
        weights = dict.fromkeys(names, [1.0] * len(models) if weights is None else weights)
    require_known([key for key in weights if key], names, "task", "`weights`")
    missing = [] if "" in weights else [name for name in names if name not in weights]
    require(not missing, f'`weights` has none for the tasks {missing}; add them, or "" for all others.')
    return {name: _shares(weights[name if name in weights else ""], len(models), name) for name in names}


def _shares(weights: Sequence[float], members: int, task: str) -> np.ndarray:
    values = np.asarray(weights, dtype=np.float64)
    require(
        values.shape == (members,),
        f"`weights` of task {task!r} must be {members} numbers, one for each member.",
        weights=weights,
    )
    valid = bool(np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0)
    require(valid, f"`weights` of task {task!r} must be 0 or more, at least one above 0.", weights=weights)
    return values / values.sum()


def _served(task: Task) -> tuple[type, dict[str, Any]]:
    """Return the class and the arguments that must be equal for all members."""
    return type(task), task.output_arguments()


def _copy(network: keras.Model, inputs: Mapping[str, Any], prefix: str) -> keras.Model:
    """Return a copy of a network with the same weights on the given inputs, its layers named with a prefix."""
    name_of = {id(tensor): name for name, tensor in network.input.items()}
    copy = keras.models.clone_model(
        network,
        input_tensors=[inputs[name_of[id(tensor)]] for tensor in network.inputs],
        clone_function=lambda layer: type(layer).from_config({**layer.get_config(), "name": f"{prefix}_{layer.name}"}),
    )
    copy.set_weights(network.get_weights())
    return copy

"""The functional Keras network of a schema, a trunk and tasks, over encoded features."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_positive_int, require_type
from tfmtl._keras import keras, seed_of, spawn, tf
from tfmtl._names import check_served
from tfmtl.data import Preprocessor, Schema
from tfmtl.layers import DomainAdversary, Dropout, Fusion, Interaction, MultiTaskLayer, SharedBottom
from tfmtl.layers.reach import readers_of
from tfmtl.models.encoders import FeatureEncoder
from tfmtl.models.graph import ancestors, distinct_inputs, unwrapped
from tfmtl.models.inputs import require_tasks
from tfmtl.models.isolation import Isolate, isolated_groups, joined
from tfmtl.models.mixup import MixupFeatures
from tfmtl.models.regularization import Regularization
from tfmtl.tasks import HeadInputs, Task
from tfmtl.tasks.dependencies import in_order


def build_network(
    preprocessor: Preprocessor,
    tasks: Sequence[Task],
    trunk: MultiTaskLayer | None = None,
    *,
    embedding_dim: int | Mapping[str, int] = 32,
    tower_units: Sequence[int] = (64, 32),
    regularization: Regularization | None = None,
    poolings: Mapping[str, keras.layers.Layer] | None = None,
    fusion: Mapping[str, Fusion] | None = None,
    interactions: Sequence[Interaction] = (),
    isolate: Isolate = (),
    seed: int = 0,
) -> keras.Model:
    """Build the functional network: encoders, two towers, a trunk over the pair of them, and one head per task.

    Args:
        preprocessor: holds the features by role and the sizes of the vocabularies, from `Preprocessor.fit`.
        tasks: the tasks to predict; each adds its head. The bias of the output starts at the best constant of the
            training labels: the log-odds of an event, the log of each class's share, the mean of a number.
        trunk: architecture shared by the tasks on pairs of query and candidate; `SharedBottom` by default. A trunk
            without task names takes the names of these tasks. It reads the concatenation of the query, candidate and
            context encodings and, if there are candidates, the product of the towers' outputs of one width.
        embedding_dim: width of embeddings, one for all or by vocabulary ("" for the others); 0 leaves the feature out.
        tower_units: widths of the dense layers of both towers; `()` for none, which is matrix factorisation of two ids.
        regularization: penalties, noise and augmentation; see `Regularization`.
        poolings: by list feature, the layer that pools its embeddings to one vector; `MaskedMean` by default. Copied.
        fusion: by role, the layer that fuses its features to one encoding; by default they are concatenated. Copied.
        interactions: layers between the encoded pair and the trunk, in this order.
        isolate: groups of task names, such as `[["bought"]]`; each has tables, towers and a trunk that no other task
            reads. Use it where a task is better alone. A step costs as much as one of each group.
        seed: seed of the initial values and of dropout.

    Returns:
        A functional `keras.Model` from one encoded input per feature to {task name: output}.

    Raises:
        ValueError: if parts contradict each other or the schema, or a task depends on itself or on an absent task.

    Example:
        >>> import pandas as pd
        >>> from tfmtl.data import Categorical, Label, Schema
        >>> from tfmtl.tasks import Regression
        >>> schema = Schema([Categorical("user_id")], [Categorical("movie_id")], labels=[Label("rating")])
        >>> table = pd.DataFrame({"user_id": ["u"], "movie_id": ["m"], "rating": [4.0]})
        >>> network = build_network(Preprocessor.fit(schema, table), [Regression("rating")])
        >>> sorted(network.input), network.output["rating"].shape
        (['movie_id', 'user_id'], TensorShape([None, 1]))
    """
    require_type(preprocessor, Preprocessor, "preprocessor", "Pass `Preprocessor.fit(schema, table)`.")
    _check_parts(tasks, trunk, interactions, tower_units)
    regularization = _checked(regularization or Regularization(), preprocessor.schema, tasks)
    groups = isolated_groups(tasks, isolate, trunk, regularization)
    arguments = preprocessor, embedding_dim, regularization, seed, poolings, fusion
    alone, units = len(groups) == 1, tuple(tower_units)
    networks = [
        _connected(FeatureEncoder(*arguments), group, trunk, interactions if alone else _copies(interactions), units)
        for group in groups
    ]
    return _network(*joined(networks, groups), tasks)


def _connected(
    features: FeatureEncoder,
    tasks: Sequence[Task],
    trunk: MultiTaskLayer | None,
    interactions: Sequence[Interaction],
    units: tuple[int, ...],
) -> keras.Model:
    """Return the network of tasks that are not isolated from each other."""
    on_pairs = [task.name for task in tasks if task.uses_trunk]
    encoded, towers = _towers(features, units)
    trunk = (trunk or SharedBottom(seed=features.seed)).for_tasks(on_pairs) if on_pairs else None
    pair = _pair(encoded, towers, interactions, features) if trunk else None
    represented = _connect_trunk(trunk and features.regularization.regularized(trunk), pair, features)
    towers, represented = features.across_domains(towers, represented)
    bins = None if features.regularization.mixup else features.bins
    encodings = HeadInputs(
        towers["query"], towers.get("candidate"), represented, features.seed, labels=features.labels, bins=bins
    )
    return _network(features.inputs, _connect(tasks, encodings), tasks)


def _copies(interactions: Sequence[Interaction]) -> list[Interaction]:
    return [type(part).from_config(part.get_config()) for part in interactions]


def _network(inputs: dict[str, Any], outputs: dict[str, Any], tasks: Sequence[Task]) -> keras.Model:
    distinct_inputs(inputs, outputs)
    return keras.Model(inputs, {task.name: outputs[task.name] for task in tasks}, name="network")


def _checked(regularization: Regularization, schema: Schema, tasks: Sequence[Task]) -> Regularization:
    """Return the regularization, or raise if mixup would mix tasks of two scopes, or it needs a trunk that is absent.

    Also raise if a network that retrieves has names of serving inputs or outputs: an export would refuse them, after
    the training.
    """
    _check_mixup(regularization, tasks)
    if not any(task.uses_trunk for task in tasks):
        regularization.regularized(None)
    if any(task.retrieves for task in tasks):
        names = [feature.name for feature in (*schema.query, *schema.context)]
        check_served(names, [task.name for task in tasks])
    return regularization


def _check_parts(
    tasks: Sequence[Task], trunk: Any, interactions: Sequence[Interaction], tower_units: Sequence[int]
) -> None:
    """Raise if the parts contradict each other."""
    require_tasks(tasks)
    names = [task.name for task in tasks]
    require(bool(names) and len(set(names)) == len(names), "`tasks` must have distinct names.", tasks=names)
    on_pairs = [task.name for task in tasks if task.uses_trunk]
    if trunk is not None:
        require_type(trunk, MultiTaskLayer, "trunk", "Pass an instance such as MMoE().")
        require(
            not trunk.task_names or sorted(trunk.task_names) == sorted(on_pairs),
            f"The trunk's tasks {sorted(trunk.task_names)} differ from the tasks on pairs {sorted(on_pairs)}.",
        )
        require(bool(on_pairs), f"`trunk` serves tasks on pairs, but none of the tasks {names} is one.")
    for part in interactions:
        require_type(part, Interaction, "interactions[...]", "Pass an instance such as CrossNetwork().")
    require(not interactions or bool(on_pairs), f"`interactions` act on pairs, but none of the tasks {names} does.")
    for width in tower_units:
        require_positive_int(tower_units=width)


def _towers(features: FeatureEncoder, units: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the encodings by role and the towers' outputs by side, for the roles that the schema has."""
    encoded = {role: features.encode_role(role) for role in ("query", "candidate", "context")}
    encoded = {role: encoding for role, encoding in encoded.items() if encoding is not None}
    return encoded, {
        side: _tower(encoded[side], side, units, features.regularization, features.seed)
        for side in ("query", "candidate")
        if side in encoded
    }


def _pair(
    encoded: Mapping[str, Any], towers: Mapping[str, Any], interactions: Sequence[Interaction], features: FeatureEncoder
) -> Any:
    """Return the encoding that the trunk reads."""
    parts = list(encoded.values())
    if "candidate" in towers and towers["query"].shape[-1] == towers["candidate"].shape[-1]:
        parts.append(keras.layers.Multiply(name="interaction")([towers["query"], towers["candidate"]]))
    pair = keras.layers.Concatenate(name="pair")(parts) if len(parts) > 1 else parts[0]
    for part in interactions:
        pair = part.connect(pair, features)
    return pair


def _connect_trunk(trunk: MultiTaskLayer | None, pair: Any, features: FeatureEncoder) -> dict[str, Any]:
    """Return the trunk's outputs by task; with mixup, training mixes its inputs."""
    if trunk is None:
        return {}
    alpha = features.regularization.mixup
    if not alpha:
        return trunk.connect(pair, features)
    mixed = MixupFeatures(features, alpha)
    return trunk.connect(mixed.mixup(pair, "pair"), mixed)


def _check_mixup(regularization: Regularization, tasks: Sequence[Task]) -> None:
    """Raise unless mixup mixes all inputs of every loss of the trunk's tasks."""
    if not regularization.mixup:
        return
    mixed = {task.name: task.uses_trunk for task in tasks}
    require(any(mixed.values()), f"`mixup` mixes the inputs of the trunk, which none of the tasks {list(mixed)} reads.")
    for task in tasks:
        across = [name for name in task.depends_on if mixed.get(name, task.uses_trunk) != task.uses_trunk]
        require(
            not across,
            f"Under `mixup` task {task.name!r} and the tasks it depends on must have one scope, unlike {across}.",
        )


def _connect(tasks: Sequence[Task], encodings: HeadInputs) -> dict[str, Any]:
    """Connect the heads, parents first, and return their outputs by task."""
    read = {name for task in tasks for name in task.depends_on}
    outputs: dict[str, Any] = {}
    logits: dict[str, Any] = {}
    for task in in_order(tasks):
        outputs[task.name] = task.connect(dataclasses.replace(encodings, logits=dict(logits)))
        logit = task.event_logit(outputs[task.name]) if task.name in read else None
        if logit is not None:
            logits[task.name] = logit
    return outputs


def shared_variables(network: keras.Model, chained: bool = False) -> list[tf.Variable]:
    """Return the trainable variables that more than one task's loss reaches, in the network's order.

    In a trunk these are its `shared_variables`. Elsewhere they are the variables on which two or more outputs depend,
    except where a trunk stops the gradients of the other tasks.

    Args:
        network: from `build_network`.
        chained: whether outputs depend on other tasks' heads, so that two tasks may reach the variables that the trunk
            gives to one. The readers of each variable are then found by tracing the network. The trace cannot see
            a factor of 0, so that a variable which a trunk hides from a task by such a factor counts as read by it.
    """
    if chained:
        tasks_of = readers_of(network, network.input, network.trainable_variables)
        return [v for v, names in zip(network.trainable_variables, tasks_of, strict=True) if len(names) > 1]
    layers = [(layer, unwrapped(layer)) for layer in network.layers]
    trunks = [(trunk, layer.input) for layer, trunk in layers if isinstance(trunk, MultiTaskLayer)]
    readers = collections.Counter(key for name in network.output for key in _reached(network, name, trunks))
    inside = {id(v) for trunk, _ in trunks for v in trunk.trainable_variables}
    between_tasks = {id(v) for trunk, _ in trunks if len(trunk.task_names) > 1 for v in trunk.shared_variables}
    return [
        v for v in network.trainable_variables if readers[id(v)] > 1 and (id(v) not in inside or id(v) in between_tasks)
    ]


def _reached(network: keras.Model, task: str, trunks: Sequence[tuple[MultiTaskLayer, Any]]) -> set[int]:
    """Return the ids of the variables that a task's gradient reaches."""
    reached = _variables_before(network.output[task], network)
    for trunk, inputs in trunks:
        passing = trunk.reached_inputs(task, inputs) if task in trunk.task_names else inputs
        if passing is not inputs:
            reached -= _variables_before(inputs, network) - _variables_before(passing, network)
    return reached


def _variables_before(tensors: Any, network: keras.Model) -> set[int]:
    parts = [layer for layer in ancestors(network, tensors).layers if not isinstance(unwrapped(layer), DomainAdversary)]
    return {id(variable) for layer in parts for variable in layer.trainable_variables}


def _tower(inputs: Any, side: str, units: tuple[int, ...], regularization: Regularization, seed: int) -> Any:
    hidden = inputs
    for i, width in enumerate(units):
        name = f"{side}_tower_{i}"
        last = i == len(units) - 1
        hidden = keras.layers.Dense(
            width,
            activation=None if last else "relu",
            kernel_initializer=spawn("glorot_uniform", 0, seed_of(name, seed)),
            kernel_regularizer=regularization.kernel_regularizer(),
            name=name,
        )(hidden)
        if regularization.dropout and not last:
            hidden = Dropout(regularization.dropout, seed_of(name, seed), name=f"{name}_dropout")(hidden)
    return hidden

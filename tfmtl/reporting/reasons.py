"""Sections of reasons: the features that tasks need, the use of experts, and lists of some users."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.data import Text, to_columns
from tfmtl.evaluation.corpus import Seen, positives
from tfmtl.interpretation import correlated_features, expert_usage, importance_bars, permutation_importance
from tfmtl.layers import MultiTaskLayer
from tfmtl.models.graph import unwrapped
from tfmtl.recipes.judged_lists import excluded_ids, limits_of
from tfmtl.reporting.inputs import Inputs
from tfmtl.reporting.page import Section, escaped, figure, paragraph, table
from tfmtl.reporting.pictures import as_svg, page_colors
from tfmtl.serving.recommender import Recommender, retrieves

_SHOWN = 4
_RECENT = 5


def importance(inputs: Inputs) -> Section | None:
    """Return the loss of quality of each task without the information of a feature, or of features that go together."""
    tasks = [task for task in inputs.judged if task in inputs.own]
    sample = inputs.sample()
    if not tasks or len(sample) < _LEAST_ROWS:
        return None
    groups = correlated_features(inputs.model, sample)
    found = permutation_importance(inputs.model, sample, tasks=tasks, groups=groups, repeats=2, seed=inputs.seed)
    with page_colors():
        picture = as_svg(importance_bars(found), "importance")
    caption = (
        "Rise of each task's loss when the values of a feature are exchanged between rows; bars with 95 % intervals."
    )
    rows = [
        [name, task, found.values[i, j], found.low[i, j], found.high[i, j]]
        for i, name in enumerate(found.names)
        for j, task in enumerate(found.tasks)
    ]
    body = figure(picture, caption) + table(["feature", "task", "importance", "low", "high"], rows)
    return Section("Importance of features", body + paragraph(f"On {len(sample):,} test rows.", note=True))


_LEAST_ROWS = 20


def experts(inputs: Inputs) -> Section | None:
    """Return the mean weight of each expert of the trunk for each task."""
    trunks = [layer for layer in map(unwrapped, inputs.model.network.layers) if isinstance(layer, MultiTaskLayer)]
    if not trunks:
        return None
    try:
        usage = expert_usage(inputs.model, inputs.sample())
    except ValueError:  # a trunk without gates
        return None
    body = ""
    for level, found in usage.items():
        readers = _readers(inputs, level, len(found.load))
        heads = ["reader", *(f"expert {i}" for i in range(found.load.shape[1])), "entropy"]
        rows = [[r, *map(float, load), float(e)] for r, load, e in zip(readers, found.load, found.entropy, strict=True)]
        body += f"<h3>{escaped(level)}</h3>{table(heads, rows)}"
        if found.dead:
            body += paragraph(f"No reader uses the experts {', '.join(map(str, found.dead))}.")
    return Section("Use of experts", body + paragraph("Mean weights of the gates; a row sums to 1.", note=True))


def _readers(inputs: Inputs, level: str, count: int) -> list[str]:
    names = [task.name for task in inputs.model.tasks if task.uses_trunk and "/" not in level]
    return [*names[:count], *(f"reader {i}" for i in range(len(names), count))]


def recommendations(inputs: Inputs) -> Section | None:
    """Return lists of some users of the test rows, as `recommend` serves them."""
    model, schema = inputs.model, inputs.model.schema
    if not retrieves(model) or not inputs.examples or not schema.query_id:
        return None
    k = min(inputs.k, len(model.candidates or ()))
    recommender = Recommender(model, max_k=k)
    chosen = _users(inputs, recommender.retrieval)
    rows = inputs.test.iloc[chosen]
    answer = _answer(inputs, recommender, rows)
    found = {name: tensor.numpy() for name, tensor in answer.items()}
    body = ""
    for i, row in enumerate(chosen):
        body += f"<h3>{escaped(schema.query_id)} {escaped(inputs.test.iloc[row][schema.query_id])}</h3>"
        own = {name: value[i] for name, value in found.items()}
        body += _recent(inputs, rows.iloc[i]) + _list(inputs, rows.iloc[i], own)
    note = "As `recommend` serves them" + (", without the known interactions." if inputs.seen is not None else ".")
    return Section("Recommendations", body + paragraph(note, note=True))


def _users(inputs: Inputs, task: str) -> list[int]:
    """Return the first row of some distinct users, of those with a positive if there are any."""
    rows = positives(inputs.batch, task)
    rows = rows if len(rows) else np.arange(len(inputs.test))
    users = inputs.test[inputs.model.schema.query_id].to_numpy()[rows]
    order = np.random.default_rng(inputs.seed).permutation(len(rows))
    first = dict(zip(users[order].tolist()[::-1], rows[order].tolist()[::-1], strict=True))
    return list(first.values())[::-1][: inputs.examples]


def _answer(inputs: Inputs, recommender: Recommender, rows: Any) -> dict[str, Any]:
    query = {n: tf.convert_to_tensor(column) for n, column in to_columns(rows, inputs.model.schema.query).items()}
    if inputs.seen is None:
        return recommender.recommend(**query)
    known = Seen.from_frame(inputs.model, recommender.retrieval, inputs.seen)
    excluded = excluded_ids(recommender, inputs.keys_of_users(rows), known)
    return recommender.recommend_within(query, limits_of(recommender, excluded))


def _recent(inputs: Inputs, row: Any) -> str:
    """Return the last training rows of a user in the order of the table, by a text of the candidate if it has one."""
    if inputs.train is None:
        return ""
    schema, train = inputs.model.schema, inputs.train
    texts = [f.name for f in schema.candidate if isinstance(f, Text) and f.name in train]
    own = train[train[schema.query_id] == row[schema.query_id]][[*texts, schema.candidate_id][0]].tolist()
    if not own:
        return paragraph("A new user, without a training row.")
    return paragraph(f"{len(own):,} training rows, the last ones of the table: {'; '.join(map(str, own[-_RECENT:]))}.")


def _list(inputs: Inputs, row: Any, found: dict[str, Any]) -> str:
    """Return the list of a user: id, columns of the candidate, values of the tasks, whether the test rows have it."""
    schema, test = inputs.model.schema, inputs.test
    tasks = [name for name, values in found.items() if name != "ids" and values.shape == found["ids"].shape]
    columns = [f.name for f in schema.candidate if f.name in test and f.name != schema.candidate_id][:_SHOWN]
    own = set(test[test[schema.query_id] == row[schema.query_id]][schema.candidate_id].tolist())
    known = test.drop_duplicates(schema.candidate_id).set_index(schema.candidate_id)
    rows = []
    for i, identity in enumerate(found["ids"].tolist()):
        plain = identity.decode() if isinstance(identity, bytes) else identity
        about = [known[column].get(plain) for column in columns]
        rows.append([i + 1, plain, *about, *(float(found[name][i]) for name in tasks), "yes" if plain in own else ""])
    return table(["rank", schema.candidate_id, *columns, *tasks, "in the test rows"], rows)

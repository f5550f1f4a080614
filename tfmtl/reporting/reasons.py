"""Sections of reasons: the features that tasks need, the use of experts, and lists of some users."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.data import Text, to_columns
from tfmtl.evaluation.corpus import Seen, positives
from tfmtl.interpretation import (
    correlated_features,
    expert_usage,
    importance_bars,
    integrated_gradients,
    permutation_importance,
)
from tfmtl.layers import MultiTaskLayer
from tfmtl.models.graph import unwrapped
from tfmtl.recipes.judged_lists import excluded_ids, limits_of
from tfmtl.reporting.inputs import Inputs, plain
from tfmtl.reporting.page import Section, escaped, figure, paragraph, table
from tfmtl.reporting.pictures import as_svg, page_colors
from tfmtl.serving.recommender import Recommender, retrieves

_SHOWN = 4
_RECENT = 5
_BASELINE, _STEPS, _REASONS = 500, 16, 3


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
        user = inputs.id_columns[0]
        body += f"<h3>{escaped(user)} {escaped(inputs.test.iloc[row][user])}</h3>"
        own = {name: value[i] for name, value in found.items()}
        body += _recent(inputs, rows.iloc[i]) + _list(inputs, rows.iloc[i], own, recommender.retrieval)
    note = "As `recommend` serves them" + (", without the known interactions." if inputs.seen is not None else ".")
    reasons = "Reasons: parts of the retrieval's score, above that of an average row, by integrated gradients."
    return Section("Recommendations", body + paragraph(note, note=True) + paragraph(reasons, note=True))


def _users(inputs: Inputs, task: str) -> list[int]:
    """Return the first row of some distinct users, of those with a positive if there are any."""
    rows = positives(inputs.batch, task)
    rows = rows if len(rows) else np.arange(len(inputs.test))
    users = inputs.test[inputs.id_columns[0]].to_numpy()[rows]
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
    user, candidate = inputs.id_columns
    texts = [f.column for f in schema.candidate if isinstance(f, Text) and f.column in train]
    own = train[train[user] == row[user]][[*texts, candidate][0]].tolist()
    if not own:
        return paragraph("A new user, without a training row.")
    return paragraph(f"{len(own):,} training rows, the last ones of the table: {'; '.join(map(str, own[-_RECENT:]))}.")


def _list(inputs: Inputs, row: Any, found: dict[str, Any], retrieval: str) -> str:
    """Return the list of a user: id, columns of the candidate, values, whether the test rows have it, and reasons."""
    schema, test = inputs.model.schema, inputs.test
    tasks = [name for name, values in found.items() if name != "ids" and values.shape == found["ids"].shape]
    user, candidate = inputs.id_columns
    columns = [f.column for f in schema.candidate if f.column in test and f.column != candidate][:_SHOWN]
    own = set(test[test[user] == row[user]][candidate].tolist())
    known = test.drop_duplicates(candidate).set_index(candidate, drop=False)
    ids = [plain(identity) for identity in found["ids"].tolist()]
    why = _why(inputs, row, known, [identity for identity in ids if identity in known.index], retrieval)
    rows = []
    for i, identity in enumerate(ids):
        about = [known[column].get(identity) for column in columns]
        values = (float(found[name][i]) for name in tasks)
        rows.append([i + 1, identity, *about, *values, "yes" if identity in own else "", why.get(identity)])
    return table(["rank", candidate, *columns, *tasks, "in the test rows", "reasons"], rows)


def _why(inputs: Inputs, row: Any, known: Any, ids: list[Any], task: str) -> dict[Any, str]:
    """Return by candidate the features that raise its score most above that of an average test row."""
    if not ids:
        return {}
    schema = inputs.model.schema
    given: dict[str, Any] = {f.column: [row[f.column]] * len(ids) for f in schema.query}
    given |= {f.column: [None] * len(ids) for f in schema.context}
    pairs = known.loc[ids].assign(**given)
    baseline = inputs.sample().head(_BASELINE)
    found = integrated_gradients(inputs.model, pairs, baseline, steps=_STEPS, tasks=[task], seed=inputs.seed)
    parts = found.values[..., 0]
    best = np.argsort(-parts, axis=1, kind="stable")[:, :_REASONS]
    return {
        identity: ", ".join(f"{found.features[f]} {parts[i, f]:+.2f}" for f in best[i] if parts[i, f] > 0)
        for i, identity in enumerate(ids)
    }

"""Flips and cuts of every file that the package writes: refused by name, rebuilt or recovered, never read otherwise."""

from __future__ import annotations

import collections
import pathlib
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from servers.models import MAX_K, build
from tfmtl import keras
from tfmtl.adaptation import OnlineLearner
from tfmtl.data import Categorical, Label, Preprocessor, Schema, cache
from tfmtl.models import MultiTaskModel, build_network, load_model, save_model
from tfmtl.serving import export
from tfmtl.serving.versions import check_files, version_of
from tfmtl.serving.warm_up import read_requests
from tfmtl.tasks import Regression

Read = Callable[[], Any]
"""Reads the files; the values are compared with those before the damage."""


def outcomes(folder: pathlib.Path, damages: int, seed: int = 0) -> dict[str, collections.Counter[str]]:
    """Damage files in turn and count the outcomes by the kind of folder.

    Args:
        folder: an existing folder.
        damages: number of changed bits and of cuts together.
        seed: of their positions.

    Returns:
        By kind: the number of damages that were `refused` with the name of the file, `recovered` (the answer of an
        earlier state, with a warning, or a file that was written again), or `harmless` (the same answer).
    """
    kinds = {
        "saved model": _saved(folder),
        "learner": _learner(folder),
        "cache": _cache(folder),
        "export": _exported(folder),
    }
    kinds["Keras file"] = _keras_file(folder)
    rng, counts = random.Random(seed), {kind: collections.Counter[str]() for kind in kinds}
    expected = {kind: read() for kind, (_, read) in kinds.items()}
    files = [(kind, path) for kind, (root, _) in kinds.items() for path in _files(root)]
    for i in range(damages):
        kind, path = files[i % len(files)]
        root, read = kinds[kind]
        shutil.copytree(root, folder / "whole")
        _damage(path, rng)
        counts[kind][_outcome(read, expected[kind], path)] += 1
        shutil.rmtree(root)
        (folder / "whole").rename(root)
    return counts


def _outcome(read: Read, expected: list[Any], path: pathlib.Path) -> str:
    damaged = path.read_bytes()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, fault = _read(read)
    if found is None:
        assert str(path) in fault or path.suffix == ".keras", fault  # Keras raises errors of its own
        return "refused"
    named = any(str(path) in str(warning.message) for warning in caught)
    answers = expected if named else expected[:1]
    assert any(_same(found[0], answer) for answer in answers), f"{path}: another answer"
    rebuilt = not path.exists() or path.read_bytes() != damaged
    return "recovered" if named or rebuilt else "harmless"


def _read(read: Read) -> tuple[Any, str]:
    try:
        return read(), ""
    except Exception as error:  # noqa: BLE001 - the caller looks at any error
        return None, repr(error)


def _same(found: list[Any], expected: list[Any]) -> bool:
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


def _damage(path: pathlib.Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    position = rng.randrange(len(data))
    data[position] ^= 1 << rng.randrange(8)
    path.write_bytes(data[:position] if rng.random() < 0.3 else data)


def _files(root: pathlib.Path) -> Iterator[pathlib.Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file() and path.stat().st_size and path.name != ".lock")


def _values(model: MultiTaskModel) -> list[np.ndarray]:
    return [v.numpy() for v in (*model.network.weights, *model.state, *model.optimizer.variables)]


def _small() -> tuple[MultiTaskModel, pd.DataFrame]:
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("rating")])
    users, items = ([f"{role}{i % n}" for i in range(60)] for role, n in (("u", 7), ("i", 5)))
    frame = pd.DataFrame({"user": users, "item": items, "rating": np.arange(60) % 5})
    preprocessor, heads = Preprocessor.fit(schema, frame), [Regression("rating")]
    model = MultiTaskModel(build_network(preprocessor, heads, embedding_dim=4), heads, preprocessor)
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    model.fit(frame, verbose=0)
    return model, frame


def _saved(folder: pathlib.Path) -> tuple[pathlib.Path, Read]:
    root = save_model(_small()[0], folder / "saved")
    return root, lambda: [_values(load_model(root))]


def _keras_file(folder: pathlib.Path) -> tuple[pathlib.Path, Read]:
    root = folder / "keras"
    root.mkdir()
    _small()[0].save(root / "model.keras")
    return root, lambda: [_values(keras.models.load_model(root / "model.keras"))]


def _learner(folder: pathlib.Path) -> tuple[pathlib.Path, Read]:
    model, frame = _small()
    root = folder / "learner"
    learner = OnlineLearner(model, root, replay=None)
    states = [_values(learner.model)]
    for name in ("first", "second"):
        learner.step(frame, name)
        states.insert(0, _values(learner.model))

    def read() -> list[list[np.ndarray]]:
        return [_values(OnlineLearner.resume(root).model), *states[1:]]

    return root, read


def _cache(folder: pathlib.Path) -> tuple[pathlib.Path, Read]:
    model, frame = _small()
    root = folder / "cache"
    long = pd.concat([frame] * 1000, ignore_index=True)

    def read() -> list[list[np.ndarray]]:
        batch = cache(long, model.preprocessor, root / "rows.cache").to_batch()
        return [[column.numpy() for column in (*batch.features.values(), *batch.labels.values())]]

    read()
    return root, read


def _exported(folder: pathlib.Path) -> tuple[pathlib.Path, Read]:
    export(build()[0], folder / "export", max_k=MAX_K)
    root = folder / "export"

    def read() -> list[list[Any]]:
        version = version_of(root)
        check_files(version)  # as `inspect`, `bench` and `replace_candidates` do
        described = {path.relative_to(root): path.read_bytes() for path in _files(root) if path.name != "tfmtl.json"}
        return [[repr(read_requests(version)), *described.values()]]

    return root, read

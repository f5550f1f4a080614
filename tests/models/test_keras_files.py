"""Keras' own files of a model, copies of it, and arguments of types that JSON lacks."""

from __future__ import annotations

import copy
import dataclasses
import json
import pathlib
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from tests.conformance.recipes import OTHERS, PARTS
from tests.data import every_kind
from tests.models import small
from tfmtl._keras import keras
from tfmtl._saved_files import DamagedFileError
from tfmtl.balancing import Uncertainty
from tfmtl.data import Label, Preprocessor, Schema
from tfmtl.models import MultiTaskModel, load_model, save_model

TABLE = small.table()


@pytest.fixture(scope="module")
def trained() -> MultiTaskModel:
    model = small.model(eager=True, balancer=Uncertainty(0.5), negatives=3)
    model.optimizer.exclude_from_weight_decay(var_names=["embedding"])
    model.fit(TABLE, batch_size=20, verbose=0)
    return model


def through_file(model: MultiTaskModel, folder: pathlib.Path) -> Any:
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def through_checkpoint(model: MultiTaskModel, folder: pathlib.Path) -> Any:
    before = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
    path = str(folder / "{epoch}.keras")
    model.fit(TABLE, batch_size=20, epochs=2, verbose=0, callbacks=keras.callbacks.ModelCheckpoint(path))
    loaded = keras.models.load_model(folder / "2.keras")
    assert any((old != new).any() for old, new in zip(before, model.get_weights(), strict=False))
    return loaded


@pytest.mark.parametrize(
    "copied",
    [
        through_file,
        through_checkpoint,
        lambda model, _: pickle.loads(pickle.dumps(model)),
        lambda model, _: copy.deepcopy(model),
    ],
    ids=["file", "checkpoint", "pickle", "deepcopy"],
)
def test_a_copy_trains_on_like_the_original(
    trained: MultiTaskModel, tmp_path: pathlib.Path, copied: Callable[..., Any]
) -> None:
    found = copied(trained, tmp_path)
    assert type(found) is MultiTaskModel
    assert found.compile_options == trained.compile_options
    assert found.optimizer._exclude_from_weight_decay_names == ["embedding"]
    assert list(found.candidates.ids) == list(trained.candidates.ids)  # type: ignore[union-attr]
    for _ in range(2):
        for part in ("weights", "state"):
            for own, other in zip(getattr(found, part), getattr(trained, part), strict=True):
                np.testing.assert_array_equal(own, other, err_msg=own.name)
        for own, other in zip(found.optimizer.variables, trained.optimizer.variables, strict=True):
            np.testing.assert_array_equal(own, other, err_msg=own.name)
        for model in (found, trained):
            model.fit(TABLE, batch_size=20, verbose=0)


@pytest.mark.parametrize("name", ["weights", "model.weights.h5"])
def test_weights_alone_in_every_format(trained: MultiTaskModel, tmp_path: pathlib.Path, name: str) -> None:
    trained.save_weights(str(tmp_path / name))
    other = small.model(eager=True, balancer=Uncertainty(0.5), negatives=3, seed=7)
    other.build_optimizer()
    other.load_weights(str(tmp_path / name))
    for own, expected in zip([*other.weights, *other.state], [*trained.weights, *trained.state], strict=True):
        np.testing.assert_array_equal(own, expected, err_msg=own.name)


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_a_changed_bit_never_gives_other_weights(trained: MultiTaskModel, tmp_path: pathlib.Path, name: str) -> None:
    """Keras reads weights past the checksums of the archive, and HDF5 has none."""
    path, rng = tmp_path / name, np.random.default_rng(0)
    other = small.model(eager=True, balancer=Uncertainty(0.5), negatives=3, seed=7)
    other.build_optimizer()
    (trained.save if name == "model.keras" else trained.save_weights)(path)
    expected = [v.numpy() for v in (*trained.weights, *trained.state)]
    whole, refused = path.read_bytes(), dict[int, str]()
    weight = trained.weights[0].numpy().tobytes()  # Keras does not compress
    positions = [whole.index(weight) + 5, *rng.integers(0, len(whole), 40)]
    for position in positions:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 64]) + whole[position + 1 :])
        try:
            other.load_weights(path)
        except Exception as error:  # noqa: BLE001 - Keras, HDF5 and the archive have errors of their own
            refused[position] = str(error)
        else:
            for value, own in zip(expected, [*other.weights, *other.state], strict=True):
                np.testing.assert_array_equal(own, value)
    fault = refused[positions[0]]  # the archive compares its own checksum where Keras happens to read all of a file
    assert "damaged: 1 of " in fault or "Bad CRC-32" in fault
    path.write_bytes(whole)
    other.load_weights(path)


def test_a_keras_file_is_loaded_or_refused_by_name(trained: MultiTaskModel, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "shop.keras"
    trained.save(path)
    loaded = load_model(path)
    for own, expected in zip([*loaded.weights, *loaded.state], [*trained.weights, *trained.state], strict=True):
        np.testing.assert_array_equal(own, expected, err_msg=own.name)
    whole = path.read_bytes()
    flipped = whole.index(trained.weights[0].numpy().tobytes()) + 5
    for damaged in (
        b"",
        whole[: len(whole) // 2],
        whole[:flipped] + bytes([whole[flipped] ^ 64]) + whole[flipped + 1 :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(
            DamagedFileError, match=r"^\S*/shop\.keras is damaged: [^\n]*; restore it from a backup, or"
        ):
            load_model(path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda c: c["config"].update(model="{"), "is damaged: no model can be made of it"),
        (lambda c: c["config"].pop("model"), "is damaged: no model can be made of it"),
        (lambda c: c["config"].update(model=7), "is damaged: no model can be made of it"),
        (lambda c: c.pop("config"), r"is damaged: it lacks the entries \['config'\]"),
        (lambda c: c.update(class_name="Sequential", module="keras", registered_name=None), "is damaged: no model can"),
        (lambda c: c.update(class_name="X", module="evil", registered_name=None), "names the class 'X' of the module"),
        (lambda c: c["compile_config"].update(optimizer='{"config": {"class_name": "Lambda"}}'), "holds a `Lambda`"),
    ],
)
def test_a_changed_keras_file_is_one_sentence(
    trained: MultiTaskModel, tmp_path: pathlib.Path, change: Any, fault: str
) -> None:
    trained.save(tmp_path / "shop.keras")
    with zipfile.ZipFile(tmp_path / "shop.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    with zipfile.ZipFile(tmp_path / "shop.keras", "w") as archive:
        for name, part in {**parts, "config.json": json.dumps(config).encode()}.items():
            archive.writestr(name, part)
    with pytest.raises(ValueError, match=rf"^\S*/shop\.keras {fault}[^\n]*$"):
        load_model(tmp_path / "shop.keras")


@pytest.mark.parametrize("kind", ["link", "storage", "virtual", "soft link"])
def test_weights_of_another_file_are_refused(trained: MultiTaskModel, tmp_path: pathlib.Path, kind: str) -> None:
    """HDF5 would read the bytes of any file of the machine."""
    path, secret = tmp_path / "model.weights.h5", tmp_path / "secret"
    trained.save_weights(path)
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, entry: names.append(name) if hasattr(entry, "dtype") else None)
        name = next(n for n in names if file[n].dtype == np.float32 and file[n].ndim == 2)
        shape = file[name].shape
        del file[name]
        if kind == "storage":
            secret.write_bytes(bytes(4 * int(np.prod(shape))))
            file.create_dataset(name, shape, np.float32, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape, np.float32)
            layout[:] = h5py.VirtualSource(str(secret), "a", shape)
            file.create_virtual_dataset(name, layout)
        else:
            file[name] = h5py.ExternalLink(str(secret), "a") if kind == "link" else h5py.SoftLink(f"/{names[-1]}")
    other = small.model(eager=True, balancer=Uncertainty(0.5), negatives=3, seed=7)
    other.build_optimizer()
    with pytest.raises(ValueError, match="The file of weights holds a link to another file or array; do not trust it"):
        other.load_weights(path)


def test_weights_in_a_format_that_loses_the_state_are_refused(trained: MultiTaskModel, tmp_path: pathlib.Path) -> None:
    for name, options in (("weights.h5", {}), ("weights", {"save_format": "h5"})):
        with pytest.raises(ValueError, match=r"give a path that ends in `.weights.h5`"):
            trained.save_weights(tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("folder", {}),
        ("model.h5", {}),
        ("model.keras", {"save_format": "tf"}),
        ("model.keras", {"save_format": "h5"}),
        ("model.keras", {"include_optimizer": False}),
    ],
)
def test_other_files_are_refused_before_they_are_written(
    trained: MultiTaskModel, tmp_path: pathlib.Path, name: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"writes `.keras` files; give a path that ends in `.keras`, save to a folder"):
        trained.save(tmp_path / name, **options)
    with pytest.raises(ValueError, match=r"use `tfmtl.export`"):
        trained.export(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_legacy_optimizer_is_refused_before_anything_is_written(tmp_path: pathlib.Path) -> None:
    """Keras would write the model without the state of the optimizer, and train on from zeros."""
    model = small.model(keras.optimizers.legacy.Adam())
    copies = (model.save, lambda path: keras.models.save_model(model, path), lambda _: pickle.dumps(model))
    for write in (*copies, lambda _: copy.deepcopy(model)):
        with pytest.raises(
            ValueError, match=r"lose the state of `keras.optimizers.legacy.Adam`; .* with `keras.optimizers.Adam`, or"
        ):
            write(str(tmp_path / "model.keras"))
    assert not list(tmp_path.iterdir())


def test_the_function_of_keras_refuses_folders_before_they_are_written(
    trained: MultiTaskModel, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ValueError, match=r"loses the preprocessor and the tasks; give a path that ends in `.keras`"):
        keras.models.save_model(trained, str(tmp_path / "folder"))
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_format_is_refused_before_training(
    trained: MultiTaskModel, tmp_path: pathlib.Path
) -> None:
    steps = int(trained.optimizer.iterations)
    given = keras.callbacks.ModelCheckpoint(str(tmp_path / "best"))
    with pytest.raises(ValueError, match=r"writes `.keras` files; name one, or pass `save_weights_only=True`"):
        trained.fit(TABLE, callbacks=[given], verbose=0)
    assert int(trained.optimizer.iterations) == steps


def test_a_preprocessor_can_be_pickled_and_copied() -> None:
    table = every_kind.table()
    preprocessor = Preprocessor.fit(every_kind.SCHEMA, table, name="raw")
    for other in (pickle.loads(pickle.dumps(preprocessor)), copy.deepcopy(preprocessor)):
        assert other is not preprocessor
        assert other.encodes_like(preprocessor)
        assert other.get_config() == preprocessor.get_config()
        found, expected = other.fitted_candidates, preprocessor.fitted_candidates
        assert (found is None) == (expected is None)
    for part in (every_kind.SCHEMA, preprocessor.statistics):
        for other in (pickle.loads(pickle.dumps(part)), copy.deepcopy(part)):
            assert other.get_config() == part.get_config()


def test_classes_of_numpy_are_those_of_python(tmp_path: pathlib.Path) -> None:
    label = Label("mood", classes=np.array([3, 5]))  # type: ignore[arg-type]
    assert label == Label("mood", classes=(3, 5))
    assert [type(value) for value in label.classes] == [int, int]
    assert Label("mood", classes=pd.Index(["a", "b"])).classes == ("a", "b")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "classes",
    [pd.interval_range(0, 2), [b"a", b"b"], pd.to_datetime(["2026-01-01"]), [float("nan"), 1.0], [None, "a"], [(1, 2)]],
)
def test_classes_that_could_not_be_saved_are_refused(classes: Any) -> None:
    with pytest.raises(ValueError, match=r"`classes` must be strings, numbers or booleans; convert the column"):
        Label("mood", classes=classes)
    with pytest.raises(ValueError, match="`classes` must be a sequence"):
        Label("mood", classes="ab")  # type: ignore[arg-type]


def numpy_values(value: Any) -> Any:
    """Return a configuration with NumPy's numbers and arrays in place of Python's."""
    if isinstance(value, dict):
        return {name: numpy_values(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        numbers = value and all(isinstance(each, int | float) and not isinstance(each, bool) for each in value)
        return np.asarray(value) if numbers else [numpy_values(each) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return np.float32(value) if isinstance(value, float) else np.int64(value)
    return value


@pytest.mark.parametrize("name", sorted({**PARTS, **OTHERS}.keys() - {"Preprocessor"}))
def test_an_argument_of_numpy_is_saved_or_refused_at_once(name: str) -> None:
    part = {**PARTS, **OTHERS}[name]()
    config = part.get_config()
    for argument, value in config.items():
        try:
            changed = type(part).from_config({**config, argument: numpy_values(value)})
        except (ValueError, TypeError):
            continue  # refused when it is made
        written = json.dumps(keras.saving.serialize_keras_object(changed))
        loaded = keras.saving.deserialize_keras_object(json.loads(written))
        again = json.loads(json.dumps(keras.saving.serialize_keras_object(loaded)))
        assert again == json.loads(written), argument


def test_features_of_numpy_are_saved_or_refused_at_once() -> None:
    for role in ("query", "candidate", "context"):
        for feature in getattr(every_kind.SCHEMA, role):
            for argument, value in dataclasses.asdict(feature).items():
                try:
                    changed = dataclasses.replace(feature, **{argument: numpy_values(value)})
                except (ValueError, TypeError):
                    continue
                saved = json.loads(json.dumps(dataclasses.asdict(changed)))
                assert saved == json.loads(json.dumps(dataclasses.asdict(feature))), argument


def test_a_model_with_arguments_of_numpy_is_saved(tmp_path: pathlib.Path) -> None:
    heads = small.tasks()
    model = MultiTaskModel(small.network(heads), heads, small.preprocessor(), seed=np.int64(3))  # type: ignore[arg-type]
    assert load_model(save_model(model, tmp_path / "model")).seed == 3


def test_columns_of_numpy_are_those_of_a_schema(tmp_path: pathlib.Path) -> None:
    """A label of NumPy's numbers is learned, saved and served by the same numbers."""
    schema = Schema(small.SCHEMA.query[:1], labels=[Label("size", classes=np.array([38, 40]))])  # type: ignore[arg-type]
    table = pd.DataFrame({"user": ["a", "b"], "size": np.array([40, 38])})
    config = json.loads(json.dumps(Preprocessor.fit(schema, table).get_config()["schema"]))
    assert Schema.from_config(config) == schema

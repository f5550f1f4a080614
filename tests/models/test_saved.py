"""A saved model equals the original in its answers, its state and all further training steps."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl import training
from tfmtl._keras import keras
from tfmtl._saved_files import DamagedFileError
from tfmtl.balancing import Uncertainty, UPGrad
from tfmtl.models import MultiTaskModel, load_model, save_model


@keras.saving.register_keras_serializable("tests.models.test_saved")
class Known(MultiTaskModel):
    """A subclass that is registered with Keras."""


def weights_of(model: MultiTaskModel) -> list[np.ndarray]:
    return [*model.network.get_weights(), *(variable.numpy() for variable in model.state)]


def fit(model: MultiTaskModel, epochs: int = 1) -> None:
    model.fit(small.table(), batch_size=16, epochs=epochs, verbose=0)


@pytest.mark.parametrize(
    ("optimizer", "arguments"),
    [
        (lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)), {"kind": Known}),
        (lambda: training.LazyAdam(0.1), {"negatives": 3, "balancer": Uncertainty(0.5)}),
        (lambda: keras.optimizers.AdamW(0.1, weight_decay=0.5, use_ema=True), {"balancer": UPGrad()}),
    ],
)
def test_it_trains_on_as_if_it_had_not_been_saved(tmp_path: pathlib.Path, optimizer: Any, arguments: Any) -> None:
    model = small.model(optimizer(), **arguments)
    model.optimizer.exclude_from_weight_decay(var_names=["embedding"])
    fit(model)
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert type(loaded) is type(model)
    assert loaded.optimizer._exclude_from_weight_decay_names == ["embedding"]
    assert list(loaded.candidates.ids) == list(model.candidates.ids)  # type: ignore[union-attr]
    for part, other in zip(weights_of(loaded), weights_of(model), strict=True):
        np.testing.assert_array_equal(part, other)
    before = weights_of(model)
    fit(model)
    fit(loaded)
    for part, other in zip(weights_of(loaded), weights_of(model), strict=True):
        np.testing.assert_array_equal(part, other)
    assert any((part != old).any() for part, old in zip(weights_of(model), before, strict=True))


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda legacy: legacy.Adam(0.1, amsgrad=True),
        lambda legacy: legacy.SGD(0.1, momentum=0.9, nesterov=True),
        lambda legacy: legacy.Nadam(0.1),
        lambda legacy: legacy.Adagrad(keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)),
        lambda legacy: keras.mixed_precision.LossScaleOptimizer(legacy.RMSprop(0.1, centered=True, clipnorm=1.0)),
    ],
    ids=["Adam", "SGD", "Nadam", "Adagrad", "scaled"],
)
def test_a_legacy_optimizer_trains_on_too(tmp_path: pathlib.Path, optimizer: Any, trained: bool) -> None:
    model = small.model(optimizer(keras.optimizers.legacy))
    if trained:
        fit(model)
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert type(loaded.optimizer) is type(model.optimizer)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    fit(model)
    fit(loaded)
    assert int(loaded.optimizer.iterations) == (8 if trained else 4)
    for part, other in zip(weights_of(loaded), weights_of(model), strict=True):
        np.testing.assert_array_equal(part, other)


def test_a_model_that_is_not_compiled_is_loaded_so(tmp_path: pathlib.Path) -> None:
    model = small.model().with_network(small.network())
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert getattr(loaded, "optimizer", None) is None
    loaded.compile("adam")
    fit(loaded)


def test_it_is_the_same_in_a_fresh_process(tmp_path: pathlib.Path) -> None:
    model = small.model(balancer=Uncertainty(0.5))
    folder = save_model(model, tmp_path / "shop" / "model")
    table = small.table()[["user", "age", "item", "price", "position"]].assign(recent=[["i1"]] * small.ROWS)
    table.to_json(tmp_path / "table.json")
    program = f"""
import json, pandas as pd
from tfmtl.models import load_model
model = load_model({str(folder)!r})
rows = pd.read_json({str(tmp_path / "table.json")!r})
print("ANSWER" + json.dumps({{n: v.tolist() for n, v in model.predict(rows, verbose=0).items()}}))
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    found = json.loads(answer.split("ANSWER")[1])
    for name, values in model.predict(table, verbose=0).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


def test_no_folder_is_overwritten_and_none_stays_half_written(tmp_path: pathlib.Path) -> None:
    folder = save_model(small.model(), tmp_path / "model")
    with pytest.raises(FileExistsError, match="save the model to a new folder"):
        save_model(small.model(), folder)
    with pytest.raises(FileNotFoundError, match="a folder that `save_model` wrote"):
        load_model(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["model.json", "arrays.npz"])
def test_a_damaged_file_is_named_and_gives_no_model(tmp_path: pathlib.Path, name: str) -> None:
    """Flips that change no value, which must not change the model, are in `tests/test_saved_files.py`."""
    folder = save_model(small.model(), tmp_path / "model")
    whole = (folder / name).read_bytes()
    middle = len(whole) // 2
    for damaged in (b"", whole[:middle], whole[:middle] + bytes([whole[middle] ^ 2]) + whole[middle + 1 :]):
        (folder / name).write_bytes(damaged)
        with pytest.raises(
            DamagedFileError, match=rf"model/{name} is damaged: .*; restore it from a backup, or save the"
        ):
            load_model(folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_model(folder)


def test_a_model_without_checksums_loads(tmp_path: pathlib.Path) -> None:
    folder = save_model(small.model(), tmp_path / "model")
    config = json.loads((folder / "model.json").read_text())
    assert len(config.pop("crc32")) == 8
    (folder / "model.json").write_text(json.dumps(config))
    assert load_model(folder).seed == small.model().seed
    del config["balancer"]
    (folder / "model.json").write_text(json.dumps(config))
    with pytest.raises(DamagedFileError, match=r"model\.json is damaged: it lacks the entries \['balancer'\]; restore"):
        load_model(folder)


def _layer(config: Any, kind: str) -> Any:
    layers = config["network"]["config"]["layers"]
    return next(layer["config"] for layer in layers if layer["class_name"].endswith(kind))


@pytest.mark.parametrize(
    "change",
    [
        lambda config: _layer(config, "Dense").update(colour="red"),
        lambda config: _layer(config, "Dense").update(units="many"),
        lambda config: _layer(config, "MMoE").update(num_experts=None),
        lambda config: config["network"].update(config={}),
        lambda config: config.update(network=7),
        lambda config: config.update(tasks=[]),
        lambda config: config["tasks"][1]["config"].update(colour="red"),
        lambda config: config["balancer"].update(config=[1]),
        lambda config: config["preprocessor"].update(statistics={}),
        lambda config: config.update(seed="x"),
        lambda config: config["optimizer"]["config"]["config"].update(learning_rate="fast"),
        lambda config: config["optimizer"].pop("compile"),
    ],
)
def test_a_model_without_checksums_that_was_changed_is_one_sentence(
    saved: pathlib.Path, tmp_path: pathlib.Path, change: Any
) -> None:
    """Keras raises errors of many kinds, which hold no file."""
    folder = pathlib.Path(shutil.copytree(saved, tmp_path / "model"))
    config = json.loads((folder / "model.json").read_text())
    del config["crc32"]
    change(config)
    (folder / "model.json").write_text(json.dumps(config))
    with pytest.raises(
        DamagedFileError, match=r"^\S*/model/model\.json is damaged: .*; restore it from a backup, or"
    ) as e:
        load_model(folder)
    assert "\n" not in str(e.value)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return save_model(small.model(), tmp_path_factory.mktemp("saved") / "model")


def test_a_class_that_is_not_registered_is_named_with_the_file(saved: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = pathlib.Path(shutil.copytree(saved, tmp_path / "model"))
    config = json.loads((folder / "model.json").read_text())
    del config["crc32"]
    (folder / "model.json").write_text(json.dumps({**config, "class": "shop>Shop"}))
    with pytest.raises(ValueError, match=r"model\.json names the class shop>Shop, which is not registered; import its"):
        load_model(folder)


def test_a_write_that_fails_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space is left in"):
        save_model(small.model(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_model_that_could_not_be_loaded_is_not_saved(tmp_path: pathlib.Path) -> None:
    class Unknown(MultiTaskModel):
        """A subclass that is not registered."""

    class More(MultiTaskModel):
        """A subclass with an argument that cannot be saved."""

        def arguments(self) -> dict[str, Any]:
            return {**super().arguments(), "teacher": None}

    with pytest.raises(ValueError, match="The class Unknown could not be loaded again"):
        save_model(small.model(kind=Unknown), tmp_path / "model")
    with pytest.raises(ValueError, match=r"More has arguments \['teacher'\] that cannot be saved"):
        save_model(small.model(kind=More), tmp_path / "model")
    with pytest.raises(TypeError, match="model"):
        save_model(keras.Sequential(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


SAVE = """
import os, runpy, signal, sys
import numpy as np
from tfmtl.models import save_model
def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
np.savez = killed
save_model(runpy.run_path(sys.argv[1])["model"](), sys.argv[2])
"""


def test_the_remains_of_a_killed_process_are_removed_by_the_next_save(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-c", SAVE, str(small.__file__), str(tmp_path / "model")]
    done = subprocess.run(command, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".tmp-")
    assert [path.name for path in left.iterdir()] == ["model.json"]
    save_model(small.model(), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_part_that_is_not_registered_is_warned_of(tmp_path: pathlib.Path) -> None:
    with pytest.warns(UserWarning, match=r"model can be loaded with `safe_mode=False` only: it names the class 'Bare'"):
        folder = save_model(small.model(balancer=Bare()), tmp_path / "model")
    with pytest.raises(ValueError, match=r"names the class 'Bare' of the module .* at balancer"):
        load_model(folder)


class Bare(UPGrad):
    """A balancer that is not registered."""


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o027, 0o750), (0o077, 0o700)])
def test_the_folder_has_the_mode_of_the_umask(tmp_path: pathlib.Path, umask: int, mode: int) -> None:
    former = os.umask(umask)
    try:
        folder = save_model(small.model(), tmp_path / "parent" / "model")
    finally:
        os.umask(former)
    assert stat.S_IMODE(folder.stat().st_mode) == mode
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {mode & 0o666}


def test_everything_is_flushed_before_the_name_appears(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed, fsync = [], os.fsync

    def recorded(handle: int) -> None:
        flushed.append((pathlib.Path(f"/proc/self/fd/{handle}").readlink().name, (tmp_path / "model").exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recorded)
    save_model(small.model(), tmp_path / "model")
    names = [name for name, _ in flushed]
    assert {"model.json", "arrays.npz"} <= {*names}
    assert [there for _, there in flushed] == [False] * (len(flushed) - 1) + [True]
    assert names[-1] == tmp_path.name

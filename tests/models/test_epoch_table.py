"""The table of epochs: values, arrows and widths by hand, and the output of `fit` by `verbose`."""

from __future__ import annotations

import io

import tfmtl

# isort: split
import numpy as np
import pandas as pd
import pytest
import tf_keras as keras

from tfmtl.models.epoch_table import EpochTable, _duration


def _printed(tasks: list[str], logs: list[dict[str, float]], capsys: pytest.CaptureFixture[str]) -> list[str]:
    table = EpochTable(tasks)
    table.set_params({"epochs": len(logs), "steps": 3})
    table.on_train_begin()
    for epoch, values in enumerate(logs):
        table.on_epoch_begin(epoch)
        table.on_train_batch_end(1)
        table.on_epoch_end(epoch, values)
    table.on_train_end()
    return capsys.readouterr().out.splitlines()


def test_rows_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    """AUC and NDCG are better when they rise, RMSE and losses when they fall; equal values have no arrow."""
    keys = (
        "val_loss",
        "val_seen_ndcg@10",
        "val_stars_mae",
        "val_stars_rmse",
        "val_bad_auc",
        "val_age_loss",
        "seen_weight",
    )
    logs = [
        dict(zip(keys, (2.0, 0.10, 9.0, 1.5, 0.70, 0.4, 1.0), strict=True)),
        dict(zip(keys, (1.5, 0.12, 1.0, 1.6, 0.70, 0.3, 0.5), strict=True)),
        dict(zip(keys, (1.6, 0.11, 1.0, 1.4, 0.71, 0.5, 0.25), strict=True)),
    ]
    lines = _printed(["seen", "stars", "bad", "age"], logs, capsys)
    assert [line.split()[:6] for line in lines[2:5]] == [
        ["1/3", "2.0000", "0.1000", "1.5000", "0.7000", "0.4000"],
        ["2/3", "1.5000↑", "0.1200↑", "1.6000↓", "0.7000", "0.3000↑"],
        ["3/3", "1.6000↓", "0.1100↓", "1.4000↑", "0.7100↑", "0.5000↓"],
    ]
    assert lines[0].split() == ["epoch", "val", "loss", "seen", "stars", "bad", "age", "time", "left"]
    assert lines[1].split() == ["ndcg@10", "rmse", "auc", "loss"]
    assert lines[5:] == ["weights in the end: seen 0.25"]


def test_columns_stand_below_their_heads(capsys: pytest.CaptureFixture[str]) -> None:
    logs = [{"loss": 123456.0, "a_loss": 1.0, "b_loss": float("nan")}, {"loss": 3.0, "a_loss": 2.0, "b_loss": 1.0}]
    heads, _, first, second = _printed(["a", "b"], logs, capsys)
    ends = [heads.index(f" {name} ") + 1 for name in ("a", "b")]
    for row, values in ((first, ("1.0000 ", "nan ")), (second, ("2.0000↓", "1.0000 "))):
        for end, value in zip(ends, values, strict=True):
            assert row[: end + 1].endswith(value)
    assert first.split()[1] == "1.235e+05"


@pytest.mark.parametrize("count", [1, 9, 40])
@pytest.mark.parametrize("name", ["t", "a_task_with_a_very_long_name_indeed"])
def test_rows_have_at_most_120_columns(count: int, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [f"{name}{i}" for i in range(count)]
    logs = [{"loss": 1e-7 * i, **{f"{task}_loss": 1e9 + i for task in tasks}} for i in range(2)]
    lines = _printed(tasks, logs, capsys)
    assert max(map(len, lines)) <= 120
    shown = len(lines[2].split()) - 4  # epoch, loss, time, left
    assert shown == min(count, 9) if count < 40 else 5 < shown < 40
    assert ("+" in lines[0]) == (count == 40)
    assert count != 40 or lines[0].endswith(f"+{40 - shown} tasks")


def test_signs_stand_for_arrows_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    table = EpochTable(["a"])
    table.set_params({"epochs": 2})
    for epoch, value in enumerate((2.0, 1.0)):
        table.on_epoch_begin(epoch)
        table.on_epoch_end(epoch, {"loss": value, "a_loss": -value})
    out.seek(0)
    assert out.read().splitlines()[-1].split()[:3] == ["2/2", "1.0000+", "-1.0000-"]


@pytest.mark.parametrize(("seconds", "text"), [(9.96, "10.0s"), (99.0, "99.0s"), (100.0, "1:40"), (3723.4, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


def test_fit_prints_by_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame({"user": ["a", "b"] * 8, "stars": np.arange(16.0), "good": [0, 1] * 8})
    schema = tfmtl.Schema([tfmtl.Categorical("user")], labels=[tfmtl.Label("stars"), tfmtl.Label("good")])
    data = tfmtl.Preprocessor.fit(schema, table)
    tasks = [tfmtl.Regression("stars"), tfmtl.BinaryClassification("good")]
    model = tfmtl.MultiTaskModel(tfmtl.build_network(data, tasks, embedding_dim=2, tower_units=[2]), tasks, data)
    model.compile("adam")
    capsys.readouterr()
    model.fit(table, validation_data=table, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "rmse", "1/2", "2/2"]
    model.fit(table, verbose=0)
    assert capsys.readouterr().out == ""
    model.fit(table, verbose=2)
    assert "unweighted_loss: " in capsys.readouterr().out
    model.fit(table, callbacks=keras.callbacks.ProgbarLogger("steps"))
    assert "unweighted_loss" not in capsys.readouterr().out.splitlines()[0]

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfmtl.serving.server_config import BATCHING, model_name, server_command, write_batching, write_server_config
from tfmtl.serving.versions import MANIFEST, next_version, require_version, version_number, version_of, versions_in


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("7", 7),
        ("007", 7),
        ("0", 0),
        ("12", 12),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
        ("0" * 30 + "7", 7),
        ("9" * 5000, None),  # too many digits for int()
        ("１２", None),  # full-width digits, which int() reads as 12 and a server as no number
        ("٣", None),
        ("²", None),
        ("1.tmp", None),
        (".tmp-1", None),
        ("-1", None),
        ("+1", None),
        ("1_0", None),
        (" 1", None),
        ("x", None),
        ("", None),
    ],
)
def test_names_of_ascii_digits_are_versions(name: str, number: int | None) -> None:
    assert version_number(name) == number


def test_a_folder_of_other_digits_is_older_than_none(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, "2", "٣", str(2**63))
    assert next_version(tmp_path) == 3
    assert version_of(tmp_path) == tmp_path / "2"
    assert versions_in(tmp_path / "absent") == {}


def test_after_the_greatest_version_there_is_none(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, str(2**63 - 2))
    assert next_version(tmp_path) == 2**63 - 1
    fill(tmp_path, str(2**63 - 1))
    with pytest.raises(ValueError, match="has version 9223372036854775807, after which servers read none; remove it"):
        next_version(tmp_path)


@pytest.mark.parametrize("version", [0, -1, 2**63, 1.0, "3", True, None])
def test_a_version_that_no_server_reads_is_refused(version: int) -> None:
    with pytest.raises(ValueError, match=r"`version` must be an integer from 1 to 2\*\*63 - 1, or None for"):
        require_version(version)


NAMES = [
    "a;touch X",
    "größe",
    "*",
    "a]?",
    'say "hi"',
    "it's",
    "$HOME",
    " ",
    "-x",
    "{}",
    "a`b`",
    "%s",
    "~",
    "#",
]


def test_a_server_reads_every_name_back_and_a_shell_too(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, *(f"{name}/1" for name in NAMES))
    for base in ("/models", '/my models/it\'s "mine"'):
        options = write_server_config(tmp_path, base_path=base)
        configured = text_format.Parse((tmp_path / "models.config").read_bytes(), ModelServerConfig())
        found = [(each.name, each.base_path) for each in configured.model_config_list.config]
        assert found == [(name, f"{base}/{name}") for name in sorted(NAMES)]
        assert {each.model_platform for each in configured.model_config_list.config} == {"tensorflow"}
        assert f"--model_config_file={base}/models.config" in shlex.split(options)
        for name in NAMES:
            command = shlex.split(server_command(name, base))
            assert command[3:5] == [f"--model_name={name}", f"--model_base_path={base}/{name}"]
            assert len(command) == 7


def test_a_shell_runs_no_part_of_a_name(tmp_path: pathlib.Path) -> None:
    command = server_command(f"a;touch {tmp_path}/X;$(touch {tmp_path}/Y)`touch {tmp_path}/Z`'")
    subprocess.run(["sh", "-c", command.replace("tensorflow_model_server", "true", 1)], check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a:b", "a\x7f", "a\u202eb", os.fsdecode(b"a\xff")])
def test_a_name_that_no_request_can_hold_is_refused(tmp_path: pathlib.Path, name: str) -> None:
    fill(tmp_path, f"{name}/1", "good/1")
    with pytest.raises(ValueError, match=r"it must be printable and have no colon\. Received: directory="):
        write_server_config(tmp_path)
    with pytest.raises(ValueError, match=r"The name of the folder becomes that of the model;"):
        model_name(tmp_path / name)
    assert not (tmp_path / "models.config").exists()


@pytest.mark.parametrize("path", ["a[1]", "a\\b", "runs[1]/shop"])
def test_a_path_that_tensorflow_takes_for_a_pattern_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"TensorFlow reads no model from a path with `\[` or a backslash; rename"):
        model_name(path)


def test_the_name_of_a_relative_folder_is_that_of_the_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop" / "x").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "shop")
    monkeypatch.chdir(tmp_path / "shop")
    assert [model_name(path) for path in (".", "", "x/..", "../shop/", "..")] == ["shop"] * 4 + [tmp_path.name]
    assert model_name("../link") == "link"
    with pytest.raises(ValueError, match=r"The name of the folder becomes that of the model;"):
        model_name("/")


def fill(directory: pathlib.Path, *names: str) -> None:
    for name in names:
        (directory / name / MANIFEST).parent.mkdir(parents=True)
        (directory / name / MANIFEST).write_text("{}")


def test_every_reader_of_versions_reads_the_same_ones(tmp_path: pathlib.Path) -> None:
    fill(tmp_path / "shop", "9", "007", "１２", "99.tmp", "x")
    (tmp_path / "shop" / "10").mkdir()  # without a manifest: exported by another library
    fill(tmp_path / "empty", "１２", "x", "1.tmp")
    assert versions_in(tmp_path / "shop") == {n: tmp_path / "shop" / f for n, f in {9: "9", 7: "007", 10: "10"}.items()}
    assert version_of(tmp_path / "shop") == tmp_path / "shop" / "9"
    write_server_config(tmp_path)
    configured = (tmp_path / "models.config").read_text()
    assert 'name: "shop"' in configured
    assert "empty" not in configured
    with pytest.raises(ValueError, match="empty holds no version exported by tfmtl; give a folder such as"):
        version_of(tmp_path / "empty")


def test_a_version_is_its_own_version(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, "1", "2")
    assert version_of(tmp_path / "1") == tmp_path / "1"


def test_the_newest_version_is_the_greatest_number(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, "9", "10", "draft")
    assert version_of(tmp_path) == tmp_path / "10"  # as strings, "9" and "draft" are greater


def test_the_batching_file_of_a_version_is_that_of_the_documentation(tmp_path: pathlib.Path) -> None:
    write_batching(tmp_path)
    assert (tmp_path / BATCHING).read_text() == (
        "max_batch_size { value: 4096 }\nenable_large_batch_splitting { value: true }\n"
        "max_execution_batch_size { value: 64 }\nbatch_timeout_micros { value: 2000 }\n"
        "num_batch_threads { value: 4 }\nmax_enqueued_batches { value: 1000 }\n"
    )

from __future__ import annotations

import pathlib

import pytest

from tfmtl.serving.server_config import BATCHING, write_batching, write_server_config
from tfmtl.serving.versions import MANIFEST, version_number, version_of, versions_in


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("7", 7),
        ("007", 7),
        ("0", 0),
        ("12", 12),
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

"""Files with checksums: changed, cut, empty and foreign ones are refused by name, and never read as other values."""

from __future__ import annotations

import json
import pathlib
import zlib
from typing import Any

import numpy as np
import pytest

from tfmtl._saved_files import (
    DamagedFileError,
    check_file,
    checksums_of,
    contents_of,
    read_arrays,
    read_json,
    to_json,
)  # fmt: skip

VALUE = {"name": "größe", "nested": {"crc32": "00000000", "numbers": [1.5, -2, 1e-300]}, "empty": {}, "last": None}
ARRAYS = {
    "a": np.arange(30, dtype=np.float32).reshape(5, 6), "b/0": np.asarray([["x", "yz"]]), "c": np.float64(3.5),
    "f": np.asfortranarray(np.arange(6).reshape(2, 3)), "empty": np.zeros([0, 3]),
}  # fmt: skip


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return data with one bit changed, or cut."""
    position = int(rng.integers(len(data)))
    if rng.random() < 0.3:
        return data[:position]
    return data[:position] + bytes([data[position] ^ (1 << int(rng.integers(8)))]) + data[position + 1 :]


@pytest.mark.parametrize("indent", [None, 1])
def test_json_comes_back_and_clients_can_read_it(tmp_path: pathlib.Path, indent: int | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(to_json(VALUE, indent))
    assert read_json(path, "write it again") == VALUE
    assert json.loads(path.read_text()).items() >= VALUE.items()


def test_the_checksum_is_that_of_the_text_before_it(tmp_path: pathlib.Path) -> None:
    assert to_json({}) == f'{{"crc32": "{zlib.crc32(b"{"):08x}"}}'
    assert to_json({"rows": 3}) == f'{{"rows": 3, "crc32": "{zlib.crc32(b"""{"rows": 3"""):08x}"}}'


def test_json_of_earlier_versions_is_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(VALUE))
    assert read_json(tmp_path / "a.json", "write it again") == VALUE


def test_damaged_json_is_never_read_as_another_value(tmp_path: pathlib.Path) -> None:
    path, rng, refused = tmp_path / "a.json", np.random.default_rng(0), list[str]()
    whole = to_json(VALUE, 1).encode()
    for _ in range(500):
        path.write_bytes(damaged(whole, rng))
        try:
            found = read_json(path, "write it again")
        except DamagedFileError as error:
            refused.append(str(error))
        else:
            assert found.items() >= VALUE.items()  # white space, or the name of the checksum
    assert len(refused) > 450
    assert all(message.startswith(str(path)) and message.endswith("; write it again.") for message in refused)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it is empty"),
        ("[]", "it is no mapping"),
        ("{", "it is no JSON"),
        ("\0" * 100, "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ('{"crc32": "00000000", "a": 1}', "it is no mapping with a checksum at its end"),
        ('{"a": 1, "crc32": "00000000"}', "does not match its checksum .remove its entry `crc32` if you have edited"),
        ('{"b": 1}', r"it lacks the entries \['a'\]"),
    ],
)
def test_the_fault_is_named(tmp_path: pathlib.Path, text: str, fault: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.json is damaged: .*{fault}.*; write it again\."):
        read_json(tmp_path / "a.json", "write it again", entries=["a"])


def test_damaged_arrays_are_never_read_as_others(tmp_path: pathlib.Path) -> None:
    path, rng, refused = tmp_path / "a.npz", np.random.default_rng(1), list[str]()
    np.savez(path, **ARRAYS)  # type: ignore[arg-type]
    whole = path.read_bytes()
    for i in range(600):
        path.write_bytes(damaged(whole, rng) if i else whole)
        try:
            found = read_arrays(path, "save it again")
        except DamagedFileError as error:
            refused.append(str(error))
        else:
            assert found.keys() == ARRAYS.keys()
            for name, value in ARRAYS.items():
                np.testing.assert_array_equal(found[name], value)
                assert found[name].dtype == np.asarray(value).dtype
    assert all(message.startswith(str(path)) and message.endswith("; save it again.") for message in refused)
    assert len(refused) > 300  # the others concern times and permissions in the archive


def test_a_shorter_shape_is_refused(tmp_path: pathlib.Path) -> None:
    """A checksum that fits is no proof of a shape: `numpy.load` stops before the end and compares nothing."""
    np.savez(tmp_path / "a.npz", a=np.arange(30_000))
    data = (tmp_path / "a.npz").read_bytes()
    assert b"(30000,)" in data
    (tmp_path / "a.npz").write_bytes(data.replace(b"(30000,)", b"(20000,)"))
    with np.load(tmp_path / "a.npz") as archive:
        assert len(archive["a"]) == 20_000
    with pytest.raises(ValueError, match=r"a\.npz is damaged: it is no whole archive of arrays .*CRC"):
        read_arrays(tmp_path / "a.npz", "save it again")


def test_pickled_objects_are_refused(tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.asarray([{}], object))
    with pytest.raises(ValueError, match=r"Object arrays cannot be loaded"):
        read_arrays(tmp_path / "a.npz", "save it again")


def test_wrong_contents_are_those_of_the_file(tmp_path: pathlib.Path) -> None:
    wrong: list[Any] = [lambda: {}["a"], lambda: [][0], lambda: None.a, lambda: 1 + ""]  # type: ignore[attr-defined,operator]
    for read in wrong:
        message = r"x\.json is damaged: its contents .*; cure"
        with pytest.raises(DamagedFileError, match=message), contents_of(tmp_path / "x.json", "cure"):
            read()


def test_files_of_a_folder_are_compared_with_their_description(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"123456789")
    (tmp_path / "c").write_bytes(b"")
    described = checksums_of(tmp_path, without=["c"])
    assert described == {"a/b": {"size": 9, "crc32": "cbf43926"}}  # the check value of CRC-32
    check_file(tmp_path, "a/b", described, "export again")
    check_file(tmp_path, "c", described, "export again")
    (tmp_path / "a" / "b").write_bytes(b"123456788")
    with pytest.raises(ValueError, match=r"a/b is damaged: it does not match its checksum; export again"):
        check_file(tmp_path, "a/b", described, "export again")
    (tmp_path / "a" / "b").write_bytes(b"12345678")
    with pytest.raises(ValueError, match=r"a/b is damaged: it has 8 bytes instead of 9; export again"):
        check_file(tmp_path, "a/b", described, "export again")
    (tmp_path / "link").symlink_to(tmp_path / "c")
    for name in ("../c", "/dev/zero", "a/../c", "link"):
        with pytest.raises(ValueError, match="lies outside of it or is a link; export again"):
            check_file(tmp_path, name, {name: {"size": 0, "crc32": "00000000"}}, "export again")
    (tmp_path / "a" / "b").unlink()
    with pytest.raises(ValueError, match=r"a/b is damaged: it is missing; export again"):
        check_file(tmp_path, "a/b", described, "export again")

"""`inspect` of a version that a stranger wrote: one sentence or plain text, for every change of its card."""

from __future__ import annotations

import json
import pathlib
import random
import re
from typing import Any

import pytest
from servers import hostile_cards

from tfmtl.__main__ import main
from tfmtl.serving.manifest_form import fault_of
from tfmtl.serving.plain_text import code, inline, visible
from tfmtl.serving.versions import MANIFEST, read_manifest

GOLDEN = pathlib.Path(__file__).parents[2] / "saved_models" / "golden" / "1"


def of_today() -> dict[str, Any]:
    """Return a manifest with every entry that an export can have."""
    manifest = read_manifest(GOLDEN)
    fusion = {**manifest["fusion"], "chosen": ["rating"]}
    budget = [{"what": "size [kB]", "measured": 1.0, "limit": 2.0, "at_most": True}]
    metrics = {"rating": {"rmse": 0.5, "auc": None}}
    manifest["fusion_slices"] = {"by": "country", "slices": {"at": {"rating": 0.5}}}
    manifest["card"] = {**manifest["card"], "metrics": metrics, "description": "Two\n\nlines."}
    return {**manifest, "fusion": fusion, "budget": budget, "rerank_depth": 20, "foreign_operations": ["Scann"]}


FILES = list(hostile_cards.files(of_today()))


def inspected(folder: pathlib.Path, data: bytes, capsys: Any, *options: str) -> tuple[int, str, str]:
    path = folder / "1" / MANIFEST
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    status = main(["inspect", str(folder), *options])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_manifest_of_today_has_the_form() -> None:
    assert fault_of(of_today()) is None


@pytest.mark.parametrize("part", range(20))
def test_every_change_is_one_sentence_or_plain_text(tmp_path: pathlib.Path, capsys: Any, part: int) -> None:
    """2,000 and more files; each is refused by name or printed without a control character or a broken table."""
    assert len(FILES) > 2000
    refused = 0
    for name, data in FILES[part::20]:
        status, out, err = inspected(tmp_path, data, capsys)
        if status == 0:
            assert hostile_cards.is_plain(out), name
            assert err == ""
        else:
            refused += 1
            assert (status, out) == (2, ""), name
            assert err.startswith(f"{tmp_path}/1/assets.extra/tfmtl.json is damaged: "), name
            assert err.endswith("; export the model again.\n"), name
            assert err.count("\n") == 1, name
            assert hostile_cards.is_plain(err), name
    assert 0 < refused < len(FILES[part::20])


@pytest.mark.parametrize("name", [name for name, _ in FILES[:19]])
def test_a_damaged_file_is_refused(tmp_path: pathlib.Path, capsys: Any, name: str) -> None:
    status, out, err = inspected(tmp_path, dict(FILES)[name], capsys)
    assert (status, out) == ((0, out) if name == "UTF-16" else (2, "")), err


def test_json_is_valid_and_plain(tmp_path: pathlib.Path, capsys: Any) -> None:
    for name, data in random.Random(0).sample(FILES, 100):
        status, out, _ = inspected(tmp_path, data, capsys, "--json")
        if status == 0:
            assert hostile_cards.is_plain(out.replace("|", "").replace("](", "").replace("<", "")), name
            assert fault_of(json.loads(out)) is None, name


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("signatures",), [], "its entry signatures must be a mapping"),
        (("signatures", "rank", "inputs"), {"a": 1}, "its entry signatures.rank.inputs.a must be a text of at most"),
        (("card", "parameters"), 1.5, "its entry card.parameters must be a whole number from 0"),
        (("card", "parameters"), True, "its entry card.parameters must be a whole number from 0"),
        (("card", "metrics"), {"a b": {"x": float("nan")}}, "its entry card.metrics.'a b'.x must be a finite number"),
        (("budget",), [{}], r"its entry budget\[0\]\.\w+ is absent"),
        (("fusion",), {"weights": {}}, "its entry fusion.chosen is absent"),
        (("fusion_slices",), {"by": "a", "slices": {"b": {"c": "d"}}}, r"fusion_slices\.slices\.b\.c must be a finite"),
        (("serve",), "tensorflow_model_server --model_name=a;touch x", "its entry serve must be one call of"),
        (("files",), {"../x": {"size": 1, "crc32": ""}}, r"its entry files\.'\.\./x' must be the name of a file in"),
        (("files",), {"/etc/passwd": {"size": 1, "crc32": ""}}, "must be the name of a file in the folder of"),
        (("files",), {"a\x1b[2J": {"size": 1, "crc32": ""}}, r"files\.'a\\x1b\[2J' must be the name of a file"),
        (("serve",), "rm -rf --x", "its entry serve must be one call of"),
        (("serve",), "tensorflow_model_server '--x", "its entry serve must be one call of"),
    ],
)
def test_the_sentence_names_the_entry(
    tmp_path: pathlib.Path, capsys: Any, path: tuple[str, ...], value: Any, fault: str
) -> None:
    data = json.dumps(hostile_cards._changed(of_today(), path, value)).encode()
    status, _, err = inspected(tmp_path, data, capsys)
    assert status == 2
    assert re.search(fault, err), err


def test_a_folder_in_place_of_the_file_is_one_sentence(tmp_path: pathlib.Path, capsys: Any) -> None:
    (tmp_path / "1" / MANIFEST).mkdir(parents=True)
    assert main(["inspect", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_text_is_shown_as_it_is() -> None:
    assert visible("größe 名前 user_id é👩‍🔬") == "größe 名前 user_id é👩‍🔬"
    assert inline("number of rows, 100% of user_id [B, 10]") == "number of rows, 100% of user_id [B, 10]"
    assert inline("a\x1b[1m|b") == r"a\\u001b[1m\|b"
    assert inline("- x") == r"\- x"
    assert code("a`b|c\nd") == r"`a'b\|c d`"

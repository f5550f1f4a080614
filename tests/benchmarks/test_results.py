from __future__ import annotations

import pathlib
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import results
from results import Section

FIRST = "A question?\n\n```sh\npython a.py\n```\n\n| a |\n|---|\n| 1 |"


def test_sections_survive_writing_and_reading(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "made" / "RESULTS.md"
    sections = {"first": Section(FIRST), "second": Section("> no note, since a note comes first", "It failed.")}
    results.write(path, sections, ["first", "second"])
    assert results.read(path) == sections
    again = path.read_text()
    results.write(path, results.read(path), ["first", "second"])
    assert path.read_text() == again


def test_document_has_the_given_order_and_drops_other_sections(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "RESULTS.md"
    sections = {"b": Section("body b"), "gone": Section("body gone"), "a": Section("body a", "A note.")}
    results.write(path, sections, ["a", "never measured", "b"])
    assert path.read_text() == (
        f"{results.HEADER}\n<!-- entry: a -->\n## a\n\n> A note.\n\nbody a\n\n<!-- entry: b -->\n## b\n\nbody b\n"
    )


def test_no_document_has_no_sections(tmp_path: pathlib.Path) -> None:
    assert results.read(tmp_path / "RESULTS.md") == {}


@pytest.mark.parametrize("method", ["write_text", "replace"])
def test_an_interrupt_leaves_the_old_document(
    method: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "RESULTS.md"
    results.write(path, {"a": Section("old")}, ["a"])
    before = path.read_text()

    def interrupted(self: pathlib.Path, *_: Any, **__: Any) -> None:
        with self.open("w") as file:
            file.write("half a document")
            raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        results.write(path, {"a": Section("new")}, ["a"])
    monkeypatch.undo()
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_tables_and_headings_stay_and_text_becomes_code() -> None:
    printed = "10 rows\n\n| a | b |\n|---|---:|\n| 1 | 2 |\nafter\n  indented\n## group 1, best\n| no table\n"
    assert results.markdown(printed) == (
        "```text\n10 rows\n```\n\n| a | b |\n|---|---:|\n| 1 | 2 |\n\n```text\nafter\n  indented\n```\n\n"
        "### group 1, best\n\n```text\n| no table\n```"
    )


def test_a_progress_bar_leaves_its_last_state() -> None:
    printed = "\r 1/2 [=> ]\b\b\b\b\r 2/2 [==]\r\n\b\b\b\rdone\n"
    assert results.markdown(printed) == "```text\n 2/2 [==]\ndone\n```"


def test_fences_in_the_text_do_not_end_its_block() -> None:
    assert results.markdown("a\n```\nb") == "````text\na\n```\nb\n````"


@pytest.mark.parametrize("printed", ["", "\n", " \n\n\t\n"])
def test_nothing_printed_is_nothing(printed: str) -> None:
    assert results.markdown(printed) == ""


@hypothesis.given(st.text(alphabet="|-# ab\n`", max_size=40))
def test_no_printed_word_is_lost(printed: str) -> None:
    shown = results.markdown(printed)
    letters = [c for c in printed if c in "ab"]
    kept = [line for line in shown.splitlines() if not line.endswith("`text")]
    assert [c for line in kept for c in line if c in "ab"] == letters


def test_paths_are_hidden_the_longest_first_and_only_whole() -> None:
    names = {
        "/users/me/code": "",
        "/users/me": "HOME",
        "/data": "FOLDER",
        "/users/me/code/env/bin/python": "python",
    }
    text = "/users/me/code/env/bin/python /users/me/code/a.py '/data/ml' /data: /database /users/me/x (/users/me/code)"
    assert results.hidden(text, names) == "python a.py 'FOLDER/ml' FOLDER: /database HOME/x ()"


def test_hidden_paths_are_no_patterns() -> None:
    assert results.hidden("/a.b/c /aXb/c", {"/a.b": r"\1"}) == r"\1/c /aXb/c"

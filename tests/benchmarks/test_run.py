"""Benchmarks of a few lines: the sections that the runner writes or keeps, and its messages."""

from __future__ import annotations

import pathlib
import re
import sys
import tempfile
from typing import Any

import pytest
import results
import run
from environments import Environment, UnavailableError
from registry import Entry

TODAY = r"\d{4}-\d\d-\d\d"
GOOD = "import sys; print('| a |\\n|---|\\n| 1 |'); print(*sys.argv[1:])"
BAD = "import sys; print('lost'); print('Traceback', file=sys.stderr); sys.exit('ValueError: in ' + __file__ + '\\n')"


@pytest.fixture
def project(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "repository"
    (root / "benchmarks").mkdir(parents=True)
    for name, text in {"good": GOOD, "bad": BAD, "other": "print('other')"}.items():
        (root / "benchmarks" / f"{name}.py").write_text(text)
    (tmp_path / "data" / "ml_100k").mkdir(parents=True)
    return root


ENTRIES = (
    Entry("one", "Is one good?", "good.py", ("--n", "9"), ("--data", "{ml_100k}"), ("--n", "1")),
    Entry("two", "Is two there?", "other.py", ("--data", "{ml_1m}")),
    Entry("three", "Is three good?", "other.py"),
)


def runner(project: pathlib.Path, *entries: Entry, **arguments: Any) -> run.Runner:
    places = {"scripts": project / "benchmarks", "root": project, "data": project.parent / "data"}
    return run.Runner(entries or ENTRIES, project / "RESULTS.md", **(places | arguments))


def test_a_section_holds_question_command_machine_versions_and_output(project: pathlib.Path) -> None:
    assert runner(project).run(ENTRIES[:1]) == {"one": "measured"}
    body = results.read(project / "RESULTS.md")["one"].body
    question, command, facts, table, rest = body.split("\n\n")
    assert question == "Is one good?"
    imports = "PYTHONPATH=.:examples"
    assert command == f"```sh\n{imports} python benchmarks/good.py --n 9 --data FOLDER/ml_100k\n```"
    assert re.match(TODAY + r", \d+ s; \d+ cores, .* at the start\.\nPython 3.*, tensorflow .*\.$", facts)
    assert (table, rest) == ("| a |\n|---|\n| 1 |", "```text\n--n 9 --data FOLDER/ml_100k\n```")


def test_no_path_of_the_machine_is_in_the_document(project: pathlib.Path) -> None:
    names = "__file__, sys.executable, sys.argv, sys.path, tempfile.gettempdir() + '/x'"
    (project / "benchmarks" / "good.py").write_text(f"import sys, tempfile; print({names})")
    (project / "benchmarks" / "other.py").write_text(f"import sys, tempfile; sys.exit(str([{names}]))")
    runner(project).run([ENTRIES[0], ENTRIES[2]])
    text = (project / "RESULTS.md").read_text()
    for path in (project, project.parent, sys.prefix, sys.executable, pathlib.Path.home(), tempfile.gettempdir()):
        assert f"{path}/" not in text
    assert text.count("benchmarks/good.py") == 3
    assert "benchmarks/good.py python ['benchmarks/good.py'" in text


def test_only_the_chosen_sections_are_replaced_in_the_registrys_order(project: pathlib.Path) -> None:
    old = {"one": results.Section("old one"), "three": results.Section("old three", "A note.")}
    results.write(project / "RESULTS.md", old, ["three", "one"])
    runner(project).run(ENTRIES[2:])
    found = results.read(project / "RESULTS.md")
    assert list(found) == ["one", "three"]
    assert found["one"] == old["one"]
    assert found["three"].body.endswith("```text\nother\n```")
    assert found["three"].note == ""


def test_sections_that_another_run_writes_meanwhile_stay(project: pathlib.Path) -> None:
    document = project / "RESULTS.md"
    section = "<!-- entry: one -->\n## one\n\nof another run"
    other = f"import pathlib; pathlib.Path({str(document)!r}).write_text({section!r})"
    (project / "benchmarks" / "other.py").write_text(other)
    runner(project).run(ENTRIES[2:])
    found = results.read(document)
    assert list(found) == ["one", "three"]
    assert found["one"].body == "of another run"


def test_a_failure_keeps_the_section_with_one_note(project: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    (project / "benchmarks" / "other.py").write_text(BAD)
    results.write(project / "RESULTS.md", {"three": results.Section("old three")}, ["three"])
    for _ in range(2):
        found = runner(project).run([ENTRIES[2], ENTRIES[0]])
        assert found == {"three": "failed: ValueError: in benchmarks/other.py", "one": "measured"}
        section = results.read(project / "RESULTS.md")["three"]
        assert section.body == "old three"
        assert re.fullmatch(f"The run of {TODAY} failed: ValueError: in benchmarks/other.py", section.note)
    assert "Traceback" in capsys.readouterr().err


def test_a_first_failure_has_a_section_too(project: pathlib.Path) -> None:
    (project / "benchmarks" / "other.py").write_text("raise SystemExit(3)")
    assert runner(project).run(ENTRIES[2:]) == {"three": "failed: exit status 3"}
    section = results.read(project / "RESULTS.md")["three"]
    assert section.body == "Is three good?"
    assert section.note.endswith("failed: exit status 3")


@pytest.mark.parametrize("data", [True, False])
def test_missing_data_skip_and_keep_the_section(data: bool, project: pathlib.Path) -> None:
    given = runner(project) if data else runner(project, data=None)
    assert given.run(ENTRIES[1:2]) == {"two": "skipped: needs ml_1m"}
    section = results.read(project / "RESULTS.md")["two"]
    assert re.fullmatch(f"The run of {TODAY} was skipped: needs ml_1m", section.note)
    old = {"two": results.Section("old two")}
    results.write(project / "RESULTS.md", old, ["two"])
    assert given.run(ENTRIES[1:2]) == {"two": "skipped: needs ml_1m"}
    assert results.read(project / "RESULTS.md") == old


def test_without_data_a_script_takes_those_of_packages(project: pathlib.Path) -> None:
    runner(project, data=None).run(ENTRIES[:1])
    assert results.read(project / "RESULTS.md")["one"].body.endswith("```text\n--n 9\n```")


def test_quick_arguments_come_last_and_are_mentioned(project: pathlib.Path) -> None:
    runner(project, quick=True).run(ENTRIES[:1])
    body = results.read(project / "RESULTS.md")["one"].body
    assert "Quick arguments: the figures mean nothing." in body
    assert body.endswith("--n 9 --data FOLDER/ml_100k --n 1\n```")


def test_an_interrupt_loses_only_the_running_benchmark(project: pathlib.Path) -> None:
    calls: list[str] = []

    def ensure(environment: Environment, root: pathlib.Path) -> None:
        calls.append(environment.name)
        raise KeyboardInterrupt

    entries = (*ENTRIES[::2], Entry("four", "Is four good?", "good.py", ("{keras-rs}",)))
    results.write(project / "RESULTS.md", {"four": results.Section("old four")}, ["four"])
    with pytest.raises(KeyboardInterrupt):
        runner(project, *entries, ensure=ensure).run(entries)
    found = results.read(project / "RESULTS.md")
    assert list(found) == ["one", "three", "four"]
    assert found["four"].body == "old four"
    assert calls == ["keras-rs"]


def test_peers_are_made_before_and_named(project: pathlib.Path) -> None:
    made: list[tuple[str, pathlib.Path]] = []
    entry = Entry("four", "Is four good?", "good.py", ("--peers", "x={deepctr}", "y={torch-rechub}"))
    given = runner(project, entry, ensure=lambda environment, root: made.append((environment.name, root)))
    assert given.run([entry]) == {"four": "measured"}
    assert made == [("deepctr", project), ("torch-rechub", project)]
    body = results.read(project / "RESULTS.md")["four"].body
    assert "good.py --peers x=.peers/deepctr/bin/python y=.peers/torch-rechub/bin/python\n" in body
    assert "Peer, in a separate environment: deepctr==0.9.4 tensorflow==2.21.0" in body


def test_a_peer_that_cannot_be_installed_skips_its_benchmark_alone(project: pathlib.Path) -> None:
    def ensure(environment: Environment, root: pathlib.Path) -> None:
        raise UnavailableError(f"no wheel in {root}/cache")

    entry = Entry("four", "Is four good?", "good.py", ("{deepctr}",))
    found = runner(project, entry, ENTRIES[2], ensure=ensure).run([entry, ENTRIES[2]])
    assert found == {"four": "skipped: no wheel in cache", "three": "measured"}


def test_scripts_find_the_repositorys_modules(project: pathlib.Path) -> None:
    for folder in run.IMPORTS:
        (project / folder).mkdir(parents=True, exist_ok=True)
        (project / folder / f"in_{folder.replace('/', '_').replace('.', 'root')}.py").touch()
    names = "in_root, in_examples"
    (project / "benchmarks" / "other.py").write_text(f"import {names}")
    assert runner(project).run(ENTRIES[2:]) == {"three": "measured"}


def test_exit_status_and_summary(project: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    document = str(project / "RESULTS.md")
    entries = (Entry("missing", "Is a script that is not there a failure?", "no_such_script.py"), ENTRIES[1])
    assert run.main(["--results", document, "--only", "two"], entries) == 0
    assert run.main(["--results", document], entries) == 1
    printed = capsys.readouterr()
    assert "two: skipped: needs ml_1m\n1 failed; 1 skipped\n" in printed.out
    assert "[2/2] two: skipped" in printed.err
    assert list(results.read(pathlib.Path(document))) == ["missing", "two"]


def test_list_runs_nothing(capsys: pytest.CaptureFixture) -> None:
    assert run.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert "rank_latency: " in printed
    assert "Needs census_income, the peer torch-rechub." in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--only", "nothing"], "there is no nothing"), (["--data", "/no/such/folder"], "is not a folder")],
)
def test_wrong_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run.main(arguments)
    assert message in capsys.readouterr().err


def test_quick_runs_have_a_document_of_their_own() -> None:
    assert run.parsed([], ENTRIES).results == run.FOLDER / "RESULTS.md"
    assert run.parsed(["--quick"], ENTRIES).results == run.FOLDER / "output" / "quick.md"

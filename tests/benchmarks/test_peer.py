from __future__ import annotations

import pathlib
import sys

import pytest
from peer import WORKERS, Peer

WORKER = f"""
import sys
sys.path.insert(0, {str(WORKERS)!r})
import pipe

def answered(commands):
    data = open(sys.argv[sys.argv.index("--data") + 1]).read()
    for command in commands:
        print("noise on the standard output")
        yield {{"data": data, "extra": sys.argv[3:], **command}}

pipe.serve(answered)
"""


@pytest.fixture
def worker(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    return str(path)


def save(path: pathlib.Path) -> None:
    path.write_text("saved")


def test_answers_come_back_in_turn_without_noise(worker: str) -> None:
    with Peer("peer", sys.executable, worker, save, "--peer", "x") as peer:
        for number in range(3):
            answer = peer.ask("count", number=number)
            assert answer == {"data": "saved", "extra": ["--peer", "x"], "do": "count", "number": number}
        process = peer._process
    assert process.returncode == 0
    assert not pathlib.Path(peer._folder.name).exists()


def test_a_worker_that_ends_is_an_error(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ends.py"
    path.write_text("raise SystemExit(1)")
    with Peer("peer", sys.executable, str(path), save) as peer:
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"^peer ended on the command 'train'"):
                peer.ask("train")
            peer._process.wait()


def test_our_import_path_is_not_the_peers(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "ours")
    path = tmp_path / "replies.py"
    path.write_text("import json, os; input(); print(json.dumps({'path': os.environ.get('PYTHONPATH')}))")
    with Peer("peer", sys.executable, str(path), save) as peer:
        assert peer.ask("path") == {"path": None}

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

import environments
import pytest
from environments import Environment, UnavailableError

PEER = Environment("peer", ("peer==1.0", "numpy"))


class FakePip:
    """Creates the files that `venv` creates and records the commands; may fail at a command with a given word."""

    def __init__(self, fails_at: str | None = None) -> None:
        self.fails_at, self.asked = fails_at, [["none"]][:0]

    def __call__(self, command: Sequence[str]) -> None:
        self.asked.append(list(command))
        if self.fails_at in command:
            raise UnavailableError("No matching distribution found for peer==1.0")
        if "venv" in command:
            folder = pathlib.Path(command[-1])
            assert not folder.exists()
            (folder / "bin").mkdir(parents=True)
            (folder / "bin" / "python").touch()


def test_is_made_once_with_the_pinned_versions(tmp_path: pathlib.Path) -> None:
    pip = FakePip()
    python = environments.ensure(PEER, tmp_path, pip)
    assert python == tmp_path / PEER.python
    assert pip.asked == [
        [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / ".peers" / "peer")],
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "peer==1.0", "numpy"],
    ]
    assert environments.ensure(PEER, tmp_path, pip) == python
    assert len(pip.asked) == 2


def test_other_versions_are_made_again(tmp_path: pathlib.Path) -> None:
    pip = FakePip()
    environments.ensure(PEER, tmp_path, pip)
    (tmp_path / ".peers" / "peer" / "left over").touch()
    environments.ensure(Environment("peer", ("peer==1.1",)), tmp_path, pip)
    assert pip.asked[-1][-1] == "peer==1.1"
    assert not (tmp_path / ".peers" / "peer" / "left over").exists()


@pytest.mark.parametrize("lost", ["finished", "bin/python"])
def test_a_half_made_one_is_made_again(lost: str, tmp_path: pathlib.Path) -> None:
    pip = FakePip()
    environments.ensure(PEER, tmp_path, pip)
    (tmp_path / ".peers" / "peer" / lost).unlink()
    environments.ensure(PEER, tmp_path, pip)
    assert len(pip.asked) == 4


@pytest.mark.parametrize("step", ["venv", "pip"])
def test_a_failed_installation_is_reported_and_removed(step: str, tmp_path: pathlib.Path) -> None:
    message = r"^the environment of peer cannot be installed: No matching distribution found for peer==1\.0$"
    with pytest.raises(UnavailableError, match=message):
        environments.ensure(PEER, tmp_path, FakePip(step))
    assert list((tmp_path / ".peers").iterdir()) == []


def test_an_interrupted_one_has_no_stamp(tmp_path: pathlib.Path) -> None:
    pip = FakePip()

    def interrupted(command: Sequence[str]) -> None:
        if "pip" in command:
            raise KeyboardInterrupt
        pip(command)

    with pytest.raises(KeyboardInterrupt):
        environments.ensure(PEER, tmp_path, interrupted)
    assert (tmp_path / PEER.python).exists()
    environments.ensure(PEER, tmp_path, pip)
    assert [("pip" in command) for command in pip.asked] == [False, False, True]


def test_the_reason_of_pip_is_its_last_error() -> None:
    program = "import sys; print('WARNING: w\\nERROR: first\\nERROR: the reason\\nhint', file=sys.stderr); sys.exit(1)"
    with pytest.raises(UnavailableError, match=r"^the reason$"):
        environments.call([sys.executable, "-c", program])
    with pytest.raises(UnavailableError, match=r"^other$"):
        environments.call([sys.executable, "-c", "import sys; sys.exit('other\\n')"])
    with pytest.raises(UnavailableError, match="failed"):
        environments.call([sys.executable, "-c", "raise SystemExit(3)"])


def test_every_peer_is_pinned() -> None:
    for name, environment in environments.ENVIRONMENTS.items():
        assert environment.name == name
        assert environment.requirements[0].split("==")[0] in (name, "torch")
        assert all("==" in text or text == "scikit-learn>=1.5,<2" for text in environment.requirements)

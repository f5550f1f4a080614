"""Runs the benchmarks and writes their output into a document, with one section for each.

    python benchmarks/run.py                                  # all that need only the data of packages
    python benchmarks/run.py --data FOLDER                    # and those on FOLDER/ml_100k, FOLDER/census_income, ...
    python benchmarks/run.py --data FOLDER --only serving evaluation
    python benchmarks/run.py --quick                          # a check of all; writes benchmarks/output/quick.md
    python benchmarks/run.py --list

Each benchmark runs in a separate process. The document is written after each, and other sections stay unchanged: a
benchmark that fails or cannot run keeps its last good figures. The environments of peers are created in `.peers/` when
a benchmark first needs them. The exit status is 1 if a benchmark has failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import environments
import machine
import registry
import results

FOLDER = pathlib.Path(__file__).resolve().parent
ROOT = FOLDER.parent
IMPORTS = (".", "examples")
"""The folders of the repository from which scripts import: the package, and the models of the examples."""


class FailedError(Exception):
    """A script failed; the text is the last line of its error output."""


@dataclasses.dataclass(frozen=True)
class Runner:
    """Runs benchmarks and keeps the document of their results.

    Args:
        entries: all entries of the registry, in the order of the document.
        document: path of the results.
        data: folder that holds the folders of data.
        quick: whether to use the quick arguments.
        scripts: folder of the scripts.
        root: root of the repository, where the commands run.
        ensure: returns the interpreter of a peer, or raises `UnavailableError`.
    """

    entries: Sequence[registry.Entry]
    document: pathlib.Path
    data: pathlib.Path | None = None
    quick: bool = False
    scripts: pathlib.Path = FOLDER
    root: pathlib.Path = ROOT
    ensure: Callable[[environments.Environment, pathlib.Path], object] = environments.ensure

    def run(self, chosen: Sequence[registry.Entry]) -> dict[str, str]:
        """Run some of the entries, write the document after each, and return their outcomes by name."""
        found: dict[str, str] = {}
        for number, entry in enumerate(chosen, start=1):
            _say(f"[{number}/{len(chosen)}] {entry.name} ...")
            start = time.perf_counter()
            found[entry.name] = outcome = self.outcome(entry)
            _say(f"[{number}/{len(chosen)}] {entry.name}: {outcome} ({time.perf_counter() - start:.0f} s)")
        return found

    def outcome(self, entry: registry.Entry) -> str:
        """Run one entry, write its section, and return its outcome."""
        today = datetime.date.today().isoformat()
        body, outcome, note = None, "measured", ""
        try:
            body = self.measured(entry, today)
        except environments.UnavailableError as error:
            outcome = f"skipped: {self.hidden(str(error))}"
            note = f"The run of {today} was {outcome}"
        except FailedError as error:
            outcome = f"failed: {self.hidden(str(error))}"
            note = f"The run of {today} {outcome}"
        sections = results.read(self.document)  # read it only now: another run may have written other sections
        before = sections.get(entry.name)
        if body is not None:
            sections[entry.name] = results.Section(body)
        elif before is None or outcome.startswith("failed"):  # a skipped benchmark keeps its figures without a note
            kept = before or results.Section(entry.question)
            sections[entry.name] = dataclasses.replace(kept, note=note)
        results.write(self.document, sections, [each.name for each in self.entries])
        return outcome

    def measured(self, entry: registry.Entry, today: str) -> str:
        """Run the script of an entry and return the body of its section."""
        places = registry.places(self.data, self.root)
        missing = [name for name in entry.needs(quick=self.quick) if name not in places]
        if missing:
            raise environments.UnavailableError(f"needs {', '.join(missing)}")
        for name in entry.peers:
            self.ensure(environments.ENVIRONMENTS[name], self.root)
        hardware, versions = machine.hardware(), machine.versions(self.root)
        start = time.perf_counter()
        printed = self.printed(entry, places)
        seconds = time.perf_counter() - start
        peers = [" ".join(environments.ENVIRONMENTS[name].requirements) for name in entry.peers]
        facts = [
            f"{today}, {seconds:.0f} s; {hardware}.",
            f"{versions}.",
            *(f"Peer, in a separate environment: {peer}." for peer in peers),
        ]
        quick = ["Quick arguments: the figures mean nothing."] if self.quick else []
        command = f"```sh\n{self.shown(entry, places)}\n```"
        blocks = [entry.question, *quick, command, "\n".join(facts), results.markdown(self.hidden(printed))]
        return "\n\n".join(blocks)

    def printed(self, entry: registry.Entry, places: Mapping[str, str]) -> str:
        """Return the output of the script of an entry.

        Raises:
            FailedError: if its exit status is not 0.
        """
        command = [sys.executable, str(self.scripts / entry.script), *entry.command(places, quick=self.quick)]
        paths = os.pathsep.join(str(self.root / path) for path in IMPORTS)
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": paths}
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
            process = subprocess.run(
                command, cwd=self.root, env=quiet, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL,
                text=True, check=False,
            )  # fmt: skip
            if process.returncode == 0:
                return process.stdout
            errors.seek(0)
            lines = [line.rstrip() for line in errors.read().splitlines() if line.strip()]
        _say("\n".join(lines[-20:]))
        raise FailedError(lines[-1].strip() if lines else f"exit status {process.returncode}")

    def shown(self, entry: registry.Entry, places: Mapping[str, str]) -> str:
        """Return the command to type at the root of the repository."""
        script = f"{self.scripts.name}/{entry.script}"
        command = shlex.join(["python", script, *entry.command(places, quick=self.quick)])
        return f"PYTHONPATH={os.pathsep.join(IMPORTS)} {self.hidden(command)}"

    def hidden(self, text: str) -> str:
        """Return the text without the paths of this machine."""
        names = {str(self.root): "", sys.executable: "python", sys.prefix: "PYTHON", sys.base_prefix: "PYTHON"}
        names |= {tempfile.gettempdir(): "TMP", str(pathlib.Path.home()): "HOME"}
        return results.hidden(text, names | ({str(self.data): "FOLDER"} if self.data else {}))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str] | None, entries: Sequence[registry.Entry]) -> argparse.Namespace:
    """Parse the arguments; `only` of the result holds the chosen entries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, metavar="FOLDER", help=f"holds {', '.join(registry.DATA)}")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="benchmarks to run; default: all")
    parser.add_argument("--quick", action="store_true", help="smallest arguments, as a check that all run")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and their needs")
    parser.add_argument("--results", type=pathlib.Path, metavar="FILE", help="default: benchmarks/RESULTS.md")
    options = parser.parse_args(arguments)
    known = {entry.name: entry for entry in entries}
    unknown = sorted(set(options.only or ()) - set(known))
    if unknown:
        parser.error(f"--only: there is no {', '.join(unknown)}; `--list` prints the names")
    if options.data and not options.data.is_dir():
        parser.error(f"--data: {options.data} is not a folder")
    options.data = options.data and options.data.resolve()
    options.results = options.results or FOLDER / ("output/quick.md" if options.quick else "RESULTS.md")
    options.only = [entry for entry in entries if not options.only or entry.name in options.only]
    return options


def main(arguments: Sequence[str] | None = None, entries: Sequence[registry.Entry] = registry.ENTRIES) -> int:
    """Run the benchmarks that the arguments name, and return the exit status."""
    options = parsed(arguments, entries)
    if options.list:
        for entry in options.only:
            needs = [*entry.needs(), *(f"the peer {name}" for name in entry.peers)]
            print(f"{entry.name}: {entry.question}" + (f" Needs {', '.join(needs)}." if needs else ""))
        return 0
    found = Runner(entries, options.results, options.data, options.quick).run(options.only)
    for name, outcome in found.items():
        print(f"{name}: {outcome}")
    kinds = Counter(outcome.partition(":")[0] for outcome in found.values())
    print("; ".join(f"{count} {kind}" for kind, count in kinds.items()))
    return 1 if kinds["failed"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # the document holds all finished measurements

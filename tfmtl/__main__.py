"""`python -m tfmtl`: `doctor` checks the installation, `new` writes a script, the others read and measure models."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from tfmtl import _doctor


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: the command line after `python -m tfmtl`; `sys.argv` by default.
    """
    parser = argparse.ArgumentParser(prog="python -m tfmtl", description="Multi-task recommenders for TensorFlow.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "doctor", help="print versions, devices and known-bad combinations; exit code 1 if there is any"
    )
    new = commands.add_parser("new", help="write a commented script for a first model on a table")
    new.add_argument("path", type=pathlib.Path, help="the script, such as first.py; it must not exist")
    new.add_argument("--data", type=pathlib.Path, required=True, help="Parquet or CSV file, a row per interaction")
    new.add_argument("--user", help="column of the id of users; guessed by default")
    new.add_argument("--item", help="column of the id of items; guessed by default")
    new.add_argument("--time", help="column of times; guessed by default")
    new.add_argument("--labels", nargs="+", help="columns of feedback: 0 and 1, or numbers; guessed by default")
    inspect = commands.add_parser("inspect", help="print the model card and the signatures of an exported model")
    inspect.add_argument("path", type=pathlib.Path, help="folder of a version, or of a model for its newest version")
    inspect.add_argument("--json", action="store_true", help="print the whole manifest as JSON")
    bench = commands.add_parser("bench", help="measure load time, latency and throughput of an exported model")
    bench.add_argument("path", type=pathlib.Path, help="as for inspect")
    bench.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64], help="batch sizes")
    bench.add_argument("--repeats", type=int, default=100, help="calls measured per signature and batch size")
    report = commands.add_parser("report", help="write a report of a saved model as one HTML file")
    report.add_argument("model", type=pathlib.Path, help="folder from `tfmtl.models.save_model`")
    report.add_argument("test", type=pathlib.Path, help="Parquet or CSV file of rows that did not train the model")
    report.add_argument("path", type=pathlib.Path, help="the HTML file")
    report.add_argument("--train", type=pathlib.Path, help="file of the training rows: baselines, parts by activity")
    report.add_argument("--hide-seen", action="store_true", help="leave the training rows of a user out of its lists")
    report.add_argument("--slices", nargs="*", default=[], help="columns by which ranking tasks are measured")
    chosen = parser.parse_args(arguments)
    if chosen.command == "doctor":  # before anything else of the package is imported
        return _doctor.report(sys.stdout)
    from tfmtl import _inspect

    try:
        if chosen.command == "new":
            from tfmtl import _starter

            return _starter.new(chosen, sys.stdout)
        if chosen.command == "report":
            return _inspect.report(chosen, sys.stdout)
        if chosen.command == "inspect":
            return _inspect.inspect(chosen.path, sys.stdout, chosen.json)
        return _inspect.bench(chosen.path, sys.stdout, chosen.rows, chosen.repeats)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the user of the command line
        return 2


if __name__ == "__main__":
    sys.exit(main())

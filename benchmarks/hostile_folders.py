"""Hostile model folders and cards: does one of them run code, write a file or end in a traceback?

    python benchmarks/hostile_folders.py [--folders 200] [--cards 200]

Each folder is a saved model with one object of an attacker at a random position; each card is that of an export with
one change. The objects try to write a file and to import a module that writes it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import itertools
import pathlib
import random
import re
import sys
import tempfile
import time

from servers import hostile_cards, hostile_folders
from servers.models import MAX_K, build

from tfmtl.__main__ import main as tfmtl_command
from tfmtl.models import load_model, save_model
from tfmtl.serving import export
from tfmtl.serving.versions import MANIFEST, read_manifest


def main() -> None:
    """Parse the arguments, attack and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", type=int, default=200)
    parser.add_argument("--cards", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        start = time.perf_counter()
        print(f"{load(folder, arguments.folders)}, {time.perf_counter() - start:.0f} s", flush=True)
        start = time.perf_counter()
        print(f"{inspect(folder, arguments.cards)}, {time.perf_counter() - start:.0f} s", flush=True)


def load(folder: pathlib.Path, count: int) -> str:
    """Load hostile model folders and return the counts of their outcomes."""
    model, _ = build()
    model.compile("adam")
    saved, sentinel = save_model(model, folder / "saved"), folder / "sentinel"
    hostile_folders.write_modules(folder / "modules", sentinel)
    sys.path.insert(0, str(folder / "modules"))
    counts: collections.Counter[str] = collections.Counter()
    for hostile in itertools.islice(hostile_folders.folders(saved, folder / "hostile", sentinel), count):
        try:
            load_model(hostile)
            counts["loaded"] += 1
        except ValueError as error:
            named = re.match(rf"{re.escape(str(hostile / 'model.json'))} (names|holds) .* at .*; [^\n]*$", str(error))
            counts["refused with the file's name" if named else "refused in another form"] += 1
        except Exception as error:  # noqa: BLE001 - it is counted
            counts[f"ended in {type(error).__name__}"] += 1
        imported = any(name in sys.modules for name in hostile_folders.MODULES)
        counts["with a written file or an imported module"] += sentinel.exists() or imported
    return _line("hostile model folders", count, counts)


def inspect(folder: pathlib.Path, count: int) -> str:
    """Inspect hostile cards and return the counts of their outcomes."""
    version = export(build()[0], folder / "model", max_k=MAX_K)
    files = list(hostile_cards.files(read_manifest(version)))
    counts: collections.Counter[str] = collections.Counter()
    for _, data in random.Random(0).sample(files, min(count, len(files))):
        (version / MANIFEST).write_bytes(data)
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = tfmtl_command(["inspect", str(version)])
        except Exception as error:  # noqa: BLE001 - it is counted
            counts[f"ended in {type(error).__name__}"] += 1
            continue
        named = err.getvalue().startswith(f"{version / MANIFEST} ") and err.getvalue().count("\n") == 1
        plain = hostile_cards.is_plain(out.getvalue() + err.getvalue())
        kind = "printed as plain text" if status == 0 else "refused with the file's name" if named else "another error"
        counts[kind if plain else "printed with control characters or markup"] += 1
    return _line("hostile cards", min(count, len(files)), counts)


def _line(what: str, count: int, counts: collections.Counter[str]) -> str:
    return f"{count:,} {what}: " + ", ".join(f"{number:,} {kind}" for kind, number in counts.items())


if __name__ == "__main__":
    main()

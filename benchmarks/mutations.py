"""Do the tests of a package notice a changed constant, operator or sign? Changes one at a time and runs the tests.

    python benchmarks/mutations.py                                  # 100 mutants of all packages
    python benchmarks/mutations.py --sample 40 --packages balancing data --tree ../older
    python benchmarks/mutations.py --module balancing/upgrad        # every mutant of one module

A mutant is killed when a test of its module's name, a doctest of the module or a test of its package fails or takes too
long. A copy of the project is changed, never the project. Each mutant is tested in a fork of a process that has
TensorFlow imported already. Mutants that no test can notice are listed in `equivalent_mutants.txt`.
"""

from __future__ import annotations

import argparse
import ast
import copy
import dataclasses
import importlib
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
EQUIVALENT = pathlib.Path(__file__).with_name("equivalent_mutants.txt")
OPPOSITE: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.GtE, ast.GtE: ast.Lt,
    ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
HEAVY = ("tensorflow", "tf_keras", "tensorflow_recommenders", "pandas", "pytest")
_BROKEN = 70  # pytest itself ended with an exception
NOT_COPIED = (".venv", ".peers", ".git", "output", "__pycache__", ".*_cache")


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A changed module: its path below `tfmtl`, the line, the change and the source."""

    path: str
    line: int
    change: str
    source: str = dataclasses.field(repr=False)

    @property
    def key(self) -> str:
        """The mutant without its line, which other changes of the file move."""
        return f"{self.path}: {self.change}"


def mutants(source: str, path: str = "") -> Iterator[Mutant]:
    """Yield each mutant of a module; docstrings, annotations and error messages stay as they are."""
    tree = ast.parse(source)
    for position, site in enumerate(_sites(tree)):
        changed = copy.deepcopy(tree)
        node = list(_sites(changed))[position]
        _change(node)
        shown = f"{ast.unparse(site)}  ->  {ast.unparse(node)}"
        yield Mutant(path, site.lineno, " ".join(shown.split()), ast.unparse(changed))  # type: ignore[attr-defined]


def _sites(node: ast.AST) -> Iterator[ast.AST]:
    if _is_left_alone(node):
        return
    operators = [node.op] if isinstance(node, ast.BinOp | ast.BoolOp) else getattr(node, "ops", [])
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    if negative or (operators and type(operators[0]) in OPPOSITE):
        yield node
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST):
                yield from _sites(part)


def _is_left_alone(node: ast.AST) -> bool:
    """Return whether a node is an error, its message, or an import for type checkers."""
    checks = getattr(getattr(node, "func", None), "id", "") in ("require", "require_known")
    typing = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    return checks or typing or isinstance(node, ast.Raise | ast.JoinedStr)


def _change(node: ast.AST) -> None:
    if isinstance(node, ast.BinOp | ast.BoolOp):
        node.op = OPPOSITE[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.Compare):
        node.ops[0] = OPPOSITE[type(node.ops[0])]()  # type: ignore[call-overload]
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd()
    elif isinstance(node, ast.Constant):
        node.value = _other(node.value)


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else 2 * value or 1.0


def collect(tree: pathlib.Path, packages: Iterable[str] = (), module: str = "") -> list[Mutant]:
    """Return all mutants of some packages, of one module, or of the whole library."""
    found: list[Mutant] = []
    wanted = set(packages)
    for path in sorted((tree / "tfmtl").rglob("*.py")):
        name = path.relative_to(tree / "tfmtl").as_posix()
        if path.name == "__init__.py" or (wanted and name.split("/")[0] not in wanted):
            continue
        if not module or name.removesuffix(".py") == module.removesuffix(".py"):
            found += mutants(path.read_text(encoding="utf-8"), name)
    return found


def known_equivalent(file: pathlib.Path = EQUIVALENT) -> set[str]:
    """Return the keys of a list of equivalent mutants; a reason follows each after ` # `."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {line.partition(" # ")[0].strip() for line in lines if line.strip() and not line.startswith("#")}


def tests_of(path: str, tree: pathlib.Path) -> list[list[str]]:
    """Return the arguments of pytest, the nearest tests first: of the module's name, its doctests, its folder."""
    module = pathlib.PurePosixPath(path)
    folder = tree / "tests" / module.parent
    while not any(folder.rglob("test_*.py")):
        folder = folder.parent
    files = sorted(folder.glob("test_*.py") if folder == tree / "tests" else folder.rglob("test_*.py"))
    wanted = f"test_{module.stem.strip('_')}"
    named = [str(file.relative_to(tree)) for file in files if file.stem.startswith(wanted)]
    others = [] if named and folder == tree / "tests" else files  # the rest of `tests` is about other modules
    rest = [str(file.relative_to(tree)) for file in others if not file.stem.startswith(wanted)]
    return [group for group in ([*named, f"tfmtl/{path}"], rest) if group]


def survives(tree: pathlib.Path, mutant: Mutant, timeout: float) -> bool:
    """Return whether all tests pass on a mutant, in a fork of this process."""
    path = tree / "tfmtl" / mutant.path
    before = path.read_text(encoding="utf-8")
    path.write_text(mutant.source, encoding="utf-8")
    try:
        child = os.fork()
        if child == 0:
            _run_tests(tree, mutant.path)
        code = _waits(child, timeout)
    finally:
        path.write_text(before, encoding="utf-8")
    if code in (_BROKEN, 3, 4, 5):
        raise RuntimeError(f"pytest did not run the tests of {mutant.path}: exit code {code}.")
    return code == 0


def _run_tests(tree: pathlib.Path, path: str) -> None:
    """Run the tests and leave the process with 0 if all pass; without a return."""
    os.setsid()
    code = _BROKEN
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        os.environ["PYTHONPATH"] = str(tree)
        pytest = importlib.import_module("pytest")
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
        # All in one session: the process can import the mutant once only, and -x stops at the first failure.
        code = int(pytest.main([*options, *(file for group in tests_of(path, tree) for file in group)]))
    finally:
        os._exit(code)


def _waits(child: int, timeout: float) -> int:
    """Return the exit code of a child; -1 where it took too long, and its own children end with it."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


def report(rows: list[tuple[Mutant, bool]]) -> str:
    """Return the table of mutants and the score, in Markdown."""
    lines = ["| file | line | change | |", "| --- | --- | --- | --- |"]
    for mutant, alive in rows:
        change = mutant.change.replace("|", "\\|")
        lines.append(f"| {mutant.path} | {mutant.line} | `{change}` | {'survived' if alive else 'killed'} |")
    killed = sum(not alive for _, alive in rows)
    return "\n".join([*lines, "", f"{killed} of {len(rows)} mutants killed ({killed / max(len(rows), 1):.0%})."])


def main() -> None:
    """Draw mutants, test each, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=100, help="how many mutants to test")
    parser.add_argument("--seed", type=int, default=0, help="which mutants are drawn")
    parser.add_argument("--packages", nargs="*", default=[], help="packages and modules of tfmtl; all by default")
    parser.add_argument("--module", default="", help="every mutant of one module, such as balancing/upgrad")
    parser.add_argument("--tree", type=pathlib.Path, default=ROOT, help="the project to copy and to change")
    parser.add_argument("--equivalent", type=pathlib.Path, default=EQUIVALENT, help="mutants that no test can notice")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds until a mutant counts as killed")
    given = parser.parse_args()
    known = known_equivalent(given.equivalent)
    drawn = [m for m in collect(given.tree, given.packages, given.module) if m.key not in known]
    if not given.module:
        drawn = random.Random(given.seed).sample(drawn, min(given.sample, len(drawn)))
    os.environ.update(TF_USE_LEGACY_KERAS="1", TF_CPP_MIN_LOG_LEVEL="3")
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    sys.dont_write_bytecode = True
    for name in HEAVY:
        importlib.import_module(name)
    rows: list[tuple[Mutant, bool]] = []
    passed: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        copied = pathlib.Path(folder) / "project"
        shutil.copytree(given.tree, copied, ignore=shutil.ignore_patterns(*NOT_COPIED))
        for mutant in drawn:
            if mutant.path not in passed:  # else every mutant would count as killed
                source = (copied / "tfmtl" / mutant.path).read_text(encoding="utf-8")
                if not survives(copied, Mutant(mutant.path, 0, "", source), given.timeout):
                    raise RuntimeError(f"the tests of {mutant.path} fail without any change.")
                passed.add(mutant.path)
            rows.append((mutant, survives(copied, mutant, given.timeout)))
            print(
                f"{'survived' if rows[-1][1] else 'killed'}: {mutant.path}:{mutant.line}: {mutant.change}", flush=True
            )
    print(report(rows))


if __name__ == "__main__":
    main()

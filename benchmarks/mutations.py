"""Do the tests notice a changed constant, operator or sign? Changes one at a time and runs the tests.

    python benchmarks/mutations.py                                  # 100 mutants of all packages
    python benchmarks/mutations.py --sample 40 --packages balancing data --tree ../older
    python benchmarks/mutations.py --module balancing/upgrad        # every mutant of one module

A mutant is killed when a test that passes without the change fails or takes too long. The tests of a mutant are those
of its module's name, the doctests of the module, tests that import it, all others of its package, the golden files of
`tests/api`, and the tests of its classes in `tests/conformance`. A copy of the project is changed, never the project.
Each mutant is tested in a fork of a process that has TensorFlow imported already. Mutants that no test can notice are
listed in `equivalent_mutants.txt`.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import os
import pathlib
import random
import re
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
HEAVY = (
    "tensorflow", "tf_keras", "tensorflow_recommenders", "tensorflow_model_optimization", "keras_tuner", "pandas",
    "pyarrow.parquet", "scipy.optimize", "matplotlib.pyplot", "pytest",
)  # fmt: skip
_BROKEN = 70  # pytest itself ended with an exception
_NOT_LOADED = 4  # of pytest where a `conftest.py` or an argument cannot be read
_NO_TESTS = 5  # the exit code of pytest where no test is selected
_COLLECTION = "import"  # instead of a test, where the tests of a mutant cannot be imported
NOT_COPIED = (".venv", ".peers", ".git", "output", "__pycache__", ".*_cache")


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A change of a module: its path below `tfmtl`, the line, the change, and its number among those of the module."""

    path: str
    line: int
    change: str
    number: int = 0

    @property
    def key(self) -> str:
        """The mutant without its line number, which other changes of the file move."""
        return f"{self.path}: {self.change}"

    def apply(self, source: str) -> str:
        """Return the changed source."""
        tree = ast.parse(source)
        site, _ = list(_sites(tree))[self.number]
        _change(site)
        return ast.unparse(tree)


def mutants(source: str, path: str = "") -> Iterator[Mutant]:
    """Yield each mutant of a module; docstrings, annotations and error messages stay as they are."""
    for number, (site, shown) in enumerate(_sites(ast.parse(source))):
        before, unchanged = ast.unparse(shown), dict(vars(site))
        _change(site)
        change = " ".join(f"{before}  ->  {ast.unparse(shown)}".split())
        vars(site).update(unchanged)
        yield Mutant(path, site.lineno, change, number)  # type: ignore[attr-defined]


def _sites(node: ast.AST, parent: ast.AST | None = None) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield each part to change, and the expression to show for it; for a number, the expression around it."""
    if _is_left_alone(node):
        return
    operators = [node.op] if isinstance(node, ast.BinOp | ast.BoolOp) else getattr(node, "ops", [])
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    if negative or (operators and type(operators[0]) in OPPOSITE):
        yield node, node
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        yield node, parent if isinstance(parent, ast.expr | ast.keyword | ast.Assign | ast.AnnAssign) else node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST):
                yield from _sites(part, node)


def _is_left_alone(node: ast.AST) -> bool:
    """Return whether a node is an error, its message, or an import for type checkers."""
    checks = getattr(getattr(node, "func", None), "id", "") in ("require", "require_known")
    typing = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    return checks or typing or isinstance(node, ast.Raise | ast.JoinedStr)


def _change(node: ast.AST) -> None:
    if isinstance(node, ast.BinOp | ast.BoolOp):
        node.op = OPPOSITE[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.Compare):
        node.ops = [OPPOSITE[type(node.ops[0])](), *node.ops[1:]]  # type: ignore[list-item]
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
    """Return the keys of a list of equivalent mutants, without the reasons after ` # `."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {line.partition(" # ")[0].strip() for line in lines if line.strip() and not line.startswith("#")}


def nearest_tests(path: str, tree: pathlib.Path, *, near: bool = False) -> list[str]:
    """Return the test files of a module, the nearest first, so that a mutant that a test notices ends early.

    `near` leaves out tests of the package that do not mention the module.
    """
    module = pathlib.PurePosixPath(path)
    folder = tree / "tests" / module.parent
    while not any(folder.rglob("test_*.py")):
        folder = folder.parent
    everywhere = {file: file.read_text(encoding="utf-8") for file in sorted((tree / "tests").rglob("test_*.py"))}
    own = [file for file in everywhere if folder in file.parents and folder != tree / "tests"]
    dotted = re.compile(rf"\b{re.escape('.'.join(['tfmtl', *module.with_suffix('').parts]))}\b")
    names = re.compile(rf"\b({'|'.join(_defined(tree / 'tfmtl' / path)) or '(?!)'})\b")
    start = f"test_{module.stem.strip('_')}"
    ranked = [
        *(file for file in everywhere if file.stem.startswith(start) and folder in file.parents),
        tree / "tfmtl" / path,
        *(file for file, text in everywhere.items() if dotted.search(text)),
        *(file for file in own if names.search(everywhere[file])),
        *(file for file in everywhere if tree / "tests" / "api" in file.parents),
        *([] if near else own),
    ]
    return [file.relative_to(tree).as_posix() for file in dict.fromkeys(ranked)]


def _defined(path: pathlib.Path, kinds: tuple[type[ast.AST], ...] = (ast.ClassDef, ast.FunctionDef)) -> list[str]:
    """Return the names of a module's classes and functions."""
    body = ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else []
    return [node.name for node in body if isinstance(node, kinds)]  # type: ignore[attr-defined]


@dataclasses.dataclass
class Trial:
    """Runs tests in a changed copy of the project.

    Attributes:
        tree: the copy.
        timeout: seconds until a single test counts as failed.
        near: whether to leave out conformance and the tests of the package that do not mention the module.
        passed: tests that pass without any change.
        broken: tests that fail without any change; they are left out.
    """

    tree: pathlib.Path
    timeout: float
    near: bool = False
    passed: set[str] = dataclasses.field(default_factory=set)
    broken: list[str] = dataclasses.field(default_factory=list)

    def killer(self, mutant: Mutant) -> str | None:
        """Return the test that fails on a mutant and passes without it; None if the mutant survives."""
        tests = nearest_tests(mutant.path, self.tree, near=self.near)
        path = self.tree / "tfmtl" / mutant.path
        conforms = not self.near and (self.tree / "tests" / "conformance").exists()
        classes = _defined(path, (ast.ClassDef,)) if conforms else []
        before = path.read_text(encoding="utf-8")
        while True:
            path.write_text(mutant.apply(before), encoding="utf-8")
            try:
                failed = self._first_failure(tests, " or ".join(classes))
            finally:
                path.write_text(before, encoding="utf-8")
            if failed is None or self._passes(failed, tests):
                return failed
            if failed == _COLLECTION:
                raise RuntimeError(f"the tests of {mutant.path} cannot be collected without any change.")
            self.broken.append(failed)

    def _passes(self, test: str, tests: list[str]) -> bool:
        """Return whether a test passes in the copy as it is now."""
        key = f"{test} {tests[0]}" if test == _COLLECTION else test
        if key not in self.passed:
            given = ["--collect-only", *tests] if test == _COLLECTION else [test]
            if self._first_failure(given) is None:
                self.passed.add(key)
        return key in self.passed

    def _first_failure(self, tests: list[str], classes: str = "") -> str | None:
        """Return the first of some tests that fails, and, if classes are given, of the conformance of these classes."""
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as note:
            child = os.fork()
            if child == 0:
                left_out = [f"--deselect={test}" for test in self.broken]
                _run_tests(self.tree, pathlib.Path(note.name), [*left_out, *tests], classes)
            code = _waits(child, pathlib.Path(note.name), self.timeout)
            running = note.read()
        if code == _NOT_LOADED:  # the mutant breaks an import of a `conftest.py`
            return _COLLECTION
        if code in (_BROKEN, 3):
            raise RuntimeError(f"pytest did not run {tests}: exit code {code}.")
        return None if code in (0, _NO_TESTS) else running or _COLLECTION


class _Note:
    """A plugin of pytest that writes the test that runs into a file."""

    def __init__(self, file: pathlib.Path) -> None:
        self._file = file

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._file.write_text(nodeid, encoding="utf-8")


def _run_tests(tree: pathlib.Path, note: pathlib.Path, tests: list[str], classes: str) -> None:
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
        # All in one process, which can import the mutant once only; -x stops at the first failure.
        code = int(pytest.main([*options, *tests], plugins=[_Note(note)]))
        if code in (0, _NO_TESTS) and classes:
            note.write_text("", encoding="utf-8")
            code = int(pytest.main([*options, "-k", classes, "tests/conformance"], plugins=[_Note(note)]))
    finally:
        os._exit(code)


def _waits(child: int, note: pathlib.Path, timeout: float) -> int:
    """Return the exit code of a child; -1 where one test took too long, and its own children end with it."""
    while time.time() < note.stat().st_mtime + timeout:
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
    parser.add_argument("--sample", type=int, default=100, help="number of mutants to test")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw of mutants")
    parser.add_argument("--packages", nargs="*", default=[], help="packages and modules of tfmtl; all by default")
    parser.add_argument("--module", default="", help="every mutant of one module, such as balancing/upgrad")
    parser.add_argument("--tree", type=pathlib.Path, default=ROOT, help="the project to copy and to change")
    parser.add_argument("--equivalent", type=pathlib.Path, default=EQUIVALENT, help="mutants that no test can notice")
    parser.add_argument("--near", action="store_true", help="leave out tests that do not mention the mutant's module")
    parser.add_argument("--skip", type=int, default=0, help="first mutants of the sample to leave out, tested before")
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds until a test counts as failed")
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
    with tempfile.TemporaryDirectory() as folder:
        copied = pathlib.Path(folder) / "project"
        shutil.copytree(given.tree, copied, ignore=shutil.ignore_patterns(*NOT_COPIED))
        trial = Trial(copied, given.timeout, given.near)
        for mutant in drawn[given.skip :]:
            print(f"{mutant.path}:{mutant.line}: {mutant.change}: ", end="", flush=True)
            test = trial.killer(mutant)
            rows.append((mutant, test is None))
            print("survived" if test is None else f"killed by {test}", flush=True)
        for test in trial.broken:
            print(f"left out, because it fails without any change: {test}")
    print(report(rows))


if __name__ == "__main__":
    main()

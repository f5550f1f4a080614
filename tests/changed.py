"""The tests of the changes since `main`: `make check` gives them to pytest.

    python tests/changed.py            # of all changes since the branch left main, uncommitted ones included
    python tests/changed.py HEAD~1     # since another commit

A changed module is tested by the tests of its name, or by the tests of its folder if there are none, and by its
doctests; a changed helper of tests by the tests that import it. The public names, which cover every `__init__.py`, and
the rules of the house are always checked.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Iterable, Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
ALWAYS = ("tests/api", "tests/test_house_rules.py")


def choose(changed: Iterable[str], root: pathlib.Path) -> list[str]:
    """Return the arguments of pytest for changed files.

    Args:
        changed: paths relative to `root`, with `/`; a deleted file is tested by the tests of its former folder.
        root: the project.

    Returns:
        Paths of test files, folders of tests and modules with doctests, sorted, each once.
    """
    chosen = {*ALWAYS}
    for name in changed:
        chosen |= {path for path in _tests_of_one(pathlib.PurePosixPath(name), root) if (root / path).exists()}
    folders = [path for path in chosen if (root / path).is_dir()]
    return sorted(path for path in chosen if not any(path.startswith(f"{folder}/") for folder in folders))


def _tests_of_one(path: pathlib.PurePosixPath, root: pathlib.Path) -> Iterator[str]:
    top, inner = path.parts[0], path.parts[1:-1]
    if path.name in ("Makefile", "setup.cfg", "pyproject.toml"):
        yield "tests/test_package.py"
    elif path.name == "README.md" and not inner and top == "README.md":
        yield "tests/test_readme.py"
    elif path.suffix != ".py":
        return
    elif top == "tfmtl":
        yield str(path)
        yield from _of_its_name(pathlib.PurePosixPath("tests", *inner), path.stem, root)
    elif top == "tests" and path.name.startswith("test_"):
        yield str(path)
    elif top == "tests":
        yield from _of_a_helper(path, root)
    else:  # benchmarks and examples
        yield from _of_its_name(pathlib.PurePosixPath("tests", top), path.stem, root)


def _of_its_name(folder: pathlib.PurePosixPath, stem: str, root: pathlib.Path) -> Iterator[str]:
    """Yield the test files of a module's name; those of its folder if there are none."""
    wanted = stem.strip("_")
    if stem == "__init__":
        return
    while not any((root / folder).glob("test_*.py")):
        folder = folder.parent
    named = sorted((root / folder).glob(f"test_{wanted}*.py"))
    for file in named or sorted((root / folder).glob("test_*.py")):
        yield file.relative_to(root).as_posix()


def _of_a_helper(path: pathlib.PurePosixPath, root: pathlib.Path) -> Iterator[str]:
    """Yield the test files of a changed helper: those that name it, and all of the folder of a `conftest.py`."""
    package, folder = ".".join(path.parent.parts), root / path.parent
    for file in sorted((root / "tests").rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        imported = f"{package}.{path.stem}" in text or (f"from {package} import" in text and path.stem in text)
        if imported or (path.stem == "conftest" and file.parent == folder):
            yield file.relative_to(root).as_posix()


def changed_files(since: str = "main") -> list[str]:
    """Return the files that differ from the commit where this branch left another, and files that git does not hold."""
    git = ["git", "-C", str(ROOT)]
    known = subprocess.run([*git, "rev-parse", "--verify", "--quiet", since], capture_output=True, check=False)
    base = ["merge-base", since, "HEAD"] if known.returncode == 0 else ["rev-parse", "HEAD"]
    start = subprocess.run([*git, *base], capture_output=True, check=True, text=True).stdout.strip()
    listed = [["diff", "--name-only", start], ["ls-files", "--others", "--exclude-standard"]]
    found = [subprocess.run([*git, *each], capture_output=True, check=True, text=True).stdout for each in listed]
    return sorted({line for text in found for line in text.splitlines()})


if __name__ == "__main__":
    sys.stdout.write("\n".join(choose(changed_files(*sys.argv[1:2]), ROOT)) + "\n")

"""Do the tests of the balancing methods notice a changed sign or factor? Changes one at a time and runs the tests.

    python benchmarks/mutations.py                    # PCGrad, DWA, GradNorm, MetaBalance and STCH
    python benchmarks/mutations.py upgrad stch        # files of tfmtl/balancing

Of a method's file every sum, difference, product, quotient, minus sign and comparison outside constructors, checks and
`get_config` is exchanged for its opposite, and every number for twice itself (0 for 1). A copy of the project is
changed, never the project.
"""

from __future__ import annotations

import ast
import copy
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEFAULT = ("pcgrad", "dwa", "gradnorm", "metabalance", "stch")
OPPOSITE: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.Gt, ast.Gt: ast.Lt,
    ast.LtE: ast.Gt, ast.GtE: ast.Lt,
}  # fmt: skip
TOGETHER = {
    "loss_weighting": ("dwa", "equal", "famo", "gls", "imtl_l", "rlw", "schedules", "stch"),
    "gradient_balancers": ("db_mtl", "excess_mtl", "graddrop", "metabalance", "moco"),
}
"""What is tested of several methods at once."""
SKIPPED = ("__init__", "get_config", "search_space", "compute_output_shape")


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, what was done and the changed source of each mutant."""
    tree = ast.parse(source)
    for place, _ in enumerate(_sites(tree)):
        changed = copy.deepcopy(tree)
        node = list(_sites(changed))[place]
        before = ast.unparse(node)
        _change(node)
        yield node.lineno, f"{before}  ->  {ast.unparse(node)}", ast.unparse(changed)  # type: ignore[attr-defined]


def _sites(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef) and node.name in SKIPPED:
        return
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("require", "require_known"):
        return
    if isinstance(node, ast.BinOp) and type(node.op) in OPPOSITE:
        yield node
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITE:
        yield node
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node
    if isinstance(node, ast.Constant) and type(node.value) is float:
        yield node
    parts = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.FunctionDef):
        parts = [*node.body]  # neither defaults nor annotations
    for part in parts:
        yield from _sites(part)


def _change(node: ast.AST) -> None:
    if isinstance(node, ast.BinOp):
        node.op = OPPOSITE[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.Compare):
        node.ops[0] = OPPOSITE[type(node.ops[0])]()  # type: ignore[call-overload]
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd()
    elif isinstance(node, ast.Constant):
        node.value = 2 * node.value or 1.0  # type: ignore[operator]


def survives(copied: pathlib.Path, name: str) -> bool:
    """Return whether all tests of a method pass."""
    tests = [f"tests/balancing/test_{name}.py", f"tfmtl/balancing/{name}.py"]
    tests += [f"tests/balancing/test_{file}.py" for file, methods in TOGETHER.items() if name in methods]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {"PYTHONPATH": str(copied), "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(command, cwd=copied, env=environment, capture_output=True, check=False).returncode == 0


def main() -> None:
    """Print every mutant that survived, and how many did not."""
    names = sys.argv[1:] or DEFAULT
    with tempfile.TemporaryDirectory() as folder:
        copied = pathlib.Path(folder) / "project"
        shutil.copytree(
            ROOT, copied, ignore=shutil.ignore_patterns(".venv", ".peers", ".git", "saved_models", "output")
        )
        for name in names:
            path = copied / "tfmtl" / "balancing" / f"{name}.py"
            source = path.read_text()
            alive = []
            everything = list(mutants(source))
            for line, change, mutated in everything:
                path.write_text(mutated)
                if survives(copied, name):
                    alive.append(f"  line {line}: {change}")
            path.write_text(source)
            print(f"{name}: {len(everything) - len(alive)} of {len(everything)} mutants found by a test", flush=True)
            print("\n".join(alive), flush=True)


if __name__ == "__main__":
    main()

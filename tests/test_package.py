"""The package as a whole: its packages and flagships, its version, and the contents of its wheel."""

from __future__ import annotations

import ast
import configparser
import importlib
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

import tfmtl
from tfmtl._directory import directory

ROOT = pathlib.Path(__file__).parents[1]


def test_rooms_are_the_folders() -> None:
    folders = {path.parent.name for path in (ROOT / "tfmtl").glob("*/__init__.py")}
    assert set(tfmtl._PACKAGES) == folders


@pytest.mark.parametrize("name", tfmtl.__all__)
def test_public_name_resolves(name: str) -> None:
    assert name in dir(tfmtl)
    assert getattr(tfmtl, name) is not None


def test_unknown_name_is_an_attribute_error_that_lists_the_known() -> None:
    with pytest.raises(
        AttributeError, match=r"module 'tfmtl' has no attribute 'Shema'; .*\. Its public names: .*Schema"
    ):
        _ = tfmtl.Shema


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("PLE", r"it is `tfmtl\.layers\.PLE`"),
        ("UPGrad", r"it is `tfmtl\.balancing\.UPGrad`"),
        ("fit", r"it is `tfmtl\.recipes\.fit`"),
        ("shema", r"did you mean `tfmtl\.Schema`\?"),
        ("Ple", r"did you mean `tfmtl\.layers\.PLE`\?"),
    ],
)
def test_an_unknown_name_that_a_package_has_is_found_there(name: str, cure: str) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'; {cure}"):
        getattr(tfmtl, name)


def test_the_directory_has_the_public_names_of_each_package() -> None:
    for package in tfmtl._PACKAGES:
        own = {name for name, packages in directory().items() if package in packages}
        assert own
        assert all(hasattr(importlib.import_module(f"tfmtl.{package}"), name) for name in own)


def test_lazy_names_are_declared_to_type_checkers() -> None:
    tree = ast.parse((ROOT / "tfmtl" / "__init__.py").read_text())
    (block,) = (
        node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    )
    declared = {
        (node.module, alias.name) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    packages = {("tfmtl", name) for name in tfmtl._PACKAGES}
    assert declared == packages | {(f"tfmtl.{package}", name) for name, package in tfmtl._FLAGSHIPS.items()}


def test_top_level_and_metadata_have_one_version() -> None:
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(ROOT / "setup.cfg")
    assert metadata["metadata"]["version"] == "attr: tfmtl.__version__"
    assert f"## [{tfmtl.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_wheel_holds_every_module_and_nothing_else(tmp_path: pathlib.Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "tfmtl", tree / "tfmtl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    build = f"import setuptools.build_meta as b; b.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"tfmtl-{tfmtl.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        notes = {pathlib.PurePath(name).name for name in archive.namelist() if ".dist-info/" in name}
    sources = {str(path.relative_to(tree)) for path in (tree / "tfmtl").rglob("*.py")}
    assert packed == sources | {"tfmtl/py.typed"}
    assert "LICENSE" in notes

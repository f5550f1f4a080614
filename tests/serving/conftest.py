"""The models of this folder's tests, exported once per run and loaded once per process."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest
from servers.models import IdType

from tests.serving.exports import Exports
from tfmtl._keras import tf


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    own = tmp_path_factory.getbasetemp()
    return Exports((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "exports")


@pytest.fixture(scope="session", params=["string", "int64"])
def ids(request: pytest.FixtureRequest) -> IdType:
    return request.param


@pytest.fixture(scope="session")
def exported(ids: IdType, exports: Exports) -> pathlib.Path:
    """The exported version of `build(ids)`; do not change it."""
    return exports.of(ids) / "1"


@pytest.fixture(scope="session")
def loaded(exported: pathlib.Path) -> Any:
    """The exported version of `build(ids)`, loaded."""
    return tf.saved_model.load(str(exported))

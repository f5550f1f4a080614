"""The models of this folder's tests, exported once per session."""

from __future__ import annotations

import pathlib

import pytest
from servers.models import MAX_K, IdType, build

from tfmtl.serving import export


@pytest.fixture(scope="session", params=["string", "int64"])
def ids(request: pytest.FixtureRequest) -> IdType:
    return request.param


@pytest.fixture(scope="session")
def exported(ids: IdType, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The export of `build(ids)`; do not change it."""
    return export(build(ids)[0], tmp_path_factory.mktemp("models") / ids, max_k=MAX_K)

from __future__ import annotations

import pathlib

import pytest
from servers.damage import outcomes


@pytest.mark.slow
def test_no_damaged_file_is_read_as_another_answer(tmp_path: pathlib.Path) -> None:
    counts = outcomes(tmp_path, damages=26)
    assert {kind: count.total() > 0 for kind, count in counts.items()} == dict.fromkeys(counts, True)
    assert counts["cache"]["recovered"] == counts["cache"].total() == 2
    assert counts["export"]["refused"] >= 7
    assert counts["learner"]["recovered"] >= 1

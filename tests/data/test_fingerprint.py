from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tfmtl.data import fingerprint
from tfmtl.data.raw_table import raw_table

TABLE = pd.DataFrame({"id": ["a", "b"], "x": [1.0, np.nan], "list": [["u"], []], "vector": [np.ones(2), np.zeros(2)]})


def test_equal_tables_have_one_fingerprint_whatever_their_index() -> None:
    assert fingerprint(TABLE) == fingerprint(TABLE.copy().set_index(np.asarray([5, 7])))


def test_every_change_shows() -> None:
    changed = [
        TABLE.rename(columns={"x": "y"}),
        TABLE[::-1],
        TABLE[["x", "id", "list", "vector"]],
        TABLE.assign(x=[1.0, 0.0]),
        TABLE.assign(list=[["u"], ["u"]]),
        TABLE.assign(vector=[np.ones(2), np.ones(2)]),
        TABLE[:1],
    ]
    assert len({fingerprint(table) for table in [TABLE, *changed]}) == 1 + len(changed)


@pytest.mark.parametrize(
    ("source", "message"),
    [("train.csv", r"open_files\('train\.csv'\)"), (3, "must be a table .* Received: int")],
)
def test_a_training_table_of_another_form_gets_the_cure(source: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        raw_table(source)

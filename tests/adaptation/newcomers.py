"""The small table of the models' tests a week later: the same kinds of rows, with users and items not seen before."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tests.models import small


def week(number: int, users: int = 2, items: int = 2, rows: int = 30) -> pd.DataFrame:
    """Return rows of a later week, of old and new users and items; week 0 has none that are new."""
    rng = np.random.default_rng(number)
    table = small.table().sample(rows, random_state=number, ignore_index=True)
    user = rng.integers(0, small.USERS + users * number, rows)
    item = rng.integers(0, small.ITEMS + items * number, rows)
    names = [f"u{k}" for k in user], [f"i{k}" for k in item]
    return table.assign(user=names[0], item=names[1], age=20.0 + user, price=1.0 + item)

"""`python -m tfmtl new`: guessed roles, scripts that run, and names that are no identifiers."""

from __future__ import annotations

import pathlib
import runpy
from typing import Any

import tfmtl  # before others: it selects Keras 2 for the process

# isort: split
import numpy as np
import pandas as pd
import pytest

from tfmtl.__main__ import main
from tfmtl._starter import script
from tfmtl._table_guess import guess


def _shop(rows: int = 300) -> pd.DataFrame:
    """Return interactions with columns of users, of items and of the request."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 20, rows), rng.integers(0, 15, rows)
    return pd.DataFrame(
        {
            "Kunden Alter": 20.0 + user,
            "user_id": user,
            "item_id": [f"i{one}" for one in item],
            "country": [f"c{one % 3}" for one in user],
            "price": 5.0 + item,
            "title": [f"the nice item number {one}" for one in item],
            "genres": [[f"g{one % 3}", f"g{one % 2}"] for one in item],
            "picture": [[float(one), 1.0, 2.0] for one in item],
            "device": rng.choice(["phone", "desk"], rows),
            "ticket": [f"t{one}" for one in range(rows)],
            "at": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 10**6, rows), "s"),
            "changed": pd.Timestamp("2024-01-01"),
            "clicked": rng.integers(0, 2, rows),
            "returned": rng.integers(0, 2, rows),
            "stars": rng.integers(1, 6, rows),
            "average_rating": 1.0 + item,
            "nothing": [None] * rows,
            "same": 3,
        }
    )


def _new(tmp_path: pathlib.Path, table: pd.DataFrame, *options: str, form: str = "parquet") -> tuple[int, pathlib.Path]:
    source, path = tmp_path / f"shop.{form}", tmp_path / "first.py"
    if form == "parquet":
        table.to_parquet(source)
    else:
        table.to_csv(source, index=False)
    return main(["new", str(path), "--data", str(source), *options]), path


def test_roles_by_names_and_values() -> None:
    found = guess(_shop())
    assert (found.user, found.item, found.time) == ("user_id", "item_id", "at")
    assert [(c.name, c.role, c.kind, c.arguments) for c in found.columns] == [
        ("user_id", "query", "Categorical", {"dtype": "int64"}),
        ("item_id", "candidate", "Categorical", {}),
        ("Kunden Alter", "query", "Numeric", {}),
        ("country", "query", "Categorical", {}),
        ("price", "candidate", "Numeric", {}),
        ("title", "candidate", "Text", {}),
        ("genres", "candidate", "MultiValued", {"max_length": 2}),
        ("picture", "candidate", "Vector", {"size": 3}),
        ("device", "context", "Categorical", {}),
        ("average_rating", "candidate", "Numeric", {}),
    ]
    assert (found.events, found.amounts, found.undesired) == (["clicked", "returned"], ["stars"], ["returned"])
    assert found.left_out == {
        "ticket": "most rows have a value of their own",
        "changed": "a time; derive numbers from it, such as the hour",
        "nothing": "empty",
        "same": "one value",
    }


@pytest.mark.parametrize(
    ("columns", "user", "item"),
    [
        (["customerId", "movieId"], "customerId", "movieId"),
        (["item", "user"], "user", "item"),
        (["user_name_length", "user_id", "product_id"], "user_id", "product_id"),
        (["household_key", "PRODUCT_ID"], "household_key", "PRODUCT_ID"),
        (["uid", "asin"], "uid", "asin"),
    ],
)
def test_ids_of_usual_tables(columns: list[str], user: str, item: str) -> None:
    table = pd.DataFrame({name: [1, 2, 1] for name in columns})
    found = guess(table)
    assert (found.user, found.item) == (user, item)


def _tasks_of(table: pd.DataFrame) -> str:
    text = script(guess(table), table, pathlib.Path("a.parquet"))
    return text[text.index("tasks = [") : text.index("]\nfitted")]


def test_rows_are_the_event_where_no_column_is() -> None:
    table = _shop().drop(columns=["clicked", "stars", "returned"])
    assert '"interacted"' in _tasks_of(table)
    text = script(guess(table), table, pathlib.Path("a.csv"))
    assert 'table["interacted"] = 1.0' in text
    assert 'read_csv("a.csv")' in text
    bad_alone = table.assign(returned=[0, 1] * 150)
    assert _tasks_of(bad_alone).count("tfmtl.") == 2
    assert 'Retrieval("interacted")' in _tasks_of(bad_alone)


def test_an_event_of_all_rows_is_no_classification() -> None:
    assert _tasks_of(_shop().assign(clicked=1)).splitlines()[1:] == [
        '    tfmtl.Retrieval("clicked"),  # the items with clicked = 1',
        '    tfmtl.BinaryClassification("returned"),',
        '    tfmtl.Regression.from_statistics("stars", preprocessor.statistics),',
    ]


def test_hostile_names_stay_text() -> None:
    """Names with quotes, line breaks and other scripts do not leave their literals."""
    names = {"country": 'x"]); raise SystemExit("', "device": "class", "price": "价格\nraise SystemExit", "title": "k"}
    table = _shop().rename(columns={**names, "stars": "raise_1\nstars"})
    text = script(guess(table), table, pathlib.Path('a"\nb.parquet'))
    compiled = compile(text, "first.py", "exec")
    assert {*names.values(), 'a"\nb.parquet'} <= {*_constants(compiled)}
    assert "SystemExit" not in compiled.co_names


def _constants(code: Any) -> list[Any]:
    """Return all texts of a module, also those of tuples of names of arguments."""
    return [one for value in code.co_consts for one in (value if isinstance(value, tuple) else [value])]


@pytest.mark.slow
def test_the_script_runs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    status, path = _new(tmp_path, _shop())
    assert status == 0
    assert "users user_id, items item_id, time at, labels clicked, returned, stars" in capsys.readouterr().out
    path.write_text(path.read_text().replace("epochs=10", "epochs=1"))
    monkeypatch.chdir(tmp_path)
    made = runpy.run_path(str(path))
    assert isinstance(made["model"], tfmtl.MultiTaskModel)
    assert (tmp_path / "saved_models/first/1/saved_model.pb").exists()
    assert (tmp_path / "first.keras").exists()
    assert "item_id     score" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--user", "who"), "Unknown column ['who']"),
        (("--labels", "country"), "The label 'country' holds no numbers"),
    ],
)
def test_wrong_columns_are_named(tmp_path: pathlib.Path, capsys: Any, options: tuple[str, ...], message: str) -> None:
    status, path = _new(tmp_path, _shop(), *options, form="csv" if options[0] == "--user" else "parquet")
    assert status == 2
    assert message in capsys.readouterr().err
    assert not path.exists()


def test_bad_input_gets_one_sentence(tmp_path: pathlib.Path, capsys: Any) -> None:
    table = _shop()
    for changed, message in (
        (table.drop(columns="user_id"), "No column looks like the id of users; name it by `--user COLUMN`."),
        (table.drop(columns="item_id"), "No column looks like the id of items; name it by `--item COLUMN`."),
        (table.iloc[:0], "holds no rows"),
    ):
        status, path = _new(tmp_path, changed)
        assert status == 2
        assert message in capsys.readouterr().err
        assert not path.exists()
    existing = tmp_path / "first.py"
    existing.write_text("mine")
    assert _new(tmp_path, table)[0] == 2
    assert "exists; choose another name" in capsys.readouterr().err
    assert existing.read_text() == "mine"
    for path, source, message in (
        ("first", "shop.parquet", "must be a file such as first.py"),
        ("none/first.py", "shop.parquet", "There is no folder"),
        ("second.py", "none.parquet", "There is no file"),
        ("second.py", "first.py", "Parquet or CSV"),
    ):
        assert main(["new", str(tmp_path / path), "--data", str(tmp_path / source)]) == 2
        assert message in capsys.readouterr().err

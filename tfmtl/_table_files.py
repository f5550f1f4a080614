"""Tables that the commands of `python -m tfmtl` read."""

from __future__ import annotations

import pathlib

import pyarrow.dataset

from tfmtl._checks import require


def open_table(path: pathlib.Path) -> pyarrow.dataset.Dataset:
    """Open a Parquet or CSV file without reading its rows.

    Raises:
        ValueError: if its suffix is another one.
        FileNotFoundError: if there is no file.
    """
    form = path.suffix.lstrip(".")
    require(form in ("parquet", "csv"), "A table must be a Parquet or CSV file, by its suffix.", path=str(path))
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    return pyarrow.dataset.dataset(path, format=form)

"""A report is one complete file: every part, escaped texts, nothing from elsewhere."""

from __future__ import annotations

import functools
import html.parser
import pathlib
import re
import shutil
import subprocess
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tfmtl import evaluation
from tfmtl.__main__ import main
from tfmtl.baselines import comparison
from tfmtl.data import Categorical, Label, Preprocessor, Schema
from tfmtl.models import MultiTaskModel, build_network, save_model
from tfmtl.reporting import inputs, write_report
from tfmtl.reporting.page import Section, page, table
from tfmtl.tasks import BinaryClassification, Retrieval
from tfmtl.training import ConflictMonitor

PARTS = [
    "The model", "The data", "Quality", "Parts of the rows", "Calibration", "Training", "Robustness",
    "Importance of features",
    "Use of experts", "Recommendations", "Size and speed",
]  # fmt: skip
_VOID = {"meta", "link", "br", "path", "use", "rect"}


class _Page(html.parser.HTMLParser):
    """Collects the titles, the cells by table and the addresses of a page; open tags must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.addresses: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self._open.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("href", "src", "xlink:href")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "h2":
            self.titles.append(data)
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def rows(self, *heads: str) -> list[dict[str, str]]:
        """Return the rows of the first table that has these heads, by head."""
        found = next(cells for cells in self.tables if set(heads) <= set(cells[0]))
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]


@functools.cache
def _trained() -> tuple[MultiTaskModel, Any, ConflictMonitor]:
    model, monitor = small.model(), ConflictMonitor()
    model.compile("adam")
    history = model.fit(small.table(), epochs=2, validation_data=small.table(), callbacks=[monitor], verbose=0)
    return model, history, monitor


def _test_rows() -> pd.DataFrame:
    """Rows with a new user, a missing number, and markup in an id."""
    rows = small.table().head(40).copy()
    rows.loc[rows.index[0], "user"] = "<script>alert(1)</script>"
    rows.loc[rows.index[1], "age"] = np.nan
    return rows


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    model, history, monitor = _trained()
    path = write_report(
        model, _test_rows(), tmp_path_factory.mktemp("report") / "report.html", train=small.table(),
        seen=small.table().head(20), history=history, conflicts=monitor, slices=["item"], title="Shop & more", k=3,
        description="Lists <of> goods.", examples=2,
    )  # fmt: skip
    return path.read_text()


def test_a_report_has_every_part_and_loads_nothing(text: str) -> None:
    found = _Page(text)
    assert found.titles == PARTS
    assert {address.split(":")[0] for address in found.addresses if not address.startswith("#")} == {"data"}
    assert not re.search(r"(src|url\()\s*=?\s*[\"']?https?:", text)
    assert text.count("<svg ") == text.count("<figure>") == 5
    ids = re.findall(r'\bid="?([^\s">]+)', text)
    assert len(ids) == len(set(ids))
    assert "#0a0b0c" not in text
    assert "currentColor" in text


def test_texts_of_the_data_are_shown_and_not_run(text: str) -> None:
    assert "<script>alert" not in text
    assert "Lists &lt;of&gt; goods." in text
    assert "<h1>Shop &amp; more</h1>" in text


def test_the_values_are_those_of_the_evaluation(text: str) -> None:
    model = _trained()[0]
    known = evaluation.evaluate(model, _test_rows(), seen=small.table().head(20))
    rows = {row["task"]: row for row in _Page(text).rows("task", "metric", "value", "best simple baseline")}
    assert set(rows) == {"seen", "rating", "liked", "mood"}
    for task, row in rows.items():
        assert float(row["value"]) == pytest.approx(known[task, row["metric"]], rel=1e-3)
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
        assert row["the model is"] in ("better", "worse", "level")
    data = {row["test rows"]: row["value"] for row in _Page(text).rows("test rows", "value")}
    assert data["rows"] == "40"
    assert float(data["share of rows with users unknown to the model"]) == pytest.approx(1 / 40, rel=1e-3)


def test_the_worst_disturbances_are_those_of_robustness(text: str) -> None:
    model, rows = _trained()[0], _Page(text).rows("kind", "column", "strength", "task", "change")
    assert {row["kind"] for row in rows} == {"fgsm", "noise", "missing", "missing_group", "unknown"}
    assert {row["task"] for row in rows} == {"seen", "rating", "liked", "mood"}
    assert len({(row["kind"], row["task"]) for row in rows}) == len(rows)
    given: dict[str, Any] = {"attacks": [], "noise": [], "missing": [1.0], "unknown": [], "popularity": False}
    found = evaluation.robustness(model, _test_rows(), seen=small.table().head(20), **given).main
    for task, sign in {"rating": 1, "liked": -1}.items():
        own = found[(found["task"] == task) & (found["kind"] == "missing")].set_index("column")["change"]
        worst = next(row for row in rows if row["task"] == task and row["kind"] == "missing")
        assert float(worst["change"]) == pytest.approx(sign * (sign * own).max(), rel=1e-3, abs=1e-6)
        assert own[worst["column"]] == pytest.approx(float(worst["change"]), rel=1e-3, abs=1e-6)


def test_a_sample_that_no_list_can_answer_has_the_robustness_of_ranking_tasks(tmp_path: pathlib.Path) -> None:
    """The positives of the 20 drawn rows are in `seen`, and those of other rows are not."""
    chosen = np.sort(np.random.default_rng(0).permutation(50)[:20])
    path = write_report(_trained()[0], small.table(), tmp_path / "r.html", seen=small.table().iloc[chosen], rows=20)
    found = _Page(path.read_text()).rows("kind", "column", "strength", "task", "change")
    assert {row["task"] for row in found} == {"rating", "liked", "mood"}


def test_a_list_is_that_of_recommend_without_the_seen_candidates(text: str) -> None:
    lists = [cells for cells in _Page(text).tables if cells[0][0] == "rank"]
    assert len(lists) == 2
    for cells in lists:
        scores = [float(row[cells[0].index("scores")]) for row in cells[1:]]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
    users = re.findall(r"<h3>user ([^<]+)</h3>", text)
    seen = small.table().head(20)
    for user, cells in zip(users, lists, strict=True):
        hidden = set(seen[(seen["user"].astype(str) == user) & (seen["seen"] > 0)]["item"].astype(str))
        assert not hidden & {row[1] for row in cells[1:]}


def test_parts_without_their_input_are_left_out(tmp_path: pathlib.Path) -> None:
    found = _Page(evaluation.write_report(_trained()[0], _test_rows(), tmp_path / "r.html", examples=0).read_text())
    assert found.titles == [part for part in PARTS if part not in ("Parts of the rows", "Training", "Recommendations")]


def test_rows_without_labels_and_a_single_row_have_a_report(tmp_path: pathlib.Path) -> None:
    rows = small.table().drop(columns=["liked", "mood"])
    found = _Page(write_report(_trained()[0], rows.head(1), tmp_path / "r.html", train=small.table()).read_text())
    assert "Quality" in found.titles
    assert not {"Importance of features", "Robustness"} & set(found.titles)


def test_reasons_are_the_parts_that_raise_the_score(text: str) -> None:
    lists = [cells for cells in _Page(text).tables if cells[0][0] == "rank"]
    reasons = [dict(zip(cells[0], row, strict=True))["reasons"] for cells in lists for row in cells[1:]]
    assert any(reasons)
    for reason in filter(lambda text: text not in ("", "\N{EN DASH}"), reasons):
        parts = [part.rsplit(" ", 1) for part in reason.split(", ")]
        assert {name for name, _ in parts} <= {"user", "age", "recent", "item", "price", "position"}
        sizes = [float(size) for _, size in parts]
        assert sizes == sorted(sizes, reverse=True)
        assert min(sizes) >= 0


def test_features_with_other_names_than_their_columns_have_a_report(tmp_path: pathlib.Path) -> None:
    rows = pd.DataFrame({"who": list("aabbcc") * 5, "what": list("xyzxyz") * 5, "good": [1.0, 0.0, 1.0] * 10})
    schema = Schema(
        [Categorical("user", column="who")], [Categorical("item", column="what")],
        labels=[Label("good"), Label("taken", column="good")],
    )  # fmt: skip
    preprocessor, heads = Preprocessor.fit(schema, rows), [Retrieval("taken"), BinaryClassification("good")]
    model = MultiTaskModel(build_network(preprocessor, heads), heads, preprocessor)
    found = _Page(write_report(model, rows, tmp_path / "r.html", train=rows, slices=["what"], k=2).read_text())
    assert "Recommendations" in found.titles
    assert found.rows("rank", "what")[0]["what"] in "xyz"


def test_the_rows_are_encoded_and_predicted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(name: str, call: Any) -> Any:
        return lambda *arguments, **options: (calls.append(name), call(*arguments, **options))[1]

    for module in (comparison, inputs):
        for name in ("to_batch", "predict"):
            monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    given = inputs.Inputs(_trained()[0], _test_rows(), None, None, None, None, (), 3, 0, 20, 0)
    known = evaluation.evaluate(_trained()[0], _test_rows())
    assert given.own["rating"].values["rmse"] == pytest.approx(known["rating", "rmse"])
    assert given.predictions["rating"].shape[0] == len(given.batch.labels["rating"])
    assert sorted(calls) == ["predict", "to_batch"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"slices": ["sex"]}, "Unknown column \\['sex'\\] in `test`"), ({"slices": "item"}, "slices"),
     ({"k": 0}, "`k` must be a positive integer"), ({"examples": -1}, "`examples` must be 0 or more"),
     ({"history": [1.0]}, "`history` must be the return value of `fit`")],
)  # fmt: skip
def test_bad_arguments_are_refused_and_write_nothing(
    arguments: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        write_report(_trained()[0], small.table(), tmp_path / "r.html", **arguments)
    assert not list(tmp_path.iterdir())


def test_bad_paths_and_tables_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="The folder of the report does not exist"):
        write_report(_trained()[0], small.table(), tmp_path / "absent" / "r.html")
    with pytest.raises(ValueError, match="`path` is a folder, not a file"):
        write_report(_trained()[0], small.table(), tmp_path)
    with pytest.raises(ValueError, match="`test` has no row"):
        write_report(_trained()[0], small.table()[:0], tmp_path / "r.html")


def test_the_command_writes_the_report_of_a_saved_model(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(_trained()[0], tmp_path / "model")
    small.table().to_parquet(tmp_path / "rows.parquet")
    given = [str(tmp_path / name) for name in ("model", "rows.parquet", "r.html")]
    assert main(["report", *given]) == 0
    assert capsys.readouterr().out.strip() == given[2]
    assert _Page((tmp_path / "r.html").read_text()).titles[0] == "The model"
    assert main(["report", given[0], str(tmp_path / "absent.csv"), given[2]]) == 2
    assert "There is no file" in capsys.readouterr().err
    assert main(["report", *given, "--hide-seen"]) == 2


def test_a_browser_shows_the_page_without_an_error_and_sorts_a_table(tmp_path: pathlib.Path) -> None:
    """Chromium runs the page's script and prints the resulting document."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    text = page("t", "", [Section("s", table(["name", "size"], [["a", 10], ["b", 9], ["c", float("nan")]]))])
    click = "<script>onerror=m=>document.title='bad '+m;document.querySelectorAll('th')[1].click()</script></body>"
    (tmp_path / "p.html").write_text(text.replace("</body>", click))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path / 'profile'}"]
    run = subprocess.run([browser, *options, str(tmp_path / "p.html")], capture_output=True, text=True, timeout=120)
    assert "<title>t</title>" in run.stdout
    assert re.findall(r"<tr><td>(\w)</td>", run.stdout) == ["b", "a", "c"]

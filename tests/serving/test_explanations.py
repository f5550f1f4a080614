"""The signature `explain` and the reasons of `recommend`: exported, verified, and answered without the package."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pytest
from servers.models import MAX_K, build, queries, raw
from tensorflow.core.protobuf import saved_model_pb2

from tests.models import small
from tests.serving.exports import Exports
from tests.serving.reference import check_equal
from tests.serving.test_runtimes import run, unflatten
from tests.serving.wire import Call, flatten, write_calls
from tfmtl import layers
from tfmtl._keras import tf
from tfmtl.interpretation import integrated_gradients
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.serving import Explanations, RecommenderExporter, export, replace_candidates, to_examples
from tfmtl.serving.exporter import CARD
from tfmtl.serving.verification import foreign_operations
from tfmtl.serving.versions import read_manifest

TASKS = ["rating", "clicked", "region"]
STEPS, REASONS = 4, 2


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The version of `build()` that explains three tasks; do not change it."""
    model, frame = build()
    settings = Explanations(frame.head(100), TASKS, STEPS, REASONS)
    return export(model, tmp_path_factory.mktemp("explained"), max_k=MAX_K, explain=settings)


def explanations(answer: dict[str, Any], rows: int) -> None:
    """Compare an answer of `explain` for the first rows of the table with the attributions in process."""
    model, frame = build()
    found = integrated_gradients(model, frame.head(rows), frame.head(100), steps=STEPS, tasks=TASKS)
    assert answer["features"].tolist() == [found.features] * rows
    expected: dict[str, Any] = {}
    for k, task in enumerate(TASKS):
        expected |= {f"{task}_attributions": found.values[..., k], f"{task}_base": found.base[:, k]}
        expected |= {f"{task}_gap": found.gap[:, k], f"{task}_output": found.output[:, k]}
        expected |= {f"{task}_{name}_positions": value[..., k] for name, value in found.positions.items()}
    expected["region_class"] = model.predict(frame.head(rows), verbose=0)["region"].argmax(axis=1)
    check_equal({name: value for name, value in answer.items() if name != "features"}, expected)


def test_other_processes_explain_without_the_package(explained: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model, frame = build()
    request = {name: value.numpy() for name, value in raw(model, frame.head(3)).items()}
    query = {name: value.numpy() for name, value in queries(model, frame).items()}
    one = {name: value[:1] for name, value in request.items()}
    none = {name: value[:0] for name, value in request.items()}
    sent = [("explain", request), ("explain", one), ("explain", none), ("recommend", query)]
    calls = tmp_path / "calls.json"
    write_calls(calls, [Call(name, {i: flatten(v) for i, v in inputs.items()}) for name, inputs in sent])
    answers = [{n: unflatten(v) for n, v in answer.items()} for answer in run("blocked_process.py", explained, calls)]
    for answer, rows in zip(answers[:2], (3, 1), strict=True):
        explanations(answer, rows)
    assert {len(value) for value in answers[2].values()} == {0}
    local = tf.saved_model.load(str(explained)).signatures["recommend"](**queries(model, frame))
    assert answers[3]["clicked_reasons"].tolist() == local["clicked_reasons"].numpy().astype(str).tolist()


def test_examples_are_explained_like_tensors(explained: pathlib.Path) -> None:
    model, frame = build()
    signatures, rows = tf.saved_model.load(str(explained)).signatures, raw(model, frame.head(3))
    answer = {n: t.numpy() for n, t in signatures["explain_examples"](examples=to_examples(rows)).items()}
    expected = signatures["explain"](**rows)
    assert set(answer) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(answer[name], value.numpy(), err_msg=name)
    assert np.abs(answer["rating_attributions"]).max() > 0.01
    explanations({**answer, "features": answer["features"].astype(str)}, 3)


def test_reasons_of_recommendations_are_those_of_the_pair(explained: pathlib.Path) -> None:
    model, frame = build()
    signatures = tf.saved_model.load(str(explained)).signatures
    query = queries(model, frame)
    answer = {name: value.numpy() for name, value in signatures["recommend"](**query).items()}
    assert answer["rating_reasons"].shape == answer["rating_reason_parts"].shape == (7, MAX_K, REASONS)
    assert "region_reasons" not in answer  # a task of the query alone
    items = frame.drop_duplicates("item_id").set_index("item_id", drop=False)
    chosen = items.loc[[answer["ids"][i, 1].decode() for i in range(7)]]
    pairs = {**raw(model, chosen), **query, "position": tf.fill([7], tf.constant(-1, tf.int64))}
    found = {name: value.numpy() for name, value in signatures["explain"](**pairs).items()}
    names = found["features"][0].astype(str).tolist()
    for i in range(7):
        reason = answer["rating_reasons"][i, 1, 0].decode()
        name, _, position = reason.partition("[")
        part = (
            found[f"rating_{name}_positions"][i, int(position[:-1])]
            if position
            else found["rating_attributions"][i, names.index(name)]
        )
        np.testing.assert_allclose(answer["rating_reason_parts"][i, 1, 0], part, atol=1e-5)


def test_filtered_recommendations_have_no_reasons_beyond_their_end(explained: pathlib.Path) -> None:
    model, frame = build()
    request = {**queries(model, frame), "k": tf.fill([7], 2)}
    loaded = tf.saved_model.load(str(explained)).signatures["recommend_examples"]
    answer = loaded(examples=to_examples({name: value.numpy() for name, value in request.items()}))
    assert (answer["rating_reasons"][:, 2:].numpy() == b"").all()
    assert (answer["rating_reason_parts"][:, 2:].numpy() == 0).all()
    assert (answer["rating_reasons"][:, :2, 0].numpy() != b"").all()


def test_the_version_describes_its_explanations(explained: pathlib.Path) -> None:
    manifest = read_manifest(explained)
    names = list(build()[0].network.input)
    lists = {"interests": 2, "recent": 3, "genres": 3, "title": 4}
    described = {"tasks": TASKS, "features": names, "lists": lists, "steps": STEPS, "reasons": REASONS}
    assert manifest["explain"] == described
    assert {"explain", "explain_examples"} <= set(manifest["signatures"])
    assert manifest["signatures"]["explain"]["outputs"]["rating_recent_positions"] == "float32 [B, 3]"
    assert "| explained tasks | `rating`, `clicked`, `region` |" in (explained / CARD).read_text()
    for name in ("explain", "explain_examples"):
        assert f"`{name}`" in (RecommenderExporter.__doc__ or "")


def test_the_graph_has_stock_operations_alone(explained: pathlib.Path) -> None:
    assert foreign_operations(explained) == []
    graph = saved_model_pb2.SavedModel.FromString((explained / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    nodes = [node for function in graph.library.function for node in function.node_def]
    assert not {node.op for node in nodes if "PyFunc" in node.op}
    assert not any("_gradient_op_type" in node.attr for node in nodes)


def test_without_explanations_a_version_has_nothing_of_them(exports: Exports) -> None:
    path = exports.of() / "1"
    assert "explain" not in read_manifest(path)
    assert not [name for name in tf.saved_model.load(str(path)).signatures if "explain" in name]
    assert b"reasons" not in (path / "saved_model.pb").read_bytes()


def test_new_candidates_keep_the_explanations(explained: pathlib.Path) -> None:
    frame = build()[1]
    path = replace_candidates(explained.parent, frame.drop_duplicates("item_id").head(4), version=9)
    loaded = tf.saved_model.load(str(path)).signatures
    answer = loaded["recommend"](**queries(build()[0], frame))
    assert (answer["rating_reasons"][:, :4, 0].numpy() != b"").all()
    assert (answer["rating_reasons"][:, 4:].numpy() == b"").all()


def test_a_saved_graph_does_not_need_our_gradient() -> None:
    """PEPNet stops gradients, which attributions pass."""
    trunk = layers.PEPNet(small.ON_PAIRS, units=[4], domain=["position"], personal=["user"])
    settings = Explanations(small.table(), ["liked"], steps=1)
    signature = RecommenderExporter(explain=settings).servable(small.model(trunk=trunk)).signatures["explain"]
    library = signature.traced.graph.as_graph_def().library
    nodes = [node for function in library.function for node in function.node_def]
    assert any(node.op == "StopGradient" for node in nodes)
    assert not any("_gradient_op_type" in node.attr for node in nodes)


def ranking_model() -> MultiTaskModel:
    return build(retrieval=False)[0]


def retrieval_model() -> MultiTaskModel:
    heads = small.tasks()[:1]
    network = build_network(small.preprocessor(), heads, embedding_dim=2, regularization=small.NO_NOISE)
    return MultiTaskModel(network, heads, small.preprocessor(), candidates=small.candidates())


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (ranking_model, {"tasks": ["rate"]}, "Unknown task ['rate'] in `explain` (the model's ranking tasks); known:"),
        (small.model, {"tasks": ["seen"]}, "Unknown task ['seen'] in `explain`"),
        (ranking_model, {"tasks": []}, "`tasks` is empty; leave it out to explain all tasks."),
        (ranking_model, {"tasks": ["region"], "reasons": 1}, "`reasons` explain candidates, so that a task must read"),
        (ranking_model, {"reasons": 1}, "Only a model that retrieves can give reasons of recommendations."),
        (retrieval_model, {}, "Only ranking tasks are explained; export this model without `explain`."),
        (ranking_model, {"baseline": build()[1].drop(columns="price")}, "price"),
        (ranking_model, {"baseline": build()[1].head(0)}, "`baseline` has no row"),
    ],
)
def test_wrong_explanations_are_refused_in_one_sentence(
    model: Any, settings: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    given = Explanations(**{"baseline": build()[1].head(9), "steps": 1, **settings})
    with pytest.raises(ValueError, match=re.escape(message)):
        export(model(), tmp_path / "model", explain=given)
    assert not (tmp_path / "model").exists() or not [*(tmp_path / "model").iterdir()]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="`steps` must be a positive integer"):
        Explanations(None, steps=0)
    with pytest.raises(ValueError, match="`reasons` must be a number of reasons"):
        Explanations(None, reasons=-1)
    with pytest.raises(ValueError, match=r"write \['rating'\]"):
        Explanations(None, tasks="rating")
    with pytest.raises(TypeError, match=r"`explain` must be Explanations\..*Write `explain=Explanations"):
        RecommenderExporter(explain=True)  # type: ignore[arg-type]

"""Names of features and tasks that are hostile to Python, Keras, TensorFlow or file systems work, or are refused."""

from __future__ import annotations

import json
import pathlib
import unicodedata
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tfmtl._keras import keras, tf
from tfmtl._names import layer_name, serving_names
from tfmtl.data import (
    Categorical,
    IdSequence,
    Label,
    MultiValued,
    Numeric,
    Preprocessor,
    Schema,
    Text,
    Vector,
    to_columns,
)
from tfmtl.models import Candidates, MultiTaskModel, Regularization, build_network, load_model, save_model
from tfmtl.serving import export, to_examples
from tfmtl.serving.versions import MANIFEST
from tfmtl.tasks import BinaryClassification, Regression, Retrieval

DECOMPOSED = unicodedata.normalize("NFD", "naïve")
QUERY = [
    "user", "User", "USER", "_user", "user_unknown", "user_embedding", "user_missing", "user_feature_dropout", "self",
    "class", "None", "größe", "日本", "naïve", DECOMPOSED, "ﬁx", "K", "name", "inputs", "training", "pair",
    "interaction",
    "query_tower_0", "query_mark", "network", "examples", "ids", "rating", "rating_output", "x" * 200, "__init__",
]  # fmt: skip
LISTS = ["tägs", "tags", "tags_mean", "def"]
CANDIDATE = ["item", "item_unknown", "k", "exclude_ids"]
TASKS = ["seen", "class", "self", "rating", "rating_output", "loss", "user", "examples"]
SENT = {
    "User": "User_2", "USER": "USER_3", "_user": "user_4", "self": "self_2", "class": "class_2", "None": "None_2",
    "größe": "grosse", "日本": "feature", "naïve": "naive", DECOMPOSED: "naive_2", "ﬁx": "fix", "K": "K_2",
    "__init__": "init__", "tägs": "tags_2", "def": "def_2", "k": "k_3", "exclude_ids": "exclude_ids_2",
    "preis": "preis_2", "für": "fur", "beschreibüng": "beschreibung",
}  # fmt: skip
"""The inputs of the features that are not sent by their own names."""


def table() -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), 48
    item = np.arange(rows) % 12
    columns: dict[str, Any] = {name: [f"v{(i * 7 + n) % 5}" for i in range(rows)] for n, name in enumerate(QUERY)}
    columns |= {name: [["a", "b"][: i % 3] for i in range(rows)] for name in LISTS}
    columns |= {name: [f"i{i}" for i in item] for name in (*CANDIDATE, "beschreibüng")}
    columns |= {"Preis": item * 1.5, "preis": 20.0 - item, "für": [[1.0, float(i)] for i in item]}
    columns["verläuf"] = [[f"i{i % 12}"] * (i % 3) for i in range(rows)]
    columns |= {"stelle": rng.integers(1, 4, rows).astype(str), "stars": rng.normal(size=rows), "one": 1.0}
    columns["liked"] = (columns["stars"] > 0).astype(float)
    return pd.DataFrame(columns)


def model(frame: pd.DataFrame) -> MultiTaskModel:
    """Return a model in which every kind of feature has a hostile name."""
    columns = {name: "one" if name == "seen" else "liked" if i % 2 else "stars" for i, name in enumerate(TASKS)}
    lists = [*(MultiValued(name, max_length=2) for name in LISTS), IdSequence("verläuf", of="item", max_length=2)]
    others = [Numeric("Preis"), Numeric("preis"), Vector("für", size=2), Text("beschreibüng", max_length=2)]
    schema = Schema(
        [*map(Categorical, QUERY), *lists],
        [*map(Categorical, CANDIDATE), *others],
        [Categorical("stelle")],
        [Label(name, column=column) for name, column in columns.items()],
    )
    preprocessor = Preprocessor.fit(schema, frame)
    tasks: list[Any] = [Retrieval("seen")]
    for name, column in columns.items():
        if column != "one":
            kinds = {"liked": BinaryClassification, "stars": Regression}
            tasks.append(kinds[column](name))
    noise = Regularization(unknown_rate=0.1, embedding_dropout=0.1, feature_dropout=0.1, context_dropout=0.1)
    network = build_network(preprocessor, tasks, embedding_dim=2, tower_units=[4], regularization=noise)
    return MultiTaskModel(network, tasks, preprocessor, candidates=Candidates.from_frame(frame, preprocessor))


def test_hostile_names_work_from_training_to_a_served_answer(tmp_path: pathlib.Path, eager_steps: Any) -> None:
    frame = table()
    made = model(frame)
    made.compile(keras.optimizers.Adam())
    made.fit(frame, epochs=1, batch_size=24, verbose=0)
    assert np.isfinite(made.evaluate(frame, verbose=0, return_dict=True)["loss"])
    expected = made.predict(frame, verbose=0)
    for task, value in load_model(save_model(made, tmp_path / "saved")).predict(frame, verbose=0).items():
        np.testing.assert_allclose(value, expected[task], rtol=1e-5, err_msg=task)
    path = export(made, tmp_path / "model", max_k=5)
    sent = json.loads((path / MANIFEST).read_text())["input_names"]
    assert sent == {**SENT, "verläuf": "verlauf"}
    card = (path / "assets.extra" / "model_card.md").read_text()
    assert "| größe (as a tensor, input `grosse`) | query | Categorical |" in card
    signatures = tf.saved_model.load(str(path)).signatures
    columns = to_columns(frame, made.schema.features.values())
    answers = [
        signatures["rank"](**{sent.get(name, name): tf.constant(value) for name, value in columns.items()}),
        signatures["rank_examples"](examples=to_examples(columns)),
    ]
    for answer in answers:
        assert set(answer) == set(TASKS)
        for task, value in answer.items():
            np.testing.assert_allclose(value, expected[task], rtol=1e-4, atol=1e-5, err_msg=task)
    assert {"k", "exclude_ids"} < set(signatures["retrieve_filtered"].structured_input_signature[1])
    query = {feature.name: columns[feature.name] for feature in made.schema.query}
    given = signatures["recommend"](**{sent.get(name, name): tf.constant(value) for name, value in query.items()})
    assert set(given) == {"ids", "scores", *TASKS}
    protos = signatures["recommend_examples"](examples=to_examples(query))
    np.testing.assert_array_equal(protos["ids"], given["ids"])


@pytest.mark.parametrize(
    "name", ["", " ", "Review Text", "a.b", "a/b", "a\\b", "1st", "a-b", "../a", "a\n", "\0", "☃", 7, None]
)
def test_other_names_of_features_are_refused_with_the_cure(name: Any) -> None:
    with pytest.raises(
        ValueError, match=r"A feature's `name` must be letters, .* give the table's column as `column`\."
    ):
        Categorical(name)
    assert Categorical("review", column="Review Text").column == "Review Text"


@pytest.mark.parametrize("name", ["", "Review Text", "a.b", "a/b", "1st", "_rating", "größe", "ﬁx", "日本", 7, None])
def test_other_names_of_tasks_are_refused_with_the_cure(name: Any) -> None:
    with pytest.raises(ValueError, match=r"A task's `name` must be letters, .* give the label's column as `column`\."):
        Regression(name)
    with pytest.raises(ValueError, match=r"A task's `task` must be letters, .* give the label's column as `column`\."):
        Label(name)


@pytest.mark.parametrize("name", ["k", "exclude_ids", "restrict_ids", "weight_seen"])
@pytest.mark.parametrize("role", ["query", "context"])
def test_names_of_serving_inputs_are_refused_before_training(name: str, role: str) -> None:
    frame = pd.DataFrame({name: ["a", "b"], "user": ["u", "v"], "item": ["i", "j"], "seen": [1.0, 1.0]})
    roles = {"query": [Categorical("user")], "context": []}
    roles[role] = [*roles[role], Categorical(name)]
    schema = Schema(**roles, candidate=[Categorical("item")], labels=[Label("seen")])
    preprocessor = Preprocessor.fit(schema, frame)
    with pytest.raises(
        ValueError, match=rf"The features \['{name}'\] have names of serving inputs; choose other names"
    ):
        build_network(preprocessor, [Retrieval("seen")])
    build_network(preprocessor, [Regression("seen")])  # without retrieval no input has the name


@pytest.mark.parametrize("name", ["ids", "scores"])
def test_tasks_with_names_of_serving_outputs_are_refused_before_training(name: str) -> None:
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("seen"), Label(name, column="seen")])
    frame = pd.DataFrame({"user": ["a", "b"], "item": ["i", "j"], "seen": [1.0, 1.0]})
    with pytest.raises(ValueError, match=rf"The tasks \['{name}'\] have names of serving outputs; choose other names"):
        build_network(Preprocessor.fit(schema, frame), [Retrieval("seen"), Regression(name)])


def test_tasks_that_differ_only_in_case_are_refused_before_training() -> None:
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("seen"), Label("Seen", column="seen")])
    frame = pd.DataFrame({"user": ["a", "b"], "item": ["i", "j"], "seen": [1.0, 1.0]})
    with pytest.raises(ValueError, match=r"The tasks \['Seen', 'seen'\] differ only in case, and so do their inputs"):
        build_network(Preprocessor.fit(schema, frame), [Retrieval("seen"), Regression("Seen")])


def test_names_of_layers_are_distinct_and_accepted_by_graphs() -> None:
    names = [*QUERY, *LISTS, *CANDIDATE, "grosse", "gr_f6_df_e", "_", "__", "_5f"]
    found = [layer_name(name) for name in names]
    assert len(set(found)) == len(set(names))
    for name, other in zip(names, found, strict=True):
        with tf.Graph().as_default(), tf.name_scope(other):
            pass
        assert other == name or not name.isascii() or name.startswith("_")


def test_serving_names_are_distinct_in_any_case() -> None:
    found = serving_names([*QUERY, *LISTS, *CANDIDATE], ["k", "exclude_ids", "weight_seen"])
    served = [name.casefold() for name in found.values()]
    assert len(set(served)) == len(served)
    assert not set(found.values()) & {"k", "exclude_ids", "weight_seen", "self", "class"}
    assert serving_names(["user_id", "movie_id"]) == {"user_id": "user_id", "movie_id": "movie_id"}

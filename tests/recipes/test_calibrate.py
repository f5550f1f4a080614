"""Calibrated probabilities as a part of the network: fit, slices, and every reader of the predictions."""

from __future__ import annotations

import functools
import math
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.special

from tests.models.small import NO_NOISE
from tfmtl._keras import keras, tf
from tfmtl.adaptation import extend_vocabularies
from tfmtl.compression.teacher import Teacher
from tfmtl.data import Categorical, Label, Numeric, Preprocessor, Schema, to_batch
from tfmtl.ensembling import ensemble
from tfmtl.evaluation import binary_metrics, calibration_error
from tfmtl.models import MultiTaskModel, build_network, load_model, save_model
from tfmtl.recipes import calibrate
from tfmtl.serving import export
from tfmtl.tasks import (
    BinaryClassification,
    EntireSpaceConversion,
    InversePropensityConversion,
    MultiClassClassification,
    Regression,
    Retrieval,
    Task,
)

ROWS = 12_000
COUNTRIES = {"at": 1.5, "de": -1.5, "fr": 0.0}
"""Shift of the log-odds of a click by country; "is" has few rows."""


def schema() -> Schema:
    return Schema(
        [Categorical("country"), Numeric("x"), Numeric("y")],
        [Categorical("item")],
        labels=[
            Label("seen"), Label("click", sample_weight="trust"), Label("buy"), Label("stars"),
            Label("mood", classes=("sad", "so", "glad")),
        ],
    )  # fmt: skip


def heads(buy: type[EntireSpaceConversion] = EntireSpaceConversion, **arguments: Any) -> list[Task]:
    return [
        Retrieval("seen"), BinaryClassification("click", units=[8]), buy("buy", after="click", **arguments),
        Regression("stars", offset=0.0, scale=1.0), MultiClassClassification("mood", 3),
    ]  # fmt: skip


def built(tasks: list[Task], preprocessor: Preprocessor, seed: int = 0) -> MultiTaskModel:
    """Return a network with random weights; those of the click's output are larger."""
    network = build_network(preprocessor, tasks, embedding_dim=4, tower_units=(8,), regularization=NO_NOISE, seed=seed)
    for name in ("click_output", "mood_output"):
        layer = network.get_layer(name)
        layer.set_weights([8 * layer.kernel.numpy(), layer.bias.numpy()])
    made = MultiTaskModel(network, tasks, preprocessor)
    made.compile("sgd")
    return made


@functools.cache
def model(seed: int = 0) -> MultiTaskModel:
    return built(heads(), Preprocessor.fit(schema(), features()), seed)


@functools.cache
def features() -> pd.DataFrame:
    """Rows with random labels, from which statistics are read."""
    rng = np.random.default_rng(0)
    country = rng.choice(["at", "de", "fr", "is"], ROWS, p=[0.4, 0.3, 0.299, 0.001])
    labels = {name: rng.integers(0, 2, ROWS).astype(float) for name in ("click", "buy")}
    return pd.DataFrame(
        {
            "country": country, "x": rng.normal(size=ROWS), "y": rng.normal(size=ROWS),
            "item": [f"i{k}" for k in rng.integers(0, 20, ROWS)], "seen": 1.0, "trust": 1.0,
            "stars": rng.normal(size=ROWS), **labels, "mood": rng.choice(["sad", "so", "glad"], ROWS),
        }
    )  # fmt: skip


@functools.cache
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Validation and test rows with clicks of the log-odds 0.4 z + 1 + the country's shift, z being the model's."""
    table, rng = features(), np.random.default_rng(1)
    outputs = outputs_of(model(), table)
    shift = table["country"].map(COUNTRIES).fillna(0.0).to_numpy()
    odds = 0.4 * outputs["click"][:, 0] + 1.0 + shift
    mood = scipy.special.softmax(0.25 * outputs["mood"], axis=1).cumsum(axis=1)
    table = table.assign(
        click=(rng.random(ROWS) < scipy.special.expit(odds)).astype(float),
        mood=np.array(["sad", "so", "glad"])[(rng.random([ROWS, 1]) > mood[:, :2]).sum(axis=1)],
    )
    table["buy"] = table["click"] * (rng.random(ROWS) < 0.3)
    return table[: ROWS // 2], table[ROWS // 2 :]


def outputs_of(made: MultiTaskModel, table: pd.DataFrame, training: bool = False) -> dict[str, Any]:
    found = made.network(to_batch(table, made.preprocessor).features, training=training)
    return {name: value if isinstance(value, dict) else value.numpy() for name, value in found.items()}


def served(made: MultiTaskModel, table: pd.DataFrame, task: str = "click") -> np.ndarray:
    return np.asarray(made.predict_step(to_batch(table, made.preprocessor))[task])


def weights_of(made: MultiTaskModel, task: str = "click") -> list[np.ndarray]:
    return made.network.get_layer(f"{task}_calibration").get_weights()  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_the_error_falls_and_auc_stays(method: Any) -> None:
    validation, test = tables()
    made = calibrate(model(), validation, method=method)
    before, after = (served(one, test) for one in (model(), made))
    errors = [calibration_error(test["click"], p) for p in (before, after)]
    assert errors[0] > 0.1
    assert errors[1] < errors[0] / 3
    aucs = [binary_metrics(test["click"], p)["auc"] for p in (before, after)]
    assert aucs[1] == pytest.approx(aucs[0], abs=1e-5)
    assert (np.diff(after[np.argsort(before, kind="stable")]) >= 0).all()
    assert type(made) is type(model())
    assert made.optimizer is not model().optimizer


def test_temperature_finds_that_of_the_labels() -> None:
    validation, _ = tables()
    _, values, slopes, *_ = weights_of(calibrate(model(), validation, method="temperature", tasks=["mood"]), "mood")
    assert values.tolist() == [[0.0]]
    assert slopes[0] == pytest.approx([0.25, 0.25], abs=0.03)
    made = calibrate(model(), validation, method="temperature")
    expected = scipy.special.softmax(float(slopes[0, 0]) * outputs_of(model(), validation)["mood"], axis=1)
    np.testing.assert_allclose(served(made, validation, "mood"), expected, atol=1e-6)
    assert len(weights_of(made)) == len(weights_of(made, "buy")) == 3


def test_missing_labels_do_not_count_and_weights_do() -> None:
    validation = tables()[0]
    expected = weights_of(calibrate(model(), validation, tasks=["click"]))
    spoilt = validation[:3000].assign(click=1 - validation["click"][:3000])
    more = [spoilt.assign(click=np.nan), spoilt.assign(trust=0.0)]
    found = weights_of(calibrate(model(), pd.concat([validation, *more]), tasks=["click"]))
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-6)
    weighted = weights_of(calibrate(model(), pd.concat([validation, spoilt.assign(trust=2.0)]), tasks=["click"]))
    assert abs(weighted[1] - expected[1]).max() > 0.05


def test_values_of_a_feature_have_maps_of_their_own() -> None:
    validation, test = tables()
    common, made = calibrate(model(), validation, tasks=["click"]), calibrate(
        model(), validation, tasks=["click"], by="country"
    )  # fmt: skip
    knots, values, slopes, choices = weights_of(made)
    at, de, fr, iceland = (model().preprocessor.vocabulary("country").tolist().index(c) + 2 for c in (*COUNTRIES, "is"))
    assert choices[[0, 1, iceland]].tolist() == [0, 0, 0]  # missing, unknown and rare ones have the map of all rows
    assert values[choices[[at, de, fr]], 0] == pytest.approx([2.5, -0.5, 1.0], abs=0.3)
    assert slopes[choices[[at, de, fr]], 0] == pytest.approx([0.4] * 3, abs=0.12)
    assert len({*choices[[at, de, fr]].tolist()}) == len(knots) - 1 == 3
    for name in COUNTRIES:
        rows = test[test["country"] == name]
        errors = [calibration_error(rows["click"], served(one, rows)) for one in (common, made)]
        assert errors[1] < 0.06 < (1 if name == "fr" else errors[0])
    rare = test.assign(country="is")
    np.testing.assert_allclose(served(made, rare), served(common, rare), rtol=1e-6)
    np.testing.assert_allclose(served(made, test.assign(country="xx")), served(common, test.assign(country="xx")))


def test_a_value_needs_enough_rows() -> None:
    made = calibrate(model(), tables()[0], tasks=["click"], by="country", min_rows=2000)
    assert weights_of(made)[3].max() == 1  # only "at" has 2000 of the 6000 rows


def test_prior_correction() -> None:
    """Kept negatives with r = 1/4: p' = 1/2 becomes (1/4 1/2) / (1/4 1/2 + 1/2) = 1/5."""
    test = tables()[1]
    made = calibrate(model(), method="prior", rate=0.25, tasks=["click"])
    p = served(model(), test).astype(np.float64)
    np.testing.assert_allclose(served(made, test), 0.25 * p / (0.25 * p + 1 - p), rtol=1e-5)
    layer = made.network.get_layer("click_calibration")
    assert float(tf.sigmoid(layer(tf.zeros([1, 1])))[0, 0]) == pytest.approx(0.2)


def test_prior_correction_after_a_fit_on_downsampled_rows() -> None:
    validation, test = tables()
    kept = (validation["click"] > 0) | (np.arange(len(validation)) % 4 == 0)
    made = calibrate(model(), validation[kept], tasks=["click"], rate=0.25)
    assert calibration_error(test["click"], served(made, test)) < 0.05
    fitted = weights_of(calibrate(model(), validation[kept], tasks=["click"]))
    assert weights_of(made)[1] == pytest.approx(fitted[1] + math.log(0.25))


def test_training_reads_raw_logits_and_a_second_map_replaces_the_first() -> None:
    validation = tables()[0]
    made = calibrate(model(), validation)
    for training, other in ((True, model()), (False, made)):
        raw, expected = outputs_of(made, validation, training), outputs_of(other, validation)
        np.testing.assert_array_equal(raw["click"], expected["click"])
        np.testing.assert_array_equal(raw["buy"], expected["buy"])
    again = calibrate(made, validation)
    assert [layer.name for layer in again.network.layers].count("click_calibration") == 1
    np.testing.assert_allclose(served(again, validation), served(made, validation), rtol=1e-6)
    undone = calibrate(made, method="prior", tasks=["click"])
    np.testing.assert_allclose(served(undone, validation), served(model(), validation), rtol=1e-6)
    np.testing.assert_array_equal(served(undone, validation, "buy"), served(made, validation, "buy"))


def test_conversions_are_calibrated_as_they_are_served() -> None:
    validation = tables()[0]
    made = calibrate(model(), validation, tasks=["buy"])
    p = served(made, validation, "buy")
    assert p.mean() == pytest.approx(validation["buy"].mean(), abs=2e-3)
    logits = scipy.special.logit(served(model(), validation, "buy").astype(np.float64))
    _, values, slopes = weights_of(made, "buy")
    np.testing.assert_allclose(p, scipy.special.expit(slopes[0, 0] * logits + values[0, 0]), rtol=1e-4)
    conditional = built(heads(serve="conditional"), model().preprocessor)
    fitted = calibrate(conditional, validation, tasks=["buy"])
    clicked = validation[validation["click"] > 0]
    assert served(fitted, clicked, "buy").mean() == pytest.approx(clicked["buy"].mean(), abs=2e-3)
    np.testing.assert_array_equal(
        outputs_of(fitted, validation)["buy"][:, 1], outputs_of(conditional, validation)["buy"][:, 1]
    )
    weighted = built(heads(InversePropensityConversion), model().preprocessor)
    with pytest.raises(ValueError, match=r"The tasks \['buy'\] serve no probability that could be calibrated\."):
        calibrate(weighted, validation, tasks=["buy"])


def test_teachers_and_ensembles_read_calibrated_probabilities() -> None:
    validation, test = tables()
    made, other = calibrate(model(), validation), model(1)
    taught = Teacher(made).outputs(to_batch(test, made.preprocessor).features, ["click"])["click"]
    np.testing.assert_allclose(tf.sigmoid(taught)[:, 0], served(made, test), rtol=1e-5)
    both = ensemble([made, calibrate(other, validation)])
    expected = (served(made, test) + served(calibrate(other, validation), test)) / 2
    np.testing.assert_allclose(served(both, test), expected, rtol=1e-4)
    assert calibrate(both, validation).network.get_layer("click_calibration") is not None


def test_growth_keeps_the_predictions() -> None:
    validation, test = tables()
    made = calibrate(model(), validation, tasks=["click"], by="country")
    later = test[:50].assign(country="new")
    expected = served(made, later), served(made, test)
    grown = extend_vocabularies(made, later)
    assert "new" in grown.preprocessor.vocabulary("country").tolist()
    for table, before in zip((later, test), expected, strict=True):
        np.testing.assert_allclose(served(grown, table), before, rtol=1e-5)


CLIENT = """
import sys
import numpy as np
import tensorflow as tf
folder, path = sys.argv[1:]
rows = dict(np.load(path))
pairs = {name[5:]: tf.constant(value) for name, value in rows.items() if name.startswith("pair_")}
asked = {name: pairs[name] for name in ("country", "x", "y")}
signatures = tf.saved_model.load(folder).signatures
answer, hits = signatures["rank"](**pairs), signatures["recommend"](**asked)
found = {**{f"rank_{k}": v for k, v in answer.items()}, **{f"hits_{k}": v for k, v in hits.items()}}
values = {name: value.numpy() for name, value in found.items()}
np.savez(path, **{name: value.astype("S") if value.dtype == object else value for name, value in values.items()})
"""


def test_saved_and_exported_models_answer_the_same(tmp_path: pathlib.Path) -> None:
    validation, test = tables()
    some = test[:40]
    made = calibrate(model(), validation, method="isotonic", by="country")
    loaded = load_model(save_model(made, tmp_path / "saved"))
    for task in ("click", "buy"):
        np.testing.assert_array_equal(served(loaded, some, task), served(made, some, task))
    weights = dict.fromkeys(("seen", "click", "buy", "stars"), 1.0)
    folder = export(made, tmp_path / "exports", max_k=3, rerank_depth=5, fusion_weights=weights)
    columns = {name: some[name].to_numpy() for name in ("country", "item")}
    pairs = {name: column.astype(np.bytes_) for name, column in columns.items()}
    pairs |= {name: some[name].to_numpy(np.float32) for name in ("x", "y")}
    path = tmp_path / "rows.npz"
    np.savez(path, **{f"pair_{name}": value for name, value in pairs.items()})
    subprocess.run([sys.executable, "-c", CLIENT, str(folder), str(path)], check=True, timeout=300)
    with np.load(path) as answers:
        found = dict(answers)
    for task in ("click", "buy"):
        np.testing.assert_allclose(found[f"rank_{task}"], served(made, some, task), rtol=1e-5, atol=1e-6)
    for i in range(3):
        ids = [hit.decode() for hit in found["hits_ids"][:, i]]
        expected = served(made, some.assign(item=ids))
        np.testing.assert_allclose(found["hits_click"][:, i], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "spline"}, r"`method` must be one of \['temperature', 'platt', 'isotonic', 'prior'\]\."),
        ({"tasks": ["stars"]}, r"The tasks \['stars'\] serve no probability that could be calibrated\."),
        ({"tasks": ["seen"]}, r"The tasks \['seen'\] serve no probability that could be calibrated\."),
        ({"tasks": ["view"]}, "view"),
        ({"tasks": ["mood"]}, r"The tasks \['mood'\] have classes: use `method='temperature'` and leave out `rate`\."),
        ({"tasks": []}, "The model has no task to calibrate"),
        ({"by": "x"}, "`by` must name a Categorical feature of the schema"),
        ({"by": "planet"}, "planet"),
        ({"by": "country", "method": "prior"}, "The prior correction has no map by slice"),
        ({"rate": 0.0}, "`rate` must lie above 0 and up to 1"),
        ({"rate": 1.5}, "`rate` must lie above 0 and up to 1"),
        ({"rate": float("nan")}, "`rate` must lie above 0 and up to 1"),
        ({"min_rows": 0}, "`min_rows` must be a positive integer"),
        ({"validation": None}, "`method='platt'` needs `validation` rows"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        calibrate(model(), **{"validation": tables()[0][:10], **arguments})
    assert "\n" not in str(error.value)


def test_unsuitable_labels_are_refused() -> None:
    validation = tables()[0]
    for labels in (0.0, 1.0, np.nan):
        with pytest.raises(ValueError, match="must have labels of at least two classes of task 'click'"):
            calibrate(model(), validation.assign(click=labels, buy=0.0), tasks=["click"])
    with pytest.raises(ValueError, match="The labels of task 'click' do not increase with its logits"):
        calibrate(model(), validation.assign(click=1 - validation["click"]), tasks=["click"])
    bare = MultiTaskModel(model().network, heads(), model().preprocessor)
    with pytest.raises(RuntimeError, match="`calibrate` needs a compiled model"):
        calibrate(bare, validation)


def test_further_training_starts_from_the_raw_logits() -> None:
    validation = tables()[0][:256]
    single = keras.models.clone_model(model().network)
    single.set_weights(model().network.get_weights())
    plain = model().with_network(single)
    plain.compile("sgd")
    made = calibrate(plain, validation)
    batch = to_batch(validation, plain.preprocessor)
    losses = [float(one.compute_losses(batch, training=True)["click"][0]) for one in (plain, made)]
    assert losses[0] == losses[1]
    assert float(made.compute_losses(batch, training=False)["click"][0]) < losses[0]

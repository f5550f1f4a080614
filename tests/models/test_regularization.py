"""Noise and augmentation of a network: off at serving, usable with any trunk, and labels mixed like the rows."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.balancing import UPGrad
from tfmtl.compression import DistilledModel
from tfmtl.data import Batch, Categorical, Label, MultiValued, Numeric, Preprocessor, Schema, to_batch
from tfmtl.data.preprocessor import missing_row
from tfmtl.layers import AITM, STEM, ConcatFusion, MMoE, PEPNet, SequenceAugmentation, SharedBottom
from tfmtl.models import MultiTaskModel, Regularization, build_network
from tfmtl.models.mixup import MIXUP_PAIRS, with_mixup_pairs
from tfmtl.models.step_model import TaskLosses
from tfmtl.serving import export
from tfmtl.tasks import BinaryClassification, Regression, Retrieval

FUSION = {"query": ConcatFusion({"person": ["user", "age"]}, units=4, modality_dropout=0.0)}
OPTIONS: dict[str, Any] = {
    "dropout": 0.5, "unknown_rate": 0.5, "embedding_dropout": 0.5, "feature_dropout": 0.5, "modality_dropout": 0.5,
    "expert_dropout": 0.5, "mixup": 1.0, "sequence": SequenceAugmentation(0.6, 0.6, 0.6, rate=1.0),
    "context_dropout": 0.5,
}  # fmt: skip
ON_PAIRS = frozenset(small.ON_PAIRS)
PAIRED = {"mixup": ON_PAIRS, "expert_dropout": ON_PAIRS, "context_dropout": ON_PAIRS}
ON_BY_DEFAULT = {"unknown_rate", "context_dropout"}
TRUNKS: dict[str, Callable[[], Any]] = {
    "MMoE": small.trunk,
    "SharedBottom": lambda: SharedBottom(small.ON_PAIRS, [4]),
    "AITM": lambda: AITM(small.trunk(), {"liked": "rating"}, 3),
    "STEM": lambda: STEM(small.ON_PAIRS, units=[4]),
    "PEPNet": lambda: PEPNet(small.ON_PAIRS, domain=["position"], personal=["user", "item", "recent"], units=[4]),
}


def noise(*names: str, **arguments: Any) -> Regularization:
    return Regularization(**dict.fromkeys(ON_BY_DEFAULT, 0.0) | {name: OPTIONS[name] for name in names} | arguments)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return to_batch(small.table(), small.preprocessor())


@pytest.fixture(scope="module")
def plain() -> keras.Model:
    return small.network(fusion=FUSION, trunk=small.trunk(name="trunk"))


def flat(outputs: Any) -> dict[str, np.ndarray]:
    return {name: np.concatenate([v.numpy() for v in tf.nest.flatten(value)], 1) for name, value in outputs.items()}


def by_name(network: keras.Model) -> dict[str, tf.Variable]:
    return {variable.name: variable for variable in network.trainable_variables}


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_every_option_is_off_at_serving_and_on_in_training(option: str, plain: keras.Model, batch: Batch) -> None:
    noisy = small.network(fusion=FUSION, trunk=small.trunk(name="trunk"), regularization=noise(option))
    for name, variable in by_name(noisy).items():
        variable.assign(by_name(plain)[name])
    assert set(by_name(noisy)) == set(by_name(plain))
    served = tf.function(lambda features: noisy(features, training=False)).get_concrete_function(batch.features)
    kinds = {operation.type for operation in served.graph.get_operations()}
    assert not {kind for kind in kinds if "Random" in kind or "Assign" in kind}
    expected, found = flat(plain(batch.features)), flat(noisy(batch.features, training=False))
    first, second = (flat(noisy(batch.features, training=True)) for _ in range(2))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
        touched = name in PAIRED.get(option, set(expected))
        assert np.any(first[name] != value) == touched, name
        assert np.any(first[name] != second[name]) == touched, name


def test_off_is_the_default() -> None:
    assert all(not getattr(Regularization(), name) for name in OPTIONS if name not in ON_BY_DEFAULT)
    kinds = {type(layer).__name__ for layer in small.network(regularization=Regularization()).layers}
    assert not kinds & {"Dropout", "FeatureDropout", "Mixup", "MixupPartners", "SequenceAugmentation"}


def layer_inputs(network: keras.Model, name: str, features: Any) -> tuple[np.ndarray, ...]:
    """Return the inputs and the output of a layer in one training pass."""
    layer = network.get_layer(name)
    tensors = keras.Model(network.inputs, [*tf.nest.flatten(layer.input), layer.output])(features, training=True)
    return tuple(tensor.numpy() for tensor in tensors)


def test_context_is_missing_as_a_whole_and_as_it_is_served() -> None:
    """A category, two numbers that encode a missing value differently, and a list are missing in the same rows."""
    context = [Categorical("page"), Numeric("rank"), Numeric("hour", missing="mean", transform="none")]
    schema = Schema([Categorical("user")], [], [*context, MultiValued("tags", max_length=2)], [Label("y")])
    rows = 400
    frame = small.pd.DataFrame(
        {"user": "u", "page": "p", "rank": np.arange(rows), "hour": 7.0, "tags": [["a", "b"]] * rows, "y": 1.0}
    )
    preprocessor = Preprocessor.fit(schema, frame)
    network = build_network(preprocessor, [Regression("y")], regularization=noise(context_dropout=0.25))
    features = to_batch(frame, preprocessor).features
    missing = preprocessor({feature.name: missing_row(feature) for feature in schema.context})
    gone = []
    for name in ("page", "rank", "hour", "tags"):
        before, after = layer_inputs(network, f"{name}_missing", features)
        served = missing[name].numpy()[0]
        np.testing.assert_array_equal(before, features[name])
        gone.append((after == served).reshape(rows, -1).all(1) if name != "hour" else gone[0])
        np.testing.assert_array_equal(after[gone[-1]], np.broadcast_to(served, after[gone[-1]].shape))
        np.testing.assert_array_equal(after[~gone[-1]], before[~gone[-1]])
    assert 60 < gone[0].sum() < 140  # 400 draws at rate 0.25 have a deviation of 9
    for rows_without in gone[1:]:
        np.testing.assert_array_equal(rows_without, gone[0])


@pytest.mark.parametrize("name", ["user", "recent", "age"])
def test_features_are_left_out_of_whole_rows(name: str, batch: Batch) -> None:
    network = small.network(regularization=noise(feature_dropout=0.25))
    before, after = layer_inputs(network, f"{name}_feature_dropout", batch.features)
    gone = ~np.any(after != 0, axis=tuple(range(1, after.ndim))) & np.any(before != 0, axis=tuple(range(1, after.ndim)))
    assert 0 < gone.sum() < len(gone) / 2
    np.testing.assert_allclose(after[~gone], before[~gone] / 0.75, rtol=1e-6)


def test_joined_tables_lose_features_one_by_one() -> None:
    schema = Schema([Categorical("a"), Categorical("b")], labels=[Label("y")], query_id="a")
    table = {"a": list("abcd") * 50, "b": list("efgh") * 50, "y": [0.0, 1.0] * 100}
    frame = small.pd.DataFrame(table)
    preprocessor = Preprocessor.fit(schema, frame)
    network = build_network(
        preprocessor, [Regression("y")], embedding_dim=3,
        regularization=noise(feature_dropout=0.5),
    )  # fmt: skip
    features = to_batch(frame, preprocessor).features
    before, after = layer_inputs(network, "query_embedding_3_feature_dropout", features)
    kept = (after != 0).reshape(200, 2, 3)
    assert (kept.all(2) | ~kept.any(2)).all()
    assert {tuple(row) for row in kept.any(2).tolist()} == {(a, b) for a in (False, True) for b in (False, True)}
    np.testing.assert_allclose(after[kept.reshape(200, 6)], 2 * before[kept.reshape(200, 6)], rtol=1e-6)


def test_rates_replace_those_of_trunk_and_fusion() -> None:
    given = MMoE(small.ON_PAIRS, 2, units=[4], name="mine")
    network = small.network(trunk=given, fusion=FUSION, regularization=noise(expert_dropout=0.3, modality_dropout=0.2))
    assert network.get_layer("mine").expert_dropout == 0.3
    assert given.expert_dropout == 0.0
    assert network.get_layer("query_fusion").modality_dropout == 0.2
    chained = small.network(trunk=TRUNKS["AITM"](), regularization=noise(expert_dropout=0.3))
    assert [layer.trunk.expert_dropout for layer in chained.layers if isinstance(layer, AITM)] == [0.3]


@pytest.mark.parametrize("trunk", sorted(TRUNKS))
def test_all_that_a_trunk_reads_is_mixed_with_the_same_partners(trunk: str, batch: Batch) -> None:
    network = small.network(trunk=TRUNKS[trunk](), regularization=noise("mixup"))
    names = [layer.name for layer in network.layers if layer.name.endswith("_mixup")]
    assert len(names) == {"STEM": 3, "PEPNet": 3}.get(trunk, 1)
    draws = network.get_layer("mixup_partners").output
    tensors = [[*tf.nest.flatten(network.get_layer(name).input)[:1], network.get_layer(name).output] for name in names]
    mixed, (partners, kept) = keras.Model(network.inputs, [tensors, draws])(batch.features, training=True)
    share = kept.numpy()[:, np.newaxis]
    assert np.ptp(share) > 0.5
    for before, after in mixed:
        expected = share * before.numpy() + (1 - share) * before.numpy()[partners.numpy()]
        np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("read", ["embed", "embed_target", "index_target"])
def test_a_trunk_cannot_read_lists_of_mixed_rows(read: str) -> None:
    class Curious(SharedBottom):
        def connect(self, pair: Any, features: Any) -> Any:
            getattr(features, read)("recent")
            return super().connect(pair, features)

    assert small.network(trunk=Curious(small.ON_PAIRS, [4])).output["rating"].shape == [None, 1]
    with pytest.raises(ValueError, match="A trunk cannot read embeddings, here of 'recent', under mixup"):
        small.network(trunk=Curious(small.ON_PAIRS, [4]), regularization=noise("mixup"))


class Recorded(MultiTaskModel):
    """Stores the outputs of its last pass; its override of `losses_of` does not handle mixup."""

    recorded: dict[str, Any]

    def losses_of(self, data: Batch, outputs: Any, training: bool) -> TaskLosses:
        self.__dict__["recorded"] = outputs
        return super().losses_of(data, outputs, training)


def test_only_a_training_pass_of_a_network_with_mixup_returns_pairs(batch: Batch) -> None:
    plain, mixed = small.model(), small.model(regularization=noise("mixup"))
    assert with_mixup_pairs(plain.network) is plain.network
    assert set(plain(batch.features, training=True)) == set(mixed(batch.features)) == set(mixed.network.output)
    assert set(mixed(batch.features, training=True)) == {*mixed.network.output, MIXUP_PAIRS}
    assert [w.name for w in with_mixup_pairs(mixed.network).weights] == [w.name for w in mixed.network.weights]


def test_labels_are_mixed_like_the_rows_wherever_there_are_any(batch: Batch) -> None:
    model = small.model(regularization=noise("mixup"), kind=Recorded)
    assert isinstance(model, Recorded)
    found = {name: (float(a), float(b)) for name, (a, b) in model.compute_losses(batch, training=True).items()}
    partners, kept = (part.numpy() for part in model.recorded[MIXUP_PAIRS])
    scale = model.tasks[1]
    for name in small.ON_PAIRS:
        labels, weights = batch.labels[name].numpy(), batch.weights[name].numpy()
        output = model.recorded[name].numpy()[:, 0]
        top = bottom = 0.0
        for y, w, share in ((labels, weights, kept), (labels[partners], weights[partners], 1 - kept)):
            if name == "rating":
                loss = (output - (y - scale.offset) / scale.scale) ** 2
            else:
                loss = np.log1p(np.exp(output)) - y * output
            top += np.nansum(share * w * loss)
            bottom += np.sum(share * w)
        assert found[name] == pytest.approx((top / bottom, bottom), rel=1e-5)
    unmixed = small.model().compute_losses(batch, training=True)
    for name in ("seen", "mood"):
        assert found[name] == pytest.approx([float(value) for value in unmixed[name]], rel=1e-5)
    assert abs(found["rating"][0] - float(unmixed["rating"][0])) > 1e-3


def test_a_validation_after_a_training_pass_has_the_labels_as_they_are(batch: Batch) -> None:
    heads = small.tasks(sampling_correction=False)  # its counts change in training, and the loss with them
    model = small.model(regularization=noise("mixup"), heads=heads)
    expected = model.compute_losses(batch, training=False)
    model.compute_losses(batch, training=True)
    found = model.compute_losses(batch, training=False)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize("trunk", ["AITM", "STEM"])
def test_a_gradient_balancer_trains_with_all_of_it(trunk: str) -> None:
    regularized = noise("dropout", "embedding_dropout", "feature_dropout", "mixup", "sequence", l2=1e-3)
    model = small.model(trunk=TRUNKS[trunk](), balancer=UPGrad(), regularization=regularized, eager=True)
    before = {name: variable.numpy() for name, variable in by_name(model.network).items()}
    log = model.fit(small.table(), batch_size=25, verbose=0).history
    assert all(np.isfinite(values).all() for values in log.values())
    moved = {name for name, variable in by_name(model.network).items() if np.any(variable.numpy() != before[name])}
    assert {name.split("/")[0] for name in moved} >= {"item_embedding", "query_tower_0", "rating_output"}


@pytest.mark.slow
def test_a_model_with_all_of_it_is_served(tmp_path: pathlib.Path, batch: Batch) -> None:
    model = small.model(fusion=FUSION, regularization=noise(*OPTIONS))
    model.fit(small.table(), batch_size=25, epochs=2, verbose=0)
    clone = model.with_network(keras.models.clone_model(model.network))
    clone.network.set_weights(model.network.get_weights())
    for name, value in model.predict_step(batch).items():
        np.testing.assert_array_equal(clone.predict_step(batch)[name], value)
    assert export(model, tmp_path, max_k=3).is_dir()  # `export` compares the exported model with this one


SEEN, LIKED = Retrieval("seen"), BinaryClassification("liked")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"regularization": noise("modality_dropout")}, "`modality_dropout` needs a `fusion`; give a role one, or set"),
        (
            {"regularization": noise("expert_dropout"), "trunk": SharedBottom(small.ON_PAIRS)},
            "A SharedBottom has no `expert_dropout`; take a trunk such as MMoE, or set 0.",
        ),
        (
            {"regularization": noise("expert_dropout"), "heads": [SEEN], "trunk": None},
            "`expert_dropout` needs a trunk with experts; pass one such as MMoE().",
        ),
        (
            {"regularization": noise("mixup"), "heads": [SEEN], "trunk": None},
            "`mixup` mixes the inputs of the trunk, which none of the tasks ['seen'] reads.",
        ),
        (
            {
                "regularization": noise("mixup"),
                "heads": [BinaryClassification("mood", scope="query", after="liked", order_penalty=0.1), LIKED],
                "trunk": SharedBottom(["liked"]),
            },
            "Under `mixup` task 'mood' and the tasks it depends on must have one scope, unlike ['liked'].",
        ),
    ],
)
def test_contradictions_are_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        small.network(**arguments)


def test_a_schema_without_histories_has_none_to_change() -> None:
    schema = Schema([Categorical("user"), Numeric("age")], labels=[Label("y")])
    frame = small.pd.DataFrame({"user": ["a", "b"], "age": [1.0, 2.0], "y": [1.0, 3.0]})
    with pytest.raises(ValueError, match="the schema has no `IdSequence`"):
        build_network(Preprocessor.fit(schema, frame), [Regression("y")], regularization=noise("sequence"))
    with pytest.raises(TypeError, match="`sequence` must be SequenceAugmentation"):
        Regularization(sequence=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"sequence"}))
def test_fields_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        Regularization(**{name: -0.1})


def test_a_student_of_a_teacher_is_not_mixed() -> None:
    student = small.model(regularization=noise("mixup"))
    with pytest.raises(ValueError, match="A teacher has no predictions for mixed rows"):
        DistilledModel.of(student, teacher=small.model())

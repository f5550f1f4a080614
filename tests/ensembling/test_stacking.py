from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from tests.models import small
from tfmtl._keras import tf
from tfmtl.data import Preprocessor, Split, random_kfold, to_batch
from tfmtl.ensembling import stack
from tfmtl.layers import SharedBottom
from tfmtl.models import Candidates, MultiTaskModel, build_network
from tfmtl.tasks import (
    BinaryClassification,
    ChainedRegression,
    EntireSpaceConversion,
    MultiClassClassification,
    Regression,
    Retrieval,
    Task,
)


@dataclasses.dataclass
class Recipe:
    """Fits statistics to the training table and draws random weights; records its tables and its models."""

    seed: int
    tables: list[pd.DataFrame] = dataclasses.field(default_factory=list)
    models: list[MultiTaskModel] = dataclasses.field(default_factory=list)

    def __call__(self, train: pd.DataFrame) -> MultiTaskModel:
        preprocessor = Preprocessor.fit(small.SCHEMA, train)
        heads = small.tasks()
        parts: dict[str, Any] = {"embedding_dim": 2, "tower_units": [2], "regularization": small.NO_NOISE}
        trunk = SharedBottom(small.ON_PAIRS, units=[3])
        network = build_network(preprocessor, heads, trunk, **parts)
        rng = np.random.default_rng(self.seed)
        for variable in network.trainable_variables:
            variable.assign(rng.normal(0, 0.5, variable.shape))
        candidates = Candidates.from_frame(small.table(), preprocessor)
        self.tables.append(train)
        self.models.append(MultiTaskModel(network, heads, preprocessor, candidates=candidates))
        return self.models[-1]


@functools.cache
def folds() -> list[Split]:
    """Return two folds; the user "only" occurs in a single test side."""
    table = small.table().assign(user=lambda t: t["user"].where(t.index != 7, "only"))
    return list(random_kfold(table, folds=2, seed=0))


@functools.cache
def table() -> pd.DataFrame:
    return pd.concat([split.test for split in folds()]).sort_index()


@functools.cache
def stacked() -> tuple[MultiTaskModel, list[Recipe]]:
    recipes = [Recipe(1), Recipe(2)]
    return stack(recipes, table(), folds()), recipes


def outputs(model: MultiTaskModel, frame: pd.DataFrame) -> dict[str, Any]:
    features = to_batch(frame, model.preprocessor).features
    return model.network({name: features[name] for name in model.network.input})


def out_of_fold(task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recompute the members' outputs [N, M, n], the labels and the weights of the rows with a label."""
    _, recipes = stacked()
    parts = []
    for i, (_, test) in enumerate(folds()):
        batch = to_batch(test, recipes[0].models[i].preprocessor)
        members = np.stack([outputs(recipe.models[i], test)[task].numpy() for recipe in recipes], axis=1)
        parts.append((members, batch.labels[task].numpy(), batch.weights[task].numpy()))
    members, labels, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    return members[weights > 0], labels[weights > 0], weights[weights > 0]


def test_no_recipe_sees_a_row_of_the_fold_that_judges_it() -> None:
    _, recipes = stacked()
    for recipe in recipes:
        assert len(recipe.tables) == 3
        for given, (train, test) in zip(recipe.tables, folds(), strict=False):
            assert given.index.tolist() == train.index.tolist()
            assert not set(given.index) & set(test.index)
        assert len(recipe.tables[-1]) == len(table())
    unseen = next(i for i, (_, test) in enumerate(folds()) if "only" in set(test["user"]))
    codes = [m.preprocessor({"user": tf.constant(["only"])})["user"].numpy()[0] for m in recipes[0].models]
    assert codes[unseen] == 1  # unknown
    assert codes[1 - unseen] > 1


def test_meta_learners_are_scikit_learns_on_out_of_fold_outputs() -> None:
    model, _ = stacked()
    members, labels, weights = out_of_fold("liked")
    expected = LogisticRegression(max_iter=1000).fit(members[..., 0], labels, weights)
    kernel, bias = model.network.get_layer("liked_meta").get_weights()
    np.testing.assert_allclose(kernel[:, 0], expected.coef_[0], rtol=1e-4)
    np.testing.assert_allclose(bias, expected.intercept_, rtol=1e-4, atol=1e-6)
    members, labels, weights = out_of_fold("rating")
    targets = model.tasks[1].targets(tf.constant(labels)).numpy()
    kernel, bias = model.network.get_layer("rating_meta").get_weights()
    line = LinearRegression(positive=True).fit(members[..., 0], targets, weights)
    np.testing.assert_allclose(kernel[:, 0], line.coef_, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bias, [line.intercept_], rtol=1e-4, atol=1e-6)


def test_the_result_puts_the_final_members_through_the_meta_learners() -> None:
    model, recipes = stacked()
    found = outputs(model, table())
    members = [outputs(recipe.models[-1], table()) for recipe in recipes]
    kernel, bias = model.network.get_layer("liked_meta").get_weights()
    expected = np.hstack([member["liked"] for member in members]) @ kernel + bias
    np.testing.assert_allclose(found["liked"], expected, rtol=1e-4, atol=1e-5)
    shares = model.network.get_layer("seen_pool_query").shares
    scores = [m["seen"]["query"].numpy() @ m["seen"]["candidate"].numpy().T for m in [found, *members]]
    parts = np.linalg.lstsq(np.stack([score.ravel() for score in scores[1:]], axis=1), scores[0].ravel())[0]
    np.testing.assert_allclose(parts[parts > 1e-4], shares, rtol=1e-3)
    assert sum(shares) == pytest.approx(1)
    assert np.isfinite(model.compute_losses(to_batch(table(), model.preprocessor), training=False)["mood"][0])


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_stacked_as_scikit_learn_predicts(classes: int) -> None:
    rng = np.random.default_rng(classes)
    task = MultiClassClassification("mood", num_classes=classes)
    members = [rng.normal(size=(40, classes)).astype(np.float32) for _ in range(2)]
    labels = np.float32(rng.integers(0, classes, 40))
    learner = task.stacker(0.5)
    assert learner is not None
    features = learner.read([tf.constant(member) for member in members]).numpy()
    kernel, bias = learner.fit(features, labels, np.ones(40))
    expected = LogisticRegression(C=0.5, max_iter=1000).fit(features, labels).predict_proba(features)
    np.testing.assert_allclose(task.predict(tf.constant(features @ kernel + bias)), expected, rtol=1e-4, atol=1e-6)
    shifted = learner.read([tf.constant(member + 7) for member in members])  # logits of the same probabilities
    np.testing.assert_allclose(shifted, features, rtol=1e-4, atol=1e-5)


def test_numbers_take_no_negative_weight() -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.normal(size=(2, 60, 1))
    learner = Regression("spend", offset=1.0, scale=2.0).stacker(1.0)
    assert learner is not None
    kernel, bias = learner.fit(np.hstack([good, bad]), np.float32((good - bad) * 2 + 1)[:, 0], np.ones(60))
    assert kernel[1, 0] == 0
    assert kernel[0, 0] > 0.5
    assert bias.shape == (1,)


@pytest.mark.parametrize(
    "task",
    [
        Retrieval("a"),
        ChainedRegression("a", after="b"),
        EntireSpaceConversion("a", after="b"),
        BinaryClassification("a", after="b", order_penalty=1.0),
    ],
)
def test_tasks_whose_outputs_are_no_plain_number_take_weights(task: Task) -> None:
    assert task.stacker(1.0) is None


def test_errors_name_their_cause() -> None:
    with pytest.raises(ValueError, match="`recipes` must hold at least one"):
        stack([], table(), folds())
    with pytest.raises(ValueError, match="`strength` must be above 0"):
        stack([Recipe(1)], table(), folds(), strength=0)
    with pytest.raises(ValueError, match="`folds` must hold at least one split"):
        stack([Recipe(1)], table(), [])
    learner = MultiClassClassification("mood", num_classes=3).stacker(1.0)
    assert learner is not None
    with pytest.raises(ValueError, match=r"rows of task 'mood' must have all 3 classes. Received: labels=\[0.0, 2.0\]"):
        learner.fit(np.zeros((2, 3)), np.float32([0, 2]), np.ones(2))

"""Each contradiction between poolings, fusion, interactions and the schema raises one sentence."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest

from tests.models import small
from tests.models.test_network_parts import network
from tfmtl.data import Categorical, IdSequence, Preprocessor, Schema
from tfmtl.layers import ConcatFusion, DotInteraction, MaskedMean, SelfAttentionHistory, TargetAttention
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.models.encoders import FeatureEncoder
from tfmtl.tasks import BinaryClassification


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (
            {"poolings": {"user": MaskedMean()}},
            ValueError,
            "`poolings` is for lists, but feature 'user' is Categorical.",
        ),
        ({"poolings": {"image": MaskedMean()}}, ValueError, "`poolings` is for lists, but feature 'image' is Vector."),
        (
            {"poolings": {"recnt": MaskedMean()}},
            ValueError,
            "Unknown feature ['recnt'] in `poolings`; known: ['user', 'age', 'recent', 'fans', 'item', 'price', "
            "'genres', 'image', 'position']. Did you mean 'recent'?",
        ),
        (
            {"poolings": {"recent": "attention"}},
            TypeError,
            "`poolings['recent']` must be Layer. Received: poolings['recent']='attention'. Pass an instance such as "
            "AttentionPooling().",
        ),
        (
            {"poolings": {"recent": SelfAttentionHistory(num_heads=2)}},
            ValueError,
            "`num_heads` must divide the embeddings' width 3. Received: num_heads=2.",
        ),
        (
            {"fusion": {"user": ConcatFusion({"a": ["user"]})}},
            ValueError,
            "Unknown role ['user'] in `fusion`; known: ['query', 'candidate', 'context'].",
        ),
        (
            {"fusion": {"query": "concat"}},
            TypeError,
            "`fusion['query']` must be Fusion. Received: fusion['query']='concat'. Pass an instance such as "
            "ConcatFusion({...}).",
        ),
        (
            {"fusion": {"query": ConcatFusion({"a": ["item"]})}},
            ValueError,
            "Unknown feature ['item'] in the groups of a fusion; known: ['user', 'age', 'recent', 'fans'].",
        ),
        (
            {"interactions": ["dcn"]},
            TypeError,
            "`interactions[...]` must be Interaction. Received: interactions[...]='dcn'. Pass an instance such as "
            "CrossNetwork().",
        ),
        (
            {"interactions": [TargetAttention("recents")]},
            ValueError,
            "Unknown feature ['recents'] in the schema; known: ['user', 'age', 'recent',",
        ),
        (
            {"interactions": [TargetAttention("fans")]},
            ValueError,
            "Feature 'fans' holds no ids of a candidate feature; name an `IdSequence` of one of ['item'].",
        ),
        (
            {"interactions": [TargetAttention("genres")]},
            ValueError,
            "Feature 'genres' holds no ids of a candidate feature; name an `IdSequence` of one of ['item'].",
        ),
        (
            {"interactions": [TargetAttention("item")]},
            ValueError,
            "Feature 'item' holds no ids of a candidate feature; name an `IdSequence` of one of ['item'].",
        ),
        (
            {"interactions": [TargetAttention("age")]},
            ValueError,
            "Feature 'age' holds no ids of a candidate feature; name an `IdSequence` of one of ['item'].",
        ),
        (
            {"interactions": [DotInteraction(["user", "age"])]},
            ValueError,
            "Inner products need encodings of one width, but ('user', 'age') have [3, 2]; set `embedding_dim`, and",
        ),
        (
            {"heads": [BinaryClassification("liked", scope="query")], "trunk": None},
            ValueError,
            "`interactions` act on pairs, but none of the tasks ['liked'] does.",
        ),
    ],
)
def test_contradictions_are_named(arguments: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        network(**arguments)


def test_target_attention_needs_candidates() -> None:
    schema = Schema([Categorical("user"), IdSequence("friends", of="user")])
    preprocessor = Preprocessor.fit(schema, pd.DataFrame({"user": ["a"], "friends": [["a"]]}))
    sentence = "Feature 'friends' holds no ids of a candidate feature; name an `IdSequence` of one of []."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        FeatureEncoder(preprocessor, 3, small.NO_NOISE, 0).embed_target("friends")


@pytest.mark.parametrize("tasks", [BinaryClassification("liked"), {"liked": BinaryClassification("liked")}, ["liked"]])
def test_tasks_are_a_list_of_tasks(tasks: Any) -> None:
    cure = re.escape('Pass a list of tasks, such as [Regression("rating")].')
    with pytest.raises(TypeError, match=cure):
        build_network(small.preprocessor(), tasks)
    with pytest.raises(TypeError, match=cure):
        MultiTaskModel(small.network(), tasks, small.preprocessor())


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"balancer": "uncertainty"}, "Pass an instance such as Uncertainty()."),
        ({"candidates": small.table()}, "Pass `Candidates.from_frame(table, preprocessor)`."),
        ({"network": None}, "Pass the network of `build_network`."),
        ({"preprocessor": small.SCHEMA}, "Pass `Preprocessor.fit(schema, table)`."),
    ],
)
def test_parts_of_a_model_are_instances(arguments: dict[str, Any], cure: str) -> None:
    heads = [BinaryClassification("liked")]
    given = {"network": small.network(heads, trunk=None), "tasks": heads, "preprocessor": small.preprocessor()}
    with pytest.raises(TypeError, match=re.escape(cure)):
        MultiTaskModel(**{**given, **arguments})

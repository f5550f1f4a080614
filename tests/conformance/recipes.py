"""One line for every class registered as `tfmtl>...`: an instance with arguments other than the defaults.

A new task, trunk, layer, balancer or optimizer needs only its line here; `kinds.py` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.conformance.balancers import BALANCERS, SCHEDULES
from tests.models import small
from tfmtl import layers
from tfmtl._keras import keras
from tfmtl.balancing import Uncertainty
from tfmtl.compression import DistilledModel
from tfmtl.data import Preprocessor
from tfmtl.layers.boosted_trees import LARGEST
from tfmtl.layers.embeddings.joined import JoinedEmbedding
from tfmtl.layers.experts.prior_gate import PriorGate
from tfmtl.layers.fusions.presence import Presence
from tfmtl.layers.marks import EncodingMark
from tfmtl.layers.noise.mixup import MixupPartners
from tfmtl.layers.noise.randomness import RandomMissing, RandomUnknown
from tfmtl.layers.number_bins import NumberBins
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import (
    BinaryClassification,
    ChainedRegression,
    DoublyRobustConversion,
    DurationQuantiles,
    EntireSpaceConversion,
    HistoryCopy,
    HuberRegression,
    InversePropensityConversion,
    MultiClassClassification,
    OrdinalRegression,
    PoissonRegression,
    QuantileRegression,
    Regression,
    Retrieval,
    TweedieRegression,
    UserNeighbors,
    ValueLoss,
    WatchTime,
    ZeroInflatedLognormal,
    pools,
)
from tfmtl.tasks.ascending import Ascending
from tfmtl.tasks.ordered_thresholds import OrderedThresholds
from tfmtl.training import ASGD, GroupedOptimizer, LazyAdam, LazyAdamW, LazySGD, RowWiseAdagrad, ScaledRates

TASKS = ["a", "b"]


def _seeded() -> Any:
    return keras.initializers.HeNormal(seed=5)


def _l2() -> Any:
    return keras.regularizers.L2(0.25)


_KERNELS: dict[str, Any] = {"kernel_initializer": _seeded(), "kernel_regularizer": _l2(), "seed": 3}

_EXPERTS: dict[str, Any] = {"units": [4, 2], "activation": "tanh", "dropout": 0.25, **_KERNELS}

_FUSION: dict[str, Any] = {
    "groups": {"image": ["pixels"], "text": ["title", "tags"]}, "units": 3, "modality_dropout": 0.25, **_KERNELS
}  # fmt: skip


_LEVELS: dict[str, Any] = {**_EXPERTS, "gate_temperature": 2.0, "expert_dropout": 0.25}


_NUMBER: dict[str, Any] = {
    "units": [3], "scope": "query", "offset": 2, "scale": 3, "transform": "log1p", "clip": (-0.5, 2)
}  # fmt: skip
_AMOUNT: dict[str, Any] = {"units": [3], "scope": "query", "dispersion": 2.0, "clip": (0.5, 2)}
_CONVERSION: dict[str, Any] = {"units": [3], "scope": "query", "serve": "conditional"}
_GROUPED: dict[str, Any] = {
    "extra_losses": [
        {"kind": "hinge", "group": "user", "weight": 0.5, "temperature": 0.25},
        ValueLoss(keras.losses.Huber(0.5, name="second"), 0.25),
    ]
}
_PROPENSITY: dict[str, Any] = {"conditional_weight": 0.5, "min_propensity": 0.25}


_LEAF = LARGEST
_TREES: list[Any] = [
    [0, 0, 0, 10, 0, 0], [0.125, _LEAF, _LEAF, 0.5, _LEAF, _LEAF], [1, 1, 2, 4, 4, 5], [0.0, 1.0, 2.0, 0.0, 3.0, 4.0],
    [0, 3], [[1.0, 0.0], [0.0, 1.0]], [0.5, -0.5], [1], [[2, 0]],
]  # fmt: skip


def _inner() -> layers.MultiTaskLayer:
    return layers.MMoE(TASKS, 3, units=[4], seed=3)


def _model(kind: type[MultiTaskModel] = MultiTaskModel, **arguments: Any) -> MultiTaskModel:
    heads, balancer = small.tasks(), Uncertainty(0.5)
    return kind(small.network(heads), heads, small.preprocessor(), balancer, small.candidates(), seed=3, **arguments)


def _distilled() -> MultiTaskModel:
    options = {"alpha": 0.25, "temperature": 3.0, "unlabelled_rows": False, "precompute": False}
    weights = {"embedding_weight": 0.5, "representation_weight": 0.25}
    return _model(DistilledModel, teacher=_model(), **weights, **options)


Recipes = dict[str, Callable[[], Any]]

PARTS: Recipes = {
    "Adapter": lambda: layers.Adapter(3, "tanh", **_KERNELS),
    "BoostedTrees": lambda: layers.BoostedTrees(
        2, trees=2, nodes=6, depth=2, splits=1, words=2, weights=[np.array(part) for part in _TREES]
    ),
    "TreeColumns": lambda: layers.TreeColumns(1, 3, [[None, 0.5], []]),
    "Adversarial": lambda: layers.Adversarial(0.5, 2.0, steps=3, step_size=0.25),
    "DomainAdversary": lambda: layers.DomainAdversary("store", 0.5, (3,), num_domains=3, seed=3),
    "FreeAdversarial": lambda: layers.FreeAdversarial(0.5, replays=3),
    "VirtualAdversarial": lambda: layers.VirtualAdversarial(0.5, 2.0, iterations=3),
    "AITM": lambda: layers.AITM(
        _inner(), {"b": "a"}, 3, activation="tanh", kernel_initializer=_seeded(), kernel_regularizer=_l2(), seed=3
    ),
    "AtInference": lambda: layers.AtInference(),
    "Ascending": lambda: Ascending(),
    "OrderedThresholds": lambda: OrderedThresholds(3, [1.0, 0.0, -2.0]),
    "OrdinalRegression": lambda: OrdinalRegression("t", [-1, 0, 1], units=[3], scope="query"),
    "WatchTime": lambda: WatchTime("t", units=[3], scope="query", scale=2.0, clip=(0.5, 2)),
    "ZeroInflatedLognormal": lambda: ZeroInflatedLognormal("t", units=[3], scope="query", clip=(0.5, 2)),
    "BayesianRelations": lambda: layers.BayesianRelations(_inner(), {"b": ["a"]}, **_EXPERTS),
    "BinaryClassification": lambda: BinaryClassification(
        "t", units=[3], scope="query", after="front", order_penalty=0.5, label_smoothing=0.25, focal_gamma=0.5,
        class_weights=(0.5, 2.0), **_GROUPED,
    ),
    "UserNeighbors": lambda: UserNeighbors("user", rows=3, width=2),
    "Calibration": lambda: layers.Calibration(3, 2, num_indices=5),
    "ChainedRegression": lambda: ChainedRegression("t", "front", **_NUMBER, **_GROUPED),
    "DoublyRobustConversion": lambda: DoublyRobustConversion("t", "front", **_CONVERSION, **_PROPENSITY),
    "DurationQuantiles": lambda: DurationQuantiles(
        "t", "length", [0.0], [[0, 1, 3], [0, 2, 9], [0, 2, 8]], units=[3], scope="query", clip=(0.5, 2), **_GROUPED
    ),
    "CrossStitch": lambda: layers.CrossStitch(TASKS, **_EXPERTS, self_weight=0.75),
    "Dropout": lambda: layers.Dropout(0.25, seed=3),
    "EncodingMark": lambda: EncodingMark(),
    "EntireSpaceConversion": lambda: EntireSpaceConversion("t", "front", **_CONVERSION, **_GROUPED),
    "HuberRegression": lambda: HuberRegression("t", **_NUMBER, delta=0.5, **_GROUPED),
    "InversePropensityConversion": lambda: InversePropensityConversion("t", "front", **_CONVERSION, **_PROPENSITY),
    "AdaTT": lambda: layers.AdaTT(TASKS, num_task_experts=3, num_levels=3, **_LEVELS),
    "FeatureDropout": lambda: layers.FeatureDropout(0.25, seed=3, features=5),
    "HashedEmbedding": lambda: layers.HashedEmbedding(
        7, 4, buckets=3, num_hashes=3, embeddings_initializer="normal", seed=3
    ),
    "LowRankEmbedding": lambda: layers.LowRankEmbedding(7, 4, rank=2, embeddings_initializer="normal", seed=3),
    "QuotientRemainderEmbedding": lambda: layers.QuotientRemainderEmbedding(
        7, 4, divisor=3, embeddings_initializer="normal", seed=3
    ),
    "JoinedEmbeddings": lambda: pools.JoinedEmbeddings([0.75, 0.25]),
    "MeanConversion": lambda: pools.MeanConversion([0.75, 0.25]),
    "MeanDistribution": lambda: pools.MeanDistribution([0.75, 0.25]),
    "MeanExpectation": lambda: pools.MeanExpectation([0.75, 0.25]),
    "MeanProbability": lambda: pools.MeanProbability([0.75, 0.25]),
    "MeanValue": lambda: pools.MeanValue([0.75, 0.25]),
    "JoinedEmbedding": lambda: JoinedEmbedding({"x": 7, "y": 9, "z": 8}, 4, "normal", seed=3),
    "GatedAttention": lambda: layers.GatedAttention(3, 2, 0.25, kernel_initializer=_seeded(), seed=3),
    "GateNU": lambda: layers.GateNU(2, 3, 4, **_KERNELS),
    "LearningToBranch": lambda: layers.LearningToBranch(
        TASKS, **_EXPERTS, num_nodes=3, initial_temperature=2.0, final_temperature=0.5, decay_steps=7
    ),
    "MTAN": lambda: layers.MTAN(TASKS, **_EXPERTS, attention_units=3),
    "CGC": lambda: layers.CGC(
        TASKS, num_task_experts=1, num_shared_experts=3, orthogonality=0.1, **_LEVELS
    ),
    "DSelectK": lambda: layers.DSelectK(TASKS, 3, 1, gamma=0.5, static=True, entropy_weight=0.5, **_EXPERTS),
    "DSelectKGate": lambda: layers.DSelectKGate(
        2, 5, [[True, False, True, True, True]] * 2, 3, gamma=0.5, static=True, entropy_weight=0.5, seed=3
    ),
    "Experts": lambda: layers.Experts(3, **_EXPERTS, normalize=True),
    "HistoryMatch": lambda: layers.HistoryMatch("recent", ages="days"),
    "HoME": lambda: layers.HoME([*TASKS, "c"], groups={"x": ["c", "a"], "y": ["b"]}, num_experts=3, rank=2, **_LEVELS),
    "AttentionFusion": lambda: layers.AttentionFusion(**_FUSION, attention_units=2),
    "AttentionPooling": lambda: layers.AttentionPooling(4, kernel_initializer=_seeded(), seed=3),
    "BilinearFusion": lambda: layers.BilinearFusion(**_FUSION, rank=2),
    "ConcatFusion": lambda: layers.ConcatFusion(**_FUSION, activation="tanh"),
    "ContrastiveFusion": lambda: layers.ContrastiveFusion(
        layers.DecisionFusion(**_FUSION, kind="gated"), [("image", "text"), ("text", "rest")], 0.2, 0.7, block=4
    ),
    "ContrastivePooling": lambda: layers.ContrastivePooling(
        layers.SelfAttentionHistory(1, seed=2), 0.2, 0.7, crop=0.3, mask=0.2, reorder=0.1, seed=3
    ),
    "ContextGate": lambda: layers.ContextGate(["hour"], 4, **_KERNELS),
    "CrossNetwork": lambda: layers.CrossNetwork(3, "stacked", 2, 0.25, _seeded(), _l2(), seed=3),
    "DecisionFusion": lambda: layers.DecisionFusion(**_FUSION, kind="gated", hidden_units=4, activation="tanh"),
    "DotInteraction": lambda: layers.DotInteraction(["user", "item"], self_interaction=True),
    "LowRankFusion": lambda: layers.LowRankFusion(**_FUSION, rank=2),
    "CategoryRates": lambda: layers.CategoryRates({"x": 7, "y": 9}, ["rate", "mean", "count"], folds=2),
    "PiecewiseLinear": lambda: layers.PiecewiseLinear({"x": [-1.0, 0.0, 0.5], "y": [0.0, 2.0]}),
    "MaskedMean": lambda: layers.MaskedMean(),
    "MMoE": lambda: layers.MMoE(TASKS, 3, **_EXPERTS, gate_temperature=2.0, expert_dropout=0.25),
    "OMoE": lambda: layers.OMoE(TASKS, 3, **_EXPERTS, gate_temperature=2.0, expert_dropout=0.25),
    "NumberBins": lambda: NumberBins([-1.0, 0.5]),
    "MultiClassClassification": lambda: MultiClassClassification(
        "t", 4, units=[3], scope="query", label_smoothing=0.25
    ),
    "MultiInterestPooling": lambda: layers.MultiInterestPooling(2, 3, kernel_initializer=_seeded(), seed=3),
    "Mixup": lambda: layers.Mixup(),
    "MixupPartners": lambda: MixupPartners(0.5, seed=3),
    "PEPNet": lambda: layers.PEPNet(TASKS, domain=["page"], personal=["user", "item"], **_EXPERTS, gate_units=3),
    "PriorGate": lambda: PriorGate(4, **_KERNELS),
    "PLE": lambda: layers.PLE(
        TASKS, num_task_experts=1, num_shared_experts=3, num_levels=3, orthogonality=0.1, **_LEVELS
    ),
    "PoissonRegression": lambda: PoissonRegression("t", **_AMOUNT),
    "Presence": lambda: Presence(),
    "QuantileRegression": lambda: QuantileRegression("t", **_NUMBER, quantiles=[0.25, 0.75], serve=0.75),
    "RandomMissing": lambda: RandomMissing(0.25, seed=3, missing=[1, 2, 3]),
    "RandomUnknown": lambda: RandomUnknown(0.25, seed=3, unknown=2),
    "Regression": lambda: Regression("t", **_NUMBER, **_GROUPED),
    "Retrieval": lambda: Retrieval(
        "t", units=[3, 2], normalize=True, temperature=0.5, sampling_correction=False, remove_accidental_hits=False,
        num_hard_negatives=2, num_uniform_negatives=3, candidate_bias=True, gather_negatives=False,
        distinct_candidates=False, explicit_negatives=0.5, share_explicit_negatives=True,
        query_key="who", joint_positives=True, num_queued_negatives=4, negatives_power=0.5,
        copy=HistoryCopy("recent", 2.0, 5.0), num_interests=2,
    ),
    "STEM": lambda: layers.STEM(TASKS, **_EXPERTS, num_shared_experts=2, num_task_experts=3),
    "SelfAttention": lambda: layers.SelfAttention(2, 0.25, 3, kernel_initializer=_seeded(), seed=3),
    "SelfAttentionHistory": lambda: layers.SelfAttentionHistory(
        1, 2, 0.25, True, True, kernel_initializer=_seeded(), seed=3
    ),
    "SequenceAugmentation": lambda: layers.SequenceAugmentation(0.25, 0.5, 0.75, rate=1.0, seed=3, unknown=2),
    "SharedBottom": lambda: layers.SharedBottom(TASKS, **_EXPERTS),
    "SoftmaxGate": lambda: layers.SoftmaxGate(
        2, 3, [[True, False, True], [True, True, True]], 2.0, 0.25, kernel_initializer=_seeded(), seed=3
    ),
    "TweedieRegression": lambda: TweedieRegression("t", **_AMOUNT, power=1.25),
    "TargetAttention": lambda: layers.TargetAttention("recent", [4, 3], "tanh", True, **_KERNELS),
}  # fmt: skip
"""Classes that become part of a network: layers, trunks and tasks."""

OTHERS: Recipes = {
    **BALANCERS,
    **SCHEDULES,
    "ASGD": lambda: ASGD(0.25, 1, momentum=0.5, nesterov=True, name="averaged"),
    "GroupedOptimizer": lambda: GroupedOptimizer(
        RowWiseAdagrad(0.25), LazySGD(0.5), ["Variable"], global_clipnorm=2.0, name="grouped"
    ),
    "LazyAdam": lambda: LazyAdam(0.25, 0.5, 0.75, 0.125, catch_up=False, dense_rows=1, clipnorm=2.0, name="lazy"),
    "LazyAdamW": lambda: LazyAdamW(
        0.25, 0.5, beta_1=0.5, beta_2=0.75, epsilon=0.125, catch_up=False, dense_rows=1, name="decayed"
    ),
    "LazySGD": lambda: LazySGD(0.25, 0.5, True, weight_decay=0.5, name="descent"),
    "RowWiseAdagrad": lambda: RowWiseAdagrad(0.25, 0.5, 0.125, global_clipnorm=2.0, name="by_row"),
    "ScaledRates": lambda: ScaledRates(LazySGD(0.5), {"Var*": 0.5}, global_clipnorm=2.0, name="scaled"),
    "Preprocessor": lambda: Preprocessor(small.SCHEMA, small.statistics()),
}
"""Classes with a config that are not part of a network."""

MODELS: Recipes = {"DistilledModel": _distilled, "MultiTaskModel": _model}
"""Classes that are built around a network."""

RECIPES: Recipes = {**PARTS, **OTHERS, **MODELS}

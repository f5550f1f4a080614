"""Keras layers: architectures (what tasks share), feature encoders, attention, fusion and interactions."""

from __future__ import annotations

from tfmtl.layers.adapter import Adapter
from tfmtl.layers.adatt import AdaTT
from tfmtl.layers.aitm import AITM
from tfmtl.layers.architecture import FeatureEncodings, MultiTaskLayer
from tfmtl.layers.attention_fusion import AttentionFusion
from tfmtl.layers.attention_pooling import AttentionPooling
from tfmtl.layers.bayesian_relations import BayesianRelations
from tfmtl.layers.bilinear_fusion import BilinearFusion
from tfmtl.layers.chained_trunk import ChainedTrunk
from tfmtl.layers.compact_embedding import CompactEmbedding
from tfmtl.layers.concat_fusion import ConcatFusion
from tfmtl.layers.context_gate import ContextGate
from tfmtl.layers.cross_network import CrossNetwork
from tfmtl.layers.cross_stitch import CrossStitch
from tfmtl.layers.decision_fusion import DecisionFusion
from tfmtl.layers.dot_interaction import DotInteraction
from tfmtl.layers.dselect_k import DSelectK
from tfmtl.layers.dselect_k_gate import DSelectKGate
from tfmtl.layers.experts import Experts
from tfmtl.layers.fusion import Fusion
from tfmtl.layers.gate_nu import GateNU
from tfmtl.layers.gating import Gate, SoftmaxGate
from tfmtl.layers.hashed_embedding import HashedEmbedding
from tfmtl.layers.home import HoME
from tfmtl.layers.interaction import Interaction
from tfmtl.layers.joined_embedding import JoinedEmbedding
from tfmtl.layers.learning_to_branch import LearningToBranch
from tfmtl.layers.low_rank_embedding import LowRankEmbedding
from tfmtl.layers.low_rank_fusion import LowRankFusion
from tfmtl.layers.marks import EncodingMark, Marks, Mixing, Mixture, joined_marking, mark_outputs, marking
from tfmtl.layers.mixup import Mixup, MixupPartners
from tfmtl.layers.mmoe import MMoE, OMoE
from tfmtl.layers.mtan import MTAN
from tfmtl.layers.pepnet import PEPNet
from tfmtl.layers.ple import CGC, PLE
from tfmtl.layers.pooling import MaskedMean
from tfmtl.layers.presence import Presence
from tfmtl.layers.prior_gate import PriorGate
from tfmtl.layers.quotient_remainder_embedding import QuotientRemainderEmbedding
from tfmtl.layers.randomness import Dropout, FeatureDropout, RandomUnknown
from tfmtl.layers.reach import readers_of
from tfmtl.layers.self_attention import SelfAttention
from tfmtl.layers.self_attention_history import SelfAttentionHistory
from tfmtl.layers.sequence_augmentation import SequenceAugmentation
from tfmtl.layers.shared_bottom import SharedBottom
from tfmtl.layers.stem import STEM
from tfmtl.layers.target_attention import TargetAttention

__all__ = [
    "AITM",
    "CGC",
    "MTAN",
    "PLE",
    "STEM",
    "AdaTT",
    "Adapter",
    "AttentionFusion",
    "AttentionPooling",
    "BayesianRelations",
    "BilinearFusion",
    "ChainedTrunk",
    "CompactEmbedding",
    "ConcatFusion",
    "ContextGate",
    "CrossNetwork",
    "CrossStitch",
    "DSelectK",
    "DSelectKGate",
    "DecisionFusion",
    "DotInteraction",
    "Dropout",
    "EncodingMark",
    "Experts",
    "FeatureDropout",
    "FeatureEncodings",
    "Fusion",
    "Gate",
    "GateNU",
    "HashedEmbedding",
    "HoME",
    "Interaction",
    "JoinedEmbedding",
    "LearningToBranch",
    "LowRankEmbedding",
    "LowRankFusion",
    "MMoE",
    "Marks",
    "MaskedMean",
    "Mixing",
    "Mixture",
    "Mixup",
    "MixupPartners",
    "MultiTaskLayer",
    "OMoE",
    "PEPNet",
    "Presence",
    "PriorGate",
    "QuotientRemainderEmbedding",
    "RandomUnknown",
    "SelfAttention",
    "SelfAttentionHistory",
    "SequenceAugmentation",
    "SharedBottom",
    "SoftmaxGate",
    "TargetAttention",
    "joined_marking",
    "mark_outputs",
    "marking",
    "readers_of",
]

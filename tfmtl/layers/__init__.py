"""Keras layers: architectures (what tasks share), feature encoders, attention, fusion and interactions."""

from __future__ import annotations

from tfmtl.layers.adapter import Adapter
from tfmtl.layers.embeddings.base import CompressedEmbedding
from tfmtl.layers.embeddings.hashed import HashedEmbedding
from tfmtl.layers.embeddings.low_rank import LowRankEmbedding
from tfmtl.layers.embeddings.quotient_remainder import QuotientRemainderEmbedding
from tfmtl.layers.experts.dselect_k_gate import DSelectKGate
from tfmtl.layers.experts.experts import Experts
from tfmtl.layers.experts.gate_nu import GateNU
from tfmtl.layers.experts.gating import Gate, SoftmaxGate
from tfmtl.layers.fusions.attention import AttentionFusion
from tfmtl.layers.fusions.base import Fusion
from tfmtl.layers.fusions.bilinear import BilinearFusion
from tfmtl.layers.fusions.concat import ConcatFusion
from tfmtl.layers.fusions.decision import DecisionFusion
from tfmtl.layers.fusions.low_rank import LowRankFusion
from tfmtl.layers.interactions.base import Interaction
from tfmtl.layers.interactions.context_gate import ContextGate
from tfmtl.layers.interactions.cross_network import CrossNetwork
from tfmtl.layers.interactions.dot import DotInteraction
from tfmtl.layers.interactions.target_attention import TargetAttention
from tfmtl.layers.noise.mixup import Mixup
from tfmtl.layers.noise.randomness import Dropout, FeatureDropout
from tfmtl.layers.noise.sequence_augmentation import SequenceAugmentation
from tfmtl.layers.poolings.attention_pooling import AttentionPooling
from tfmtl.layers.poolings.masked_mean import MaskedMean
from tfmtl.layers.poolings.self_attention import SelfAttention
from tfmtl.layers.poolings.self_attention_history import SelfAttentionHistory
from tfmtl.layers.trunks.adatt import AdaTT
from tfmtl.layers.trunks.aitm import AITM
from tfmtl.layers.trunks.base import FeatureEncodings, MultiTaskLayer
from tfmtl.layers.trunks.bayesian_relations import BayesianRelations
from tfmtl.layers.trunks.chained_trunk import ChainedTrunk
from tfmtl.layers.trunks.cross_stitch import CrossStitch
from tfmtl.layers.trunks.dselect_k import DSelectK
from tfmtl.layers.trunks.home import HoME
from tfmtl.layers.trunks.learning_to_branch import LearningToBranch
from tfmtl.layers.trunks.mmoe import MMoE, OMoE
from tfmtl.layers.trunks.mtan import MTAN
from tfmtl.layers.trunks.pepnet import PEPNet
from tfmtl.layers.trunks.ple import CGC, PLE
from tfmtl.layers.trunks.shared_bottom import SharedBottom
from tfmtl.layers.trunks.stem import STEM

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
    "CompressedEmbedding",
    "ConcatFusion",
    "ContextGate",
    "CrossNetwork",
    "CrossStitch",
    "DSelectK",
    "DSelectKGate",
    "DecisionFusion",
    "DotInteraction",
    "Dropout",
    "Experts",
    "FeatureDropout",
    "FeatureEncodings",
    "Fusion",
    "Gate",
    "GateNU",
    "HashedEmbedding",
    "HoME",
    "Interaction",
    "LearningToBranch",
    "LowRankEmbedding",
    "LowRankFusion",
    "MMoE",
    "MaskedMean",
    "Mixup",
    "MultiTaskLayer",
    "OMoE",
    "PEPNet",
    "QuotientRemainderEmbedding",
    "SelfAttention",
    "SelfAttentionHistory",
    "SequenceAugmentation",
    "SharedBottom",
    "SoftmaxGate",
    "TargetAttention",
]

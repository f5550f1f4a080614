"""Balancers: how the tasks' losses become one step.

Loss weighting looks at the losses alone: `FixedWeights`, `EqualWeights`, `ScheduledWeights`, `Uncertainty`, `DWA`,
`RLW`, `GLS`, `IMTLL`, `FAMO`, `STCH`. Gradient balancers look at the inner products of the tasks' gradients: `MGDA`,
`PCGrad`, `GradVac`, `CAGrad`, `IMTLG`, `NashMTL`, `FairGrad`, `AlignedMTL`, `UPGrad`, `DualProj`, `GradNorm`, `PELTR`,
`GradCraft`, and `CRMOGM`, which smooths another one. Variable balancers look at the gradients themselves: `GradDrop`,
`MetaBalance`, `MoCo`, `DBMTL`, `ExcessMTL`.
"""

from __future__ import annotations

from tfmtl.balancing.aligned_mtl import AlignedMTL
from tfmtl.balancing.balancer import Balancer
from tfmtl.balancing.cagrad import CAGrad
from tfmtl.balancing.cr_mogm import CRMOGM
from tfmtl.balancing.db_mtl import DBMTL
from tfmtl.balancing.dual_proj import DualProj
from tfmtl.balancing.dwa import DWA
from tfmtl.balancing.equal import EqualWeights
from tfmtl.balancing.excess_mtl import ExcessMTL
from tfmtl.balancing.fairgrad import FairGrad
from tfmtl.balancing.famo import FAMO
from tfmtl.balancing.fixed import FixedWeights
from tfmtl.balancing.gls import GLS
from tfmtl.balancing.gradcraft import GradCraft
from tfmtl.balancing.graddrop import GradDrop
from tfmtl.balancing.gradient_balancer import GradientBalancer
from tfmtl.balancing.gradnorm import GradNorm
from tfmtl.balancing.gradvac import GradVac
from tfmtl.balancing.gramian import TaskGradients
from tfmtl.balancing.gramian_balancer import GramianBalancer
from tfmtl.balancing.imtl_g import IMTLG
from tfmtl.balancing.imtl_l import IMTLL
from tfmtl.balancing.metabalance import MetaBalance
from tfmtl.balancing.mgda import MGDA
from tfmtl.balancing.moco import MoCo
from tfmtl.balancing.nash_mtl import NashMTL
from tfmtl.balancing.pcgrad import PCGrad
from tfmtl.balancing.pe_ltr import PELTR
from tfmtl.balancing.rlw import RLW
from tfmtl.balancing.schedules import CosineWeight, LinearWeight, PiecewiseConstantWeight, ScheduledWeights
from tfmtl.balancing.stch import STCH
from tfmtl.balancing.training_step import TrainingStep
from tfmtl.balancing.uncertainty import Uncertainty
from tfmtl.balancing.upgrad import UPGrad

__all__ = [
    "CRMOGM",
    "DBMTL",
    "DWA",
    "FAMO",
    "GLS",
    "IMTLG",
    "IMTLL",
    "MGDA",
    "PELTR",
    "RLW",
    "STCH",
    "AlignedMTL",
    "Balancer",
    "CAGrad",
    "CosineWeight",
    "DualProj",
    "EqualWeights",
    "ExcessMTL",
    "FairGrad",
    "FixedWeights",
    "GradCraft",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GradientBalancer",
    "GramianBalancer",
    "LinearWeight",
    "MetaBalance",
    "MoCo",
    "NashMTL",
    "PCGrad",
    "PiecewiseConstantWeight",
    "ScheduledWeights",
    "TaskGradients",
    "TrainingStep",
    "UPGrad",
    "Uncertainty",
]

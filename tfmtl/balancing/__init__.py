"""Balancers: how the tasks' losses become one step.

Loss weighting reads the losses alone: `FixedWeights`, `EqualWeights`, `ScheduledWeights`, `Uncertainty`, `DWA`,
`RLW`, `GLS`, `IMTLL`, `FAMO`, `STCH`; `Exp3S` and `ThompsonSampling` train one drawn task a step; the `MetaWeights`
`AutoLambda` and `MultiDDS` learn weights from gradients on a meta split. `GramianBalancer`s read the inner products of
the tasks' gradients: `MGDA`, `PCGrad`, `GradVac`, `CAGrad`, `IMTLG`, `NashMTL`, `FairGrad`, `AlignedMTL`, `UPGrad`,
`DualProj`, `GradNorm`, `PELTR`, `GradCraft`, and `CRMOGM`, which smooths another one. `GradientBalancer`s read the
gradients themselves: `GradDrop`, `MetaBalance`, `MoCo`, `DBMTL`, `ExcessMTL`.
"""

from __future__ import annotations

from tfmtl.balancing.aligned_mtl import AlignedMTL as AlignedMTL
from tfmtl.balancing.assigned_weights import AssignedWeights as AssignedWeights
from tfmtl.balancing.auto_lambda import AutoLambda as AutoLambda
from tfmtl.balancing.balancer import BalancedTask as BalancedTask
from tfmtl.balancing.balancer import Balancer as Balancer
from tfmtl.balancing.cagrad import CAGrad as CAGrad
from tfmtl.balancing.cr_mogm import CRMOGM as CRMOGM
from tfmtl.balancing.db_mtl import DBMTL as DBMTL
from tfmtl.balancing.dual_proj import DualProj as DualProj
from tfmtl.balancing.dwa import DWA as DWA
from tfmtl.balancing.equal import EqualWeights as EqualWeights
from tfmtl.balancing.excess_mtl import ExcessMTL as ExcessMTL
from tfmtl.balancing.exp3s import Exp3S as Exp3S
from tfmtl.balancing.fairgrad import FairGrad as FairGrad
from tfmtl.balancing.famo import FAMO as FAMO
from tfmtl.balancing.fixed import FixedWeights as FixedWeights
from tfmtl.balancing.gls import GLS as GLS
from tfmtl.balancing.gradcraft import GradCraft as GradCraft
from tfmtl.balancing.graddrop import GradDrop as GradDrop
from tfmtl.balancing.gradient_balancer import GradientBalancer as GradientBalancer
from tfmtl.balancing.gradnorm import GradNorm as GradNorm
from tfmtl.balancing.gradvac import GradVac as GradVac
from tfmtl.balancing.gramian import TaskGradients as TaskGradients
from tfmtl.balancing.gramian_balancer import GramianBalancer as GramianBalancer
from tfmtl.balancing.imtl_g import IMTLG as IMTLG
from tfmtl.balancing.imtl_l import IMTLL as IMTLL
from tfmtl.balancing.meta_weights import MetaGramian as MetaGramian
from tfmtl.balancing.meta_weights import MetaWeights as MetaWeights
from tfmtl.balancing.metabalance import MetaBalance as MetaBalance
from tfmtl.balancing.mgda import MGDA as MGDA
from tfmtl.balancing.moco import MoCo as MoCo
from tfmtl.balancing.multi_dds import MultiDDS as MultiDDS
from tfmtl.balancing.nash_mtl import NashMTL as NashMTL
from tfmtl.balancing.pcgrad import PCGrad as PCGrad
from tfmtl.balancing.pe_ltr import PELTR as PELTR
from tfmtl.balancing.rlw import RLW as RLW
from tfmtl.balancing.schedules import CosineWeight as CosineWeight
from tfmtl.balancing.schedules import LinearWeight as LinearWeight
from tfmtl.balancing.schedules import PiecewiseConstantWeight as PiecewiseConstantWeight
from tfmtl.balancing.schedules import ScheduledWeights as ScheduledWeights
from tfmtl.balancing.stch import STCH as STCH
from tfmtl.balancing.thompson_sampling import ThompsonSampling as ThompsonSampling
from tfmtl.balancing.training_step import TrainingStep as TrainingStep
from tfmtl.balancing.uncertainty import Uncertainty as Uncertainty
from tfmtl.balancing.upgrad import UPGrad as UPGrad

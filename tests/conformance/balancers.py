"""One line for every registered balancer, like those of `recipes.py` for the other classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfmtl.balancing import (
    CRMOGM,
    DBMTL,
    DWA,
    FAMO,
    GLS,
    IMTLG,
    IMTLL,
    MGDA,
    PELTR,
    RLW,
    STCH,
    AlignedMTL,
    CAGrad,
    CosineWeight,
    DualProj,
    EqualWeights,
    ExcessMTL,
    FairGrad,
    FixedWeights,
    GradCraft,
    GradDrop,
    GradNorm,
    GradVac,
    LinearWeight,
    MetaBalance,
    MoCo,
    NashMTL,
    PCGrad,
    PiecewiseConstantWeight,
    ScheduledWeights,
    Uncertainty,
    UPGrad,
)  # fmt: skip

BALANCERS: dict[str, Callable[[], Any]] = {
    "AlignedMTL": lambda: AlignedMTL("median", at="shared"),
    "CAGrad": lambda: CAGrad(0.25, rescale=True, at="shared"),
    "CRMOGM": lambda: CRMOGM(PCGrad(3, at="shared"), momentum=0.5),
    "DBMTL": lambda: DBMTL(0.5, decay=0.25, epsilon=1e-6),
    "DWA": lambda: DWA(0.5),
    "DualProj": lambda: DualProj({"a": 2.0, "b": 1.0}, at="shared"),
    "EqualWeights": lambda: EqualWeights(),
    "ExcessMTL": lambda: ExcessMTL(0.5),
    "FAMO": lambda: FAMO(0.1, 0.01, {"b": 0.25}),
    "FairGrad": lambda: FairGrad(2.0, normalize=False, at="shared"),
    "FixedWeights": lambda: FixedWeights({"b": 0.25}),
    "GLS": lambda: GLS({"b": 2.0}, 1e-6),
    "GradCraft": lambda: GradCraft(0.25, epsilon=1e-3, beta=0.5, at="shared"),
    "GradDrop": lambda: GradDrop({"b": 0.5}, seed=3),
    "GradNorm": lambda: GradNorm(0.5, learning_rate=0.25, at="shared"),
    "GradVac": lambda: GradVac(0.25, seed=3, at="shared"),
    "IMTLG": lambda: IMTLG(at="shared"),
    "IMTLL": lambda: IMTLL(0.5),
    "MGDA": lambda: MGDA("l2", at="shared"),
    "MetaBalance": lambda: MetaBalance("b", relax=0.5, beta=0.5),
    "MoCo": lambda: MoCo(0.25, step_size=0.5, rho=0.125),
    "NashMTL": lambda: NashMTL(normalize=False, max_norm=2.0, update_every=2, at="shared"),
    "PCGrad": lambda: PCGrad(3, at="shared"),
    "PELTR": lambda: PELTR({"a": 0.25}, at="shared"),
    "RLW": lambda: RLW(3, "dirichlet"),
    "STCH": lambda: STCH(0.5, {"a": 0.25}, {"b": 2.0}),
    "ScheduledWeights": lambda: ScheduledWeights({"a": LinearWeight(2.0, 0.5, epochs=3), "b": 0.5}),
    "UPGrad": lambda: UPGrad({"a": 2.0, "b": 1.0}, at="shared"),
    "Uncertainty": lambda: Uncertainty(0.5),
}

SCHEDULES: dict[str, Callable[[], Any]] = {
    "CosineWeight": lambda: CosineWeight(0.5, 2.0, epochs=3, first_epoch=1),
    "PiecewiseConstantWeight": lambda: PiecewiseConstantWeight({0: 1.0, 2: 0.5}),
    "LinearWeight": lambda: LinearWeight(2.0, 0.5, epochs=3, first_epoch=1),
}

"""Exact theory: the risk of weighted preconditioned gradient descent, and the best that each gate family can reach."""

from gladient.landscape._result import FixedDecay, Rung
from gladient.landscape._risk import profile_risk, risk
from gladient.landscape._rungs import half_gate, linear_attention, optimum, scalar_gate

__all__ = [
    "FixedDecay",
    "Rung",
    "half_gate",
    "linear_attention",
    "optimum",
    "profile_risk",
    "risk",
    "scalar_gate",
]

"""The algorithm by itself: causal steps of weighted preconditioned gradient descent (WPGD)."""

from gladient.wpgd._risk import conditional_risk, label_weights, risk_given_features
from gladient.wpgd._search import BestSteps, best_steps
from gladient.wpgd._steps import WPGD, Estimates, Step
from gladient.wpgd._weights import TaskWeights, fixed_weights, gate_weights

__all__ = [
    "WPGD",
    "BestSteps",
    "Estimates",
    "Step",
    "TaskWeights",
    "best_steps",
    "conditional_risk",
    "fixed_weights",
    "gate_weights",
    "label_weights",
    "risk_given_features",
]

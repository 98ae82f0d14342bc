"""The algorithms by themselves: causal steps of weighted preconditioned gradient descent (WPGD), and the delta rule."""

from gladient.wpgd.delta import DeltaRule
from gladient.wpgd.risk import conditional_risk, label_weights, risk_given_features
from gladient.wpgd.search import BestSteps, best_steps
from gladient.wpgd.steps import WPGD, Estimates, Step
from gladient.wpgd.weights import TaskWeights, fixed_weights, gate_weights

__all__ = [
    "WPGD",
    "BestSteps",
    "DeltaRule",
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

"""The algorithm by itself: causal steps of weighted preconditioned gradient descent (WPGD)."""

from gladient.wpgd._steps import WPGD, Estimates, Step
from gladient.wpgd._weights import TaskWeights, fixed_weights, gate_weights

__all__ = ["WPGD", "Estimates", "Step", "TaskWeights", "fixed_weights", "gate_weights"]

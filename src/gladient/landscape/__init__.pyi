from . import delta
from .delta.batch import delta_rule_batch
from .delta.risk import delta_risk
from .delta.rungs import delta_rule, gated_delta_rule
from .delta.schedule import delta_schedule
from .gain import Advantage, advantage
from .gates.batch import OptimumBatch, optimum_batch
from .gates.decay import fixed_decay, half_gate
from .gates.gradients import Gradients, gradients, value_of_example
from .gates.key import key_gate
from .gates.order import Order, best_order
from .gates.reduced import Reduced, reduce
from .gates.result import AnyRung, Certificate, KeyGate, Rung
from .gates.risk import profile_risk, risk
from .gates.rungs import linear_attention, optimum, scalar_gate
from .gates.stationary import (
    StationaryPoint,
    StationaryPoints,
    Uniqueness,
    stationary_points,
    uniqueness,
)
from .ladders import Ladder, ladder
from .posterior import Estimate, bayes

__all__ = [
    # the rungs
    "risk",
    "profile_risk",
    "linear_attention",
    "half_gate",
    "fixed_decay",
    "scalar_gate",
    "optimum",
    "key_gate",
    "bayes",
    "ladder",
    # the delta rule, and the door to its other cases and its results
    "delta",
    "delta_risk",
    "delta_rule",
    "gated_delta_rule",
    "delta_rule_batch",
    "delta_schedule",
    # the landscape
    "stationary_points",
    "uniqueness",
    "advantage",
    "best_order",
    "gradients",
    "value_of_example",
    "optimum_batch",
    "reduce",
    # their results
    "Advantage",
    "AnyRung",
    "Certificate",
    "Estimate",
    "Gradients",
    "KeyGate",
    "Ladder",
    "OptimumBatch",
    "Order",
    "Reduced",
    "Rung",
    "StationaryPoint",
    "StationaryPoints",
    "Uniqueness",
]

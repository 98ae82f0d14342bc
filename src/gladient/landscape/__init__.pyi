from . import delta, depth, gates
from .delta.floors import any_key_floor, filter_floor
from .delta.risk import delta_risk
from .delta.rungs import delta_rule, gated_delta_rule
from .gain import Advantage, advantage
from .gates.batch import optimum_batch
from .gates.decay import fixed_decay, half_gate
from .gates.fixed_rotation import fixed_rotation
from .gates.gradients import gradients, value_of_example
from .gates.key import key_gate
from .gates.order import best_order
from .gates.reduced import Reduced, reduce
from .gates.result import AnyRung, KeyGate, Rung
from .gates.risk import profile_risk, risk
from .gates.rotating_gate import rotating_gate
from .gates.rungs import linear_attention, optimum, scalar_gate
from .gates.stationary import StationaryPoints, stationary_points, uniqueness
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
    "fixed_rotation",
    "rotating_gate",
    "bayes",
    "ladder",
    # the delta rule
    "delta_risk",
    "delta_rule",
    "gated_delta_rule",
    # what no layer goes below
    "filter_floor",
    "any_key_floor",
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
    "Estimate",
    "KeyGate",
    "Ladder",
    "Reduced",
    "Rung",
    "StationaryPoints",
    # the doors of the wings: their results and other cases
    "delta",
    "depth",
    "gates",
]

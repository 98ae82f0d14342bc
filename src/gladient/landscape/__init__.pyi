from ._advantage import Advantage, Order, advantage, best_order
from ._batch import OptimumBatch, optimum_batch
from ._bayes import Estimate, bayes
from ._decay import fixed_decay, half_gate
from ._delta import delta_risk
from ._delta_batch import DeltaBatch, delta_rule_batch
from ._delta_rungs import DeltaCertificate, DeltaRung, delta_rule, gated_delta_rule
from ._delta_schedule import DeltaSchedule, critical_step_risk, delta_schedule
from ._delta_shared import query_share, shared_step, shared_step_risk
from ._gradients import Gradients, gradients, value_of_example
from ._key import key_gate
from ._ladder import Ladder, ladder
from ._reduced import Reduced, reduce
from ._result import Certificate, FixedDecay, KeyGate, Rung
from ._risk import profile_risk, risk
from ._rungs import linear_attention, optimum, scalar_gate
from ._stationary import (
    StationaryPoint,
    StationaryPoints,
    Uniqueness,
    stationary_points,
    uniqueness,
)

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
    # the delta rule
    "delta_risk",
    "delta_rule",
    "gated_delta_rule",
    "delta_rule_batch",
    "delta_schedule",
    "critical_step_risk",
    "query_share",
    "shared_step",
    "shared_step_risk",
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
    "Certificate",
    "DeltaBatch",
    "DeltaCertificate",
    "DeltaRung",
    "DeltaSchedule",
    "Estimate",
    "FixedDecay",
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

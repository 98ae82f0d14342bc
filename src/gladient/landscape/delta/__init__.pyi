from .batch import DeltaBatch, delta_rule_batch
from .rungs import DeltaCertificate, DeltaRung
from .schedule import DeltaSchedule, critical_step_risk, delta_schedule
from .shared import query_share, shared_step, shared_step_risk

__all__ = [
    "delta_rule_batch",
    "delta_schedule",
    "critical_step_risk",
    "query_share",
    "shared_step",
    "shared_step_risk",
    # results, of `landscape`'s functions too
    "DeltaBatch",
    "DeltaCertificate",
    "DeltaRung",
    "DeltaSchedule",
]

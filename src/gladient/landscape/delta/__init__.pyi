from .batch import DeltaBatch
from .rungs import DeltaCertificate, DeltaRung
from .schedule import DeltaSchedule, critical_step_risk
from .shared import query_share, shared_step, shared_step_risk

__all__ = [
    # the rules whose best `landscape` has are there; the other cases
    "critical_step_risk",
    "query_share",
    "shared_step",
    "shared_step_risk",
    # results
    "DeltaBatch",
    "DeltaCertificate",
    "DeltaRung",
    "DeltaSchedule",
]

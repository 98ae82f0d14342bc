from .batch import DeltaBatch
from .rungs import DeltaCertificate, DeltaRung
from .schedule import DeltaSchedule, critical_step_risk
from .shared import query_share, shared_step, shared_step_risk

__all__ = [
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

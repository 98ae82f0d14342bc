from .batch import DeltaBatch, delta_rule_batch
from .floors import Floor
from .modern import StepRung, channel_rates, key_copies, repeated_steps, rotating_delta_rule
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
    # relatives: RWKV-7, several steps per token, rotation
    "channel_rates",
    "key_copies",
    "repeated_steps",
    "rotating_delta_rule",
    # results, of `landscape`'s functions too
    "DeltaBatch",
    "DeltaCertificate",
    "DeltaRung",
    "DeltaSchedule",
    "Floor",
    "StepRung",
]

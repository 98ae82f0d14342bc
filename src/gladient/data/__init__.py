"""Would gating help on my data? From real prompts to the nearest setting, what it predicts, and what is measured."""

from gladient.data.crossfitting import Compared, CrossFit, Fold, HeldOut, cross_fit, held_out
from gladient.data.estimate import Estimated, PredictedGate, estimate_setting
from gladient.data.prompt import Prompt, Prompts
from gladient.data.table import read_table, table_prompts
from gladient.data.transform import Transform

__all__ = [
    "Prompt",
    "Prompts",
    "estimate_setting",
    "cross_fit",
    "held_out",
    "read_table",
    "table_prompts",
    "Estimated",
    "Transform",
    "PredictedGate",
    "CrossFit",
    "HeldOut",
    "Fold",
    "Compared",
]

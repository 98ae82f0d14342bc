"""Would gating help on my data? From real prompts to the nearest setting, what it predicts, and what is measured."""

from gladient.data._cross_fit import Compared, CrossFit, Fold, HeldOut, cross_fit, held_out
from gladient.data._estimate import Estimated, PredictedGate, estimate_setting
from gladient.data._prompt import Prompt
from gladient.data._table import read_table, table_prompts
from gladient.data._transform import Transform

__all__ = [
    "Prompt",
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

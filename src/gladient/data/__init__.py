"""Would gating help on my data? From real prompts to the nearest setting, what it predicts, and what is measured."""

from gladient.data.asking import Answer, ask
from gladient.data.crossfitting import Compared, CrossFit, Fold, HeldOut, cross_fit, held_out
from gladient.data.estimate import Estimated, PredictedGate, estimate_setting
from gladient.data.files import read_table
from gladient.data.panel import prompts_from_panel
from gladient.data.prompt import Prompt, Prompts
from gladient.data.refusal import RefusedError
from gladient.data.regressor import GatedRegressor
from gladient.data.shaping import Table
from gladient.data.table import table_prompts
from gladient.data.transform import Transform
from gladient.data.ungated import Baseline, baselines
from gladient.data.verdict import GateVerdict, Verdicts, judge

__all__ = [
    "Prompt",
    "Prompts",
    "estimate_setting",
    "ask",
    "cross_fit",
    "held_out",
    "judge",
    "baselines",
    "GatedRegressor",
    "read_table",
    "table_prompts",
    "prompts_from_panel",
    "Table",
    "Estimated",
    "Transform",
    "PredictedGate",
    "Answer",
    "RefusedError",
    "CrossFit",
    "HeldOut",
    "Fold",
    "Compared",
    "Verdicts",
    "GateVerdict",
    "Baseline",
]

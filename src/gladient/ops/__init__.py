"""Gated linear attention and the delta rules as operators: tensors in, tensors out."""

from gladient.ops.call import Backend, Form, Read
from gladient.ops.check import LayoutWarning
from gladient.ops.choice import Choice, choose
from gladient.ops.decoder import Decoder
from gladient.ops.dispatch import gated_delta_rule, gated_linear_attention, generalized_delta_rule
from gladient.ops.gates import Gates
from gladient.ops.rotation import Mamba3State, Pairs, cumulative_angles, mamba3, rotate

__all__ = [
    "gated_linear_attention",
    "gated_delta_rule",
    "generalized_delta_rule",
    "Decoder",
    "rotate",
    "cumulative_angles",
    "mamba3",
    "Mamba3State",
    "Pairs",
    "choose",
    "Backend",
    "Choice",
    "Form",
    "Gates",
    "LayoutWarning",
    "Read",
]

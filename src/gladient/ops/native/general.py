"""The generalised delta rule's kernels as PyTorch operators: `gladient::general`, `general_step`, `general_last`."""

from typing import Any

from gladient.ops.native import plain
from gladient.ops.native.sequences import Rule

__all__ = ["last_query", "scan", "step", "step_"]

_RULE = Rule(
    ("q", "k", "v", "a", "b", "g", "gk", "initial"), ("checkpoints", "u"), kernel="general", plain=plain.general
)

scan = _RULE.define("general")
"""All tokens: outputs, final states, checkpoints, and what the tokens wrote along b."""
step: Any
"""One token: its output and the state after it."""
step_: Any
"""One token, into the state that was given: its output."""
step, step_ = _RULE.define_steps("general_step")
last_query = _RULE.define_last("general_last", plain.general_last)
"""o [B, 1, H, V] from a state of zeros, and [B, 1, H, K] that reads the state before the first token."""

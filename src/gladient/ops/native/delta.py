"""The delta rule's kernels as PyTorch operators: `torch.ops.gladient.delta`, `delta_step` and `delta_last`."""

from typing import Any

from gladient.ops.native import plain
from gladient.ops.native.sequences import Rule

__all__ = ["last_query", "scan", "step", "step_"]

_RULE = Rule(
    ("q", "k", "v", "m", "beta", "erase", "g", "gk", "initial"), ("checkpoints", "u"), kernel="delta", plain=plain.delta
)

scan = _RULE.define("delta")
"""All tokens: outputs, final states, checkpoints, and what the tokens wrote."""
step: Any
"""One token: its output and the state after it."""
step_: Any
"""One token, into the state that was given: its output."""
step, step_ = _RULE.define_steps("delta_step")
last_query = _RULE.define_last("delta_last", plain.delta_last)
"""o [B, 1, H, V] from a state of zeros, and [B, 1, H, K] that reads the state before the first token."""

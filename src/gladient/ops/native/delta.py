"""The delta rule's kernels as PyTorch operators: `torch.ops.gladient.delta` and `delta_step`."""

from gladient.ops.native.sequences import Rule

__all__ = ["delta", "step", "step_"]

_RULE = Rule(("q", "k", "v", "m", "beta", "erase", "g", "gk", "initial"), ("checkpoints", "u"), delta=True)

delta = _RULE.define("delta")  # outputs, final states, checkpoints, and what the tokens wrote
step, step_ = _RULE.define_steps("delta_step")

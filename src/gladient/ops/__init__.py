"""Gated linear attention as an operator: tensors in, tensors out."""

from gladient.ops.dispatch import gated_linear_attention

__all__ = ["gated_linear_attention"]

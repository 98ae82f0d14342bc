"""Kimi delta attention: the delta rule with a gate for every key channel."""

from gladient.lens._adapter import Adapter
from gladient.lens.adapters.delta import attach_delta

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    name="kimi delta attention",
    modules=("KimiLinearDeltaAttention", "BailingHybridDeltaAttention", "Glm5NextTextLinearAttention"),
    attach=attach_delta("chunk_kimi_delta_attention", "recurrent_kimi_delta_attention"),
)
"""Kimi delta attention in models of transformers."""

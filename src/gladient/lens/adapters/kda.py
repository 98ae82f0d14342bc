"""Kimi delta attention: the delta rule with a gate for every key channel."""

from gladient.lens.adapter import Adapter
from gladient.lens.adapters.delta import attach_delta
from gladient.seams.architectures import KIMI

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    name="kimi delta attention",
    modules=KIMI.layers,
    attach=attach_delta(KIMI),
)
"""Kimi delta attention in models of transformers."""

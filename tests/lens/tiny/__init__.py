"""Tiny random models of every architecture that the lens reads: one file for each adapter's."""

from tiny import delta, fla, gladient, kda, lightning, mamba, mamba2, rglru, rwkv, rwkv7, xlstm
from tiny._tiny import Tiny

__all__ = ["MODELS", "Tiny"]

MODELS: dict[str, Tiny] = {
    **delta.MODELS,
    **fla.MODELS,
    **gladient.MODELS,
    **kda.MODELS,
    **lightning.MODELS,
    **mamba.MODELS,
    **mamba2.MODELS,
    **rglru.MODELS,
    **rwkv.MODELS,
    **rwkv7.MODELS,
    **xlstm.MODELS,
}

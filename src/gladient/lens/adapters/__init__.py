"""One small file for each kind of gated layer; a new one is added to `ADAPTERS`."""

from gladient.lens.adapter import Adapter
from gladient.lens.adapters import (
    delta,
    fla,
    gladient,
    kda,
    lightning,
    mamba,
    mamba2,
    mamba3,
    rglru,
    rwkv,
    rwkv7,
    ss2d,
    xlstm,
)

__all__ = ["ADAPTERS"]

ADAPTERS: tuple[Adapter, ...] = (
    delta.ADAPTER,
    fla.ADAPTER,
    gladient.ADAPTER,
    kda.ADAPTER,
    lightning.ADAPTER,
    mamba.ADAPTER,
    mamba2.ADAPTER,
    mamba3.ADAPTER,
    mamba3.FLA,
    rglru.ADAPTER,
    rwkv.ADAPTER,
    rwkv7.ADAPTER,
    ss2d.ADAPTER,
    xlstm.ADAPTER,
)
"""Every adapter, in the order in which they are asked."""

"""One small file for each kind of gated layer; a new one is added to `ADAPTERS`."""

from gladient.lens._adapter import Adapter
from gladient.lens.adapters import delta, kda, mamba, mamba2, ss2d

__all__ = ["ADAPTERS"]

ADAPTERS: tuple[Adapter, ...] = (delta.ADAPTER, kda.ADAPTER, mamba.ADAPTER, mamba2.ADAPTER, ss2d.ADAPTER)

"""One small file for each kind of gated layer; a new one is added to `ADAPTERS`."""

from gladient.lens._adapter import Adapter
from gladient.lens.adapters import mamba2

__all__ = ["ADAPTERS"]

ADAPTERS: tuple[Adapter, ...] = (mamba2.ADAPTER,)

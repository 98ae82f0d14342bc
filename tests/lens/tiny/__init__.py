"""Tiny random models of every architecture that the lens reads: one file for each adapter's."""

from tiny import mamba2
from tiny._tiny import Tiny

__all__ = ["MODELS", "Tiny"]

MODELS: dict[str, Tiny] = {**mamba2.MODELS}

"""Versions of what decides the numbers."""

import platform
from importlib.metadata import version

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """The version of each package that results depend on, and of Python."""
    return {name: version(name) for name in ("gladient", "torch", "numpy", "scipy", "matplotlib")} | {
        "python": platform.python_version()
    }

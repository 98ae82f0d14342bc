"""Versions of what decides the numbers."""

import platform
from importlib.metadata import version

from gladient import __version__

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """The version of each package that results depend on, and of Python."""
    others = {name: version(name) for name in ("torch", "numpy", "scipy", "matplotlib")}
    return {"gladient": __version__} | others | {"python": platform.python_version()}

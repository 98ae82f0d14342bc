"""The one door to optional packages: found, or one error that says what to install."""

import importlib
import importlib.util
from types import ModuleType

__all__ = ["have", "require"]


def have(module: str) -> bool:
    """Whether `module` could be imported; it is not imported for that.

    >>> have("math"), have("a_package_that_nobody_wrote")
    (True, False)
    """
    return importlib.util.find_spec(module) is not None


def require(module: str, *, needed_for: str, install: str) -> ModuleType:
    """Imports `module`, or says what it is needed for and which command installs it.

    Raises:
        ImportError: if the package is absent or fails on import.

    >>> require("math", needed_for="sums", install="pip install math").floor(1.5)
    1
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{needed_for} needs the package {module.split('.')[0]!r} ({error}); install it with: {install}"
        ) from None

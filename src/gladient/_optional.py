"""The one door to optional packages: found, or one error that says what to install."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

__all__ = ["PARQUET", "find_file", "have", "require", "require_file"]

PARQUET = {"needed_for": "a Parquet table", "install": "pip install 'gladient[data]'"}
"""What `require` says where tables are read or written as Parquet."""


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
        raise _missing(module.split(".")[0], needed_for, install, error) from None


def find_file(package: str, path: str, *, needed_for: str, install: str) -> Path:
    """The place of one file of `package`, which is not imported.

    Raises:
        ImportError: if the package or the file is absent.

    >>> find_file("json", "scanner.py", needed_for="numbers", install="pip install json").name
    'scanner.py'
    """
    try:
        return _find(package, path)
    except ImportError as error:
        raise _missing(package, needed_for, install, error) from None


def require_file(package: str, path: str, *, needed_for: str, install: str) -> ModuleType:
    """Imports one file of `package` by its path and runs no `__init__`, which may want more than the file does.

    Raises:
        ImportError: if the package or the file is absent, or the file fails on import.

    >>> require_file("json", "scanner.py", needed_for="numbers", install="pip install json").NUMBER_RE.match("12").end()
    2
    """
    try:
        file = _find(package, path)
        found = importlib.util.spec_from_file_location(f"{package}.{path[:-3].replace('/', '.')}", file)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
    except ImportError as error:
        raise _missing(package, needed_for, install, error) from None
    return module


def _find(package: str, path: str) -> Path:
    spec = importlib.util.find_spec(package)
    folders = (spec and spec.submodule_search_locations) or ()
    for folder in folders:
        if Path(folder, path).is_file():
            return Path(folder, path)
    raise ImportError(f"no file {path} in it" if spec else f"No module named {package!r}")


def _missing(package: str, needed_for: str, install: str, error: ImportError) -> ImportError:
    return ImportError(f"{needed_for} needs the package {package!r} ({error}); install it with: {install}")

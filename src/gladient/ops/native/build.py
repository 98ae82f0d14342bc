"""The library of kernels for this process: prebuilt for a level of CPU, or compiled on this machine, once."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import sys
from pathlib import Path

from gladient.ops.native import cache, compiler, levels

__all__ = ["level", "library", "why_unavailable"]

_KERNELS = Path(__file__).with_name("kernels")
_PREBUILT = Path(__file__).with_name("prebuilt")  # in wheels alone; hatch_build.py makes it
_log = logging.getLogger(__name__)


@functools.cache
def why_unavailable() -> str | None:
    """None if the kernels are ready (the first call may compile them), else the reason why they are not.

    Raises:
        ValueError: if GLADIENT_CPU_LEVEL asks for what is not there.
    """
    try:
        library()
    except OSError as error:
        reason = f"the native kernels are not available ({error}); backend='eager' computes the same, more slowly"
        _log.warning("%s", reason)
        return reason
    return None


def library() -> ctypes.CDLL:
    """The kernels, loaded.

    Raises:
        OSError: if there is neither a prebuilt library for this CPU nor a compiler that makes one.
        ValueError: if GLADIENT_CPU_LEVEL asks for what is not there.
    """
    return _loaded()[1]


def level() -> str:
    """The level of CPU that the loaded kernels are built for: "v3", "v4", "neon" or "native"."""
    return _loaded()[0]


@functools.cache
def _loaded() -> tuple[str, ctypes.CDLL]:
    asked, extra = levels.forced(), shlex.split(os.environ.get("GLADIENT_CXXFLAGS", ""))
    for name in [asked] if asked else levels.available():
        path = (_PREBUILT / f"kernels-{name}{compiler.SUFFIX}").resolve()
        if extra or not path.exists():
            continue
        try:
            if reason := cache.distrust(path, like=Path(__file__)):
                raise OSError(reason)
            return name, ctypes.CDLL(str(path))
        except OSError as error:
            _log.warning("the kernels that came with the package are not used: %s", error)
    name = asked or "native"
    return name, ctypes.CDLL(str(cache.ready(_file_name(name, extra), lambda path: _compile(path, name, extra))))


def _file_name(name: str, extra: list[str]) -> str:
    """One name for one result: sources, compiler, flags and, for "native", the CPU, where machines share a cache."""
    sources = [path.read_text("utf-8") for path in sorted(_KERNELS.iterdir()) if path.suffix in (".cpp", ".h")]
    identity = [*sources, os.environ.get("CXX", ""), *compiler.FLAGS, *extra, platform.machine()]
    identity += [levels.cpu()] if name == "native" else []
    digest = hashlib.sha256("\n".join(identity).encode()).hexdigest()
    # a name, not a proof: the file has a record of its own (cache.py)
    return f"kernels-{name}-{digest[:16]}{compiler.SUFFIX}"


def _compile(path: Path, name: str, extra: list[str]) -> None:
    _log.info("compiling %s into %s (once, half a minute)", _KERNELS, path)
    if sys.stderr.isatty():  # a person waits
        print("gladient: compiling its CPU kernels, once, about half a minute …", file=sys.stderr, flush=True)
    compiler.build(_KERNELS, path, name, extra)

"""The native kernels: compiled once for this machine with its own C++ compiler, loaded with ctypes."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

__all__ = ["library", "why_unavailable"]

_FOLDER = Path(__file__).with_name("kernels")
_FLAGS = ["-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math"]
_log = logging.getLogger(__name__)


@functools.cache
def why_unavailable() -> str | None:
    """None if the kernels are ready (the first call compiles them), else the reason why they are not."""
    try:
        library()
    except OSError as error:
        reason = f"the native kernels are not available ({error}); backend='torch' computes the same, more slowly"
        _log.warning("%s", reason)
        return reason
    return None


@functools.cache
def library() -> ctypes.CDLL:
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "c++", "g++", "clang++"))), None)
    if compiler is None:
        raise OSError("no C++ compiler: install g++ or clang++, or set CXX")
    identity = [*(path.read_text() for path in _sources("*")), compiler, *_FLAGS, platform.machine(), _cpu()]
    name = "kernels-" + hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16] + ".so"
    path = _cache() / name
    with FileLock(path.with_suffix(".lock")):  # of processes that start together one compiles, the others wait
        if not path.exists():
            _compile(compiler, path)
    return ctypes.CDLL(str(path))


def _sources(pattern: str) -> list[Path]:
    return sorted(_FOLDER.glob(pattern))


def _cpu() -> str:
    """What -march=native depends on, so that a cache shared between machines never mixes them up."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gladient"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:
        home = Path(tempfile.gettempdir()) / f"gladient-{os.getuid()}"
        home.mkdir(mode=0o700, exist_ok=True)
    return home


def _compile(compiler: str, path: Path) -> None:
    """Compiles beside the target and renames, so that the target is whole or absent."""
    _log.info("compiling %s into %s (once, half a minute)", _FOLDER, path)
    if sys.stderr.isatty():  # a person waits
        print("gladient: compiling its CPU kernels, once, about half a minute …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / path.name
        command = [compiler, *_FLAGS, *map(str, _sources("*.cpp")), "-o", str(built)]
        for threads in (["-fopenmp"], []):  # a compiler without OpenMP still gives kernels, for one thread
            done = subprocess.run([*command, *threads], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
        else:
            lines = done.stderr.strip().splitlines()
            raise OSError(f"{compiler} failed: {next((line for line in lines if 'error' in line), lines[-1:])}")
        built.replace(path)

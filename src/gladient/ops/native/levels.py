"""Levels of CPUs: which of them this machine's has, and which one the environment asks for."""

import functools
import importlib
import os
import platform
from pathlib import Path

__all__ = ["LEVELS", "VARIABLE", "available", "cpu", "forced"]

VARIABLE = "GLADIENT_CPU_LEVEL"
"""The environment variable that names the level."""
_CPUINFO = Path("/proc/cpuinfo")
# The features of the psABI's levels by Linux's names: pni is SSE3, abm has LZCNT, xsave stands for OSXSAVE.
_V3 = "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
LEVELS = {
    "v4": frozenset(f"{_V3} avx512f avx512bw avx512cd avx512dq avx512vl".split()),
    "v3": frozenset(_V3.split()),
    "neon": frozenset[str](),
}
"""What the kernels are built for: two levels of x86-64, with the CPU features that each needs, and 64-bit ARM."""
_MACHINES = {"x86-64": ("x86_64", "AMD64"), "64-bit ARM": ("aarch64", "arm64", "ARM64")}  # as systems name them


@functools.cache
def cpu() -> str:
    """The CPU's features as Linux lists them, or what little else is known: what -march=native depends on."""
    try:
        lines = _CPUINFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def available() -> list[str]:
    """The levels that this CPU has, highest first; none where the CPU is another or does not say."""
    return [level for level in LEVELS if not _missing(level)]


def forced() -> str | None:
    """The level that GLADIENT_CPU_LEVEL asks for, None without it.

    Raises:
        ValueError: if there is no such level, or this CPU cannot run it.
    """
    level = os.environ.get(VARIABLE) or None
    if level is None or level == "native":
        return level
    can = ", ".join([*available(), "native"])
    if level not in LEVELS:
        raise ValueError(
            f"{VARIABLE}={level!r}, but the levels are {', '.join(LEVELS)} and native; this CPU runs {can}: "
            f"set one of these, or unset {VARIABLE} to have it chosen"
        )
    if missing := _missing(level):
        raise ValueError(
            f"{VARIABLE}={level!r} needs a CPU with {' '.join(missing)}, which this one lacks; it runs {can}: "
            f"set one of these, or unset {VARIABLE} to have it chosen"
        )
    return level


def _missing(level: str) -> list[str]:
    """What the CPU lacks for a level, by Linux's names."""
    kind = "64-bit ARM" if level == "neon" else "x86-64"
    if platform.machine() not in _MACHINES[kind]:
        return [kind]
    if level == "neon":
        return []
    if has := set(cpu().partition(":")[2].split()):
        return sorted(LEVELS[level] - has)
    asked = _asked()
    # Before 2.4 NumPy named no level: CPUs with these have the rest of it.
    older = ("AVX2", "FMA3", "F16C") if level == "v3" else ("AVX512_SKX",)
    return [] if asked.get(f"X86_{level.upper()}", all(map(asked.get, older))) else [f"x86-64-{level}"]


def _asked() -> dict[str, bool]:
    """What NumPy found when it asked the CPU itself, on any system."""
    try:
        return importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):  # it is not public: without it no level is known, and nothing worse
        return {}

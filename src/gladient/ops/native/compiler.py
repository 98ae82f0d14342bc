"""The C++ compiler, and one shared object from the sources of a folder: a process for each source, then a link.

It needs the standard library alone: hatch_build.py loads this file by its path, where neither gladient nor torch is.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["FLAGS", "SUFFIX", "SUFFIXES", "build", "compiler", "march"]

# No exceptions: none may leave a function that ctypes calls, and their machinery needs a young glibc.
FLAGS = ["-O3", "-std=c++17", "-fno-exceptions", "-fno-math-errno", "-fno-trapping-math"]
"""What the compiler is given beside the level of the CPU."""
SUFFIXES = {"win32": ".dll", "darwin": ".dylib"}
SUFFIX = SUFFIXES.get(sys.platform, ".so")
"""How the names of shared objects end here."""
# Bound inside, whatever else the process has loaded; and what a compiler may still want of C++'s runtime stands inside.
_ALONE = {"linux": ["-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"], "win32": ["-static"]}
_ALONE["linux"] += ["-Wl,--gc-sections", "-Wl,-Bsymbolic-functions"]


def compiler() -> list[str]:
    """The words of the command: CXX, which may be several ("ccache g++"), else the first of c++, g++ and clang++.

    Raises:
        OSError: if CXX names nothing that runs, or there is no compiler.
    """
    asked = os.environ.get("CXX", "").strip()
    if not asked:
        found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
        if found is None:
            raise OSError("no C++ compiler: install g++ or clang++, or set CXX")
        return [found]
    try:
        first, *rest = shlex.split(asked)
    except ValueError as error:
        raise OSError(
            f"CXX={asked!r} is not a command ({error}): correct it, or unset it to have a compiler found"
        ) from None
    found = shutil.which(first)
    if found is None:
        raise OSError(f"CXX={asked!r}, but there is no {first!r}: correct it, or unset it to have a compiler found")
    return [found, *rest]


def march(level: str) -> list[str]:
    """The compiler's flags for a level of CPU.

    >>> march("v3")
    ['-march=x86-64-v3']
    """
    if level == "neon":  # every 64-bit ARM has it
        return []
    if level != "native":
        return [f"-march=x86-64-{level}"]
    if platform.machine() not in ("arm64", "aarch64"):
        return ["-march=native"]
    # For ARM, clang takes -mcpu alone, and Apple's older one does not know "native": it knows Apple's CPUs.
    return [] if sys.platform == "darwin" else ["-mcpu=native"]


def build(folder: Path, target: Path, level: str, extra: Sequence[str] = (), zig: str | None = None) -> None:
    """Compiles every .cpp of `folder` into the shared object `target`; its objects are left beside it.

    Args:
        folder: the sources.
        target: what is made.
        level: the level of CPU.
        extra: more flags.
        zig: a platform to compile for, as Zig writes it ("aarch64-macos.11.0"), by the package ziglang; left out: this
            one, by its C++ compiler.

    Raises:
        OSError: with the compiler's first complaint.
    """
    sources = sorted(folder.glob("*.cpp"))
    if not sources:
        raise OSError(f"no C++ sources in {folder}: the package is not whole, install it again")
    commands = _of_zig(zig, level) if zig else _of_this_machine(level)
    compiling, *linking = [[*command, *extra] for command in commands]
    objects = [target.with_name(f"{source.stem}.o") for source in sources]
    with ThreadPoolExecutor(min(len(sources), os.cpu_count() or 1)) as pool:
        jobs = [
            pool.submit(_run, [*compiling, "-c", str(x), "-o", str(y)]) for x, y in zip(sources, objects, strict=True)
        ]
    for job in jobs:
        job.result()
    for link in linking[:-1]:
        try:
            return _run([*link, "-shared", *map(str, objects), "-o", str(target)])
        except OSError:  # a machine without static libraries: the shared ones of the same machine do as well
            pass
    return _run([*linking[-1], "-shared", *map(str, objects), "-o", str(target)])


def _of_this_machine(level: str) -> list[list[str]]:
    """The command that compiles, and those that link, to be tried one after the other."""
    command = [*compiler(), *FLAGS, *march(level)]
    if sys.platform != "win32":  # it has no other code, and compilers for it refuse the flag
        command += ["-fPIC"]
    return [command, *([[*command, *_ALONE[sys.platform]]] if sys.platform in _ALONE else []), command]


def _of_zig(target: str, level: str) -> list[list[str]]:
    zig = [sys.executable, "-m", "ziglang"]
    compiling = [*zig, "c++", "-target", target, *FLAGS, *(flag.replace("x86-64-", "x86_64_") for flag in march(level))]
    # Linked as C: nothing of C++'s runtime is needed, and Zig would build it for the target.
    linking = [*zig, "cc", "-target", target, "-s"]
    return [[*compiling, *([] if "windows" in target else ["-fPIC"])], linking]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode == 0:
        return
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    # Compilers say "error:", linkers "error"; the first such line names the cause, those after it follow from it.
    said = next(
        (x for word in ("error:", "error") for x in lines if word in x), lines[-1] if lines else "no word printed"
    )
    end = f"exit code {done.returncode}" if done.returncode > 0 else f"ended by signal {-done.returncode}"
    raise OSError(
        f"{command[0]} failed with {end}: {said}" if done.returncode > 0 else f"{command[0]} was {end}: {said}"
    )

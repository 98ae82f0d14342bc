"""Wheels carry the native kernels ready to run: for this platform by its C++ compiler, or for another by Zig's.

GLADIENT_TARGET names one of TARGETS, for which Zig comes by itself: the wheel is then the same on any machine. Without
it, where no compiler is found, the wheel has no kernels; nor have editable installs, nor any with GLADIENT_PREBUILT=0.
"""

import hashlib
import importlib.util
import os
import platform
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["TARGETS", "Prebuilt", "Target"]

_NATIVE = Path("src/gladient/ops/native")


class Target(NamedTuple):
    """A platform as Zig, Python (sys.platform) and a wheel's tag name it, and levels of CPU to build for."""

    zig: str
    system: str
    tag: str
    levels: tuple[str, ...]


# Linux: glibc 2.17 of 2012, as manylinux2014 has it. macOS 11 is the first for Apple's own CPUs. Windows: the C library
# that comes with Windows 10.
TARGETS = {
    "linux-x86_64": Target("x86_64-linux-gnu.2.17", "linux", "manylinux_2_17_x86_64", ("v3", "v4")),
    "linux-aarch64": Target("aarch64-linux-gnu.2.17", "linux", "manylinux_2_17_aarch64", ("neon",)),
    "macos-x86_64": Target("x86_64-macos.11.0", "darwin", "macosx_11_0_x86_64", ("v3", "v4")),
    "macos-arm64": Target("aarch64-macos.11.0", "darwin", "macosx_11_0_arm64", ("neon",)),
    "windows-x86_64": Target("x86_64-windows-gnu", "win32", "win_amd64", ("v3", "v4")),
}
"""What a release has wheels for."""
# The C library's own. One that needs more runs on fewer machines than tagged.
_ALLOWED = {"libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}


class Prebuilt(BuildHookInterface[Any]):
    """Adds gladient/ops/native/prebuilt/kernels-LEVEL.so and their checksums, and names the platform in the tag."""

    def dependencies(self) -> list[str]:
        """What a build needs beside pyproject.toml's `build-system`."""
        return ["ziglang>=0.15"] if os.environ.get("GLADIENT_TARGET") else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files."""
        if version == "editable" or os.environ.get("GLADIENT_PREBUILT") == "0":
            return
        asked = os.environ.get("GLADIENT_TARGET")
        if asked and asked not in TARGETS:
            raise ValueError(f"GLADIENT_TARGET={asked!r}, but the targets are {', '.join(TARGETS)}: name one of these")
        target = TARGETS[asked] if asked else here()
        if target is None:
            return
        self._folder = tempfile.TemporaryDirectory()  # goes with the hook, when the wheel is written
        try:
            libraries = build(Path(self.root), Path(self._folder.name), target, target.zig if asked else None)
            if not asked and target.system == "linux":  # its own glibc is younger
                target = target._replace(tag=re.sub(r"_2_\d+_", f"_2_{max(map(glibc, libraries))}_", target.tag))
        except OSError as error:
            if asked:
                raise
            self.app.display_warning(f"a wheel without kernels, which are compiled on first use: {error}")
            return
        for path in libraries:
            for file in (path, path.with_name(f"{path.name}.sha256")):
                build_data["force_include"][str(file)] = f"gladient/ops/native/prebuilt/{file.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{target.tag}"


def here() -> Target | None:
    """This platform, if it is one of them."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    return next((x for x in TARGETS.values() if x.system == sys.platform and x.zig.startswith(machine)), None)


def build(root: Path, folder: Path, target: Target, zig: str | None = None) -> list[Path]:
    """Compiles the kernels of the tree at `root` for every level of a target into `folder`.

    Raises:
        OSError: if that fails, or a library would need more than the wheel's tag promises.
    """
    compiler, made = _load(root / _NATIVE / "compiler.py"), []
    extra = ["-mmacosx-version-min=11.0"] if target.system == "darwin" and not zig else []  # as the tag says
    for level in target.levels:
        path = folder / level / f"kernels-{level}{compiler.SUFFIXES.get(target.system, '.so')}"
        path.parent.mkdir()
        compiler.build(root / _NATIVE / "kernels", path, level, extra, zig)
        if target.system == "linux" and (needs := needed(path)) - _ALLOWED:
            raise OSError(
                f"{path.name} needs {', '.join(sorted(needs))}; allowed are {', '.join(sorted(_ALLOWED))}: "
                "build with g++ and its static libstdc++"
            )
        path.chmod(0o755)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n", "utf-8")
        made.append(path)
    return made


def needed(library: Path) -> set[str]:
    """The shared libraries that one needs, from the names in its dynamic string table (and in no other string)."""
    return {
        x.decode() for x in re.findall(rb"\0((?:lib[\w+-]+|ld-linux[\w-]*)\.so(?:\.\d+)*)(?=\0)", library.read_bytes())
    }


def glibc(library: Path) -> int:
    """N of the youngest GLIBC_2.N among the versions of the symbols that a library needs."""
    versions = re.findall(rb"\0GLIBC_2\.(\d+)", library.read_bytes())
    if not versions:  # of musl, say, for which wheels have other tags
        raise OSError(f"{library.name} names no version of glibc")
    return max(map(int, versions))


def _load(path: Path) -> ModuleType:
    """A module by its path: its package would import torch."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise OSError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""Wheels for x86-64 Linux carry the native kernels ready for two levels of CPU, where a compiler builds them.

Otherwise, for editable installs, and with GLADIENT_PREBUILT=0, the wheel is pure and compiles them on first use.
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
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["Prebuilt"]

_NATIVE = Path("src/gladient/ops/native")
_LEVELS = ("v3", "v4")
# The C library's own. One that needs more runs on fewer machines than tagged.
_ALLOWED = {"libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2"}


class Prebuilt(BuildHookInterface[Any]):
    """Adds gladient/ops/native/prebuilt/kernels-{v3,v4}.so and their checksums, and names the platform in the tag."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files."""
        if version == "editable" or os.environ.get("GLADIENT_PREBUILT") == "0":
            return
        if sys.platform != "linux" or platform.machine() != "x86_64":
            return
        self._folder = tempfile.TemporaryDirectory()  # goes with the hook, when the wheel is written
        try:
            libraries = build(Path(self.root), Path(self._folder.name))
        except OSError as error:
            self.app.display_warning(f"a pure wheel, whose kernels are compiled on first use: {error}")
            return
        for path in libraries:
            for file in (path, path.with_name(f"{path.name}.sha256")):
                build_data["force_include"][str(file)] = f"gladient/ops/native/prebuilt/{file.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_2_{max(map(glibc, libraries))}_x86_64"


def build(root: Path, folder: Path) -> list[Path]:
    """Compiles the kernels of the tree at `root` for every level into `folder`.

    Raises:
        OSError: if that fails, or a library would need more than the wheel's tag promises.
    """
    compiler, made = _load(root / _NATIVE / "compiler.py"), []
    for level in _LEVELS:
        path = folder / level / f"kernels-{level}.so"
        path.parent.mkdir()
        compiler.build(root / _NATIVE / "kernels", path, level)
        needs = needed(path)
        if needs - _ALLOWED:
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
    return max(int(n) for n in re.findall(rb"\0GLIBC_2\.(\d+)", library.read_bytes()))


def _load(path: Path) -> ModuleType:
    """A module by its path: its package would import torch."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise OSError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

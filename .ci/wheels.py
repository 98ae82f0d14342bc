"""What the wheels in dist/ carry: each library of kernels, its size, and all that it asks of the system.

    python .ci/wheels.py                 a table; exit code 1 where a library asks for more than a C library
    python .ci/wheels.py --here          the path of the wheel that fits this Python and platform, alone

It needs the package lief, which reads libraries of every system.
"""

import re
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import lief
from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename

__all__ = ["asked", "fitting", "libraries"]

DIST = Path(__file__).parents[1] / "dist"
# glibc's, with its loader; macOS' one for all; Windows' "universal C runtime" and the core that it stands on.
_ALLOWED = re.compile(r"lib[cm]\.so\.6|ld-linux-.*|/usr/lib/libSystem\.B\.dylib|(api-ms-win-crt-.*|KERNEL32)\.dll")


def fitting() -> Path:
    """The wheel in dist/ that pip would choose here.

    Raises:
        FileNotFoundError: if none fits.
    """
    for tag in sys_tags():  # the best first
        for wheel in DIST.glob("*.whl"):
            if tag in parse_wheel_filename(wheel.name)[3]:
                return wheel
    raise FileNotFoundError(f"no wheel in {DIST} fits this Python and platform: build one with `make dist`")


def libraries(wheel: Path, folder: Path) -> list[Path]:
    """The libraries of kernels in a wheel, taken out into a folder."""
    with zipfile.ZipFile(wheel) as archive:
        names = [x for x in archive.namelist() if "/prebuilt/" in x and not x.endswith(".sha256")]
        return sorted(Path(archive.extract(name, folder)) for name in names)


def asked(library: Path) -> dict[str, list[str]]:
    """The symbols that a library takes from others, by their library where its format says which that is."""
    binary: Any = lief.parse(str(library))  # its types differ by the format
    if isinstance(binary, lief.PE.Binary):
        return {str(x.name): [str(entry.name) for entry in x.entries] for x in binary.imports}
    names = sorted(str(x.name) for x in binary.imported_functions)
    # macOS' first is the library's own name.
    others = binary.libraries if isinstance(binary, lief.ELF.Binary) else [x.name for x in binary.libraries][1:]
    return {", ".join(map(str, others)): names}


def main() -> int:
    if "--here" in sys.argv[1:]:
        print(fitting())
        return 0
    foreign = False
    for wheel in sorted(DIST.glob("*.whl")):
        print(f"{wheel.name}  {wheel.stat().st_size / 2**20:.2f} MiB")
        with tempfile.TemporaryDirectory() as folder:
            for library in libraries(wheel, Path(folder)):
                print(f"    {library.name}  {library.stat().st_size / 2**20:.2f} MiB")
                for names, symbols in asked(library).items():
                    print(f"        {names}: {' '.join(symbols)}")
                    foreign |= not all(map(_ALLOWED.fullmatch, names.split(", ")))
    return int(foreign)


if __name__ == "__main__":
    sys.exit(main())

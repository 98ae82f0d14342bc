"""The kernels that wheels carry, on their own platforms or under an emulator: recorded calls, played again.

    make dist
    python -m benchmarks.replay                # all wheels in dist/ that can be run here; --calls 400

It records calls of this machine's kernels, on the random cases of benchmarks.sanitize: their numbers, and the memory
that they point into, before and after. A small program in C, compiled for the wheel's platform by Zig, makes the same
calls of the wheel's libraries: 64-bit ARM under qemu-user (Debian's qemu-user and libc6-arm64-cross), Windows under
wine, x86-64 Linux as it is. macOS has no emulator: its wheels run on a Mac alone. A difference is relative to the
largest number that the call writes to a tensor; exit code 1 if one is above 1e-3 (float32) or 1e-9 (float64).
"""

import argparse
import ctypes
import gc
import importlib
import platform
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import sanitize
from gladient.ops.native import levels

__all__: list[str] = []

ROOT = Path(__file__).parents[1]
library: Any = importlib.import_module("gladient.ops.native.library")  # its package has a function of that name
QEMU = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
# By the end of a wheel's name: the platform as Zig names it, its system and CPU, and an emulator for other machines.
PLATFORMS: dict[str, tuple[str, str, str, list[str] | None]] = {
    "manylinux_2_17_x86_64": ("x86_64-linux-gnu.2.17", "linux", "x86_64", None),
    "manylinux_2_17_aarch64": ("aarch64-linux-gnu.2.17", "linux", "aarch64", QEMU),
    "macosx_11_0_x86_64": ("x86_64-macos.11.0", "darwin", "x86_64", None),
    "macosx_11_0_arm64": ("aarch64-macos.11.0", "darwin", "arm64", None),
    "win_amd64": ("x86_64-windows-gnu", "win32", "AMD64", ["wine"]),
}
TOLERANCES = {"float": 1e-3, "double": 1e-9}  # as sanitize's


class Memory(NamedTuple):
    """A storage, or an array."""

    address: int
    size: int

    def read(self) -> bytes:
        """What stands there now."""
        return ctypes.string_at(self.address, self.size)


class Recorder:
    """Calls of kernels as bytes that replay.c reads."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self._kernel = library._kernel

    def __call__(self, kernel: str, dtype: torch.dtype) -> tuple[Any, dict[str, int], Any]:
        """What library._kernel gives, with a function that notes what it was given."""
        function, zeros, pack = self._kernel(kernel, dtype)
        fields = getattr(library._threaded(), f"{kernel}_fields")().decode()
        width = torch.empty(0, dtype=dtype).element_size()

        def recording(packed: bytes, *flags: int) -> None:
            memory, places = _memory(packed, fields)
            before = [x.read() for x in memory]
            function(packed, *flags)
            head = b"".join(map(_text, (kernel, fields, function.__name__))) + _numbers(len(flags), *flags, len(memory))
            kept = b"".join(_numbers(x.size, width) + y + x.read() for x, y in zip(memory, before, strict=True))
            self.calls.append(head + kept + _numbers(len(places)) + b"".join(places))

        return recording, zeros, pack


def _memory(packed: bytes, fields: str) -> tuple[list[Memory], list[bytes]]:
    """What a struct points into; and each field as the number of one of these, or -1, and a place or a value."""
    tensors = [x for x in gc.get_objects() if issubclass(type(x), Tensor) and x.device.type == "cpu"]
    stored = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    values = struct.unpack(f"<{len(packed) // 8}q", packed)
    names = [x.partition(":")[0] for x in fields.split()]
    sequences = dict(zip(names, values, strict=True)).get("N", 0)
    found: list[Memory] = []
    places = []
    for name, value in zip(names, values, strict=True):
        if f"{name}:Q" not in fields.split() or not value:
            places.append(_numbers(-1, value))
            continue
        if name.endswith("offsets"):  # NumPy's, of whole numbers
            memory = Memory(value, 8 * (sequences + 1))
        else:
            memory = next(Memory(x, size) for x, size in stored.items() if x <= value < x + size)
        if memory not in found:
            found.append(memory)
        places.append(_numbers(found.index(memory), value - memory.address))
    return found, places


def _numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def _text(value: str) -> bytes:
    return _numbers(len(value)) + value.encode()


def record(path: Path, calls: int, seed: int) -> int:
    """Writes at least that many calls to a file, and returns how many; this process goes on to record."""
    recorder, rng = Recorder(), random.Random(seed)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    library._kernel = recorder
    families = list(sanitize.FAMILIES)
    for number in range(100 * calls):
        if len(recorder.calls) >= calls:
            break
        case = sanitize.draw(rng, families, seed=number)
        try:
            sanitize.results(case, "native", getattr(torch, case["dtype"]))
        except RuntimeError as error:
            if "cannot run this" not in str(error):
                raise
    path.write_bytes(_numbers(len(recorder.calls)) + b"".join(recorder.calls))
    return len(recorder.calls)


def replay(wheel: Path, recorded: Path, folder: Path) -> Iterator[tuple[str, list[tuple[str, float]] | str]]:
    """For each library of a wheel the names and distances of all calls, or why there are none."""
    zig, system, machine, emulator = next(x for name, x in PLATFORMS.items() if wheel.stem.endswith(name))
    with zipfile.ZipFile(wheel) as archive:
        names = [x for x in archive.namelist() if "/prebuilt/" in x and not x.endswith(".sha256")]
        libraries = [Path(archive.extract(name, folder / wheel.stem)) for name in sorted(names)]
    own = (system, machine) == (sys.platform, platform.machine())
    if not own and not (emulator and shutil.which(emulator[0])):
        yield wheel.name, "cannot be run here"
        return
    program = str(folder / f"{wheel.stem}.exe")
    source = str(Path(__file__).with_suffix(".c"))
    subprocess.run([sys.executable, "-m", "ziglang", "cc", "-target", zig, "-O1", source, "-o", program], check=True)
    for path in libraries:
        level = path.stem.partition("-")[2]
        if emulator != QEMU and level not in levels.available():  # wine runs it on the CPU itself
            yield path.name, "cannot be run by this CPU"
            continue
        command = [*([] if own else emulator or []), program, str(path), str(recorded)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        if done.returncode:
            yield path.name, f"failed with exit code {done.returncode}: {done.stderr.strip()}"
        else:
            yield path.name, [(x.split()[0], float(x.split()[1])) for x in done.stdout.splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("wheels", nargs="*", type=Path, default=sorted((ROOT / "dist").glob("*.whl")))
    options = parser.parse_args()
    wrong = False
    with tempfile.TemporaryDirectory() as folder:
        recorded = Path(folder, "record")
        calls = record(recorded, options.calls, options.seed)
        print(f"{calls} calls, {recorded.stat().st_size / 2**20:.0f} MiB")
        for wheel in options.wheels:
            print(wheel.name)
            for name, found in replay(wheel, recorded, Path(folder)):
                if isinstance(found, str):
                    wrong |= "failed" in found
                    print(f"    {name}: {found}")
                    continue
                worst = {x: max((d for kernel, d in found if kernel.endswith(x)), default=0.0) for x in TOLERANCES}
                wrong |= len(found) != calls or any(not worst[x] <= limit for x, limit in TOLERANCES.items())
                said = ", ".join(f"{x} {worst[x]:.1e}" for x in worst)
                kernels = len({x for x, _ in found})
                print(f"    {name}: {len(found)} calls of {kernels} kernels, largest difference: {said}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())

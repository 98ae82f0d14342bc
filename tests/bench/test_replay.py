"""`python -m benchmarks.replay` plays recorded calls of kernels again, and sees where results differ."""

import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks import replay
from gladient.ops.native import build, levels

pytest.importorskip("ziglang", reason="compiles the program that replays; the dev extra installs it")
ROOT = Path(__file__).parents[2]
TAG = "py3-none-manylinux_2_17_x86_64"


@pytest.mark.slow
@pytest.mark.skipif(not levels.available() or build.why_unavailable() is not None, reason="kernels for x86-64 Linux")
def test_calls_are_played_again(tmp_path: Path) -> None:
    level = levels.available()[-1]  # its name alone is looked at
    library = shutil.copy(build.library()._name, tmp_path / f"kernels-{level}.so")
    wheel = tmp_path / f"gladient-0-{TAG}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(library, f"gladient/ops/native/prebuilt/kernels-{level}.so")
    recorded = tmp_path / "record"
    # In a process of its own, which goes on to record.
    script = (
        "import sys; from pathlib import Path; from benchmarks.replay import record; record(Path(sys.argv[1]), 6, 0)"
    )
    subprocess.run([sys.executable, "-c", script, recorded], check=True, cwd=ROOT)
    ((name, same),) = replay.replay(wheel, recorded, tmp_path)
    assert not isinstance(same, str)
    assert name == f"kernels-{level}.so"
    assert len(same) == struct.unpack("<q", recorded.read_bytes()[:8])[0] >= 6
    assert {x[1] for x in same} == {0.0}  # the same library

    # What the first call wrote last is noted as another number: it is found, and in no other call.
    content = bytearray(recorded.read_bytes())
    before, after = first_written(content)
    content[before:after] = struct.pack("<d" if after - before == 8 else "<f", 123.0)
    recorded.write_bytes(content)
    ((_, other),) = replay.replay(wheel, recorded, tmp_path)
    assert not isinstance(other, str)
    assert other[0][1] > 0.1
    assert other[1:] == same[1:]


def first_written(content: bytearray) -> tuple[int, int]:
    """Where the last number stands that the first recorded call changed."""
    at = 8

    def number() -> int:
        nonlocal at
        at += 8
        return struct.unpack_from("<q", content, at - 8)[0]

    for _ in range(3):
        size = number()
        at += size
    for _ in range(number()):
        number()
    found = (0, 0)
    for _ in range(number()):
        size, width = number(), number()
        for place in range(at, at + size, width):
            if content[place : place + width] != content[place + size : place + size + width]:
                found = (place + size, place + size + width)
        at += 2 * size
    return found

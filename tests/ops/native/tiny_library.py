"""One small source that stands for the kernels, and the library made of it."""

import _ctypes
import ctypes
import hashlib
import subprocess
from pathlib import Path

import pytest

from gladient.ops.native import build, cache, compiler, levels

SOURCE = 'extern "C" int answer() { return ANSWER; }\n'


def forget(close: bool = True) -> None:
    """Nothing loaded. The loader would otherwise give what it knows by a path, whatever stands there now."""
    if close and build._loaded.cache_info().currsize:
        _ctypes.dlclose(build.library()._handle)
    for function in (build._loaded, build.why_unavailable, levels.cpu):
        function.cache_clear()


def again() -> ctypes.CDLL:
    """The library as another process would find it."""
    forget()
    return build.library()


def cached(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache" / "gladient").glob("*.so")
    return path


def count(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every compilation from now on."""
    done, real = [], compiler.build

    def counted(folder: Path, target: Path, *rest: object) -> None:
        done.append(target)
        real(folder, target, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(compiler, "build", counted)
    return done


def say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str) -> None:
    """A CPU with these features."""
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(levels, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(levels.platform, "machine", lambda: "x86_64")
    levels.cpu.cache_clear()


def library_at(path: Path, answer: int) -> Path:
    """A library with its checksum beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".cpp")
    source.write_text(SOURCE.replace("ANSWER", str(answer)))
    subprocess.run(["c++", "-shared", "-fPIC", str(source), "-o", str(path)], check=True)
    cache.record(path).write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    return path

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_library import SOURCE, forget

from gladient.ops.native import build, levels


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two small sources instead of the kernels, a cache of their own, nothing prebuilt, nothing loaded before."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "one.cpp").write_text(SOURCE.replace("ANSWER", "42"))
    (folder / "two.cpp").write_text('extern "C" double half(double x) { return x / 2; }\n')
    monkeypatch.setattr(build, "_KERNELS", folder)
    monkeypatch.setattr(build, "_PREBUILT", tmp_path / "prebuilt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("CXX", "GLADIENT_CXXFLAGS", levels.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    forget(close=False)  # the real kernels stay where operators may hold them
    yield folder
    forget()

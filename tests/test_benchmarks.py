"""The benchmarks follow the package: each can be imported."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")))
def test_imports(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "fla_interpreter":
        pytest.importorskip("triton")
    monkeypatch.syspath_prepend(str(ROOT))
    importlib.import_module(f"benchmarks.{name}")

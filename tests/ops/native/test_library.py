"""Memory that kernels are to fill."""

import importlib
import mmap
import re
from pathlib import Path
from typing import Any

import pytest
import torch

library: Any = importlib.import_module("gladient.ops.native.library")  # the package has a function of this name
SMAPS = Path("/proc/self/smaps")


def asked_for_huge_pages(address: int) -> bool:
    """Whether Linux was advised so of the mapping that holds an address."""
    inside = False
    for line in SMAPS.read_text().splitlines():
        if borders := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(borders[1], 16) <= address < int(borders[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return "hg" in line.split()
    raise AssertionError(f"no mapping holds {address:#x}")


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists() or not SMAPS.exists(), reason="a system without huge pages"
)
def test_large_outputs_ask_for_huge_pages() -> None:
    x = library.empty((40, 2**18), torch.float32)  # 40 MiB, a mapping of its own
    first, behind, page = x.data_ptr(), x.data_ptr() + x.nbytes, library._HUGE_PAGE
    assert asked_for_huge_pages(first + page)
    assert asked_for_huge_pages(behind - page - 1)
    assert x.shape == (40, 2**18)
    assert x.dtype == torch.float32


def test_systems_that_have_none_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    library._advise.cache_clear()
    try:
        assert library.empty((2**21,), torch.float32).shape == (2**21,)
        assert library._advise() is None
    finally:
        library._advise.cache_clear()

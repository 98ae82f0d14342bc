"""Kernels on PyTorch's threads: the same bits on any number of them, wherever the call is made."""

import ctypes
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ops_cases import BACKENDS, inputs, run, tensors
from torch import Tensor

kernels: Any = importlib.import_module("gladient.ops.native.library")  # the package has a function of this name
pytestmark = pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")

Call = Callable[[], list[Tensor]]
WORK = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
LOOP = ctypes.CFUNCTYPE(ctypes.c_int32, *3 * [ctypes.c_int64], WORK, ctypes.c_void_p)
CASES = [("scalar", 70), ("key×value", 33), ("full", 20), ("rates", 20), ("delta+scalar", 40)]
CASES += [("delta+key+general", 40)]


def with_gradients(family: str, T: int, form: str) -> list[Tensor]:
    """Of 3 rows with 4 heads, so that no kernel has a single job."""
    given = tensors(inputs(family, T, B=3, H=4, K=20, V=20))
    o, final = run(given, form=form, backend="native")
    return [o, final, *torch.autograd.grad(o.sin().sum() + final.sin().sum(), list(given.values()), allow_unused=True)]


def one_token() -> list[Tensor]:
    """Of a state that is large enough for several threads."""
    x = torch.randn(8, 1, 4, 64, generator=torch.Generator().manual_seed(0))
    return list(run({"q": x, "k": x, "v": x, "state": x.mT @ x}, form="step", backend="native"))


CALLS: dict[str, Call] = {
    f"{family}, {form}": lambda family=family, T=T, form=form: with_gradients(family, T, form)  # type: ignore[misc]
    for family, T in CASES
    for form in ("chunked", "last_query")
}
CALLS["step"] = one_token


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def loop() -> Iterator[Callable[[Any], None]]:
    """Hands the kernels another loop for a while."""
    library = kernels._threaded()
    yield lambda given: library.take_loop(ctypes.cast(given, ctypes.c_void_p))
    library.take_loop(kernels._loop())


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", CALLS)
def test_bits_do_not_depend_on_the_threads(name: str, threads: Callable[[int], None]) -> None:
    expected = CALLS[name]()
    for n in (2, 4):
        threads(n)
        assert_same(CALLS[name](), expected)


@pytest.mark.parametrize("name", ["scalar, chunked", "delta+scalar, last_query", "step"])
def test_what_a_loop_leaves_undone_is_done(
    name: str, threads: Callable[[int], None], loop: Callable[[Any], None]
) -> None:
    """One that runs nothing and fails, and one that runs a single share."""
    expected, asked = CALLS[name](), []
    threads(4)

    def failing(*given: Any) -> int:
        asked.append(given[:3])
        return 1

    def single(begin: int, end: int, grain: int, work: Any, context: int) -> int:
        work(begin, begin + 1, context)
        return 0

    for other in (LOOP(failing), LOOP(single)):
        loop(other)
        assert_same(CALLS[name](), expected)
    assert asked[0][::2] == (0, 1)


def test_a_pytorch_without_the_loop_gives_one_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kernels.ctypes, "CDLL", lambda name: SimpleNamespace())
    assert kernels._loop() is None
    assert "the native kernels run on one thread" in caplog.text


def test_a_call_inside_pytorchs_own_loop(threads: Callable[[int], None]) -> None:
    expected, found = CALLS["scalar, chunked"](), []
    threads(2)
    run_loop = ctypes.CDLL(torch._C.__file__).torch_parallel_for
    run_loop.argtypes = [*3 * [ctypes.c_int64], WORK, ctypes.c_void_p]
    assert run_loop(0, 2, 1, WORK(lambda *_: found.append(CALLS["scalar, chunked"]())), None) == 0
    assert found
    for each in found:
        assert_same(each, expected)


AFTER_A_FORK = """
import os, sys, torch
from gladient.ops import gated_linear_attention

torch.set_num_threads(2)
x = torch.randn(2, 80, 4, 16, generator=torch.Generator().manual_seed(0))

def outputs(*_):
    return gated_linear_attention(x, x, x, backend="native")[0].numpy()

def workers():
    return torch.utils.data.DataLoader([0, 1], num_workers=1, batch_size=1, collate_fn=outputs)

expected = outputs()
child = os.fork()
if child == 0:
    os._exit(int((outputs() != expected).any()))
assert os.waitpid(child, 0)[1] == 0
assert all((found == expected).all() for found in workers())
print("right")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have() -> None:
    command = [sys.executable, "-W", "ignore", "-c", AFTER_A_FORK]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=100, check=False)
    assert done.stdout == "right\n", done.stderr

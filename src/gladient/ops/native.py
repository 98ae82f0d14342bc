"""The native backend: kernels.cpp, compiled once for this machine with its own C++ compiler, called through ctypes."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gladient.ops._function import BatchFunction
from gladient.ops.gates import Gates

__all__ = ["scan", "why_unavailable", "CHUNK"]

CHUNK = 16  # C in kernels.cpp: a state is kept every CHUNK tokens for the backward pass
_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ["-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-pthread", "-fno-math-errno", "-fno-trapping-math"]
_DTYPES = {torch.float32: "float", torch.float64: "double"}
_log = logging.getLogger(__name__)


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Gates,
    *,
    scale: float,
    initial_state: Tensor,
    offsets: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """All outputs and the final states of every sequence, each of them tokens offsets[n] to offsets[n + 1] of its row.

    Every gate family, full gates included; the backward pass starts again from a state kept every `CHUNK` tokens.

    Args:
        q: queries, [B, T, H, K]; k, v and gates as in `gated_linear_attention`, with as many heads or a divisor.
        k: keys.
        v: values.
        gates: log gates.
        scale: factor of every output.
        initial_state: [B, sequences, H, K, V].
        offsets: borders of the sequences that every row of the batch holds, from 0 to T.

    Returns:
        o: [B, T, H, V].
        final_state: [B, sequences, H, K, V].
    """
    if gates.G is not None:
        gates = Gates(G=gates.to_heads(q.shape[2]).combined())
    inputs = (q, k, v, gates.g, gates.gk, gates.gv, gates.G, initial_state)
    train = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    o, final, _ = _Scan.apply(scale, tuple(offsets), train, *inputs)
    return o, final


@functools.cache
def why_unavailable() -> str | None:
    """None if the kernels are ready (the first call compiles them), else the reason why they are not."""
    try:
        _library()
    except OSError as error:
        reason = f"the native kernels are not available ({error}); backend='torch' computes the same, more slowly"
        _log.warning("%s", reason)
        return reason
    return None


@functools.cache
def _library() -> ctypes.CDLL:
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "c++", "g++", "clang++"))), None)
    if compiler is None:
        raise OSError("no C++ compiler: install g++ or clang++, or set CXX")
    identity = [_SOURCE.read_text(), compiler, *_FLAGS, platform.machine(), _cpu()]
    name = "kernels-" + hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16] + ".so"
    path = _cache() / name
    if not path.exists():
        _compile(compiler, path)
    return ctypes.CDLL(str(path))


def _cpu() -> str:
    """What -march=native depends on, so that a cache shared between machines never mixes them up."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gladient"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:
        home = Path(tempfile.gettempdir()) / f"gladient-{os.getuid()}"
        home.mkdir(mode=0o700, exist_ok=True)
    return home


def _compile(compiler: str, path: Path) -> None:
    """Compiles beside the target and renames, so that processes that start together do not meet half a file."""
    _log.info("compiling %s into %s (once, half a minute)", _SOURCE.name, path)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / path.name
        done = subprocess.run(
            [compiler, *_FLAGS, str(_SOURCE), "-o", str(built)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OSError(f"{compiler} failed: {done.stderr.strip().splitlines()[-1:]}")
        built.replace(path)


_NAMES = ("q", "k", "v", "g", "gk", "gv", "G", "initial")
_SIZES = ("N", "H", "hk", "hv", "hg", "hgk", "hgv", "K", "V", "threads")
_POINTERS = (
    *("offsets", "chunk_offsets", *_NAMES, "o", "final", "checkpoints", "d_o", "d_final"),
    *(f"d_{name}" for name in _NAMES),
)


def _problem(dtype: torch.dtype) -> type[ctypes.Structure]:
    """The struct `Problem` of kernels.cpp."""
    number = ctypes.c_float if dtype == torch.float32 else ctypes.c_double
    fields = [(name, ctypes.c_int64) for name in _SIZES]
    fields += [("scale", number), *((name, ctypes.c_void_p) for name in _POINTERS)]  # type: ignore[list-item]
    return type("Problem", (ctypes.Structure,), {"_fields_": fields})


_PROBLEMS = {dtype: _problem(dtype) for dtype in _DTYPES}


def _call(backward: bool, scale: float, sequences: int, tensors: dict[str, Tensor]) -> None:
    q, v = tensors["q"], tensors["v"]
    heads = {f"h{name}": tensors[name].shape[2] if name in tensors else 1 for name in ("k", "v", "g", "gk", "gv")}
    sizes = {"N": sequences, "H": q.shape[2], "K": q.shape[3], "V": v.shape[3], "threads": torch.get_num_threads()}
    pointers = {name: x.data_ptr() for name, x in tensors.items()}
    problem = _PROBLEMS[q.dtype](**sizes, **heads, scale=scale, **pointers)
    getattr(_library(), f"scan_{_DTYPES[q.dtype]}")(ctypes.byref(problem), int(backward))


def _borders(offsets: Sequence[int], rows: int) -> dict[str, Tensor]:
    """Borders of all sequences of all rows, in tokens and in chunks."""
    lengths = torch.tensor(offsets).diff().repeat(rows)
    start = torch.zeros(1, dtype=torch.int64)
    return {
        "offsets": torch.cat([start, lengths.cumsum(0)]),
        "chunk_offsets": torch.cat([start, ((lengths + CHUNK - 1) // CHUNK).cumsum(0)]),
    }


def _named(inputs: Sequence[Tensor | None]) -> dict[str, Tensor]:
    return {name: x.contiguous() for name, x in zip(_NAMES, inputs, strict=True) if x is not None}


def _forward(
    scale: float, offsets: Sequence[int], train: bool, inputs: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor, Tensor]:
    tensors = _named(inputs)
    q, v, initial = tensors["q"], tensors["v"], tensors["initial"]
    rows = len(q)
    chunks = rows * sum(-(-(stop - start) // CHUNK) for start, stop in pairwise(offsets)) if train else 0
    outputs = {
        "o": q.new_empty(*q.shape[:3], v.shape[3]),
        "final": torch.empty_like(initial),
        "checkpoints": q.new_empty(rows, chunks // max(rows, 1), *initial.shape[2:]),
    }
    written = outputs if train else {name: x for name, x in outputs.items() if name != "checkpoints"}
    _call(False, scale, rows * (len(offsets) - 1), tensors | _borders(offsets, rows) | written)
    return outputs["o"], outputs["final"], outputs["checkpoints"]


class _Scan(BatchFunction):
    @staticmethod
    def forward(
        scale: float, offsets: tuple[int, ...], train: bool, *inputs: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _forward(scale, offsets, train, inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.scale, ctx.offsets = inputs[:2]
        ctx.save_for_backward(*inputs[3:], output[2])
        ctx.mark_non_differentiable(output[2])

    @staticmethod
    def backward(ctx: Any, d_o: Tensor, d_final: Tensor, _: Any) -> tuple[Any, ...]:
        gradients = _ScanGradient.apply(ctx.scale, ctx.offsets, d_o, d_final, *ctx.saved_tensors)
        return (None, None, None, *gradients)


class _ScanGradient(BatchFunction):
    @staticmethod
    def forward(
        scale: float, offsets: tuple[int, ...], d_o: Tensor, d_final: Tensor, *saved: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        *inputs, kept = saved
        tensors, H = _named(inputs), d_o.shape[2]
        gradients = {
            name: torch.zeros(x.shape if name == "initial" else (*x.shape[:2], H, *x.shape[3:]), dtype=x.dtype)
            for name, x in tensors.items()
        }
        if kept is None or kept.numel() == 0:
            kept = _forward(scale, offsets, True, inputs)[2]
        upstream = {"checkpoints": kept, "d_o": d_o.contiguous(), "d_final": d_final.contiguous()}
        rows, results = len(d_o), {f"d_{name}": x for name, x in gradients.items()}
        _call(True, scale, rows * (len(offsets) - 1), tensors | _borders(offsets, rows) | upstream | results)
        found = ((x, gradients.get(name)) for x, name in zip(inputs, _NAMES, strict=True))
        return tuple(None if x is None or d is None else _group(d, x) for x, d in found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("the native backend has first derivatives only; use form='recurrent' for higher ones")


def _group(gradient: Tensor, x: Tensor) -> Tensor:
    """Sums a gradient over the heads that share a head of x."""
    if gradient.shape == x.shape:
        return gradient
    return gradient.unflatten(2, (x.shape[2], -1)).sum(3)

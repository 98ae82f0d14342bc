"""The operators of a rule that updates a state: whole sequences, single tokens, the last query of a sequence.

States [B · sequences, H, K, V] hold the sequences of each row of the batch side by side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gladient.ops.native.library import call, empty
from gladient.ops.native.registry import (
    arguments,
    define,
    differentiable,
    fake_gradients,
    fields,
    named,
    over_heads,
)

__all__ = ["CHUNK", "Rule"]

CHUNK = 16
"""Tokens per chunk; C in problem.h, which says why."""
_OPTIONS = "SymInt heads, float scale, bool before"

Sizes: TypeAlias = Sequence[Any]  # whole numbers, which are symbols while a tracer looks


@dataclass(frozen=True)
class Rule:
    """What tells the operators of one rule from those of another."""

    inputs: tuple[str, ...]  # q, k, v, …, initial
    kept: tuple[str, ...]  # outputs behind o and final, for the backward pass
    kernel: str  # of gates that are no full ones
    plain: Callable[..., tuple[Tensor | None, ...]]  # o and final in plain PyTorch, of the inputs and options

    def define(self, name: str) -> Any:
        """gladient::name of whole sequences, under every transform: o, final states, and what is kept."""
        more = ", Tensor" * len(self.kept)
        given = f"{arguments(self.inputs)}, int[]? offsets, {_OPTIONS}"
        forward = define(name, f"({given}, bool train) -> (Tensor, Tensor{more})", self._scan, self._fake_scan)
        kept = ", ".join(f"Tensor {x}" for x in self.kept)
        skip, size = 2 + len(self.kept), len(self.inputs)
        backward = define(
            f"{name}_backward",
            f"(Tensor? d_o, Tensor? d_final, {kept}, {given}, bool[] needed) -> Tensor[]",
            self._scan_backward,
            lambda *x: fake_gradients(x[skip : skip + size], x[-1]),
        )
        return differentiable(forward, backward, self.plain, size, 4, upstream=2, kept=range(2, skip))

    def define_steps(self, name: str) -> tuple[Any, Any]:
        """gladient::name of one token, o and the state after it, and gladient::name_, which overwrites the state."""
        *first, _ = self.inputs
        fresh = define(name, f"({arguments(self.inputs)}, {_OPTIONS}) -> (Tensor, Tensor)", self._step, self._fake_step)
        inplace = define(
            f"{name}_",
            f"({arguments(first)}, Tensor(a!) initial, {_OPTIONS}) -> Tensor",
            self._step_,
            lambda *x: self._fake_step(*x)[0],
            mappable=False,
        )
        return fresh, inplace

    def define_last(self, name: str, plain: Callable[..., tuple[Tensor, ...]]) -> Any:
        """gladient::name of one query for all tokens: its output from no state, and what reads the state before."""
        given = f"{arguments(self.inputs[:-1])}, SymInt heads, float scale"
        forward = define(name, f"({given}) -> (Tensor, Tensor)", self._last, self._fake_last)
        backward = define(
            f"{name}_backward",
            f"(Tensor? d_o, Tensor? d_final, {given}, bool[] needed) -> Tensor[]",
            self._last_backward,
            lambda d_o, d_final, *x: fake_gradients(x[:-3], x[-1]),
        )
        return differentiable(forward, backward, plain, len(self.inputs) - 1, 2, upstream=2)

    def _last(self, *given: Any) -> tuple[Tensor, Tensor]:
        *inputs, heads, scale = given
        tensors = named(inputs, self.inputs[:-1])
        q, v = tensors["q"], tensors["v"]
        o, final = (torch.empty((len(q), 1, heads, n), dtype=q.dtype) for n in (v.shape[3], q.shape[3]))
        self._run_last(tensors, heads, scale, o=o, final=final)
        return o, final

    def _fake_last(self, *given: Any) -> tuple[Tensor, Tensor]:
        q, _, v, *_, heads, _ = given
        dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
        o, final = (q.new_empty((q.shape[0], 1, heads, n), dtype=dtype) for n in (v.shape[3], q.shape[3]))
        return o, final

    def _last_backward(self, d_o: Tensor | None, d_final: Tensor | None, *given: Any) -> list[Tensor]:
        *inputs, heads, scale, needed = given
        tensors = named(inputs, self.inputs[:-1])
        B, v = len(tensors["q"]), tensors["v"]
        extra = {"d_o": v.new_zeros(B, 1, heads, v.shape[3]) if d_o is None else d_o.to(v.dtype).contiguous()}
        if d_final is not None:
            extra["d_final"] = d_final.contiguous()
        wanted = {name: x for name, x, need in zip(self.inputs, inputs, needed, strict=False) if need}
        found = {name: empty((*x.shape[:2], heads, *x.shape[3:]), v.dtype) for name, x in wanted.items()}
        self._run_last(tensors, heads, scale, **extra, **{f"d_{name}": d for name, d in found.items()})
        return [over_heads(found[name], x, 2) for name, x in wanted.items()]

    def _run_last(self, tensors: dict[str, Tensor], heads: int, scale: float, **extra: Tensor) -> None:
        """Runs the kernel; backward where d_o is among `extra`."""
        B, T = tensors["k"].shape[:2]
        offsets = np.array([0, T])
        sizes = fields(tensors, heads, **extra)
        call(f"{self.kernel}_last", tensors["q"].dtype, N=B, scale=scale, offsets=offsets.ctypes.data, **sizes)

    def _scan(self, *given: Any) -> tuple[Tensor, ...]:
        *inputs, borders, heads, scale, before, train = given
        tensors, offsets = named(inputs, self.inputs), _offsets(borders, inputs)
        written = self._outputs(empty, tensors, offsets, heads, train)
        asked = {name: x for name, x in written.items() if train or name not in self.kept}
        self._run(tensors, asked, offsets, heads, scale, before)
        return (written.pop("o").to(inputs[2].dtype), *written.values())

    def _fake_scan(self, *given: Any) -> tuple[Tensor, ...]:
        *inputs, borders, heads, _, _, train = given
        (q, k, v), offsets = inputs[:3], _offsets(borders, inputs)
        dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
        like = {"q": q.new_empty(0, dtype=dtype), "k": k, "v": v}
        written = self._outputs(q.new_empty, like, offsets, heads, train)
        return (written.pop("o").to(v.dtype), *written.values())

    def _outputs(
        self, make: Any, tensors: dict[str, Tensor], offsets: Sizes, heads: Any, train: bool
    ) -> dict[str, Tensor]:
        k, v = tensors["k"], tensors["v"]
        (B, T), K, V = k.shape[:2], k.shape[3], v.shape[3]
        spans, n = _spans(offsets, K, V) if train else 0, len(offsets) - 1
        shapes: dict[str, tuple[Any, ...]] = {"o": (B, T, heads, V), "final": (B * n, heads, K, V)}
        kept = {"checkpoints": (B, spans, heads, K, V), "u": (B, T if train else 0, heads, V)}
        shapes |= {name: kept[name] for name in self.kept}
        return {name: make(shape, dtype=tensors["q"].dtype) for name, shape in shapes.items()}

    def _scan_backward(self, d_o: Tensor | None, d_final: Tensor | None, *given: Any) -> list[Tensor]:
        kept = given[: len(self.kept)]
        *inputs, borders, heads, scale, before, needed = given[len(self.kept) :]
        tensors, offsets = named(inputs, self.inputs), _offsets(borders, inputs)
        if not kept[0].numel():  # none were kept: by an exported program, or of no tokens
            kept = self._scan(*inputs, borders, heads, scale, before, True)[2:]
        k, v = tensors["k"], tensors["v"]
        (B, T), n = k.shape[:2], len(offsets) - 1
        d_o = v.new_zeros(B, T, heads, v.shape[3]) if d_o is None else d_o.to(v.dtype).contiguous()
        extra = dict(zip(self.kept, kept, strict=True)) | {"d_o": d_o}
        if d_final is not None:
            extra["d_final"] = d_final.contiguous()
        wanted = {name: x for name, x, need in zip(self.inputs, inputs, needed, strict=True) if need}
        gradients = {}
        for name, x in wanted.items():
            apart = {"A": (B * n, heads), "bonus": (B * n, heads), "initial": x.shape[:2]}.get(name, (B, T, heads))
            rest = x.shape[2 if name in ("A", "bonus", "initial") else 3 :]
            gradients[name] = empty((*apart, *rest), v.dtype)
        self._run(tensors, extra | {f"d_{name}": d for name, d in gradients.items()}, offsets, heads, scale, before)
        return [_shared(name, gradients[name], x, n) for name, x in wanted.items()]

    def _run(
        self,
        tensors: dict[str, Tensor],
        extra: dict[str, Tensor],
        offsets: Sequence[int],
        heads: int,
        scale: float,
        before: bool,
    ) -> None:
        """Runs the kernel on the sequences of all rows, one after the other; backward where d_q … are among `extra`."""
        B, n = len(tensors["k"]), len(offsets) - 1
        span = _span(tensors["k"].shape[3], tensors["v"].shape[3])
        # To the kernels every sequence of every row is one; its tokens follow those of the one before in memory.
        lengths = np.tile(np.diff(offsets), B)
        starts = [np.append(0, x.cumsum()) for x in (lengths, -(-lengths // (CHUNK * span)))]
        tensors = _by_sequence(tensors, n) if n > 1 else tensors
        given = fields(tensors, heads, **extra)
        given |= {"offsets": starts[0].ctypes.data, "span_offsets": starts[1].ctypes.data}
        kernel = "full" if "G" in tensors or "A" in tensors else self.kernel
        backward = int("d_o" in extra or "d_final" in extra)
        call(kernel, tensors["q"].dtype, backward, N=B * n, span=span, scale=scale, before=int(before), **given)

    def _step(self, *given: Any) -> tuple[Tensor, Tensor]:
        *inputs, heads, _, _ = given
        tensors = named(inputs, self.inputs)
        k, v = tensors["k"], tensors["v"]
        final = torch.empty((len(k), heads, k.shape[3], v.shape[3]), dtype=v.dtype)
        return self._run_step(tensors, final, given), final

    def _step_(self, *given: Any) -> Tensor:
        *inputs, _, _, _ = given
        tensors, initial = named(inputs, self.inputs), inputs[-1]
        final = tensors["initial"]
        o = self._run_step(tensors, final, given)
        if final is not initial:
            initial.copy_(final)
        torch.autograd.graph.increment_version(initial)  # so that a backward pass that saved the old state raises
        return o

    def _run_step(self, tensors: dict[str, Tensor], final: Tensor, given: Sequence[Any]) -> Tensor:
        heads, scale, before = given[-3:]
        v = tensors["v"]
        o = torch.empty((len(v), 1, heads, v.shape[3]), dtype=v.dtype)
        sizes = fields(tensors, heads, o=o, final=final)
        call("step", v.dtype, N=len(v), scale=scale, before=int(before), delta=int(self.kernel == "delta"), **sizes)
        return o.to(given[2].dtype)

    def _fake_step(self, *given: Any) -> tuple[Tensor, Tensor]:
        o, final, *_ = self._fake_scan(*given[: len(self.inputs)], None, *given[len(self.inputs) :], False)
        return o, final


def _by_sequence(tensors: dict[str, Tensor], sequences: int) -> dict[str, Tensor]:
    """Rates and bonus with a row for each sequence, unless all share one."""
    apart = {name: tensors[name] for name in ("A", "bonus") if len(tensors.get(name, ())) > 1}
    return tensors | {name: x.repeat_interleave(sequences, 0) for name, x in apart.items()}


def _offsets(borders: Sequence[int] | None, inputs: Sequence[Tensor | None]) -> Sizes:
    """Borders of the sequences of a row, which without any is one."""
    return (0, inputs[1].shape[1]) if borders is None else borders  # type: ignore[union-attr]


def _span(K: Any, V: Any) -> int:
    """Chunks between the states that are kept: large states cost more to keep than to compute again.

    From K V = 1024 on, 32 by 32, a state has as many numbers as the keys and values of its chunk, 16 (K + V), and more.
    """
    return 4 if K * V >= 1024 else 1


def _spans(offsets: Sizes, K: Any, V: Any) -> Any:
    """States that are kept for each row of the batch."""
    length = CHUNK * _span(K, V)
    return sum((stop - start + length - 1) // length for start, stop in pairwise(offsets))


def _shared(name: str, gradient: Tensor, x: Tensor, sequences: int) -> Tensor:
    """A gradient summed over the sequences of a row and over the heads that share a head of x."""
    if name in ("A", "bonus"):
        gradient = gradient.unflatten(0, (-1, sequences)).sum(1)
    return over_heads(gradient, x, 1 if name in ("A", "bonus", "initial") else 2)

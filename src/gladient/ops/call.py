"""One call of the operator: all that a backend needs, built once after the checks."""

from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from gladient.ops import check
from gladient.ops.check import borders, check_kinds, check_option, check_shapes, check_state
from gladient.ops.gates import Gates, to_heads
from gladient.ops.watched import recorded

__all__ = ["Backend", "Call", "Form", "Read", "prepare"]

Form: TypeAlias = Literal["auto", "recurrent", "parallel", "chunked", "last_query", "step"]
"""How the operator is computed; "auto" decides by the shapes."""
Backend: TypeAlias = Literal["auto", "eager", "native", "fla"]
"""Who computes it; "auto" takes the first of fla, native and eager that is willing."""
Read: TypeAlias = Literal["after", "before"]
"""Whether an output reads the state after or before its own token."""


class Call(NamedTuple):
    """What is to be computed, for checked arguments.

    Its methods are no properties, which torch.compile of PyTorch 2.10 does not follow in a tuple.

    Attributes:
        q: queries, [B, T, heads, K], with a divisor of H heads, as k and v; or one query for all tokens.
        k: keys, [B, T, heads, K].
        v: values, [B, T, heads, V].
        gates: log gates, with a divisor of H heads each.
        beta: [B, T, heads] or [B, T, heads, V], the delta rule's write strength; None for plain linear attention.
        erase: [B, T, heads] or [B, T, heads, K], the delta rule's erase strength; None takes beta.
        erase_keys: [B, T, heads, K], what the delta rule reads to erase; None takes k.
        a: [B, T, heads, K], what the generalised delta rule reads from the state; None for the other rules.
        b: [B, T, heads, K], where it writes that; None with a.
        bonus: [B, H, K] or None.
        initial_state: [B · sequences, H, K, V] or None for zeros.
        heads: H.
        offsets: borders of the sequences that every row of the batch holds, from 0 to T.
        scale: factor of every output.
        form: one of `Form`, "auto" resolved by the shapes.
        chosen: whether the caller named the form.
        read: one of `Read`.
        chunk_size: tokens per chunk, None for the backend's own.
        output_final_state: whether the state after the last token is wanted.
        inplace: whether the initial state's memory is to hold it.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    gates: Gates
    beta: Tensor | None
    erase: Tensor | None
    erase_keys: Tensor | None
    a: Tensor | None
    b: Tensor | None
    bonus: Tensor | None
    initial_state: Tensor | None
    heads: int
    offsets: tuple[int, ...]
    scale: float
    form: str
    chosen: bool
    read: str
    chunk_size: int | None
    output_final_state: bool
    inplace: bool

    def state_shape(self) -> tuple[int, int, int, int]:
        """[B · sequences, H, K, V]."""
        return (self.k.shape[0] * (len(self.offsets) - 1), self.heads, self.k.shape[3], self.v.shape[3])

    def wants_final(self) -> bool:
        """Whether the backend is to return the final state."""
        return self.output_final_state or self.inplace

    def erasing(self) -> tuple[Tensor, Tensor]:
        """The delta rule's keys to erase by, and their strengths."""
        erase = self.beta if self.erase is None else self.erase
        return self.k if self.erase_keys is None else self.erase_keys, cast(Tensor, erase)

    def differentiable(self) -> bool:
        """Whether a backward pass may follow."""
        return recorded(*self.tensors())

    def has_tangents(self) -> bool:
        """Whether a forward-mode derivative is being taken."""
        if forward_ad._current_level < 0:  # no dual level is open; there is no public way to ask
            return False
        return any(forward_ad.unpack_dual(x).tangent is not None for x in self.tensors())

    def tensors(self) -> list[Tensor]:
        """All tensors that are present."""
        gates = self.gates
        every = (self.q, self.k, self.v, gates.g, gates.gk, gates.gv, gates.G, gates.A, gates.dt)
        steps = (self.beta, self.erase, self.erase_keys, self.a, self.b)
        return [x for x in (*every, *steps, self.bonus, self.initial_state) if x is not None]


def prepare(
    q: Any,
    k: Any,
    v: Any,
    *,
    g: Any = None,
    gk: Any = None,
    gv: Any = None,
    G: Any = None,
    A: Any = None,
    dt: Any = None,
    beta: Any = None,
    erase: Any = None,
    erase_keys: Any = None,
    a: Any = None,
    b: Any = None,
    scale: Any = 1.0,
    initial_state: Any = None,
    output_final_state: bool = False,
    form: str = "auto",
    chunk_size: Any = None,
    read: str = "after",
    bonus: Any = None,
    cu_seqlens: Any = None,
    check_values: bool = False,
    inplace: bool = False,
) -> Call:
    """Checks the arguments of the public functions, whatever came, and brings them into one shape each."""
    optional = {"g": g, "gk": gk, "gv": gv, "G": G, "A": A, "dt": dt, "beta": beta, "erase": erase}
    optional |= {"erase_keys": erase_keys, "a": a, "b": b, "initial_state": initial_state, "bonus": bonus}
    tensors = {"q": q, "k": k, "v": v} | {name: x for name, x in optional.items() if x is not None}
    check_kinds(tensors)
    _check_options(form, read, chunk_size, A, dt, bonus)
    scale = _number(scale)
    if check_values:
        check.check_values(tensors)
    if g is not None and g.ndim == 1 and k.ndim == q.ndim == 4:
        g = tensors["g"] = g[None, None].expand(q.shape[0], k.shape[1], -1)
    tensors.pop("initial_state", None)  # checked below: its first dimension counts sequences, which the borders tell
    H, (B, T), K, V = check_shapes(tensors, form in ("auto", "last_query")), k.shape[:2], q.shape[3], v.shape[3]
    if check_values and a is not None and b is not None:
        check.check_values({"a·b": (to_heads(a, H) * to_heads(b, H)).sum(-1)})
    if A is not None and A.ndim == 3:
        A = A[None].expand(B, -1, -1, -1)
    if bonus is not None and bonus.ndim == 2:
        bonus = bonus[None].expand(B, -1, -1)
    offsets = borders(cu_seqlens, B, T)
    if initial_state is not None:
        check_state(initial_state, B * (len(offsets) - 1), H, K, V)
        if initial_state.shape[1] != H:
            if inplace:
                heads = initial_state.shape[1]
                raise ValueError(
                    f"inplace=True came with a state of {heads} heads; the new one has {H}: expand it first"
                )
            initial_state = initial_state.repeat_interleave(H // initial_state.shape[1], 1)
    if (a is None) != (b is None):
        given, lacking = ("a", "b") if b is None else ("b", "a")
        raise ValueError(
            f"{given} came without {lacking}; what is read by a is written along b: give both, [B, T, H, K]"
        )
    if beta is not None:
        _check_delta(beta, erase)
    if form == "parallel" and (beta is not None or a is not None):
        raise ValueError("form='parallel' does not hold delta rules; use 'chunked', 'recurrent' or 'last_query'")
    chosen = form != "auto"
    if not chosen:
        form = "chunked" if q.shape[1] != 1 else "step" if T == 1 else "last_query"
    gates = Gates(g=g, gk=gk, gv=gv, G=G, A=A, dt=dt)
    if form == "step" and T != 1:
        raise ValueError(f"form='step' takes one token and got {T}; use form='auto' for a sequence")
    if form == "parallel" and (G is not None or A is not None):
        raise ValueError("form='parallel' does not hold full gates; use 'chunked', 'recurrent' or 'last_query'")
    if scale is None:
        scale = K**-0.5 if K else 1.0  # without key channels every output is an empty sum, whatever its factor
    call = Call(  # by name: two tensors of one shape in each other's place would go unseen
        q=q, k=k, v=v, gates=gates, beta=beta, erase=erase, erase_keys=erase_keys, a=a, b=b, bonus=bonus,
        initial_state=initial_state, heads=H, offsets=offsets, scale=scale, form=form, chosen=chosen,
        read=read, chunk_size=chunk_size, output_final_state=output_final_state, inplace=inplace,
    )  # fmt: skip
    if inplace:
        _check_inplace(call)
    return call


def _check_options(form: str, read: str, chunk_size: Any, A: Any, dt: Any, bonus: Any) -> None:
    check_option("form", form, Form)
    check_option("read", read, Read)
    if (A is None) != (dt is None):
        given, lacking = ("A", "dt") if dt is None else ("dt", "A")
        raise ValueError(f"{given} came without {lacking}; rates A [H, K, V] and steps dt [B, T, H, V] go together")
    if bonus is not None and read != "before":
        raise ValueError("bonus came with read='after', which holds the current token already; use read='before'")
    if chunk_size is not None and (not isinstance(chunk_size, Integral) or chunk_size < 1):
        raise ValueError(f"chunk_size is {chunk_size!r}; it must be a whole number of tokens ≥ 1, or None")


def _number(scale: Any) -> Any:
    """The scale as Python's or a tracer's number, None as it is."""
    if isinstance(scale, Tensor):
        raise TypeError("scale is a Tensor and would get no gradient; pass a number, or multiply q by it")
    if scale is None or isinstance(scale, (int, float, torch.SymInt, torch.SymFloat)):
        return scale
    if isinstance(scale, np.ndarray) and scale.ndim == 0:
        scale = scale[()]
    if not isinstance(scale, Real):
        raise TypeError(f"scale is {type(scale).__name__}; it must be a real number, or None for K^-1/2")
    return float(scale)


def _check_delta(beta: Tensor, erase: Tensor | None) -> None:
    if erase is None and beta.ndim == 4:
        raise ValueError(
            f"beta has shape {tuple(beta.shape)}, a strength per value channel, which cannot erase: pass erase too"
        )


def _check_inplace(call: Call) -> None:
    if call.form != "step" or call.initial_state is None:
        raise ValueError(f"inplace=True came with form {call.form!r}; it updates the initial_state of one step")
    if call.differentiable():
        raise ValueError("inplace=True came with tensors that require gradients; use torch.no_grad() or inplace=False")

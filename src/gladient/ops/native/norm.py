"""Norms of groups of channels, with a gate before or behind, as a PyTorch operator."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gladient.ops.native.library import call, empty
from gladient.ops.native.registry import define, differentiable, fake_gradients

__all__ = ["ACTIVATIONS", "norm", "plain_norm"]

ACTIVATIONS = ("none", "silu", "sigmoid")
"""What a gate may pass through; Act of norm.cpp."""
_GIVEN = "Tensor x, Tensor? z, Tensor? w, SymInt size, float eps, bool mean, str act, bool first"


def plain_norm(
    x: Tensor, z: Tensor | None, w: Tensor | None, size: int, eps: float, mean: bool, act: str, first: bool
) -> tuple[Tensor]:
    """The same in plain PyTorch."""
    gate = None if z is None else functional.silu(z) if act == "silu" else z.sigmoid()
    u = x * gate if gate is not None and first else x
    squares = u.unflatten(-1, (-1, size)).square()
    scale = torch.rsqrt((squares.mean(-1) if mean else squares.sum(-1)) + eps)
    y = (u.unflatten(-1, (-1, size)) * scale[..., None]).flatten(-2)
    y = y if w is None else y * w
    return (y if gate is None or first else y * gate,)


def _norm(x: Tensor, z: Tensor | None, w: Tensor | None, *options: Any) -> Tensor:
    o = empty(x.shape, x.dtype)
    _run({"o": o}, x, z, w, *options)
    return o


def _backward(d_o: Tensor, x: Tensor, z: Tensor | None, w: Tensor | None, *given: Any) -> list[Tensor]:
    *options, needed = given
    wanted = zip(("d_x", "d_z", "d_w"), (x, z, w), needed, strict=True)
    found = {name: empty(y.shape, y.dtype) for name, y, need in wanted if need and y is not None}
    _run(found | {"d_o": d_o.contiguous()}, x, z, w, *options)
    return list(found.values())


def _run(
    written: dict[str, Tensor],
    x: Tensor,
    z: Tensor | None,
    w: Tensor | None,
    size: int,
    eps: float,
    mean: bool,
    act: str,
    first: bool,
) -> None:
    """Runs the kernel on rows of channels, which may lie apart."""
    width = x.shape[-1]
    x, z = _rows(x), None if z is None else _rows(z)
    tensors = {"x": x} | ({} if z is None else {"z": z}) | ({} if w is None else {"w": w.contiguous()}) | written
    call(
        "norm", x.dtype, tokens=len(x), groups=width // size, size=size, x_step=x.stride(0),
        z_step=0 if z is None else z.stride(0), act=ACTIVATIONS.index(act), first=int(first),
        threads=torch.get_num_threads(), share=1 / size if mean else 1.0, eps=eps,
        **{name: y.data_ptr() for name, y in tensors.items()},
    )  # fmt: skip


def _rows(x: Tensor) -> Tensor:
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(1) == 1 else x.contiguous()


norm = differentiable(
    define("norm", f"({_GIVEN}) -> Tensor", _norm, lambda x, *_: x.new_empty(x.shape), mappable=False),
    define(
        "norm_backward",
        f"(Tensor d_o, {_GIVEN}, bool[] needed) -> Tensor[]",
        _backward,
        lambda d_o, *x: fake_gradients(x[:3], x[-1]),
        mappable=False,
    ),
    plain_norm,
    tensors=3,
    options=5,
)
"""Of x [*, groups · size], with gates z like x and weights w [groups · size]; options are `plain_norm`'s."""

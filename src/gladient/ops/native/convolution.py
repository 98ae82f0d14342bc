"""The short causal convolution that stands before a scan, with its activation, as a PyTorch operator."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gladient.ops.native.library import call, empty
from gladient.ops.native.registry import define, differentiable, fake_gradients

__all__ = ["TAPS", "convolution", "plain_convolution"]

TAPS = (2, 3, 4)
"""As many as the kernel takes (convolution.cpp)."""

_GIVEN = "Tensor x, Tensor weight, Tensor? bias, int[]? borders, bool silu"


def plain_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, borders: Sequence[int] | None, silu: bool
) -> tuple[Tensor]:
    """The same in plain PyTorch, tap by tap."""
    T, taps = x.shape[1], weight.shape[1]
    padded, sequence = functional.pad(x, (0, 0, taps - 1, 0)), _numbers(x, borders)
    y = x * weight[:, -1] if bias is None else torch.addcmul(bias, x, weight[:, -1])
    for lag in range(1, min(taps, T)):
        earlier = padded[:, taps - 1 - lag :][:, :T]
        if sequence is not None:
            same = functional.pad(sequence[:, lag:] == sequence[:, :-lag], (lag, 0))
            earlier = earlier.where(same[..., None], 0)  # not times 0, which keeps NaN
        y = y.addcmul(earlier, weight[:, -1 - lag])
    return (functional.silu(y) if silu else y,)


def _numbers(x: Tensor, borders: Sequence[int] | None) -> Tensor | None:
    """Which sequence of its row a token belongs to, [B, T]."""
    if borders is None:
        return None
    starts = torch.zeros(x.shape[0] * x.shape[1], dtype=torch.int64, device=x.device)
    starts[[border for border in borders if border < len(starts)]] = 1
    return starts.cumsum(0).view(x.shape[:2])


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, borders: Sequence[int] | None, silu: bool) -> Tensor:
    o = empty(x.shape, x.dtype)
    _run(x, weight, bias, borders, silu, o=o)
    return o


def _backward(
    d_o: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    borders: Sequence[int] | None,
    silu: bool,
    needed: Sequence[bool],
) -> list[Tensor]:
    wanted = zip(("d_x", "d_weight", "d_bias"), (x, weight, bias), needed, strict=True)
    found = {name: empty(y.shape, y.dtype) for name, y, need in wanted if need and y is not None}
    _run(x, weight, bias, borders, silu, 1, d_o=d_o.contiguous(), **found)
    return list(found.values())


def _run(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    borders: Sequence[int] | None,
    silu: bool,
    backward: int = 0,
    **written: Tensor,
) -> None:
    """Runs the kernel on rows of tokens, which may lie apart; their channels lie side by side."""
    x = x if x.stride(2) == 1 else x.contiguous()
    tensors = {"x": x, "weight": weight.contiguous()} | ({} if bias is None else {"bias": bias.contiguous()}) | written
    reach = None if borders is None else _reach(x, borders)
    if reach is not None:
        tensors["reach"] = reach
    B, T, channels = x.shape
    call(
        "convolution", x.dtype, backward, B=B, T=T, channels=channels, taps=weight.shape[1], x_step=x.stride(1),
        x_row=x.stride(0), silu=int(silu), threads=torch.get_num_threads(),
        **{name: y.data_ptr() for name, y in tensors.items()},
    )  # fmt: skip


def _reach(x: Tensor, borders: Sequence[int]) -> Tensor:
    """How many earlier tokens of its own sequence each token has; a row begins one, too."""
    B, T = x.shape[:2]
    places = torch.arange(B * T)
    starts = torch.zeros(B * T, dtype=torch.int64)
    begins = torch.tensor([*(b for b in borders if b < B * T), *range(0, B * T, T)], dtype=torch.int64)
    starts[begins] = begins
    return places - starts.cummax(0).values


convolution = differentiable(
    define(
        "convolution",
        f"({_GIVEN}) -> Tensor",
        _convolution,
        lambda x, *_: x.new_empty(x.shape),
        mappable=False,
    ),
    define(
        "convolution_backward",
        f"(Tensor d_o, {_GIVEN}, bool[] needed) -> Tensor[]",
        _backward,
        lambda d_o, *x: fake_gradients(x[:3], x[-1]),
        mappable=False,
    ),
    plain_convolution,
    tensors=3,
    options=2,
)
"""Of x [B, T, C] by weight [C, taps] and bias [C], borders of sequences in all tokens of all rows, and whether silu."""

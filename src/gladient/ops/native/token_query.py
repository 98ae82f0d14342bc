"""The last query of tokens that are their own keys, as a PyTorch operator: what training on prompts computes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gladient.ops.gates import exclusive_suffix_sum
from gladient.ops.native.library import call, empty
from gladient.ops.native.registry import define, differentiable, fake_gradients, keeps
from gladient.ops.watched import recorded

__all__ = ["FEWEST_TOKENS", "MOST_VALUES", "plain_token_query", "token_query"]

_BLOCK = 32  # tokens; as in token_query.cpp
_ALIGNMENT = 64  # bytes, of the widest vectors
MOST_VALUES, FEWEST_TOKENS = 8, 8
"""Where the kernel is faster than forming values: 16 with gates of their own break even, and 5 tokens take longer."""
_GIVEN = "Tensor z, Tensor u, Tensor a, Tensor? w"


def plain_token_query(z: Tensor, u: Tensor, a: Tensor, w: Tensor | None) -> tuple[Tensor]:
    r"""$o_c = \sum_t (u^\top z_t)\, (a_c^\top z_t) \prod_{i > t} \mathrm{sigmoid}(w_c^\top z_i)$ in plain PyTorch.

    Args:
        z: tokens, [G, B, T, D].
        u: queries, [G, B, H, D].
        a: columns of the values, [G, H, V, D].
        w: columns of the gates' logits, [G, H, V, D] or, for all values of a head, [G, H, 1, D]; None for no gates.

    Returns:
        [G, B, H, V].
    """
    values = torch.einsum("gbtd,ghvd->gbthv", z, a)
    if w is not None:
        logs = functional.logsigmoid(torch.einsum("gbtd,ghcd->gbthc", z, w))
        values = values * exclusive_suffix_sum(logs.flatten(0, 1)).exp().unflatten(0, z.shape[:2])
    return (torch.einsum("gbtd,gbhd,gbthv->gbhv", z, u, values),)


def _token_query(z: Tensor, u: Tensor, a: Tensor, w: Tensor | None, train: bool) -> tuple[Tensor, Tensor]:
    o, kept = _outputs(empty, z, u, a, w, train)
    _run(z, u, a, w, o=o, **({"kept": kept} if train else {}))
    return o, kept


def _outputs(make: Any, z: Tensor, u: Tensor, a: Tensor, w: Tensor | None, train: bool) -> tuple[Tensor, Tensor]:
    """The output, and the numbers that the kernel makes of each token, of whole blocks of them."""
    (G, B, T, _), (_, H, V, _) = z.shape, a.shape
    numbers = H + H * V + (0 if w is None else 2 * H * w.shape[2])
    kept = (G, B, numbers if train else 0, -(-T // _BLOCK) * _BLOCK)
    return make((G, B, H, V), dtype=z.dtype), make(kept, dtype=z.dtype)


def _backward(
    d_o: Tensor, kept: Tensor, z: Tensor, u: Tensor, a: Tensor, w: Tensor | None, train: bool, needed: Sequence[bool]
) -> list[Tensor]:
    if needed[0]:
        raise RuntimeError("token_query has no gradient of its tokens; form keys and values where these need one")
    if not kept.numel():  # none was kept: by an exported program
        kept = _token_query(z, u, a, w, True)[1]
    kept = kept.contiguous()  # somebody else may have kept it meanwhile, anywhere
    kept = kept.clone() if kept.data_ptr() % _ALIGNMENT else kept
    G, B = z.shape[:2]
    found = {}
    for name, x, need in zip("uaw", (u, a, w), needed[1:], strict=True):
        if x is not None and need:  # of each prompt: sums over them do not depend on the number of threads
            found[f"d_{name}"] = empty((G, B, *x.shape[-3 if name != "u" else -2 :]), x.dtype)
    _run(z, u, a, w, d_o=d_o.contiguous(), kept=kept, **found)
    return [d if name == "d_u" else d.sum(1) for name, d in found.items()]


def _run(z: Tensor, u: Tensor, a: Tensor, w: Tensor | None, **extra: Tensor) -> None:
    tensors = {"z": z.contiguous(), "u": u.contiguous(), "a": a.contiguous()} | extra
    if w is not None:
        tensors["w"] = w.contiguous()
    G, B, T, D = z.shape
    call(
        "token_query", z.dtype, N=G * B, batch=B, T=T, D=D, H=a.shape[1], V=a.shape[2],
        C_w=0 if w is None else w.shape[2], threads=torch.get_num_threads(),
        **{name: x.data_ptr() for name, x in tensors.items()},
    )  # fmt: skip


_operator = differentiable(
    define(
        "token_query",
        f"({_GIVEN}, bool train) -> (Tensor, Tensor)",
        _token_query,
        lambda z, *given: _outputs(z.new_empty, z, *given),
        mappable=False,
    ),
    define(
        "token_query_backward",
        f"(Tensor d_o, Tensor kept, {_GIVEN}, bool train, bool[] needed) -> Tensor[]",
        _backward,
        lambda d_o, kept, *x: fake_gradients(x[:4], x[-1]),
        mappable=False,
    ),
    lambda *given: plain_token_query(*given[:4]),
    tensors=4,
    options=1,
    kept=(1,),
)


def token_query(z: Tensor, u: Tensor, a: Tensor, w: Tensor | None) -> Tensor:
    """`plain_token_query` by its kernel, with gradients of all but the tokens."""
    return _operator(z, u, a, w, recorded(u, a, w) and keeps())[0]

"""A stack of E models of one shape, side by side: members that read the same tokens stand together.

Tokens come in G groups, [G, B, T, D], and E = G·P: members g·P … g·P + P - 1 read group g. One model is G = P = 1.
Without a dimension for groups, [B, T, D], tokens are one group.
"""

import zlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["by_member", "check_last", "contract", "in_groups", "member_normal", "project", "rounded"]


def member_normal(seeds: Sequence[int], shape: tuple[int, ...], *, stream: str) -> Float[Tensor, "E ..."]:
    """Standard normals for each member from its own seed, so that a member is the same in any stack, on any device."""
    # On the CPU, whose generator gives the same numbers on every machine, then to where the model is made.
    drawn = [torch.randn(shape, generator=_generator(seed, stream), device="cpu") for seed in seeds]
    return torch.stack(drawn).to(torch.get_default_device())


def in_groups(tokens: Float[Tensor, "*G B T D"], members: int) -> Float[Tensor, "G B T D"]:
    """Tokens with their groups; raises ValueError unless these share the members evenly."""
    if tokens.ndim not in (3, 4):
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)}; give [groups, batch, tokens, width], or one group without its "
            "dimension"
        )
    tokens = tokens[None] if tokens.ndim == 3 else tokens
    if not tokens.shape[0] or members % tokens.shape[0]:
        raise ValueError(f"{members} members cannot share {len(tokens)} groups of tokens evenly; make it a multiple")
    return tokens


def check_last(tokens: Tensor) -> None:
    """Raises ValueError unless there is a last token to read."""
    if not tokens.shape[-2]:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}, none; a prediction is read from the last: give one")


def by_member(tokens: Float[Tensor, "*G B T D"], members: int) -> Float[Tensor, "E B T D"]:
    """The tokens that each member reads."""
    tokens = in_groups(tokens, members)
    return tokens if len(tokens) == members else tokens.repeat_interleave(members // len(tokens), 0)


def project(tokens: Float[Tensor, "G B T D"], weight: Float[Tensor, "E D C"]) -> Float[Tensor, "G B T P C"]:
    """Tokens times weight for every member, as one matrix product per group.

    CPU products of fewer than 16 columns run at a fraction of the speed of 16. Where gradients are taken, which go back
    through more of them, several tokens make a row, times as many copies of the weight along a diagonal; without
    gradients no token meets another, and one that is not finite spoils none. A graph that is being traced is to hold
    for every batch, and how many tokens make a row depends on it.
    """
    tokens, weight = _matched(tokens, weight)
    G, B, T, D = tokens.shape
    members = len(weight) // G
    columns = weight.view(G, members, D, -1).transpose(1, 2).reshape(G, D, -1)
    rows = B * T
    # The least power of two that gives the outputs 16 columns or more, and the gradient of the tokens, which has D.
    together = 1 << (15 // max(1, min(D, columns.shape[2]))).bit_length()
    tracing = torch.compiler.is_compiling()
    if torch.is_grad_enabled() and tokens.device.type == "cpu" and not tracing and rows % together == 0:
        diagonal = torch.eye(together, dtype=weight.dtype, device=weight.device).view(together, 1, together, 1)
        columns = (diagonal * columns.contiguous().view(G, 1, D, 1, -1)).reshape(G, together * D, -1)
        rows, D = rows // together, together * D
    return torch.bmm(tokens.reshape(G, rows, D), columns).view(G, B, T, members, weight.shape[2])


def contract(equation: str, x: Tensor, weight: Tensor) -> Tensor:
    """`torch.einsum` of tokens and a weight."""
    return torch.einsum(equation, *_matched(x, weight))


def rounded(x: Tensor, tokens: Tensor, weight: Tensor) -> Tensor:
    """What a layer computed in float32 or better, in the dtype of its tokens and parameters."""
    if x.dtype == tokens.dtype == weight.dtype:
        return x
    return x.to(torch.promote_types(tokens.dtype, weight.dtype))


def _matched(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider dtype: half precision tokens go with float32 weights, as from a Linear under autocast."""
    if x.dtype == weight.dtype:
        return x, weight
    if torch.float64 in (x.dtype, weight.dtype):
        found = f"tokens have dtype {x.dtype} and the parameters {weight.dtype}"
        raise TypeError(f"{found}; all or none may be float64: convert the tokens, or the model with .to()")
    dtype = torch.promote_types(x.dtype, weight.dtype)
    return x.to(dtype), weight.to(dtype)


def _generator(seed: int, stream: str) -> torch.Generator:
    # Each matrix has a stream of its own, so that one more leaves the others as they are. crc32, since `hash` of a text
    # differs from process to process.
    return torch.Generator().manual_seed(zlib.crc32(f"{stream}/{seed}".encode()))

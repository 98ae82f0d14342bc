"""A stack of E models of one shape, side by side: members that read the same tokens stand together.

Tokens come in G groups, [G, B, T, D], and E = G·P: members g·P … g·P + P - 1 read group g. One model is G = P = 1.
Without a dimension for groups, [B, T, D], tokens are one group.
"""

import zlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["by_member", "in_groups", "member_normal", "project"]


def member_normal(seeds: Sequence[int], shape: tuple[int, ...], *, stream: str) -> Float[Tensor, "E ..."]:
    """Standard normals for each member from its own seed, so that a member is the same in any stack."""
    return torch.stack([torch.randn(shape, generator=_generator(seed, stream)) for seed in seeds])


def in_groups(tokens: Float[Tensor, "*G B T D"], members: int) -> Float[Tensor, "G B T D"]:
    """Tokens with their groups; raises ValueError unless these share the members evenly."""
    if tokens.ndim not in (3, 4):
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)}; give [groups, batch, tokens, width], or one group without its "
            "dimension"
        )
    tokens = tokens[None] if tokens.ndim == 3 else tokens
    if members % max(1, len(tokens)):
        raise ValueError(f"{members} members cannot share {len(tokens)} groups of tokens evenly; make it a multiple")
    return tokens


def by_member(tokens: Float[Tensor, "*G B T D"], members: int) -> Float[Tensor, "E B T D"]:
    """The tokens that each member reads."""
    tokens = in_groups(tokens, members)
    return tokens if len(tokens) == members else tokens.repeat_interleave(members // len(tokens), 0)


def project(tokens: Float[Tensor, "G B T D"], weight: Float[Tensor, "E D C"]) -> Float[Tensor, "G B T P C"]:
    """Tokens times weight for every member, as one matrix product per group.

    CPU products of fewer than 16 columns run at a fraction of the speed of 16. Where gradients are taken, which go back
    through more of them, several tokens make a row, times as many copies of the weight along a diagonal; without
    gradients no token meets another, and one that is not finite spoils none.
    """
    G, B, T, D = tokens.shape
    members = len(weight) // G
    columns = weight.view(G, members, D, -1).transpose(1, 2).reshape(G, D, -1)
    rows = B * T
    together = 1 << (15 // max(1, min(D, columns.shape[2]))).bit_length()
    if torch.is_grad_enabled() and tokens.device.type == "cpu" and rows % together == 0:
        columns = torch.kron(torch.eye(together, dtype=weight.dtype), columns.contiguous())
        rows, D = rows // together, together * D
    return torch.bmm(tokens.reshape(G, rows, D), columns).view(G, B, T, members, weight.shape[2])


def _generator(seed: int, stream: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(f"{stream}/{seed}".encode()))

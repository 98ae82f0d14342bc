"""A stack of E models of one shape, side by side: members that read the same tokens stand together.

Tokens come in G groups, [G, B, T, D], and E = G·P: members g·P … g·P + P - 1 read group g. One model is G = P = 1.
"""

import zlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["check_groups", "member_normal", "project"]


def member_normal(seeds: Sequence[int], shape: tuple[int, ...], *, stream: str) -> Float[Tensor, "E ..."]:
    """Standard normals for each member from its own seed, so that a member is the same in any stack."""
    return torch.stack([torch.randn(shape, generator=_generator(seed, stream)) for seed in seeds])


def check_groups(tokens: Tensor, members: int) -> None:
    """Raises ValueError unless the groups of tokens share the members evenly."""
    if tokens.ndim != 4:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}; give [groups, batch, tokens, width]")
    if members % max(1, len(tokens)):
        raise ValueError(f"{members} members cannot share {len(tokens)} groups of tokens evenly; make it a multiple")


def project(tokens: Float[Tensor, "G B T D"], weight: Float[Tensor, "E D C"]) -> Float[Tensor, "G B T P C"]:
    """Tokens times weight for every member, as one matrix product a group."""
    G, B, T, D = tokens.shape
    members = len(weight) // G
    columns = weight.view(G, members, D, -1).transpose(1, 2).reshape(G, D, -1)
    return torch.bmm(tokens.reshape(G, B * T, D), columns).view(G, B, T, members, -1)


def _generator(seed: int, stream: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(f"{stream}/{seed}".encode()))

"""Adapters that give every peer our inputs, and a plain safe chunk to compare with."""

from collections.abc import Callable
from typing import Any

import torch

from gladient import _optional
from gladient.cli.bench import Case
from gladient.ops import gated_linear_attention

__all__ = ["contenders", "missing"]

Operator = Callable[..., torch.Tensor]
_FLA = "pip install fla-core==0.6.0"
_TRANSFORMERS = "pip install transformers==5.23.0"
_GREEDY = ("fla naive recurrent", "fla naive parallel")  # need more than 20 GB for longer sequences
_LONGEST = 2048
_PARTS = {"fla": _FLA, "transformers": _TRANSFORMERS}


def missing() -> list[str]:
    """What to install for the peers that are absent."""
    return [f"{name} (install it with: {cure})" for name, cure in _PARTS.items() if not _optional.have(name)]


def contenders(case: Case) -> dict[str, tuple[bool, Operator]]:
    """Ours first, then every installed peer for this gate family; whether it is ours, and its function."""
    form: dict[str, Any] = {"form": "last_query"} if case.last else {}
    found: dict[str, tuple[bool, Operator]] = {
        "gladient": (True, lambda **x: gated_linear_attention(**x, **form)[0]),
        "gladient, backend='torch'": (True, lambda **x: gated_linear_attention(**x, **form, backend="torch")[0]),
    }
    for module, peers in (("fla", _fla), ("transformers", _transformers)):
        if _optional.have(module):
            for name, function in peers(case.family).items():
                if case.T > _LONGEST and name in _GREEDY:
                    continue
                found[name] = (False, _last(function) if case.last else function)
    if case.family == "key":
        found["a plain safe chunk of 16, eager"] = (False, _last(_safe_chunk) if case.last else _safe_chunk)
    return found


def _last(function: Operator) -> Operator:
    def last(*, q: torch.Tensor, k: torch.Tensor, **x: torch.Tensor) -> torch.Tensor:
        earlier = q.new_zeros(q.shape[0], k.shape[1] - 1, *q.shape[2:])  # peers want a query for every token
        return function(q=torch.cat([earlier, q], 1), k=k, **x)[:, -1:]

    return last


def _fla(family: str) -> dict[str, Operator]:
    # by file: fla's own imports want Triton, 1 GB that these functions do not use
    gla, simple = (
        _optional.require_file("fla", f"ops/{name}/naive.py", needed_for="the peers", install=_FLA)
        for name in ("gla", "simple_gla")
    )
    if family == "scalar":
        return {
            "fla naive recurrent": lambda q, k, v, g: simple.naive_recurrent_simple_gla(q, k, v, g, scale=1.0)[0],
            "fla naive chunk": lambda q, k, v, g: simple.naive_chunk_simple_gla(q, k, v, g, scale=1.0)[0],
            "fla naive parallel": lambda q, k, v, g: simple.naive_parallel_simple_gla(q, k, v, g, scale=1.0)[0],
        }
    if family == "key":  # its scale is fixed at K^-1/2
        return {"fla naive recurrent": lambda q, k, v, gk: gla.naive_recurrent_gla(q * q.shape[3] ** 0.5, k, v, gk)[0]}
    return {}


def _transformers(family: str) -> dict[str, Operator]:
    def mamba2(q: Any, k: Any, v: Any, g: Any) -> torch.Tensor:
        ones = torch.ones(g.shape)  # its decay is A·dt and its write dt·v: with dt = 1, A is our log gate
        return scan2(v, ones, g, k, q, chunk_size=min(64, q.shape[1]))

    def mamba(q: Any, k: Any, v: Any, G: Any) -> torch.Tensor:
        q, k, v = (x[:, :, 0].transpose(1, 2) for x in (q, k, v))  # decays exp(A·dt) for A [V, K], dt [B, V, T]
        return scan(v, torch.ones(v.shape), G[0, 0, 0].T, k, q).transpose(1, 2)[:, :, None]

    if family == "scalar":
        module = _optional.require(
            "transformers.models.mamba2.modeling_mamba2", needed_for="the peers", install=_TRANSFORMERS
        )
        scan2 = module.mamba2_chunk_scan
        return {"transformers Mamba-2, chunk 64": mamba2}
    if family == "full":
        module = _optional.require(
            "transformers.models.mamba.modeling_mamba", needed_for="the peers", install=_TRANSFORMERS
        )
        scan = module.mamba_selective_scan
        return {"transformers Mamba": mamba}
    return {}


def _safe_chunk(q: Any, k: Any, v: Any, gk: Any) -> torch.Tensor:
    """What one would write: weights pair by pair inside chunks of 16, one state after the other between them."""
    B, T, H, K = q.shape
    q, k, v, gk = (x.unflatten(1, (-1, 16)).transpose(2, 3) for x in (q, k, v, gk))  # [B, chunks, H, 16, …]
    A = gk.cumsum(3)
    causal = torch.ones(16, 16, dtype=torch.bool).tril()[..., None]
    weights = torch.where(causal, A[..., :, None, :] - A[..., None, :, :], -torch.inf).exp()
    scores = (q[..., :, None, :] * k[..., None, :, :] * weights).sum(-1)
    o, decay = scores @ v, A[..., -1:, :]
    writes, S, states = (k * (decay - A).exp()).transpose(3, 4) @ v, q.new_zeros(B, H, K, v.shape[4]), []
    for chunk in range(T // 16):
        states.append(S)
        S = decay[:, chunk, :, 0, :, None].exp() * S + writes[:, chunk]
    return (o + (q * A.exp()) @ torch.stack(states, 1)).transpose(2, 3).flatten(1, 2)

"""Ours beside the reference functions of flash-linear-attention and of transformers' models.

fla's files are loaded one by one, so that `fla-core`, part of the `dev` extra, is enough: the package imports Triton.
All compute in float32 and scale by K^-1/2, some without asking.
"""

import inspect
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from ops_cases import FORMS, holds, inputs, run, spread, tensors
from torch import Tensor

from gladient import _optional
from tolerances import TOLERANCES

pytestmark = pytest.mark.skipif(not _optional.have("fla"), reason="no flash-linear-attention: pip install fla-core")

H, K, V, T = 2, 4, 3, 64  # their chunk of RWKV-6 wants whole chunks of 32
SCALE = K**-0.5
RETNET = np.log1p(-(2.0 ** -(5.0 + np.arange(H))))  # head h decays by 1 - 2^(-5-h)
Found = tuple[Tensor, Tensor | None]


def fla(file: str, function: str) -> Callable[..., Any]:
    module = _optional.require_file("fla", f"ops/{file}", needed_for="this test", install="pip install fla-core")
    return getattr(module, function)


def gla(q: Tensor, k: Tensor, v: Tensor, gk: Tensor, **state: Any) -> Found:
    return fla("gla/naive.py", "naive_recurrent_gla")(q, k, v, gk, **state, output_final_state=True)


def simple_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, **state: Any) -> Found:
    return fla("simple_gla/naive.py", "naive_recurrent_simple_gla")(q, k, v, g, **state)


def simple_gla_in_chunks(q: Tensor, k: Tensor, v: Tensor, g: Tensor, **state: Any) -> Found:
    function = fla("simple_gla/naive.py", "naive_chunk_simple_gla")
    return function(q, k, v, g, **state, output_final_state=True, chunk_size=24)


def simple_gla_parallel(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Found:
    return fla("simple_gla/naive.py", "naive_parallel_simple_gla")(q, k, v, g)[0], None


def linear_attention(q: Tensor, k: Tensor, v: Tensor, **state: Any) -> Found:
    return fla("linear_attn/naive.py", "naive_recurrent_linear_attn")(q, k, v, **state, output_final_state=True)


def retnet(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Found:  # heads first, decays and scale of its own
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return fla("retention/naive.py", "naive_retention")(q, k, v).transpose(1, 2), None


def retnet_with_state(q: Tensor, k: Tensor, v: Tensor, g: Tensor, **state: Any) -> Found:
    return simple_gla(q, k, v, g.expand(q.shape[:3]), **state)  # as their own recurrent kernel of RetNet does


def rwkv6(q: Tensor, k: Tensor, v: Tensor, gk: Tensor, bonus: Tensor, **state: Any) -> Found:
    q, k, v, gk = (x.transpose(1, 2) for x in (q, k, v, gk))
    function = fla("rwkv6/recurrent_naive.py", "naive_recurrent_rwkv6")
    o, final = function(q, k, v, gk, bonus, **state, output_final_state=True)
    return o.transpose(1, 2), final


@torch.no_grad()
def rwkv6_in_chunks(q: Tensor, k: Tensor, v: Tensor, gk: Tensor, bonus: Tensor) -> Found:  # scale 1; writes in place
    q, k, v, gk = (x.transpose(1, 2) for x in (SCALE * q, k, v, gk))
    return fla("rwkv6/chunk_naive.py", "naive_chunk_rwkv6")(q, k, v, gk, bonus).transpose(1, 2), None


def delta(function: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, beta: Tensor, **given: Any) -> Found:
    """A function of the delta rule whose gates, scalar or per key channel, are called g."""
    gates = given.pop("gk") if "gk" in given else given.pop("g")
    names = zip(("q", "k", "v") if "naive" in function.__name__ else ("query", "key", "value"), (q, k, v), strict=True)
    return function(**dict(names), beta=beta, g=gates, **{"initial_state": None} | given, output_final_state=True)


def fla_delta(file: str, name: str, *args: Tensor, **given: Any) -> Found:
    return delta(fla(f"{file}/naive.py", name), *args, **given)


def transformers_delta(model: str, name: str, *args: Tensor, **given: Any) -> Found:
    module = import_module(f"transformers.models.{model}.modeling_{model}")
    return delta(inspect.unwrap(getattr(module, name)), *args, **given)


def deltanet(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, **state: Any) -> Found:  # heads first
    q, k, v, beta = (x.transpose(1, 2) for x in (q, k, v, beta))
    o, final = fla("delta_rule/naive.py", "delta_rule_recurrence")(q, k, v, beta, **state)
    return o.transpose(1, 2), final


def comba(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, erase_keys: Tensor, g: Tensor, **state: Any) -> Found:
    function = fla("comba/naive.py", "naive_recurrent_comba")
    return function(q, k, v, erase_keys, beta, g, **state, output_final_state=True)


def dplr(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, gk: Tensor, **state: Any) -> Found:  # heads first
    given = (x.transpose(1, 2) for x in (q, k, v, a, b, gk))
    o, final = fla("generalized_delta_rule/dplr/naive.py", "dplr_recurrence")(*given, **state)
    return o.transpose(1, 2), final


PEERS: dict[str, tuple[Callable[..., Found], str]] = {
    "GLA": (gla, "key"),
    "simple GLA": (simple_gla, "scalar"),
    "simple GLA, chunks": (simple_gla_in_chunks, "scalar"),
    "simple GLA, parallel": (simple_gla_parallel, "scalar"),
    "linear attention": (linear_attention, "none"),
    "RetNet": (retnet, "fixed"),
    "RetNet, with state": (retnet_with_state, "fixed"),
    "RWKV-6": (rwkv6, "key"),
    "RWKV-6, chunks": (rwkv6_in_chunks, "key"),
    "DeltaNet": (deltanet, "delta"),
    "Gated DeltaNet": (partial(fla_delta, "gated_delta_rule", "naive_recurrent_gated_delta_rule"), "delta+scalar"),
    "Gated DeltaNet, chunks": (partial(fla_delta, "gated_delta_rule", "naive_chunk_gated_delta_rule"), "delta+scalar"),
    "KDA": (partial(fla_delta, "kda", "naive_recurrent_kda"), "delta+key"),
    "KDA, chunks": (partial(fla_delta, "kda", "naive_chunk_kda"), "delta+key"),
    "Comba": (comba, "delta+scalar+keys"),
    "RWKV-7": (dplr, "delta+key+general"),
    "Qwen3-Next": (partial(transformers_delta, "qwen3_next", "torch_recurrent_gated_delta_rule"), "delta+scalar"),
    "Qwen3-Next, chunks": (partial(transformers_delta, "qwen3_next", "torch_chunk_gated_delta_rule"), "delta+scalar"),
    "Kimi": (partial(transformers_delta, "kimi_linear", "recurrent_kimi_delta_attention"), "delta+key"),
    "Kimi, chunks": (partial(transformers_delta, "kimi_linear", "chunk_kimi_delta_attention"), "delta+key"),
}
STATELESS = ("simple GLA, parallel", "RetNet", "RWKV-6, chunks")
CASES = [(peer, state) for peer in PEERS for state in (False, True) if not (state and peer in STATELESS)]


def made(peer: str, state: bool) -> dict[str, np.ndarray]:
    family = PEERS[peer][1]
    given = inputs(family, T, H=H, K=K, V=V, state=state, bonus="RWKV-6" in peer)
    return given | {"g": RETNET} if family == "fixed" else given


def upstream(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(o: Tensor, final: Tensor | None, given: dict[str, Tensor]) -> tuple[Tensor | None, ...]:
    loss = (o * upstream(o.shape[0], T, *o.shape[2:])[:, -o.shape[1] :]).sum()
    if final is not None:
        loss = loss + (final * upstream(*final.shape)).sum()
    if not loss.requires_grad:
        return (None,) * len(given)
    return torch.autograd.grad(loss, list(given.values()), allow_unused=True)


@cache
def theirs(peer: str, state: bool, last: bool) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    given = tensors(made(peer, state), torch.float32)
    o, final = PEERS[peer][0](**{"initial_state" if name == "state" else name: x for name, x in given.items()})
    o = o[:, -1:] if last else o
    return o.detach(), None if final is None else final.detach(), gradients(o, final, given)


LAWS = [(*form, *case) for *form, case in spread(FORMS, CASES) if holds(form[0], form[1], PEERS[case[0]][1])]


@pytest.mark.parametrize(("form", "backend", "chunk", "peer", "state"), LAWS)
def test_outputs_states_and_gradients_are_theirs(
    form: str, backend: str, chunk: int | None, peer: str, state: bool
) -> None:
    given = tensors(made(peer, state))
    read = "before" if "RWKV-6" in peer else "after"
    o, final = run(given, scale=SCALE, form=form, backend=backend, chunk_size=chunk, read=read)
    their_o, their_final, their_gradients = theirs(peer, state, form == "last_query")
    close = TOLERANCES[torch.float32] | {"check_dtype": False}
    torch.testing.assert_close(o, their_o, **close)
    if their_final is not None:
        torch.testing.assert_close(final, their_final, **close)
    found = gradients(o, None if their_final is None else final, given)
    for name, ours, expected in zip(given, found, their_gradients, strict=True):
        if expected is not None:
            torch.testing.assert_close(ours, expected, **close, msg=partial("gradient of {}: {}".format, name))
    unknown = {"RetNet": 1, "RWKV-6, chunks": len(given)}.get(peer, 0)
    assert sum(x is None for x in their_gradients) == unknown


@pytest.mark.parametrize("state", [False, True])
def test_their_own_gradients_of_rwkv6_are_ours(state: bool) -> None:
    values = made("RWKV-6", state)
    given = tensors(values)
    o, _ = run(given, read="before")
    names = ("q", "k", "v", "gk", "bonus")
    d_o = upstream(*o.shape)
    q, k, v, gk, o_, d = (x.detach().transpose(1, 2) for x in (*(given[n] for n in names[:4]), o, d_o))
    initial = given["state"].detach() if state else None
    function = fla("rwkv6/recurrent_naive.py", "naive_recurrent_rwkv6_bwd")
    expected = list(function(q, k, v, gk, given["bonus"].detach(), o_, d, initial_state=initial))
    expected = [x.transpose(1, 2) if x.ndim == 4 else x for x in expected[:5]] + expected[5:]
    found = torch.autograd.grad((o * d_o).sum(), [given[name] for name in (*names, *(["state"] if state else []))])
    torch.testing.assert_close(list(found), expected[: len(found)], **TOLERANCES[torch.float32], check_dtype=False)

"""The functions that transformers' layers are given, beside plain float64 loops: outputs, states, gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from gladient.integrations.convolution import convolution
from gladient.integrations.delta import delta_rule, kimi_delta_rule
from gladient.integrations.selective import mamba2_scan, mamba2_step, mamba_scan, mamba_step
from tolerances import TOLERANCES

EXACT = TOLERANCES[torch.float64]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def agree(ours: Callable[..., Any], loops: Callable[..., Any], inputs: dict[str, Tensor], **options: Any) -> None:
    """Equal results and equal gradients of all inputs, for random upstream gradients."""
    results = []
    for function in (ours, loops):
        given = {name: x.clone().requires_grad_() for name, x in inputs.items()}
        found = function(**given, **options)
        found = [x for x in (found if isinstance(found, tuple) else (found,)) if x is not None]
        sum((x * normal(*x.shape, seed=i)).sum() for i, x in enumerate(found, 9)).backward()
        results.append([*found, *(x.grad for x in given.values())])
    for mine, expected in zip(*results, strict=True):
        torch.testing.assert_close(mine, expected, **EXACT)


def mamba2_loops(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, dt_bias: Tensor, initial_states: Tensor,
    *, dt_limit: tuple[float, float], seq_idx: Tensor | None = None, **_: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    steps, group = softplus(dt + dt_bias).clamp(*dt_limit), x.shape[2] // B.shape[2]
    rows, states = [], []
    for b in range(len(x)):
        heads, finals = [], []
        for h in range(x.shape[2]):
            S, out = initial_states[b, h], []
            for t in range(x.shape[1]):
                fresh = seq_idx is not None and t > 0 and seq_idx[b, t] != seq_idx[b, t - 1]
                S = 0 * S if fresh else (A[h] * steps[b, t, h]).exp() * S
                S = S + steps[b, t, h] * torch.outer(x[b, t, h], B[b, t, h // group])
                out.append(S @ C[b, t, h // group] + D[h] * x[b, t, h])
            heads.append(torch.stack(out))
            finals.append(S)
        rows.append(torch.stack(heads, 1))
        states.append(torch.stack(finals))
    return torch.stack(rows), torch.stack(states)


MAMBA2 = {
    "x": normal(2, 21, 4, 3),
    "dt": normal(2, 21, 4, seed=1),
    "A": -normal(4, seed=2).exp(),
    "B": normal(2, 21, 2, 5, seed=3),
    "C": normal(2, 21, 2, 5, seed=4),
    "D": normal(4, seed=5),
    "dt_bias": normal(4, seed=6),
    "initial_states": normal(2, 4, 3, 5, seed=7),
}
PACKED = torch.tensor([[0] * 7 + [1] * 14, [3] * 1 + [4] * 12 + [5] * 8])


@pytest.mark.parametrize("seq_idx", [None, PACKED])
@pytest.mark.parametrize("limit", [(0.0, float("inf")), (0.3, 1.0)])
def test_mamba2_sequences(limit: tuple[float, float], seq_idx: Tensor | None) -> None:
    options = {"dt_softplus": True, "dt_limit": limit, "seq_idx": seq_idx, "chunk_size": 8}
    agree(lambda **given: mamba2_scan(**given, return_final_states=True), mamba2_loops, MAMBA2, **options)


def test_mamba2_steps_go_on_from_the_state() -> None:
    given: dict[str, Any] = {name: x for name, x in MAMBA2.items() if name != "initial_states"}
    whole, final = mamba2_scan(**given, dt_softplus=True, return_final_states=True)
    by_token = {"x", "dt", "B", "C"}
    first: dict[str, Any] = {name: x[:, :18] if name in by_token else x for name, x in given.items()}
    _, state = mamba2_scan(**first, dt_softplus=True, return_final_states=True)
    state = state.contiguous()
    for t in range(18, 21):
        x, dt, B, C = (given[name][:, t] for name in ("x", "dt", "B", "C"))
        wide = {"dt": dt[..., None].expand(-1, -1, 3), "A": given["A"][:, None, None].expand(-1, 3, 5)}
        skips = {"D": given["D"][:, None].expand(-1, 3), "dt_bias": given["dt_bias"][:, None].expand(-1, 3)}
        o = mamba2_step(state, x, B=B, C=C, dt_softplus=True, **wide, **skips)
        torch.testing.assert_close(o, whole[:, t], **EXACT)
    torch.testing.assert_close(state, final, **EXACT)


def mamba_loops(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor, **_: Any
) -> tuple[Tensor, Tensor]:
    steps, S, out = softplus(dt + delta_bias[:, None]), torch.zeros(len(x), *A.shape).double(), []
    for t in range(x.shape[2]):
        S = (steps[:, :, t, None] * A).exp() * S + (steps * x)[:, :, t, None] * B[:, None, :, t]
        out.append((S * C[:, None, :, t]).sum(2) + D * x[:, :, t])
    return torch.stack(out, 2) * silu(z), S


MAMBA = {
    "x": normal(2, 6, 19),
    "dt": normal(2, 6, 19, seed=1),
    "A": -normal(6, 3, seed=2).exp(),
    "B": normal(2, 3, 19, seed=3),
    "C": normal(2, 3, 19, seed=4),
    "D": normal(6, seed=5),
    "z": normal(2, 6, 19, seed=6),
    "delta_bias": normal(6, seed=7),
}


def test_mamba_sequences() -> None:
    agree(lambda **given: mamba_scan(**given, return_last_state=True), mamba_loops, MAMBA, delta_softplus=True)


def test_mamba_steps_go_on_from_the_state() -> None:
    whole, final = mamba_loops(**MAMBA)
    first = {name: x[..., :17] if x.shape[-1] == 19 else x for name, x in MAMBA.items()}
    state = mamba_scan(**first, delta_softplus=True, return_last_state=True)[1].contiguous()
    for t in range(17, 19):
        x, dt, B, C, z = (MAMBA[name][..., t] for name in ("x", "dt", "B", "C", "z"))
        fixed = {"A": MAMBA["A"], "D": MAMBA["D"], "dt_bias": MAMBA["delta_bias"]}
        o = mamba_step(state, x, dt, B=B, C=C, z=z, dt_softplus=True, **fixed)
        torch.testing.assert_close(o, whole[..., t], **EXACT)
    torch.testing.assert_close(state, final, **EXACT)


def delta_loops(
    query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor, **_: Any
) -> tuple[Tensor, Tensor]:
    repeat = value.shape[2] // query.shape[2]
    q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (query, key))
    q, k = (x.repeat_interleave(repeat, 2) for x in (q / q.shape[3] ** 0.5, k))
    S, out = initial_state, []
    for t in range(q.shape[1]):
        S = (g[:, t, :, None, None] if g.ndim == 3 else g[:, t, :, :, None]).exp() * S
        error = value[:, t] - torch.einsum("bhkv,bhk->bhv", S, k[:, t])
        S = S + torch.einsum("bh,bhk,bhv->bhkv", beta[:, t], k[:, t], error)
        out.append(torch.einsum("bhkv,bhk->bhv", S, q[:, t]))
    return torch.stack(out, 1), S


DELTA = {
    "query": normal(2, 18, 2, 5),
    "key": normal(2, 18, 2, 5, seed=1),
    "value": normal(2, 18, 4, 3, seed=2),
    "g": -normal(2, 18, 4, seed=3).exp(),
    "beta": normal(2, 18, 4, seed=4).sigmoid(),
    "initial_state": normal(2, 4, 5, 3, seed=5),
}
KIMI = {**DELTA, "query": normal(2, 18, 4, 5), "key": normal(2, 18, 4, 5, seed=1), "g": -normal(2, 18, 4, 5).exp()}
OPTIONS: dict[str, Any] = {"output_final_state": True, "use_qk_l2norm_in_kernel": True}


@pytest.mark.parametrize(("ours", "inputs"), [(delta_rule, DELTA), (kimi_delta_rule, KIMI)])
def test_delta_rules(ours: Callable[..., Any], inputs: dict[str, Tensor]) -> None:
    agree(ours, delta_loops, inputs, **OPTIONS)
    one = {name: x[:, :1] if name != "initial_state" else x for name, x in inputs.items()}
    agree(ours, delta_loops, one, **OPTIONS)


def test_packed_delta_rules_are_separate_ones() -> None:
    row: dict[str, Any] = {name: x[:1] for name, x in DELTA.items() if name != "initial_state"}
    o, states = delta_rule(**row, **OPTIONS, cu_seqlens=torch.tensor([0, 5, 18]))
    for i, part in enumerate((slice(0, 5), slice(5, 18))):
        alone, state = delta_rule(**{name: x[:, part] for name, x in row.items()}, **OPTIONS)
        torch.testing.assert_close(o[:, part], alone, **EXACT)
        torch.testing.assert_close(states[i : i + 1], state, **EXACT)  # type: ignore[index]


def convolution_loops(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, seq_idx: Tensor | None = None, activation: str | None
) -> Tensor:
    y = torch.zeros_like(x) if bias is None else torch.zeros_like(x) + bias[:, None]
    for t in range(x.shape[2]):
        for lag in range(min(weight.shape[1], t + 1)):
            same = 1.0 if seq_idx is None else (seq_idx[:, t] == seq_idx[:, t - lag]).double()[:, None]
            y[:, :, t] = y[:, :, t] + same * weight[:, -1 - lag] * x[:, :, t - lag]
    return y if activation is None else silu(y) if activation == "silu" else torch.relu(y)


@pytest.mark.parametrize("seq_idx", [None, PACKED])
@pytest.mark.parametrize("activation", [None, "silu", "relu"])
@pytest.mark.parametrize("T", [21, 2])
def test_convolutions(T: int, activation: str | None, seq_idx: Tensor | None) -> None:
    inputs = {"x": normal(2, 3, T), "weight": normal(3, 4, seed=1), "bias": normal(3, seed=2)}
    options = {"activation": activation, "seq_idx": None if seq_idx is None else seq_idx[:, :T]}
    agree(convolution, convolution_loops, inputs, **options)
    del inputs["bias"]
    agree(convolution, convolution_loops, inputs, **options)


STEPS = {
    "Mamba": (
        mamba_step,
        {"state": normal(2, 6, 3), "A": MAMBA["A"]} | {k: MAMBA[k][..., 0] for k in ("x", "dt", "B", "C")},
    ),
    "Mamba-2": (
        mamba2_step,
        {
            "state": normal(2, 4, 3, 5).mT.contiguous().mT,  # as our scan returns it: not contiguous
            "A": MAMBA2["A"][:, None, None].expand(-1, 3, 5),
            "dt": MAMBA2["dt"][:, 0, :, None].expand(-1, -1, 3),
            **{name: MAMBA2[name][:, 0] for name in ("x", "B", "C")},
        },
    ),
}
FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, Tensor], dict[str, Any]]] = {
    "Mamba-2": (mamba2_scan, MAMBA2, {"dt_softplus": True, "return_final_states": True}),
    "Mamba": (mamba_scan, MAMBA, {"delta_softplus": True, "return_last_state": True}),
    "delta rule": (delta_rule, DELTA, OPTIONS),
    "Kimi": (kimi_delta_rule, KIMI, OPTIONS),
    "convolution": (convolution, {"x": normal(2, 3, 9), "weight": normal(3, 4, seed=1)}, {"activation": "silu"}),
    **{f"{name}, a token": (step, given, {"dt_softplus": True}) for name, (step, given) in STEPS.items()},
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_autocast_changes_nothing(name: str) -> None:
    """Results, states and gradients of float32 inputs are the same bits, the backward pass inside of it or not."""
    function, inputs, options = FUNCTIONS[name]
    results = []
    for inside in (False, True):
        given = {key: x.float().requires_grad_("state" not in inputs) for key, x in inputs.items()}
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            found = function(**given, **options)
            found = found if isinstance(found, tuple) else (found,)
            if "state" not in inputs:  # steps overwrite it
                sum(x.square().sum() for x in found).backward()
        results.append([*found, *(x if x.grad is None else x.grad for x in given.values())])
    for mine, outside in zip(results[1], results[0], strict=True):
        assert torch.equal(mine, outside)
        assert mine.dtype == torch.float32


@pytest.mark.parametrize("name", STEPS)
def test_steps_change_the_state_that_they_are_given_and_autograd_sees_it(name: str) -> None:
    step, inputs = STEPS[name]
    given: dict[str, Any] = {key: x.clone() for key, x in inputs.items()}
    given["A"].requires_grad_()
    state, before = given["state"], given["state"].clone()
    first = step(**given)
    assert not torch.equal(state, before)
    step(**given)  # overwrites what the backward pass of the first needs
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        first.sum().backward()


def test_a_state_of_any_layout_is_advanced() -> None:
    step, inputs = STEPS["Mamba-2"]
    given: dict[str, Any] = inputs
    layouts = [
        given["state"].clone(memory_format=torch.contiguous_format),
        given["state"].permute(3, 0, 2, 1).contiguous(),
    ]
    layouts[1] = layouts[1].permute(1, 3, 2, 0)  # heads and batch no longer lie side by side
    for state in layouts:
        step(**given | {"state": state})
    torch.testing.assert_close(*layouts, rtol=0, atol=0)

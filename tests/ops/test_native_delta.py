"""The delta rule's native kernels beside plain loops: outputs, final states and gradients."""

from functools import partial
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from ops_cases import BACKENDS
from torch import Tensor

from gladient.ops.native import delta
from tolerances import TOLERANCES

pytestmark = pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")
NAMES = ("q", "k", "v", "m", "beta", "erase", "g", "gk", "initial")
FAMILIES = ("", "g", "gk", "g gk")
RULES = list(product(FAMILIES, [False, True], [False, True]))
EXACT = TOLERANCES[torch.float64]
Given = dict[str, Tensor]


def inputs(
    names: str,
    T: int,
    *,
    B: int = 2,
    H: int = 2,
    K: int = 5,
    V: int = 3,
    heads: dict[str, int] | None = None,
    states: int = 0,
    seed: int = 0,
) -> Given:
    """q, k, v, beta and those named, in float64; `states` of them."""
    generator = torch.Generator().manual_seed(1000 * seed + T)
    made = {}
    for name in ("q", "k", "v", "beta", *names.split()):
        rest = {"beta": (), "erase": (), "g": (), "v": (V,)}.get(name, (K,))
        x = torch.randn(B, T, (heads or {}).get(name, H), *rest, generator=generator, dtype=torch.float64)
        made[name] = {"beta": x.sigmoid(), "erase": x.sigmoid(), "g": -0.3 * x.abs(), "gk": -0.3 * x.abs()}.get(name, x)
    made["k"] /= K**0.5
    if "m" in made:
        made["m"] /= K  # what a token erases is not along what it writes: large, the state would grow
    if states:
        made["initial"] = torch.randn(states, H, K, V, generator=generator, dtype=torch.float64)
    return made


def loop(given: Given, H: int, scale: float, before: bool, offsets: list[int] | None) -> tuple[Tensor, Tensor]:
    """Token by token; states of the sequences of each row side by side."""
    x = {name: y if name == "initial" else y.repeat_interleave(H // y.shape[2], 2) for name, y in given.items()}
    (B, T), offsets = x["k"].shape[:2], offsets or [0, given["k"].shape[1]]
    n, K, V = len(offsets) - 1, x["k"].shape[3], x["v"].shape[3]
    w, m = x["v"] * x["beta"][..., None], x.get("m", x["k"]) * x.get("erase", x["k"].new_ones(B, T, H))[..., None]
    initial = x.get("initial", w.new_zeros(B * n, H, K, V)).unflatten(0, (B, n))
    outputs, finals = [w.new_zeros(B, 0, H, V)], []
    for i, (start, stop) in enumerate(pairwise(offsets)):
        S = initial[:, i]
        for t in range(start, stop):
            old = S
            if "g" in x:
                S = S * x["g"][:, t, :, None, None].exp()
            if "gk" in x:
                S = S * x["gk"][:, t, :, :, None].exp()
            S = S + x["k"][:, t, :, :, None] * (w[:, t] - (m[:, t, :, None] @ S)[:, :, 0])[:, :, None]
            outputs.append(scale * (x["q"][:, t, :, None] @ (old if before else S))[:, None, :, 0])
        finals.append(S)
    return torch.cat(outputs, 1), torch.stack(finals, 1).flatten(0, 1)


def kernel(given: Given, H: int, scale: float, before: bool, offsets: list[int] | None) -> tuple[Tensor, Tensor]:
    o, final, *_ = delta.delta(*map(given.get, NAMES), offsets, H, scale, before, True)
    return o, final


def with_gradients(run: Any, given: Given, *options: Any) -> Given:
    """Outputs, final states and all gradients, by name."""
    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    o, final = run(leaves, *options)
    generator = torch.Generator().manual_seed(7)
    upstream = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in (o, final)]
    loss = (o * upstream[0]).sum() + (final * upstream[1]).sum()
    loss = loss + sum(x[:0].sum() for x in leaves.values())  # zeros where nothing depends on them
    found = torch.autograd.grad(loss, list(leaves.values()))
    return {"o": o.detach(), "final": final.detach()} | dict(zip(leaves, found, strict=True))


def assert_law(
    given: Given, *, H: int = 2, scale: float = 0.7, before: bool = False, offsets: list[int] | None = None
) -> None:
    ours, theirs = (with_gradients(run, given, H, scale, before, offsets) for run in (kernel, loop))
    for name, x in ours.items():
        torch.testing.assert_close(x, theirs[name], **EXACT, msg=partial("{}: {}".format, name))


def named(family: str, m: bool, erase: bool) -> str:
    return f"{family} {'m' * m} {'erase' * erase}"


@pytest.mark.parametrize(("family", "m", "erase"), RULES)
@pytest.mark.parametrize("before", [False, True])
def test_outputs_states_and_gradients(family: str, m: bool, erase: bool, before: bool) -> None:
    for T in (0, 1, 15, 16, 17, 63, 64):
        assert_law(inputs(named(family, m, erase), T, states=2 * (T % 2)), before=before)
        assert_law(inputs(named(family, m, erase), T, states=2 - 2 * (T % 2)), before=before)


@pytest.mark.parametrize(("family", "m", "erase"), RULES)
def test_more_chunks_than_a_span_of_large_states(family: str, m: bool, erase: bool) -> None:
    assert_law(inputs(named(family, m, erase), 200, B=1, H=1, K=33, V=40, states=1), H=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_sequences_of_grouped_heads(family: str) -> None:
    heads = {"q": 2, "k": 1, "v": 4, "m": 2, "beta": 1, "erase": 4, "g": 2, "gk": 1}
    given = inputs(named(family, True, True), 70, H=4, heads=heads, states=8)
    for before in (False, True):
        assert_law(given, H=4, before=before, offsets=[0, 17, 17, 50, 70])


@pytest.mark.parametrize("family", FAMILIES)
def test_extreme_gates_and_steps_on_a_repeated_unit_key(family: str) -> None:
    """Gates of 0 and 1; steps of 0, 1 and 2, of which the last reflects the state."""
    given = inputs(family, 50, states=2)
    given["k"] = torch.nn.functional.normalize(given["k"], dim=-1)
    given["k"][:, 10:30] = given["k"][:, 10:11]
    generator = torch.Generator().manual_seed(3)
    for name in family.split():
        chance = torch.rand(given[name].shape, generator=generator)
        given[name] = given[name].masked_fill(chance < 0.1, -torch.inf).masked_fill(chance > 0.8, 0.0)
    given["beta"] = torch.randint(3, given["beta"].shape, generator=generator).double()
    given["erase"] = given["beta"].clone()
    assert_law(given)


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
@pytest.mark.parametrize("at", [5, 31])
def test_bad_tokens_leave_earlier_ones_alone(name: str, bad: float, at: int) -> None:
    given = inputs("m erase g gk", 40, states=2)
    spoiled = given | {name: given[name].clone()}
    spoiled[name][:, at] = bad
    for before in (False, True):
        (good, _), (o, _) = (kernel(x, 2, 1.0, before, None) for x in (given, spoiled))
        assert not o[:, at:].isfinite().all()
        torch.testing.assert_close(o[:, :at], good[:, :at], rtol=0, atol=0)


@pytest.mark.parametrize("shrink", [0.1, 1e-3])
def test_float32_beats_the_functions_of_transformers(shrink: float) -> None:
    models = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    exact = inputs("g", 2048, B=1, K=32, V=32)
    exact |= {name: torch.nn.functional.normalize(exact[name], dim=-1) for name in "qk"} | {"g": exact["g"] * shrink}
    exact = {name: x.float().double() for name, x in exact.items()}  # numbers that both hold
    exact["erase"] = exact["beta"]

    def theirs(function: Any) -> Any:
        return lambda x, *_: function(x["q"], x["k"], x["v"], x["g"], x["beta"], output_final_state=True)

    functions = [models.torch_chunk_gated_delta_rule, models.torch_recurrent_gated_delta_rule]
    single = {name: x.float() for name, x in exact.items()}
    expected = with_gradients(loop, exact, 2, 32**-0.5, False, None)
    joint = {"beta": expected["beta"] + expected.pop("erase")}

    def errors(run: Any) -> dict[str, float]:
        found = with_gradients(run, single, 2, 32**-0.5, False, None)
        found["beta"] = found["beta"] + found.pop("erase")
        truth = expected | joint
        return {name: float((x - truth[name]).norm() / truth[name].norm()) for name, x in found.items()}

    ours, chunked, recurrent = (errors(run) for run in (kernel, *map(theirs, functions)))
    for name, error in ours.items():
        assert error < 1.2 * min(chunked[name], recurrent[name]), name  # seeds differ by that much in g


@pytest.mark.parametrize(("family", "m", "erase"), RULES)
@pytest.mark.parametrize("before", [False, True])
def test_one_token(family: str, m: bool, erase: bool, before: bool) -> None:
    for K, V in ((5, 3), (18, 133)):
        given = inputs(named(family, m, erase), 1, K=K, V=V, states=2)
        expected = loop(given, 2, 0.7, before, None)
        found = delta.step(*map(given.get, NAMES), 2, 0.7, before)
        torch.testing.assert_close(found, expected, **EXACT)
        o = delta.step_(*map(given.get, NAMES), 2, 0.7, before)
        torch.testing.assert_close((o, given["initial"]), expected, **EXACT)
        del given["initial"]
        fresh = delta.step(*map(given.get, NAMES), 2, 0.7, before)
        torch.testing.assert_close(fresh, loop(given, 2, 0.7, before, None), **EXACT)


@pytest.mark.parametrize(("family", "m", "erase"), RULES)
@pytest.mark.parametrize(("B", "H", "K", "V"), [(2, 2, 5, 3), (9, 2, 11, 11), (1, 1, 20, 33)])
def test_a_last_query(family: str, m: bool, erase: bool, B: int, H: int, K: int, V: int) -> None:
    heads = {"k": 1, "g": 1, "erase": 1}

    def last(given: Given) -> tuple[Tensor, Tensor]:
        o, a = delta.last_query(*map(given.get, NAMES[:-1]), H, 0.7)
        return o + torch.einsum("bthk,bhkv->bthv", a, given["initial"]), a

    def looped(given: Given) -> tuple[Tensor, Tensor]:
        q = torch.cat([torch.zeros(B, T - 1, H, K), given["q"]], 1)
        o, _ = loop(given | {"q": q}, H, 0.7, False, None)
        basis = torch.eye(K, dtype=torch.float64).expand(B, H, K, K)
        a, _ = loop(given | {"q": q, "v": q.new_zeros(B, T, H, K), "initial": basis}, H, 0.7, False, None)
        return o[:, -1:], a[:, -1:]

    for T in (1, 20):
        given = inputs(named(family, m, erase), T, B=B, H=H, K=K, V=V, heads=heads, states=B)
        given["q"] = given["q"][:, -1:]
        ours, theirs = (with_gradients(run, given) for run in (last, looped))
        for name, x in ours.items():
            torch.testing.assert_close(x, theirs[name], **EXACT, msg=partial("{}: {}".format, name))


def test_a_last_query_without_tokens_reads_the_state() -> None:
    given = inputs("", 0)
    q = torch.randn(2, 1, 2, 5, dtype=torch.float64)
    o, a = delta.last_query(q, *map(given.get, NAMES[1:-1]), 2, 0.5)
    assert not o.any()
    torch.testing.assert_close(a, q / 2)


@pytest.mark.parametrize("family", ["", "g m erase", "gk erase"])
def test_operators_pass_every_check(family: str) -> None:
    operators = torch.ops.gladient
    given = {name: x.requires_grad_() for name, x in inputs(family, 18, states=2).items()}
    tensors = [given.get(name) for name in NAMES]
    needed = [x is not None for x in tensors]
    torch.library.opcheck(operators.delta.default, (*tensors, None, 2, 0.5, True, True))
    plain: list[Any] = [None if x is None else x.detach() for x in tensors]
    o, final, *kept = operators.delta(*plain, None, 2, 0.5, True, True)
    torch.library.opcheck(operators.delta_backward.default, (o, final, *kept, *plain, None, 2, 0.5, True, needed))
    last = [plain[0][:, -1:], *plain[1:-1]]
    leaves = [None if x is None else x.clone().requires_grad_() for x in last]
    torch.library.opcheck(operators.delta_last.default, (*leaves, 2, 0.5))
    o, a = operators.delta_last(*last, 2, 0.5)
    torch.library.opcheck(operators.delta_last_backward.default, (o, a, *last, 2, 0.5, needed[:-1]))
    one = [None if x is None else x[:, :1].contiguous() for x in plain[:-1]]
    for step in (delta.step, delta.step_):
        torch.library.opcheck(step, (*one, plain[-1], 2, 0.5, False))


def test_vmap_of_gradients_is_a_loop_over_them() -> None:
    given = inputs("g", 18, B=6, states=6)
    tensors = [x.unflatten(0, (3, 2)) for x in given.values()]

    def loss(*x: Tensor) -> Tensor:
        named = dict(zip(given, x, strict=True))
        o, _ = kernel(named, 2, 1.0, False, None)
        last = delta.last_query(named["q"][:, -1:], *map(named.get, NAMES[1:-1]), 2, 1.0)
        return o.square().sum() + sum(y.square().sum() for y in last)

    gradient = torch.func.grad(loss, tuple(range(len(tensors))))
    found = torch.func.vmap(gradient)(*tensors)
    for i in range(3):
        torch.testing.assert_close([x[i] for x in found], list(gradient(*(x[i] for x in tensors))))

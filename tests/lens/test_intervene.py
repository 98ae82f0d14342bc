"""Interventions in models: every architecture and way to run one, against weights edited by hand; nothing is left."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from lens_cases import CASES, applies, run_calls
from tiny import MODELS
from torch import Tensor, nn

from gladient import lens, seams
from gladient.integrations.transformers import accelerated
from gladient.lens import Record, Recurrence, attaching
from gladient.ops import gated_delta_rule, gated_linear_attention, mamba3
from gladient.seams import places

TOKENS = torch.randint(3, 60, (2, 20), generator=torch.Generator().manual_seed(0))
EDITED = {"mamba2": "A_log", "mamba": "A_log", "qwen3.5": "A_log", "kimi-linear": "A_log", "rwkv4": "time_decay"}

WAYS = ("padded decoding", "continuation", "L=70")
ONE_EACH = (
    "qwen3.5",
    "kimi-linear",
    "minimax",
    "mamba",
    "zamba",
    "mamba2",
    "recurrentgemma",
    "rwkv4",
    "xlstm",
    "gladient, modern",
)


def anew(record: Record) -> Recurrence:
    return replace(record.recurrence)


def run(model: nn.Module, tokens: Tensor = TOKENS) -> Tensor:
    with torch.no_grad():
        return model(input_ids=tokens)[0]


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def edited(name: str, factor: float = 2.0) -> nn.Module:
    """The model whose decays are so many times as fast, by its weights."""
    model = MODELS[name].build(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(EDITED[name]):
                parameter.add_(torch.tensor(factor).log())
    return model


def _ways() -> list[tuple[str, str]]:
    """A way to run every architecture, and other precisions of one for each adapter."""
    every = [(name, next(case for case in WAYS if applies(name, case))) for name in MODELS]
    return every + [(name, case) for name in ONE_EACH for case in ("bf16 decoding", "double") if applies(name, case)]


@pytest.mark.parametrize(("name", "case"), _ways())
@torch.no_grad()
def test_computed_anew_a_layer_is_what_it_was(name: str, case: str) -> None:
    """Also by the same object, to the bit; a capture inside proves what is computed; outside nothing is left."""
    tiny, (make, _, _, dtype) = MODELS[name], CASES[case]
    model = tiny.build(0).to(dtype)
    plain = run_calls(model, tiny, make(tiny))
    if case in WAYS:
        with lens.intervene(model, lambda record: record.recurrence):
            assert all(map(torch.equal, run_calls(model, tiny, make(tiny)), plain))
    with lens.intervene(model, anew), lens.capture(model) as trace:
        found = run_calls(model, tiny, make(tiny))
    assert trace.passed
    # xLSTM rounds on the way: 0.1 from what it computes in float32, the pass 0.01.
    most = (0.2 if name == "xlstm" else 2e-2) if dtype == torch.bfloat16 else 2e-6
    assert max(map(distance, found, plain)) < most
    assert all(map(torch.equal, run_calls(model, tiny, make(tiny)), plain))


@pytest.mark.parametrize("name", EDITED)
@torch.no_grad()
def test_twice_the_decay_is_that_of_other_weights(name: str) -> None:
    """Over a text, from a cache, token by token, and in half of the layers' heads."""
    model, tiny = MODELS[name].build(0), MODELS[name]
    other, make = edited(name), CASES["decoding"][0]
    with lens.intervene(model, lens.scale_gates(2.0)):
        found = run_calls(model, tiny, make(tiny))
    wanted = run_calls(other, tiny, make(tiny))
    assert max(map(distance, found, wanted)) < 2e-6
    assert distance(found[0], run_calls(model, tiny, make(tiny))[0]) > 1e-4
    if hasattr(model, "generate") and name != "rwkv4":
        options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
        with lens.intervene(model, lens.scale_gates(2.0)):
            said = model.generate(TOKENS, **options)  # type: ignore[operator]
        assert torch.equal(said, other.generate(TOKENS, **options))  # type: ignore[operator]


@pytest.mark.parametrize(
    "name", [name for name, tiny in MODELS.items() if tiny.cache and name not in ("recurrentgemma", "rwkv4")]
)
@torch.no_grad()
def test_a_text_in_parts_is_the_text(name: str) -> None:
    """The state that a changed call leaves is the one that the next finds."""
    model, tiny = MODELS[name].build(0), MODELS[name]
    calls = CASES["decoding"][0](tiny)
    whole = [{"input_ids": torch.cat([call["input_ids"] for call in calls], 1)}]

    def once(change: lens.Change | None) -> float:
        if change is None:
            (wanted,), parts = run_calls(model, tiny, whole), run_calls(model, tiny, calls)
        else:
            with lens.intervene(model, change):
                (wanted,), parts = run_calls(model, tiny, whole), run_calls(model, tiny, calls)
        return distance(torch.cat(parts, wanted.ndim - 2), wanted)

    def half(record: Record) -> Recurrence:
        x = record.recurrence
        return replace(x, v=0.5 * x.v) if x.log_gates is None else lens.scale_gates(1.5)(record)

    assert once(half) < max(5e-6, 2 * once(None))  # Mamba-2's steps do not clamp as its texts do


@pytest.mark.parametrize("name", ["mamba2", "qwen3-next", "zamba", "minimax", "rwkv4", "xlstm", "gladient"])
@torch.no_grad()
def test_the_other_heads_keep_their_bits(name: str) -> None:
    model = MODELS[name].build(0)
    with lens.capture(model) as before:
        run(model)
    layer = before.layers[0]
    chosen = [1, -1]

    def change(record: Record) -> Recurrence:
        return replace(record.recurrence, v=2 * record.recurrence.v)

    with lens.intervene(model, change, layers=layer, heads=chosen), lens.capture(model) as after:
        run(model)
    assert after.passed
    a, b = (trace.layer(layer).recurrence.output for trace in (before, after))
    changed = {head % a.shape[2] for head in chosen}
    for head in range(a.shape[2]):
        assert torch.equal(a[:, :, head], b[:, :, head]) == (head not in changed)


@pytest.mark.parametrize("name", ["zamba", "minimax"])  # which hand results on by the parts, and before a norm
@torch.no_grad()
def test_changes_are_done_in_the_order_in_which_they_were_entered(name: str) -> None:
    model, seen = MODELS[name].build(0), list[str]()
    plain = run(model)

    def told(name: str, change: lens.Change) -> lens.Change:
        def tell(record: Record) -> Recurrence:
            seen.append(f"{name}{record.layer}")
            return change(record)

        return tell

    doubled = told("a", lambda record: replace(record.recurrence, v=2 * record.recurrence.v))
    added = told("b", lambda record: replace(record.recurrence, v=record.recurrence.v + 1))
    halved = told("c", lambda record: replace(record.recurrence, v=(record.recurrence.v - 1) / 2))
    stay, rest = told("i", lambda record: record.recurrence), slice(2, None)
    with (
        lens.capture(model) as outside,
        lens.intervene(model, doubled),
        lens.capture(model) as between,
        lens.intervene(model, stay),
        lens.intervene(model, added),
        lens.intervene(model, halved, heads=[0, 1]),
        lens.intervene(model, halved, heads=rest),
        lens.capture(model) as inside,
    ):
        found = run(model)
    assert seen == [f"{name}{layer}" for layer in outside.layers for name in "aibcc"]
    assert distance(found, plain) < 1e-6
    assert outside.passed
    assert between.passed
    assert inside.passed
    v = [trace.layer(0).recurrence.v for trace in (outside, between, inside)]
    assert torch.equal(v[1], 2 * v[0])
    torch.testing.assert_close(v[2], v[0])
    assert torch.equal(run(model), plain)


@pytest.mark.parametrize("name", ["mamba2", "zamba", "qwen3.5"])
def test_gradients_are_those_of_other_weights(name: str) -> None:
    """Through checkpoints, too."""

    def gradients(model: nn.Module, factor: float | None) -> list[Tensor]:
        model.train()
        if factor is None:
            model(input_ids=TOKENS, use_cache=False)[0][..., :7].square().sum().backward()
        else:
            enable: Any = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
            with lens.intervene(model, lens.scale_gates(factor)):
                model(input_ids=TOKENS, use_cache=False)[0][..., :7].square().sum().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    if name == "zamba":
        plain, seen = MODELS[name].build(0), MODELS[name].build(0)
        found, wanted = gradients(seen, 1.0), gradients(plain, None)
    else:
        found, wanted = gradients(MODELS[name].build(0), 2.0), gradients(edited(name), None)
    rounding = 1e-7 * max(each.norm() for each in wanted)  # of sums that cancel: Qwen's gates hardly matter here
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).norm() < 2e-5 * b.norm() + rounding


def test_gradients_pass_to_what_a_change_depends_on() -> None:
    model = MODELS["mamba2"].build(0)
    shares = {layer: torch.full((4,), 0.5, requires_grad=True) for layer in (0, 1)}

    def loss() -> Tensor:
        with lens.intervene(model, lens.mix_gates(-0.2, shares)):
            return model(input_ids=TOKENS)[0].double().square().mean()

    slopes = torch.autograd.grad(loss(), list(shares.values()))
    step = 2e-2
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            shares[1][2] = 0.5 + sign * step
            values.append(loss().item())
    assert slopes[1][2].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-2)
    assert all(slope.all() for slope in slopes)


def test_patched_with_its_own_gates_a_text_is_itself() -> None:
    model = MODELS["jamba"].build(0)
    plain = run(model)
    with torch.no_grad(), lens.capture(model) as own:
        run(model)
    with torch.no_grad(), lens.capture(model) as other:
        run(model, TOKENS.flip(1))
    with lens.intervene(model, lens.patch_gates(own), heads=slice(0, 3)):
        assert distance(run(model), plain) < 1e-6
    with lens.intervene(model, lens.patch_gates(other), heads=slice(0, 3)):
        assert distance(run(model), plain) > 1e-5
    with pytest.raises(ValueError, match="rows of 12 tokens"), lens.intervene(model, lens.patch_gates(own)):
        run(model, TOKENS[:, :12])


class StopError(Exception):
    pass


@pytest.mark.parametrize("name", ["mamba", "minimax", "gladient"])
def test_nothing_is_left_whatever_is_raised(name: str) -> None:
    model = MODELS[name].build(0)
    plain, hooks = run(model), _hooks(model)

    def fail(record: Record) -> Recurrence:
        if record.layer:
            raise StopError
        return replace(record.recurrence)

    for _ in range(2):
        with pytest.raises(StopError), lens.intervene(model, anew), lens.intervene(model, fail):
            run(model)
    with pytest.raises(StopError), lens.intervene(model, anew):
        raise StopError
    assert _hooks(model) == hooks
    assert not places._places
    assert not attaching._open.__dict__.get("sites")
    assert torch.equal(run(model), plain)


def _hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_threads_change_their_own_passes_alone() -> None:
    model, factors, begin = MODELS["mamba2"].build(0), [None, 0.5, 2.0], threading.Barrier(3)

    def look(factor: float | None) -> Tensor:
        begin.wait()
        if factor is None:
            return run(model)
        with lens.intervene(model, lens.scale_gates(factor)):
            return run(model)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(look, factors))
    assert torch.equal(found[0], run(model))
    for factor, output in zip(factors[1:], found[1:], strict=True):
        assert factor is not None
        assert distance(output, run(edited("mamba2", factor))) < 1e-6
    elsewhere = pytest.warns(UserWarning, match="ran in another thread and was not changed")
    with elsewhere, ThreadPoolExecutor(1) as pool, lens.intervene(model, lens.scale_gates(2.0)):
        assert torch.equal(pool.submit(run, model).result(), found[0])


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["mamba", "mamba2", "qwen3.5", "kimi-linear"])
def test_accelerated_layers_are_changed_too(name: str, inside: bool) -> None:
    model, wanted = MODELS[name].build(0), run(edited(name))
    change = lens.scale_gates(2.0)
    if inside:
        with lens.intervene(model, change), accelerated(model):
            found = run(model)
    else:
        with accelerated(model), lens.intervene(model, change):
            found = run(model)
    assert distance(found, wanted) < 2e-6


def test_a_layer_that_runs_past_its_place_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["mamba2"].build(0)
    where, _, layer, _ = lens.gated_layers(model)[0]
    monkeypatch.setattr(layer, "forward", lambda hidden_states, *_, **__: hidden_states)
    with pytest.raises(seams.SeamError, match=f"{where} ran without calling"), lens.intervene(model, anew):
        run(model)


class Mixer(nn.Module):
    def forward(self, x: Tensor, **given: Any) -> Any:
        return gated_linear_attention(x, x, x, g=torch.full(x.shape[:3], -0.5), output_final_state=True, **given)


def test_a_compiled_model_is_an_error() -> None:
    model = Mixer()
    compiled: Any = torch.compile(model)
    with (
        pytest.raises(seams.SeamError, match="OptimizedModule is compiled"),
        lens.intervene(compiled, anew),
    ):
        pass
    model.compile(backend="eager")
    with pytest.raises(seams.SeamError, match="0 is compiled"), lens.intervene(nn.Sequential(model), anew):
        pass


@pytest.mark.parametrize("borders", [(0, 3, 3, 8), (0, 1, 8)])
@pytest.mark.parametrize("form", ["chunked", "last_query"])
@torch.no_grad()
def test_packed_calls_of_our_operators(borders: tuple[int, ...], form: str) -> None:
    generator = torch.Generator().manual_seed(0)

    class Packed(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, gv: Tensor, state: Tensor) -> Any:
            options: Any = {"cu_seqlens": list(borders), "form": form, "output_final_state": True}
            return gated_linear_attention(q, k, v, gv=gv, initial_state=state, **options)

    q, k, v = torch.randn(3, 1, 8, 2, 4, generator=generator)
    gv = -torch.rand(1, 8, 2, 4, generator=generator)
    state = torch.randn(len(borders) - 1, 2, 4, 4, generator=generator)
    for query in [q] if form == "chunked" else [q, q[:, :1]]:
        model = Packed()
        plain = model(query, k, v, gv, state)
        with lens.intervene(model, anew), lens.capture(model) as trace:
            same = model(query, k, v, gv, state)
        assert trace.passed
        with lens.intervene(model, lens.scale_gates(2.0), heads=slice(0, 4)):  # value channels are heads
            found = model(query, k, v, gv, state)
        twice = torch.stack([2 * gv[:, :, 0], gv[:, :, 1]], 2)
        for each, wanted in ((same, plain), (found, model(query, k, v, twice, state))):
            for a, b in zip(each, wanted, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_steps_in_place_and_their_gradients() -> None:
    x, state = torch.randn(1, 1, 2, 3), torch.randn(1, 2, 3, 3)
    model, given = Mixer(), state.clone()
    with lens.intervene(model, lens.scale_gates(2.0)):
        o, last = model(x, initial_state=given, inplace=True)
    assert last is given
    wanted = gated_linear_attention(
        x, x, x, g=torch.full((1, 1, 2), -1.0), initial_state=state, output_final_state=True
    )
    torch.testing.assert_close((o, last), wanted)


class Ranks(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, state: Any = None, **given: Any) -> Any:
        return mamba3(q, k, v, **given, state=state, output_final_state=True)


@pytest.mark.parametrize("ranks", [1, 3])
@torch.no_grad()
def test_mamba3_forgets_tokens_and_carries_that_on(ranks: int) -> None:
    """The next call adds to what the last token wrote, which a dropped token did not."""
    generator, T, H = torch.Generator().manual_seed(0), 6, 2
    q, k, v = torch.randn(3, 1, T, H, ranks, 4, generator=generator)
    if ranks == 1:
        q, k, v = (x[:, :, :, 0] for x in (q, k, v))
    step, mix = torch.rand(2, 1, T, H, generator=generator)
    given = {"q": q, "k": k, "v": v, "g": -step, "step": step, "mix": mix}
    given["angles"] = torch.randn(1, T, H, 2, generator=generator)
    model = Ranks()

    def part(start: int, stop: int) -> dict[str, Tensor]:
        return {name: x[:, start:stop] for name, x in given.items()}

    whole = model(**given)[0]
    with lens.intervene(model, anew):
        first, state = model(**part(0, 3))
        second, _ = model(**part(3, T), state=state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-5, atol=1e-6)
    keys, values = k.clone(), v.clone()
    keys[:, [0, 2]] = 0
    wanted = model(**given | {"k": keys})[0]
    with lens.intervene(model, lens.drop_tokens([0, 2])), lens.capture(model) as trace:
        first, state = model(**part(0, 3))
    second, _ = model(**part(3, T), state=state)
    torch.testing.assert_close(torch.cat([first, second], 1), wanted, rtol=1e-5, atol=1e-6)
    assert trace.passed
    values[:, [0, 2]] = 0
    with lens.intervene(model, lens.knock_out([0, 2])):
        first, state = model(**part(0, 3))
    second, _ = model(**part(3, T), state=state)
    torch.testing.assert_close(torch.cat([first, second], 1), model(**given | {"v": values})[0], rtol=1e-5, atol=1e-6)
    if ranks > 1:
        refused = pytest.raises(ValueError, match="differs among the 3 ranks of a head")
        with refused, lens.intervene(model, lens.fix_gates(0.0), heads=0):
            model(**part(0, 3))


class SS2D(nn.Module):
    def forward(self, **given: Any) -> Any:
        return self.selective_scan(**given)

    def selective_scan(
        self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Any = None, z: Any = None,
        delta_bias: Any = None, delta_softplus: bool = False, return_last_state: bool = False,
    ) -> Any:  # fmt: skip
        B, C = (x.repeat_interleave(u.shape[1] // x.shape[1], 1) for x in (B, C))
        state, outputs = torch.zeros(u.shape[0], u.shape[1], A.shape[1]), []
        for t in range(u.shape[2]):
            state = (delta[:, :, t, None] * A).exp() * state + (delta * u)[:, :, t, None] * B[..., t]
            outputs.append((state * C[..., t]).sum(2) + D * u[:, :, t])
        return torch.stack(outputs, 2)


def test_scans_of_pictures_are_changed() -> None:
    generator = torch.Generator().manual_seed(0)
    given = {"u": torch.randn(1, 4, 6, generator=generator), "delta": torch.rand(1, 4, 6, generator=generator)}
    given |= {name: torch.randn(1, 2, 3, 6, generator=generator) for name in "BC"}
    given |= {"A": -torch.rand(4, 3, generator=generator), "D": torch.ones(4)}
    model = SS2D()
    with lens.intervene(model, lens.scale_gates(2.0)), lens.capture(model) as trace:
        found = model(**given)
    torch.testing.assert_close(found, model(**given | {"A": 2 * given["A"]}))
    assert trace.passed


class Leaky(nn.Module):
    """A layer for adapters of one's own."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x)

    def mix(self, x: Tensor) -> Tensor:
        return 2 * x.cumsum(1)


def _read(call: dict[str, Any], result: Tensor) -> Recurrence:
    x = call["x"][:, :, None]
    ones = torch.ones_like(x[..., :1])
    return lens.record(ones, ones, 2 * x, output=result[:, :, None]).recurrence


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    from gladient.lens import layers

    def register(attach: Any) -> None:
        monkeypatch.setattr(layers, "_registered", [lens.Adapter("leaky", ("Leaky",), attach)])

    return register


def test_an_adapter_of_ones_own_answers_or_is_an_error(adapter: Callable[[Any], None]) -> None:
    x, model = torch.ones(1, 3, 1), Leaky()
    adapter(lambda layer, emit: seams.on_method(layer, "mix", lambda call, result: emit(_read(call, result))))
    refused = pytest.raises(seams.SeamError, match=r"'leaky' only listens.*emit\.listener")
    with refused, lens.intervene(model, lens.fix_gates(-torch.tensor(2.0).log())):
        model(x)
    with lens.capture(model) as trace:
        model(x)
    assert trace.passed

    def write(call: Any, result: Tensor, answer: lens.Answer) -> Tensor:
        return answer.put(result[:, :, None], answer.output, 2)[:, :, 0]

    adapter(lambda layer, emit: seams.on_method(layer, "mix", emit.listener(_read, write), replace=emit.replace))
    with lens.intervene(model, lens.fix_gates(-torch.tensor(2.0).log())):
        torch.testing.assert_close(model(x).flatten(), torch.tensor([2.0, 3.0, 3.5]))


BAD: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "nothing": (lambda record: None, {}, TypeError, r"layer 0 \(.*\): the change returned NoneType; it returns a Rec"),
    "fewer heads": (lambda r: r.recurrence.select(0), {}, ValueError, "made q of shape .* which must stay"),
    "gates above 1": (lens.fix_gates(0.1), {}, ValueError, r"log gates of up to 0\.1; gates lie in \[0, 1\]"),
    "NaN": (lens.scale_gates(float("nan")), {}, ValueError, "log gates of up to nan"),
    "turned": (lens.scale_gates(-1.0), {}, ValueError, "log gates of up to"),
    "no layer": (anew, {"layers": 9}, ValueError, "layer 9 is not a gated layer; gated layers are"),
    "no head": (anew, {"heads": [99]}, ValueError, "there is no head 99"),
    "no rule": (lens.scale_erase(0.5), {}, ValueError, "follows no delta rule"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_changes_are_one_clear_error(what: str) -> None:
    change, options, error, message = BAD[what]
    model = MODELS["mamba2"].build(0)
    with pytest.raises(error, match=message), lens.intervene(model, change, **options):
        run(model)


def test_attention_idle_blocks_and_positions_in_a_cache() -> None:
    tiny, model = MODELS["bamba"], MODELS["bamba"].build(0)
    attention = pytest.raises(ValueError, match="layer 1 is not a gated layer but attention")
    idle = pytest.raises(seams.SeamError, match=r"no gated layer of \w+ ran inside the block")
    cached = pytest.raises(ValueError, match="continues a cache, in which the tokens before this call lie")
    with attention, lens.intervene(model, anew, layers=1):
        pass
    with idle, lens.intervene(model, anew):
        pass
    with torch.no_grad(), cached, lens.intervene(model, lens.drop_tokens([3])):
        run_calls(model, tiny, CASES["decoding"][0](tiny))


def test_dropout_beside_a_change_is_warned_about() -> None:
    noisy = nn.Sequential(Mixer(), nn.Dropout(0.1)).train()
    with pytest.warns(UserWarning, match="drops out 10% at random"), lens.intervene(noisy, anew):
        noisy[0](torch.randn(1, 3, 1, 2))


def test_keys_of_their_own_erase_half() -> None:
    class Erasing(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, p: Tensor, beta: Tensor) -> Tensor:
            return gated_delta_rule(q, k, v, beta, erase_keys=p)[0]

    q, k, v, p = torch.randn(4, 1, 6, 2, 4, generator=torch.Generator().manual_seed(0)) / 2
    model, beta = Erasing(), torch.full((1, 6, 2), 0.5)
    with lens.intervene(model, lens.scale_erase(0.5)):
        found = model(q, k, v, p, beta)
    torch.testing.assert_close(found, model(q, k, v, p / 2, beta))

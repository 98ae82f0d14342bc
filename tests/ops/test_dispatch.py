"""Which form and backend run, what fla would be given, and what is said where something is missing."""

import re
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from ops_cases import BACKENDS, inputs, run, tensors
from torch import Tensor

from gladient.ops import Backend, choose, dispatch, fla, gated_delta_rule, gated_linear_attention, native
from gladient.ops.call import prepare
from tolerances import TOLERANCES

x = torch.randn(1, 20, 2, 16)
GATES: dict[str, dict[str, Any]] = {
    "none": {},
    "scalar": {"g": torch.zeros(1, 20, 2)},
    "key": {"gk": torch.zeros(1, 20, 2, 16)},
    "value": {"gv": torch.zeros(1, 20, 2, 16)},
    "full": {"G": torch.zeros(1, 20, 2, 16, 16)},
}


def test_auto_takes_the_form_from_the_shapes() -> None:
    assert choose(x[:, :1], x[:, :1], x[:, :1]).form == "step"
    assert choose(x[:, :1], x, x).form == "last_query"
    choice = choose(x, x, x, **GATES["key"])
    assert (choice.form, choice.backend) == ("chunked", BACKENDS[-1])
    assert "20 queries for 20 tokens" in choice.reason


def test_auto_in_eager_takes_all_pairs_of_short_sequences() -> None:
    short = x[:, :16]
    assert choose(x, x, x, **GATES["scalar"], backend="eager").form == "parallel"
    assert choose(short, short, short, gk=short, backend="eager").form == "parallel"
    for family in ("key", "value", "full"):
        assert choose(x, x, x, **GATES[family], backend="eager").form == "chunked"
    assert choose(short, short, short, gk=short, G=torch.zeros(1, 16, 2, 16, 16), backend="eager").form == "chunked"
    assert choose(x, x, x, **GATES["scalar"], form="chunked", backend="eager").form == "chunked"
    many = x[..., :4].expand(4096, -1, -1, -1)
    assert choose(many, many, many, g=many[..., 0], backend="eager").form == "chunked"


def test_without_kernels_eager_computes_and_the_choice_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_obstacle", lambda: "no C++ compiler: install g++")
    given = tensors(inputs("key", 20))
    choice = choose(x, x, x, **GATES["key"])
    assert choice.backend == "eager"
    assert "not native: no C++ compiler: install g++" in choice.reason
    with pytest.raises(RuntimeError, match=r"backend='native' cannot run this: no C.. compiler"):
        run(given, backend="native")
    slow = run(given)
    monkeypatch.undo()
    torch.testing.assert_close(run(given), slow, **TOLERANCES[torch.float64])


@pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")
@pytest.mark.parametrize("narrow", [False, True])
def test_auto_leaves_to_eager_what_eager_does_faster(narrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_narrow_vectors", lambda: narrow)
    wide = torch.randn(1, 20, 2, 21)
    assert choose(wide[:, -1:], wide, wide).backend == ("eager" if narrow else "native")
    assert choose(wide[:, -1:], wide, wide, gk=wide).backend == "native"
    assert choose(x[:, -1:], x, x).backend == "native"
    assert choose(wide[:, -1:], wide, wide, backend="native").backend == "native"
    assert choose(wide, wide, wide).backend == "native"


@pytest.mark.parametrize(
    ("family", "form", "read", "name"),
    [
        ("none", "chunked", "after", "chunk_simple_gla"),
        ("scalar", "chunked", "after", "chunk_simple_gla"),
        ("scalar", "recurrent", "after", "fused_recurrent_simple_gla"),
        ("key", "chunked", "after", "chunk_gla"),
        ("key", "step", "after", "fused_recurrent_gla"),
        ("value", "recurrent", "after", "fused_recurrent_gla"),
        ("key", "chunked", "before", "chunk_rwkv6"),
        ("scalar", "recurrent", "before", "fused_recurrent_rwkv6"),
        ("value", "chunked", "after", None),
        ("full", "recurrent", "after", None),
        ("none", "chunked", "before", None),
        ("key", "last_query", "after", None),
    ],
)
def test_what_fla_holds(family: str, form: str, read: str, name: str | None) -> None:
    part = slice(0, 1 if form == "step" else None)
    gates = {gate: tensor[:, part] for gate, tensor in GATES[family].items()}
    assert fla.kernel(prepare(x[:, part], x[:, part], x[:, part], **gates, form=form, read=read)) == name


beta = torch.rand(1, 20, 2)


@pytest.mark.parametrize(
    ("family", "form", "options", "name"),
    [
        ("none", "chunked", {}, "chunk_gated_delta_rule"),
        ("scalar", "chunked", {}, "chunk_gated_delta_rule"),
        ("scalar", "recurrent", {}, "fused_recurrent_gated_delta_rule"),
        ("key", "chunked", {}, "chunk_kda"),
        ("key", "recurrent", {}, "fused_recurrent_kda"),
        ("scalar", "chunked", {"erase": beta}, "chunk_gdn2"),
        ("key", "recurrent", {"erase": x, "beta": x}, "fused_recurrent_gdn2"),
        ("scalar", "chunked", {"erase_keys": x}, "chunk_comba"),
        ("none", "recurrent", {"erase_keys": x}, "fused_recurrent_comba"),
        ("scalar", "chunked", {"erase_keys": x, "erase": beta}, None),
        ("key", "chunked", {"erase_keys": x}, None),
        ("key", "chunked", {"read": "before"}, None),
        ("key", "last_query", {}, None),
    ],
)
def test_what_fla_holds_of_the_delta_rule(family: str, form: str, options: dict[str, Any], name: str | None) -> None:
    assert fla.kernel(prepare(x, x, x, form=form, **{"beta": beta, **GATES[family], **options})) == name


def test_fla_says_what_it_does_not_hold() -> None:
    wide, rates = torch.zeros(1, 20, 2, 272), x.clone().requires_grad_()
    for call, reason in (
        (
            prepare(x, x, x, beta=beta, form="last_query"),
            "no kernel for write 'delta', form 'last_query', gates 'none'",
        ),
        (prepare(x, x, x, beta=beta, erase=beta, read="before"), "write 'delta with erase', .*, read 'before'"),
        (
            prepare(rates, x, x, beta=beta, form="recurrent"),
            "fused_recurrent_gated_delta_rule has no gradients; form='ch",
        ),
        (
            prepare(rates[:, :1], x[:, :1], x[:, :1], beta=beta[:, :1], gk=x[:, :1]),
            "fused_recurrent_kda has no gradients",
        ),
        (prepare(wide, wide, x, beta=beta), "chunk_gated_delta_rule holds K up to 256 and it is 272"),
        (prepare(x[..., :8], x[..., :8], x, beta=beta), "at least 16 and they are 8 and 16"),
        (prepare(x.double(), x.double(), x.double(), beta=beta.double()), "float32 at most"),
    ):
        assert re.search(reason, str(fla.not_held(call)))
    for held in ({"beta": beta}, {"beta": beta, "erase": beta}, {"beta": beta, "gk": x, "form": "chunked"}, {"gk": x}):
        assert fla.not_held(prepare(rates, x, x, **held)) is None
    with torch.no_grad():
        assert fla.not_held(prepare(rates, x, x, beta=beta, form="recurrent")) is None


def test_fla_gets_the_strengths_of_the_delta_rule() -> None:
    g, few = GATES["scalar"]["g"] - 1, x[:, :, :1]
    plain = fla.arguments(prepare(few, few, x, beta=beta, g=g), "chunk_gated_delta_rule")
    assert plain["k"].shape == x.shape
    assert torch.equal(plain["beta"], beta)
    assert torch.equal(plain["g"], g)
    assert not fla.arguments(prepare(x, x, x, beta=beta), "chunk_gated_delta_rule")["g"].any()
    keyed = fla.arguments(prepare(x, x, x, beta=beta[..., :1], g=g, gk=x), "chunk_kda")
    assert torch.equal(keyed["g"], x - 1)
    assert torch.equal(keyed["beta"], beta[..., :1].expand(-1, -1, 2))
    apart = fla.arguments(prepare(x, x, x, beta=beta, erase_keys=few), "chunk_comba")
    assert torch.equal(apart["p"], few.expand(-1, -1, 2, -1))
    assert torch.equal(apart["beta"], beta)
    freed = fla.arguments(prepare(x, x, x[..., :4], beta=beta, erase=x.sigmoid()), "chunk_gdn2")
    assert torch.equal(freed["b"], x.sigmoid())
    assert torch.equal(freed["w"], beta[..., None].expand(-1, -1, -1, 4))
    assert freed["g"].shape == x.shape
    assert not freed["g"].any()


def test_fla_is_given_its_own_names_and_our_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {}

    def chunk_gla(**arguments: Any) -> tuple[Tensor, None]:
        calls.update(arguments)
        return arguments["v"], None

    module = ModuleType("fla.ops.gla")
    module.chunk_gla = chunk_gla  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fla.ops.gla", module)
    monkeypatch.setattr(dispatch.fla, "require", lambda: None)
    monkeypatch.setattr(dispatch.fla, "why_not", lambda call, named=False: None)
    g, gk = torch.full((1, 20, 1), -1.0), torch.full((1, 20, 2, 16), -2.0)
    gated_linear_attention(x, x[:, :, :1], x, g=g, gk=gk, backend="fla")
    assert calls["scale"] == 1.0
    assert calls["k"].shape == x.shape
    assert calls["g"].shape == x.shape
    assert calls["g"].unique().item() == -3.0
    assert "cu_seqlens" not in calls


def test_rwkv6_gets_its_bonus_or_zeros() -> None:
    u, options = torch.randn(2, 16), {"read": "before", **GATES["key"]}
    assert torch.equal(fla.arguments(prepare(x, x, x, bonus=u, **options), "chunk_rwkv6")["u"], u)
    assert not fla.arguments(prepare(x, x, x, **options), "chunk_rwkv6")["u"].any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_fla_asked_for_but_absent() -> None:
    with pytest.raises(ImportError, match="backend='fla' needs"):
        gated_linear_attention(x, x, x, backend="fla")
    assert "Triton kernels run on CUDA" in str(fla.why_not(prepare(x, x, x, **GATES["key"])))


def test_native_says_what_it_does_not_hold() -> None:
    with pytest.raises(RuntimeError, match="form 'parallel' is plain PyTorch"):
        gated_linear_attention(x, x, x, form="parallel", backend="native")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_state_changed_in_place_is_seen_by_autograd(backend: Backend, delta: bool, mode: Any) -> None:
    x, cache = torch.randn(2, 1, 3, 4), torch.randn(2, 2, 3, 4, 4)
    options: dict[str, Any] = {"inplace": True, "backend": backend, "output_final_state": True}
    for state in (torch.randn(2, 3, 4, 4), cache[1], torch.randn(2, 3, 4, 4).transpose(2, 3)):
        loss = (torch.ones(4, requires_grad=True) * state).sum()
        with mode():
            if delta:
                gated_delta_rule(x, x, x, x[..., 0], initial_state=state, **options)
            else:
                gated_linear_attention(x, x, x, initial_state=state, **options)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    with torch.inference_mode():  # such a state has no versions
        gated_linear_attention(x, x, x, initial_state=torch.zeros(2, 3, 4, 4), **options)

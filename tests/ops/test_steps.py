"""Small calls: the second of a kind goes straight to the kernel, and is in all else like any other call."""

from typing import Any

import pytest
import torch
from ops_cases import BACKENDS, DELTA, FAMILIES, inputs, run, tensors
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from gladient import lens
from gladient.ops import LayoutWarning, dispatch, gated_delta_rule, gated_linear_attention
from gladient.ops.native.steps import likeness

pytestmark = pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")

STEPS: dict[str, dict[str, Any]] = {
    "grouped": {"H": 6, "heads": 2, "q_heads": 6},
    "bonus": {"bonus": True},
    "rows": {"rows": True, "bonus": True},
    "gates of 0": {"zeros": True},
}


@pytest.fixture(autouse=True)
def _nothing_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_known", {})


def twice(family: str, dtype: torch.dtype, options: dict[str, Any], **sizes: Any) -> None:
    """Two tokens one after the other, alike, beside the recurrence in plain PyTorch."""
    for seed in (0, 1):
        given = {name: x.detach().to(dtype) for name, x in tensors(inputs(family, 1, seed=seed, **sizes)).items()}
        right = run(given, form="recurrent", backend="eager", **options | {"inplace": False})
        state = given["state"].clone()
        found = run(given | {"state": state}, **options)
        torch.testing.assert_close(found, right)
        assert (found[1] is state) == options.get("inplace", False)
        torch.testing.assert_close(state, right[1] if options.get("inplace") else given["state"])


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("family", [*FAMILIES, *DELTA])
def test_the_second_token_is_computed_like_the_first(family: str, inplace: bool) -> None:
    twice(family, torch.float64, {"inplace": inplace})
    assert len(dispatch._known) == 1
    # strengths per channel become ones of keys and values first
    assert (next(iter(dispatch._known.values())) is None) == (family == "delta+key+channels")


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("family", ["scalar", "key", "rates", "delta+scalar"])
def test_any_heads_rows_and_gates(family: str, kind: str) -> None:
    read = {"read": "before"} if "bonus" in STEPS[kind] and "delta" not in family else {}
    twice(family, torch.float32, {"inplace": True, "scale": 0.5} | read, **STEPS[kind])


@pytest.mark.parametrize("q_heads", [4, 2])
@pytest.mark.parametrize("family", [*FAMILIES, "g gk gv", "delta+scalar"])
def test_the_second_query_is_computed_like_the_first(family: str, q_heads: int) -> None:
    sizes: dict[str, Any] = {"H": 4, "q_heads": q_heads, "state": False}
    operator: Any = gated_delta_rule if family in DELTA else gated_linear_attention
    for seed in (0, 1):
        given = {name: x.detach() for name, x in tensors(inputs(family, 9, seed=seed, **sizes)).items()}
        right = run(given, form="recurrent", backend="eager")[0][:, -1:]
        given["q"] = given["q"][:, -1:].clone()
        torch.testing.assert_close(operator(**given, form="last_query")[0], right)
    assert len(dispatch._known) == 1
    straight = q_heads == 4 and not {"full", "rates", "delta+scalar"} & {family}
    assert (next(iter(dispatch._known.values())) is not None) == straight


def test_the_second_query_forgets_what_the_first_forgot() -> None:
    """A gate of 0 drops an infinity, which a factor of 0 would make NaN."""
    q, x, g = torch.ones(2, 1, 3, 4), torch.ones(2, 5, 3, 4), torch.zeros(2, 5, 3)
    g[:, 3] = -torch.inf
    spoilt = x.clone()
    spoilt[0, 1] = torch.inf
    for v in (x, spoilt):
        o, _ = gated_linear_attention(q, x, v, g=g, form="last_query")
        assert o.tolist() == torch.full((2, 1, 3, 4), 8.0).tolist()
    assert next(iter(dispatch._known.values())) is not None


def test_every_query_of_head_first_tensors_warns() -> None:
    for _ in range(2):
        with pytest.warns(LayoutWarning):
            gated_linear_attention(torch.ones(2, 1, 6, 4), *2 * [torch.ones(2, 3, 6, 4)], form="last_query")


def decode(x: Tensor, state: Tensor, **options: Any) -> Tensor:
    return gated_linear_attention(x, x, x, gk=-x.abs(), initial_state=state, inplace=True, **options)[0]


def test_what_is_not_alike_is_checked_anew() -> None:
    x, state = torch.randn(2, 1, 3, 4), torch.zeros(2, 3, 4, 4)
    decode(x, state)
    with pytest.raises(ValueError, match=r"initial_state has shape \(2, 3, 4, 5\)"):
        decode(x, torch.zeros(2, 3, 4, 5))
    with pytest.raises(TypeError, match="all or none may be float64"):
        decode(x.double(), state)
    with pytest.raises(ValueError, match="form is 'stride'"):
        decode(x, state, form="stride")
    with pytest.raises(TypeError, match="scale is list"):
        decode(x, state, scale=[1.0])
    with pytest.raises(ValueError, match="NaN"):
        decode(x * torch.nan, state, check_values=True)
    with pytest.raises(ValueError, match="inplace=True came with tensors that require gradients"):
        decode(x.requires_grad_(), state)
    assert len(dispatch._known) == 1


def test_views_and_parameters() -> None:
    x, state = torch.randn(2, 1, 3, 4), torch.randn(2, 3, 4, 4)

    def two(token: Tensor, state: Tensor) -> Tensor:
        decode(token, state)
        return decode(token, state)

    right = two(x, state.clone())
    wide = torch.randn(2, 1, 3, 8)
    wide[..., ::2] = x
    with torch.no_grad():
        for token in (wide[..., ::2], nn.Parameter(x), torch._neg_view(-x)):
            torch.testing.assert_close(two(token, state.clone()), right)
    torch.testing.assert_close(two(x, state.mT.contiguous().mT), right)


def test_transforms_and_tracers_see_every_call() -> None:
    x, state = torch.randn(5, 2, 1, 3, 4), torch.randn(5, 2, 3, 4, 4)

    def step(x: Tensor, state: Tensor) -> Any:
        return gated_linear_attention(x, x, x, initial_state=state, output_final_state=True)

    right = [step(*pair) for pair in zip(x, state, strict=True)]
    assert dispatch._known
    for mapped in (torch.vmap(step)(x, state), torch.func.vjp(torch.vmap(step), x, state)[0]):
        torch.testing.assert_close(mapped, tuple(map(torch.stack, zip(*right, strict=True))))
    graph = make_fx(step)(x[0], state[0])
    torch.testing.assert_close(graph(x[1], state[1]), tuple(right[1]))
    leaf = x[0].clone().requires_grad_()
    step(leaf, state[0])[0].sum().backward()
    assert leaf.grad is not None
    tangents = torch.func.jvp(lambda x: step(x, state[0])[0], (x[0],), (x[0],))
    assert tangents[1].abs().sum() > 0


def test_the_lens_hears_every_call() -> None:
    class Layer(nn.Module):
        def forward(self, x: Tensor, state: Tensor) -> Tensor:
            return decode(x, state)

    layer, x, state = Layer(), torch.randn(2, 1, 3, 4), torch.zeros(2, 3, 4, 4)
    for _ in range(2):
        layer(x, state)
    with lens.capture(layer) as trace:
        layer(x, state)
    assert len(trace.records) == 1


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_MOST_KNOWN", 3)
    for batch in range(1, 6):
        decode(torch.randn(batch, 1, 3, 4), torch.zeros(batch, 3, 4, 4))
        assert 1 <= len(dispatch._known) <= 3


def test_alike_is_what_has_shapes_dtypes_options_and_backend_in_common() -> None:
    x, state = torch.randn(2, 1, 3, 4), torch.zeros(2, 3, 4, 4)
    given: dict[str, Any] = {"q": x, "k": x, "v": x, "initial_state": state, "scale": 1.0}
    one = likeness(given, "auto")
    assert one == likeness(given | {"v": torch.ones_like(x)}, "auto")
    others: list[dict[str, Any]] = [{"v": x[:1]}, {"v": x.double()}, {"scale": 2.0}, {"g": x[..., 0].contiguous()}]
    assert len({one, likeness(given, "native"), *(likeness(given | other, "auto") for other in others)}) == 6
    apart: list[dict[str, Any]] = [
        {"k": x.expand(2, 5, 3, 4)},
        {"initial_state": None},
        {"cu_seqlens": [0, 1]},
        {"v": x[..., ::2]},
    ]
    assert all(likeness(given | other, "auto") is None for other in apart)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_autograd_sees_what_the_second_token_changes(mode: Any) -> None:
    x, state = torch.randn(2, 1, 3, 4), torch.randn(2, 3, 4, 4)
    with mode():
        decode(x, torch.randn(2, 3, 4, 4))
    assert dispatch._known
    loss = (torch.ones(4, requires_grad=True) * state).sum()
    with mode():
        decode(x, state)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()

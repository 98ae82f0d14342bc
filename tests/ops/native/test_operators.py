"""The native kernels as PyTorch operators: their schemas, fakes, derivatives and batches, by PyTorch's own checks."""

from typing import Any

import pytest
import torch
from ops_cases import BACKENDS, inputs, run, tensors
from torch import Tensor

from gladient.ops import gated_linear_attention
from gladient.ops.native import operators, registry
from tolerances import TOLERANCES

pytestmark = pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")
NAMES = ("q", "k", "v", "g", "gk", "gv", "G", "A", "dt", "bonus", "state")


def arguments(family: str, **options: Any) -> list[Any]:
    """The tensors of a small case in the operators' order, as leaves."""
    given = tensors(inputs(family, 18, B=2, rows=True, **options))
    return [given.get(name) for name in NAMES]


def detached(given: list[Any]) -> list[Any]:
    return [x.detach() if isinstance(x, Tensor) else x for x in given]


@pytest.mark.parametrize("family", ["g gk gv", "full", "rates"])  # every tensor that there can be
def test_the_scan_passes_every_check(family: str) -> None:
    given = arguments(family, bonus=True)
    torch.library.opcheck(torch.ops.gladient.scan.default, (*given, None, 2, 0.5, True, True))
    _, _, checkpoints = operators.scan(*detached(given), None, 2, 0.5, True, True)
    needed = [x is not None for x in given]
    backward = torch.ops.gladient.scan_backward.default
    d_o = torch.randn(2, 18, 2, 2, dtype=torch.float64)
    torch.library.opcheck(backward, (d_o, None, checkpoints, *detached(given), None, 2, 0.5, True, needed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_passes_the_checks_of_shapes_and_dtypes(dtype: torch.dtype) -> None:
    given = [x if x is None else x.detach().to(dtype).requires_grad_() for x in arguments("key", bonus=True)]
    checks = ("test_schema", "test_faketensor")  # others compare gradients as closely as in float64
    torch.library.opcheck(torch.ops.gladient.scan.default, (*given, None, 2, 0.5, True, True), test_utils=checks)
    one = [x if x is None or i > 8 else x[:, :1] for i, x in enumerate(detached(given))]
    torch.library.opcheck(operators.step, (*one, 2, 0.5, True), test_utils=checks)


def test_the_scan_of_packed_sequences_passes_every_check() -> None:
    given = [x if x is None else x[:1].detach().requires_grad_() for x in arguments("key", state=False)]
    torch.library.opcheck(torch.ops.gladient.scan.default, (*given, [0, 5, 5, 18], 2, 1.0, False, True))


def test_the_last_query_passes_every_check() -> None:
    given = arguments("g gk gv")[:6]
    given[0] = given[0].detach()[:, -1:].clone().requires_grad_()
    torch.library.opcheck(torch.ops.gladient.last_query.default, (*given, 0.5))
    needed = [x is not None for x in given]
    backward = torch.ops.gladient.last_query_backward.default
    d_o = torch.randn(2, 1, 2, 2, dtype=torch.float64)
    torch.library.opcheck(backward, (d_o, *detached(given), 0.5, needed))


@pytest.mark.parametrize("family", ["g gk gv", "full"])
def test_the_step_passes_every_check(family: str) -> None:
    whole = zip(NAMES, detached(arguments(family)), strict=True)
    one = [x if x is None or name in ("A", "bonus", "state") else x[:, :1] for name, x in whole]
    torch.library.opcheck(operators.step, (*one, 2, 0.5, False))
    torch.library.opcheck(operators.step_, (*one, 2, 0.5, False))


def test_forward_derivatives_are_those_of_the_recurrence() -> None:
    q, k, v, g, _ = (x.detach() for x in tensors(inputs("scalar", 18)).values())

    def outputs(form: str) -> Any:
        return lambda q, k, v, g: gated_linear_attention(q, k, v, g=g, form=form)[0]  # type: ignore[arg-type]

    expected = torch.func.jvp(outputs("recurrent"), (q, k, v, g), (k, q, v, g))
    for form in ("auto", "chunked", "parallel"):
        found = torch.func.jvp(outputs(form), (q, k, v, g), (k, q, v, g))
        torch.testing.assert_close(found, expected, **TOLERANCES[torch.float64])


@pytest.mark.parametrize("form", ["chunked", "last_query"])
def test_negative_views_are_read_with_their_sign(form: str) -> None:
    q, k, v, g, _ = (x.detach() for x in tensors(inputs("scalar", 18)).values())
    negative = torch._neg_view(k)
    assert negative.is_neg()
    found = gated_linear_attention(q, negative, v, g=g, form=form, backend="native")[0]  # type: ignore[arg-type]
    expected = gated_linear_attention(q, -k, v, g=g, form=form, backend="eager")[0]  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, **TOLERANCES[torch.float64])


def test_only_the_gradients_asked_for_are_computed() -> None:
    given = tensors(inputs("rates", 18))
    o, _ = run(given, backend="native")
    (alone,) = torch.autograd.grad(o.square().sum(), given["v"], retain_graph=True)
    every = torch.autograd.grad(o.square().sum(), list(given.values()))
    torch.testing.assert_close(alone, every[list(given).index("v")], rtol=0, atol=0)


def test_half_precision_keeps_its_dtypes() -> None:
    given = {name: x.detach().bfloat16().requires_grad_() for name, x in tensors(inputs("key", 18)).items()}
    o, final = run(given, backend="native")
    assert (o.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    gradients = torch.autograd.grad(o.float().sum() + final.sum(), list(given.values()))
    assert {x.dtype for x in gradients} == {torch.bfloat16}


@pytest.mark.parametrize("form", ["chunked", "last_query"])
@pytest.mark.parametrize("family", ["key", "delta+scalar"])
def test_past_the_dispatcher_or_through_it(family: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits of outputs, gradients and their gradients, whoever looks."""

    def results() -> list[Tensor]:
        given = tensors(inputs(family, 18, B=2))
        leaves = [x for x in given.values() if x.requires_grad]
        o, state = run(given, form=form, backend="native")
        first = torch.autograd.grad(o.sin().sum() + state.cos().sum(), leaves, create_graph=True)
        return [o, state, *first, *torch.autograd.grad(torch.stack([x.sin().sum() for x in first]).sum(), leaves)]

    straight = results()
    monkeypatch.setattr(registry, "unfollowed", lambda *_: False)
    monkeypatch.setattr(registry, "unwatched", lambda *_: False)
    for x, y in zip(straight, results(), strict=True):
        assert torch.equal(x, y)


def test_profilers_see_operators_by_name() -> None:
    given = tensors(inputs("key", 18))
    with torch.profiler.profile(acc_events=True) as profiler:  # without it PyTorch 2.10 to 2.12 warn
        o, _ = run(given, form="chunked", backend="native")
        o.sum().backward()
    assert {"gladient::scan", "gladient::scan_backward"} <= {event.key for event in profiler.key_averages()}

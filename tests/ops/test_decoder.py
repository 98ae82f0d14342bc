"""A decoder computes what the operators do, and never takes a token for another."""

from typing import Any

import numpy as np
import pytest
import torch
from ops_cases import BACKENDS, DELTA, FAMILIES, inputs, tensors, tokens
from torch import Tensor, nn

from gladient import lens
from gladient.ops import Decoder, gated_linear_attention
from oracles import gla
from tolerances import TOLERANCES


@pytest.mark.parametrize("family", [*FAMILIES, *DELTA])
def test_every_family_is_the_oracle_token_after_token(family: str) -> None:
    made = inputs(family, 3)
    given = {name: x.detach() for name, x in tensors(made).items()}
    state = given.pop("state")
    decoder = Decoder(state, A=given.pop("A", None), scale=0.5)
    parts = [tokens(given, slice(t, t + 1)) for t in range(3)]
    found = [decoder(**{name: x.contiguous() for name, x in part.items()}) for part in parts]
    o, final = gla(made, scale=0.5)
    np.testing.assert_allclose(torch.cat(found, 1), o, **TOLERANCES[torch.float64])
    np.testing.assert_allclose(state, final, **TOLERANCES[torch.float64])
    assert decoder.state is state
    kept = "native" in BACKENDS and family != "delta+key+channels"  # which takes more than the kernel
    assert (decoder._step is not None) == kept


def token(B: int = 2, H: int = 3, K: int = 4, V: int = 4, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    shapes = {"q": (B, 1, H, K), "k": (B, 1, H, K), "v": (B, 1, H, V), "gk": (B, 1, H, K)}
    return {name: -torch.rand(shape, dtype=dtype) for name, shape in shapes.items()}


def started(B: int = 2) -> Decoder:
    decoder = Decoder(torch.rand(B, 3, 4, 4))
    decoder(**token(B))
    return decoder


def alone(state: Tensor, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    decoder = Decoder(state.clone())
    return decoder(**given), decoder.state


def test_views_parameters_other_gates_and_batches_are_checked_anew() -> None:
    decoder, plain = started(), token()
    others: list[dict[str, Any]] = [
        {**plain, "v": plain["v"].mT.contiguous().mT},
        {**plain, "k": torch._neg_view(plain["k"])},
        {**plain, "q": nn.Parameter(plain["q"])},
        {**plain, "g": plain["gk"][..., 0]},
        {name: x for name, x in plain.items() if name != "gk"} | {"gv": plain["gk"]},
        {name: x.bfloat16() for name, x in plain.items()},
        {**plain, "gk": None},
    ]
    with torch.no_grad():
        for given in others:
            right = alone(decoder.state, given)
            torch.testing.assert_close((decoder(**given), decoder.state), right)
    decoder.state = decoder.state[[1, 1, 0]]  # as a beam search does
    given = token(3)
    right = alone(decoder.state, given)
    torch.testing.assert_close((decoder(**given), decoder.state), right)


def test_what_is_wrong_is_refused_before_the_state_changes() -> None:
    decoder = started()
    before = decoder.state.clone()
    with pytest.raises(ValueError, match=r"v has shape \(2, 1, 3, 5\)|initial_state has shape"):
        decoder(**token(V=5))
    with pytest.raises(TypeError, match="all or none may be float64"):
        decoder(**token() | {"q": token(dtype=torch.float64)["q"]})
    with pytest.raises(TypeError, match=r"a token came with scale; .* is given to Decoder itself"):
        decoder(**token(), scale=torch.ones(2))
    with pytest.raises(ValueError, match="inplace=True came with tensors that require gradients"):
        decoder(**token() | {"q": token()["q"].requires_grad_()})
    assert torch.equal(decoder.state, before)


def test_the_lens_hears_every_token() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = started()

        def forward(self, token: dict[str, Tensor]) -> Tensor:
            return self.decoder(**token)

    layer = Layer()
    with lens.capture(layer) as trace:
        layer(token())
        layer(token())
    assert len(trace.records) == 2


def test_another_number_of_threads_is_another_call() -> None:
    before, decoder, given = torch.get_num_threads(), started(), token()
    right = alone(decoder.state, given)
    try:
        torch.set_num_threads(before + 1)
        torch.testing.assert_close((decoder(**given), decoder.state), right, rtol=0, atol=0)
    finally:
        torch.set_num_threads(before)


def test_autograd_sees_that_the_state_changes() -> None:
    decoder = started()
    loss = (torch.ones(4, requires_grad=True) * decoder.state).sum()
    decoder(**token())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_was_none_at_the_first_token_is_seen_later() -> None:
    plain, g = token(), -torch.rand(2, 1, 3)
    decoder = Decoder(torch.rand(2, 3, 4, 4))
    decoder(**plain, g=None)
    expected, final = alone(decoder.state, {**plain, "g": g})
    torch.testing.assert_close(decoder(**plain, g=g), expected)
    torch.testing.assert_close(decoder.state, final)


def test_heads_may_be_shared() -> None:
    given: dict[str, Any] = token() | {"q": torch.rand(2, 1, 1, 4), "k": torch.rand(2, 1, 1, 4)}
    decoder = Decoder(torch.rand(2, 3, 4, 4))
    for _ in range(2):
        expected, final = gated_linear_attention(
            **given, initial_state=decoder.state.clone(), form="step", output_final_state=True
        )
        torch.testing.assert_close(decoder(**given), expected)
        torch.testing.assert_close(decoder.state, final)

"""Rotations and Mamba-3 against plain loops over complex numbers and tokens."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gladient.ops import Mamba3State, cumulative_angles, gated_linear_attention, mamba3, rotate
from tolerances import TOLERANCES

CLOSE = TOLERANCES[torch.float64]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("pairs", ["adjacent", "halves"])
def test_a_rotation_is_a_complex_factor(pairs: Any) -> None:
    x, angles = normal(2, 7, 3, 8), normal(2, 7, 1, 3, seed=1)
    found = rotate(x, angles, pairs).numpy()
    first, second = (slice(0, 8, 2), slice(1, 8, 2)) if pairs == "adjacent" else (slice(0, 4), slice(4, 8))
    wanted = x.numpy()[..., first] + 1j * x.numpy()[..., second]
    wanted[..., :3] *= np.exp(1j * angles.numpy().cumsum(1))
    np.testing.assert_allclose(found[..., first] + 1j * found[..., second], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pairs", ["adjacent", "halves"])
def test_any_layout_of_memory_turns_alike(pairs: Any) -> None:
    """Pairs that memory does not hold side by side, or not at an even place; what transforms and compilers see."""
    x, angles = normal(2, 7, 3, 8), normal(2, 7, 1, 3, seed=1)
    wanted = rotate(x, angles, pairs)
    wide = normal(2, 7, 3, 9)
    wide[..., 1:] = x
    for y in (wide[..., 1:], x.transpose(0, 1).contiguous().transpose(0, 1), x.flip(-1).flip(-1), x.mT.contiguous().mT):
        torch.testing.assert_close(rotate(y, angles, pairs), wanted, rtol=0, atol=1e-15)
    torch.testing.assert_close(torch.func.vmap(lambda x: rotate(x[None], angles[:1], pairs)[0])(x[:1]), wanted[:1])
    heads = rotate(x[:, :, :1].expand(-1, -1, 3, -1), angles, pairs)
    torch.testing.assert_close(heads, rotate(x[:, :, :1], angles, pairs).expand(-1, -1, 3, -1), rtol=0, atol=0)


def test_float32_turns_within_its_own_rounding() -> None:
    """Two products and a sum, each rounded once, of a rounded cosine and sine: three times 2^-24."""
    x, angles = normal(1, 4096, 2, 8).float(), 10 * normal(1, 4096, 2, 4, seed=1).float()
    error = (rotate(x, angles).double() - rotate(x.double(), angles.double())).unflatten(-1, (-1, 2)).abs().amax(-1)
    assert (error <= 3 * 2**-24 * x.double().unflatten(-1, (-1, 2)).abs().sum(-1)).all()


def test_only_the_angles_between_two_tokens_count() -> None:
    q, k, v, angles = (
        normal(1, 9, 2, 4),
        normal(1, 9, 2, 4, seed=1),
        normal(1, 9, 2, 3, seed=2),
        normal(1, 9, 2, 2, seed=3),
    )
    o, _ = gated_linear_attention(rotate(q, angles), rotate(k, angles), v)
    shifted = normal(1, 2, 2, seed=4)
    turned_q, turned_k = (rotate(x, angles, initial=shifted) for x in (q, k))
    torch.testing.assert_close(gated_linear_attention(turned_q, turned_k, v)[0], o, **CLOSE)
    cut = [rotate(x[:, 4:], angles[:, 4:], initial=cumulative_angles(angles[:, :4])[:, -1]) for x in (q, k)]
    torch.testing.assert_close(cut[0], rotate(q, angles)[:, 4:], **CLOSE)


def test_a_float32_angle_keeps_its_digits_over_a_long_prompt() -> None:
    angles = torch.full((1, 200_000, 1, 1), 1.1)
    last = cumulative_angles(angles)[0, -1].item()
    assert abs(last - math.fmod(200_000 * float(np.float32(1.1)), 2 * math.pi)) < 1e-6
    assert (cumulative_angles(-angles) >= 0).all()


def looped(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, step: Tensor, mix: Tensor, angles: Tensor, pairs: str, scale: float
) -> tuple[Tensor, Tensor]:
    """The definition, token by token, with ranks [B, T, H, r, channels]."""
    B, T, H, _, K = k.shape
    S = last = torch.zeros(B, H, K, v.shape[-1]).double()
    phase, outputs = torch.zeros(B, H, angles.shape[3]), []
    for t in range(T):
        phase = phase + angles[:, t]
        kt, qt = (turn(x[:, t], phase[:, :, None], pairs) for x in (k, q))
        written = torch.einsum("bhrk,bhrv->bhkv", kt, v[:, t])
        gate, delta, own = (x[:, t, :, None, None] for x in (g.exp(), step, mix))
        S = gate * S + (1 - own) * delta * gate * last + own * delta * written
        outputs.append(scale * torch.einsum("bhrk,bhkv->bhrv", qt, S))
        last = written
    return torch.stack(outputs, 1), S


def turn(x: Tensor, phase: Tensor, pairs: str) -> Tensor:
    K, P = x.shape[-1], phase.shape[-1]
    one = [2 * i if pairs == "adjacent" else i for i in range(P)]
    other = [2 * i + 1 if pairs == "adjacent" else i + K // 2 for i in range(P)]
    y, (c, s) = x.clone(), (phase.cos(), phase.sin())
    y[..., one], y[..., other] = x[..., one] * c - x[..., other] * s, x[..., one] * s + x[..., other] * c
    return y


def operands(ranks: int, groups: int, gradients: bool = False) -> dict[str, Any]:
    B, T, H, K, V = 2, 11, 4, 6, 3
    more = (ranks,) if ranks else ()
    made = {
        "q": normal(B, T, groups, *more, K),
        "k": normal(B, T, groups, *more, K, seed=1),
        "v": normal(B, T, H, *more, V, seed=2),
        "g": -normal(B, T, H, seed=3).exp(),
        "step": normal(B, T, H, seed=4).exp(),
        "mix": normal(B, T, H, seed=5).sigmoid(),
        "angles": normal(B, T, 1, 2, seed=6),
    }
    made["g"][:, 5] = -torch.inf
    return {name: x.requires_grad_(gradients) for name, x in made.items()}


@pytest.mark.parametrize(("ranks", "groups", "pairs"), [(0, 4, "adjacent"), (0, 2, "halves"), (3, 1, "halves")])
def test_mamba3_is_its_recurrence(ranks: int, groups: int, pairs: Any) -> None:
    given = operands(ranks, groups, gradients=True)
    o, state = mamba3(**given, pairs=pairs, output_final_state=True, scale=0.7)
    assert state is not None
    wide = {name: x.repeat_interleave(4 // x.shape[2], 2) for name, x in given.items()}
    wide |= {} if ranks else {name: wide[name][:, :, :, None] for name in "qkv"}
    expected, S = looped(**wide, pairs=pairs, scale=0.7)
    expected = expected if ranks else expected[:, :, :, 0]
    torch.testing.assert_close((o, state.S), (expected, S), **CLOSE)
    leaves = [x for name, x in given.items() if name != "g"]  # -inf has no slope
    found, wanted = (torch.autograd.grad(x.cos().sum(), leaves, retain_graph=True) for x in (o, expected))
    torch.testing.assert_close(found, wanted, **CLOSE)


@pytest.mark.parametrize(("ranks", "groups", "pairs"), [(0, 4, "adjacent"), (3, 2, "halves")])
def test_mamba3_goes_on_from_its_state(ranks: int, groups: int, pairs: Any) -> None:
    given = operands(ranks, groups)
    o, whole = mamba3(**given, pairs=pairs, output_final_state=True)
    state: Mamba3State | None = None
    outputs = []
    for start, stop in ((0, 4), *((t, t + 1) for t in range(4, 11))):
        part = {name: x[:, start:stop] for name, x in given.items()}
        found, state = mamba3(**part, pairs=pairs, state=state, output_final_state=True)
        outputs.append(found)
    torch.testing.assert_close(torch.cat(outputs, 1), o, **CLOSE)
    assert state is not None
    assert whole is not None
    torch.testing.assert_close(tuple(state), tuple(whole), **CLOSE)
    nothing = {name: x[:, :0] for name, x in given.items()}
    o, passed = mamba3(**nothing, pairs=pairs, state=state, output_final_state=True)
    assert o.shape[1] == 0
    torch.testing.assert_close(tuple(passed or ()), tuple(state), rtol=0, atol=0)


def test_the_last_query_of_mamba3_is_the_last_output() -> None:
    """After another piece, with its state and gradients; several ranks have no such form."""
    given = operands(0, 2, gradients=True)
    first, second = ({name: x[:, part] for name, x in given.items()} for part in (slice(4), slice(4, None)))
    _, state = mamba3(**first, output_final_state=True)
    whole, last = (mamba3(**second, state=state, output_final_state=True, form=x) for x in ("chunked", "last_query"))
    torch.testing.assert_close((last[0], *(last[1] or ())), (whole[0][:, -1:], *(whole[1] or ())), **CLOSE)
    leaves = [x for name, x in given.items() if name != "g"]
    found, wanted = (torch.autograd.grad(x[:, -1].cos().sum(), leaves, retain_graph=True) for x, _ in (last, whole))
    torch.testing.assert_close(found, wanted, **CLOSE)
    with pytest.raises(ValueError, match="it reads one rank of one token or more"):
        mamba3(**operands(3, 4), form="last_query")


@pytest.mark.parametrize("ranks", [0, 3])
def test_no_token_of_mamba3_reads_a_later_one(ranks: int) -> None:
    given = operands(ranks, 4)
    o, _ = mamba3(**given)
    for name, value in (("step", torch.nan), ("step", 1e30), ("mix", torch.inf), ("v", torch.nan)):
        spoilt = {**given, name: given[name].clone()}
        spoilt[name][:, 7] = value
        assert torch.equal(mamba3(**spoilt)[0][:, :7], o[:, :7]), (name, value)


@pytest.mark.parametrize("ranks", [0, 3])
def test_autocast_does_not_change_mamba3(ranks: int) -> None:
    given = {name: x.float() for name, x in operands(ranks, 4).items()}
    o, state = mamba3(**given, output_final_state=True)
    with torch.autocast("cpu", torch.bfloat16):
        found, inside = mamba3(**given, output_final_state=True)
        onward = mamba3(**given, state=inside)[0]
    assert torch.equal(found, o)
    assert torch.equal(onward, mamba3(**given, state=state)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": normal(2, 11, 4, 5), "k": normal(2, 11, 4, 5)}, "there are 5 key channels; they turn in pairs"),
        ({"angles": normal(2, 11, 1, 4)}, r"angles has shape \(2, 11, 1, 4\); .* 1 to 3 pairs"),
        ({"angles": normal(2, 11, 3, 2)}, "angles has 3 heads and there are 4"),
        ({"v": normal(2, 11, 4, 3, 3)}, r"the shapes are q .*; all three are"),
        ({"mix": normal(2, 10, 4)}, r"mix has shape \(2, 10, 4\); it must be \[B, T, h\]"),
        ({"pairs": "both"}, "pairs is 'both'; it must be one of adjacent, halves"),
        ({"form": "step"}, "form is 'step'; it must be one of auto"),
        ({"q": normal(2, 1, 4, 6)}, r"the shapes are q \(2, 1, 4, 6\), .*; all three are"),
        (
            {"state": Mamba3State(normal(2, 4, 6, 3), normal(1, 4, 2), normal(2, 4, 6), normal(2, 4, 3))},
            r"state.phase has shape \(1, 4, 2\); beside these tokens it must be \(2, 4, 2\)",
        ),
    ],
)
def test_bad_operands(changes: dict[str, Any], message: str) -> None:
    from inspect import unwrap

    with pytest.raises(ValueError, match=message):
        unwrap(mamba3)(**(operands(0, 4) | changes))


def test_rotations_need_heads_that_fit() -> None:
    with pytest.raises(ValueError, match="x has 3 heads and angles 2; one number must divide the other"):
        rotate(normal(1, 2, 3, 4), normal(1, 2, 2, 1))
    with pytest.raises(ValueError, match=r"initial has shape \(1, 1\); beside these angles it must be \(1, 2, 1\)"):
        rotate(normal(1, 2, 2, 4), normal(1, 2, 2, 1), initial=normal(1, 1))

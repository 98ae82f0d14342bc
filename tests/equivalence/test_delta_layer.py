"""The delta rules in a layer: the rules it was made from, honest shares of what no rule has, the isotropic rule."""

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from gladient import landscape
from gladient.equivalence import DeltaExtraction, construct_delta, construct_rotating_delta, extract_delta
from gladient.prompts import MultitaskSetting, PromptSampler
from gladient.wpgd import DeltaRule

SETTING = MultitaskSetting.isotropic([6, 4], [0.3, 0.8], d=4, sigma2=0.1)
SAMPLER = PromptSampler([SETTING], dtype=torch.float64)
LAYOUT = SAMPLER.layout
TOKENS = SAMPLER.draw(300, [torch.Generator().manual_seed(0)]).tokens[0]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass
class Layer:
    """A layer of two heads by plain loops over S' = e^g S, S = S' + k (β v - S'ᵀ (erase k))ᵀ, o = s Sᵀ q.

    With angles, a token's turn is one of the state, whose first channels, a half of them each, turn in planes.
    """

    W_q: torch.Tensor
    W_k: torch.Tensor
    W_v: torch.Tensor
    readout: torch.Tensor
    W_g: torch.Tensor
    W_beta: torch.Tensor
    W_erase: torch.Tensor | None
    unit: bool = False
    W_angle: torch.Tensor | None = None

    def extraction(self) -> DeltaExtraction:
        q, k, v = (torch.einsum("btd,hdm->bthm", TOKENS, W) for W in (self.W_q, self.W_k, self.W_v))
        g = torch.nn.functional.logsigmoid(TOKENS @ self.W_g)
        beta = (TOKENS @ self.W_beta).sigmoid() / 4
        erase = None if self.W_erase is None else (TOKENS @ self.W_erase).sigmoid() / 4
        strength, key = beta if erase is None else erase, k / k.norm(dim=3, keepdim=True) if self.unit else k
        angles = None if self.W_angle is None else torch.einsum("btd,hdp->bthp", TOKENS, self.W_angle)
        prediction = torch.zeros(len(TOKENS), dtype=torch.float64)
        for b in range(len(TOKENS)):
            for h in range(2):
                S = torch.zeros(k.shape[3], v.shape[3], dtype=torch.float64)
                for t in range(LAYOUT.length):
                    S = g[b, t, h].exp() * S
                    if angles is not None:
                        S = backwards(S, angles[b, t, h])
                    u = beta[b, t, h] * v[b, t, h] - S.T @ (strength[b, t, h] * key[b, t, h].nan_to_num())
                    S = S + torch.outer(key[b, t, h].nan_to_num(), u)
                prediction[b] += 0.5 * self.readout[h] @ (S.T @ q[b, -1, h])
        told: dict[str, Any] = {"prediction": prediction, "tokens": TOKENS, "layout": LAYOUT, "g": g, "erase": erase}
        told |= {"angles": angles, "pairs": "halves"}
        return extract_delta(
            q, k, v, beta, readout=self.readout, scale=0.5, keys="unit" if self.unit else "gaussian", **told
        )


def backwards(S: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turned by -θ, since keys that stand still while the state turns by -θ are keys that turn by θ."""
    S, far = S.clone(), len(S) // 2
    for i, angle in enumerate(angles.tolist()):
        plane = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], dtype=S.dtype)
        S[[i, i + far]] = plane @ S[[i, i + far]]
    return S


def layer(*, m: int = 3, unit: bool = False) -> Layer:
    """Keys and queries read x, values y, gates and steps the contextual features: nothing that no rule has."""
    W_q, W_k, W_v = normal(2, LAYOUT.width, m), normal(2, LAYOUT.width, m, seed=1), normal(2, LAYOUT.width, 2, seed=2)
    W_q[:, 4:], W_k[:, 4:] = 0, 0
    W_v[:, :4], W_v[:, 5:] = 0, 0
    gates = [normal(LAYOUT.width, 2, seed=s) for s in (3, 4, 5)]
    for W in gates:
        W[:5] = 0
    gates[0][5] = 3
    W_g, W_beta, W_erase = gates
    return Layer(W_q, W_k / 2, W_v, normal(2, 2, seed=6), W_g, W_beta, W_erase, unit)


@pytest.mark.parametrize("unit", [False, True])
def test_rules_are_those_of_the_weights(unit: bool) -> None:
    made = layer(unit=unit)
    found = made.extraction()
    assert found.cross_blocks < 1e-20
    assert abs(found.moving_gates) < 1e-20
    assert found.explained > 1 - 1e-12
    keep, write = (TOKENS[0] @ made.W_g).sigmoid(), (TOKENS[0] @ made.W_beta).sigmoid() / 4
    assert made.W_erase is not None
    erase = keep * (TOKENS[0] @ made.W_erase).sigmoid() / 4
    for h, rule in enumerate(found.rules):
        torch.testing.assert_close(rule.P_k, made.W_k[h, :4], rtol=1e-10, atol=1e-12)
        P_q = 0.5 * made.W_q[h, :4] * (made.W_v[h, 4] @ made.readout[h])
        torch.testing.assert_close(rule.P_q, P_q, rtol=1e-10, atol=1e-12)
        for number, expected in ((rule.keep, keep), (rule.erase, erase), (rule.write, write)):
            torch.testing.assert_close(number, expected[:, h], rtol=1e-12, atol=0)


def test_what_no_rule_has_is_a_share_of_its_own() -> None:
    crossed = layer()
    crossed.W_k[:, 6:] += 1.0  # delimiters have keys
    found = crossed.extraction()
    assert found.cross_blocks > 0.01
    assert abs(found.moving_gates) < 1e-12
    moving = layer()
    moving.W_beta[:4] = 1.0
    found = moving.extraction()
    assert found.cross_blocks < 1e-20
    assert found.moving_gates > 0.01
    assert found.explained + found.moving_gates == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("unit", [False, True])
def test_rotated_keys_are_isotropic_and_stretched_ones_are_not(unit: bool) -> None:
    made = layer(m=4, unit=unit)
    made.W_erase = None
    rotations = torch.linalg.qr(normal(2, 4, 4)).Q
    made.W_k[:, :4], made.W_q[:, :4] = 0.6 * rotations, -2.0 * rotations
    found = made.extraction()
    assert found.explained_isotropic == pytest.approx(1, abs=1e-12)
    for h, rule in enumerate(found.isotropic):
        c2 = 1 if unit else 0.36
        write = c2 * (TOKENS[0] @ made.W_beta).sigmoid()[:, h] / 4
        torch.testing.assert_close(rule.write, write, rtol=1e-10, atol=0)
    stretched = replace(made, W_k=made.W_k.clone())
    stretched.W_k[:, 0] *= 3
    found = stretched.extraction()
    assert found.explained == pytest.approx(1, abs=1e-12)
    assert found.explained_isotropic < 0.99


@pytest.mark.parametrize("unit", [False, True])
def test_rules_that_turn_are_those_of_the_weights(unit: bool) -> None:
    made = layer(m=6, unit=unit)
    made.W_angle = normal(2, LAYOUT.width, 2, seed=7)
    made.W_angle[:, :5] = 0
    found = made.extraction()
    assert found.cross_blocks < 1e-20
    assert found.explained > 1 - 1e-12
    adjacent = [0, 3, 1, 4, 2, 5]  # the rule's pairs
    for h, rule in enumerate(found.rules):
        torch.testing.assert_close(rule.P_k, made.W_k[h, :4, adjacent], rtol=1e-10, atol=1e-12)
        assert rule.angles is not None
        torch.testing.assert_close(rule.angles, TOKENS[0] @ made.W_angle[h], rtol=1e-12, atol=1e-15)
    x, y = TOKENS[:5, :, :4], TOKENS[:5, :, 4]
    rule = found.rules[0]
    weighed = (rule.label_weights(x) * y).sum(1)
    torch.testing.assert_close(weighed, rule(x, y).prediction, rtol=1e-12, atol=1e-12)
    made.W_angle[:, 0] = 0.1  # x₁ turns too
    found = made.extraction()
    assert found.cross_blocks < 1e-20
    assert found.moving_gates > 0.01


def test_the_rotating_rule_at_the_floor_is_found_again_and_isotropic() -> None:
    setting = MultitaskSetting([5, 4], np.eye(2), [0.8, 0.2], 0.7 * np.eye(4), 0.0)
    sampler, model = PromptSampler([setting], dtype=torch.float64), construct_rotating_delta(setting)
    tokens, own = sampler.draw(300, [torch.Generator().manual_seed(0)]).tokens[0], model.layer
    with torch.no_grad():
        q, k, v = ((tokens @ cast(torch.Tensor, W)[0])[:, :, None] for W in (own.W_q, own.W_k, own.W_v))
        assert own.step is not None
        beta, prediction = own.step(tokens[None])[0, ..., 0], model(tokens[None])[0]
        told: dict[str, Any] = {"prediction": prediction, "tokens": tokens, "layout": sampler.layout}
        found = extract_delta(q, k, v, beta, readout=model.readout, angles=own.turns(tokens[None]), **told)
    best, (rule,) = landscape.delta.rotating_delta_rule(setting), found.isotropic
    assert found.explained == pytest.approx(1, abs=1e-12)
    assert found.explained_isotropic == pytest.approx(1, abs=1e-12)
    assert rule.angles is not None
    assert best.gain is not None
    assert best.turns is not None
    np.testing.assert_allclose(rule.angles[list(sampler.layout.delimiter_places), 0], best.turns, atol=1e-12)
    np.testing.assert_allclose(rule.P_q[:, 1::2], -best.gain * np.eye(4), atol=1e-9)
    np.testing.assert_allclose(rule.P_q[:, 0::2], 0, atol=1e-9)
    np.testing.assert_allclose(rule.write, 1 / 6 / 0.7, rtol=1e-10)  # the layer divides keys by √Σ


def test_bad_arguments_name_the_rule() -> None:
    z, one = torch.zeros(2, 13, 1, 3), torch.ones(2, 13, 1)
    told: dict[str, Any] = {"readout": torch.ones(1, 3), "prediction": torch.zeros(2), "layout": LAYOUT}
    with pytest.raises(ValueError, match=r"the layout makes \[B, 13, D\] with D > d = 4"):
        extract_delta(z, z, z, one, tokens=torch.zeros(2, 13, 4), **told)
    with pytest.raises(ValueError, match=r"erase has shape \[2, 13, 1, 3\]; a DeltaRule has one number"):
        extract_delta(z, z, z, one, erase=z, tokens=torch.zeros(2, 13, 8), **told)
    with pytest.raises(ValueError, match=r"angles has shape \[2, 12, 1, 1\]; a DeltaRule has some for each token"):
        extract_delta(z, z, z, one, angles=one[:, 1:, :, None], tokens=torch.zeros(2, 13, 8), **told)
    ones, wide = torch.ones(13), torch.ones(4, 4)
    with pytest.raises(ValueError, match=r"angles has shape \[13, 3\] beside P_k \[4, 4\]; give \[13, P\]"):
        DeltaRule(wide, wide, ones, ones, ones, angles=torch.ones(13, 3))
    with pytest.raises(ValueError, match=r"rule 0 has angles; no layer is made of one"):
        construct_delta([DeltaRule(wide, wide, ones, ones, ones, angles=torch.ones(13, 1))], LAYOUT.template)

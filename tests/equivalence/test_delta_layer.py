"""The delta rules in a layer: the rules it was made from, honest shares of what no rule has, the isotropic rule."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from gladient.equivalence import DeltaExtraction, extract_delta
from gladient.prompts import MultitaskSetting, PromptSampler

SETTING = MultitaskSetting.isotropic([6, 4], [0.3, 0.8], d=4, sigma2=0.1)
SAMPLER = PromptSampler([SETTING], dtype=torch.float64)
LAYOUT = SAMPLER.layout
TOKENS = SAMPLER.draw(300, [torch.Generator().manual_seed(0)]).tokens[0]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass
class Layer:
    """A layer of two heads by plain loops over S' = e^g S, S = S' + k (β v - S'ᵀ (erase k))ᵀ, o = s Sᵀ q."""

    W_q: torch.Tensor
    W_k: torch.Tensor
    W_v: torch.Tensor
    readout: torch.Tensor
    W_g: torch.Tensor
    W_beta: torch.Tensor
    W_erase: torch.Tensor | None
    unit: bool = False

    def extraction(self) -> DeltaExtraction:
        q, k, v = (torch.einsum("btd,hdm->bthm", TOKENS, W) for W in (self.W_q, self.W_k, self.W_v))
        g = torch.nn.functional.logsigmoid(TOKENS @ self.W_g)
        beta = (TOKENS @ self.W_beta).sigmoid() / 4
        erase = None if self.W_erase is None else (TOKENS @ self.W_erase).sigmoid() / 4
        strength, key = beta if erase is None else erase, k / k.norm(dim=3, keepdim=True) if self.unit else k
        prediction = torch.zeros(len(TOKENS), dtype=torch.float64)
        for b in range(len(TOKENS)):
            for h in range(2):
                S = torch.zeros(k.shape[3], v.shape[3], dtype=torch.float64)
                for t in range(LAYOUT.length):
                    S = g[b, t, h].exp() * S
                    u = beta[b, t, h] * v[b, t, h] - S.T @ (strength[b, t, h] * key[b, t, h].nan_to_num())
                    S = S + torch.outer(key[b, t, h].nan_to_num(), u)
                prediction[b] += 0.5 * self.readout[h] @ (S.T @ q[b, -1, h])
        told: dict[str, Any] = {"prediction": prediction, "tokens": TOKENS, "layout": LAYOUT, "g": g, "erase": erase}
        return extract_delta(
            q, k, v, beta, readout=self.readout, scale=0.5, keys="unit" if self.unit else "gaussian", **told
        )


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


def test_bad_arguments_name_the_rule() -> None:
    z, one = torch.zeros(2, 13, 1, 3), torch.ones(2, 13, 1)
    told: dict[str, Any] = {"readout": torch.ones(1, 3), "prediction": torch.zeros(2), "layout": LAYOUT}
    with pytest.raises(ValueError, match=r"the layout makes \[B, 13, D\] with D > d = 4"):
        extract_delta(z, z, z, one, tokens=torch.zeros(2, 13, 4), **told)
    with pytest.raises(ValueError, match=r"erase has shape \[2, 13, 1, 3\]; a DeltaRule has one number"):
        extract_delta(z, z, z, one, erase=z, tokens=torch.zeros(2, 13, 8), **told)

"""Edges: tasks that are ± the query's or one another, no noise, directions without variance, counts up to 1e12."""

import numpy as np
import pytest

from gladient.landscape import delta_rule, gated_delta_rule, half_gate, ladder, optimum
from gladient.landscape.delta import shared_step
from gladient.prompts import MultitaskSetting

COUNTS = [1, 2, 3, 10, 176, 1000, 14390, 10**5, 10**9, 10**12]


def degenerate(rng):
    """Tasks that are c times the query's task, c = 0 and ± 1 included, or random ones of low rank, some twice."""
    K, d = int(rng.integers(1, 6)), int(rng.choice([1, 1, 2, 3]))
    sign = rng.choice([-1.0, 1.0], K)
    if rng.random() < 0.7:
        size = rng.choice([0.0, 1e-9, 0.5, 1 - 1e-12, 1 - 1e-15, 1.0, 1.0, 1.0, 1.0])
        R, r = np.outer(sign, sign), size * sign
    else:
        rows = rng.standard_normal((K + 1, int(rng.integers(1, K + 2))))[[*rng.integers(0, K + 1, K), 0]]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        joint = np.clip(rows @ rows.T, -1.0, 1.0)
        R, r = joint[:K, :K], joint[:K, K]
    spectra = [np.ones(d), np.append(1.0, rng.choice([0.0, 1e-15], d - 1)), 10.0 ** rng.uniform(-12, 0, d)]
    s = spectra[rng.choice(3, p=[0.8, 0.1, 0.1])]
    sigma2 = float(rng.choice([0.0, 0.0, 1e-300, 1e-16, 1e-8]))
    return MultitaskSetting(rng.choice(COUNTS, K), R, r, np.diag(s), sigma2)


def all_risks(setting):
    found = ladder(setting)
    delta = {"delta_rule": found.delta_rule.risk, "gated_delta_rule": found.gated_delta_rule.risk}
    return {**found.risks, **delta, "half_gate": half_gate(setting).risk}


def test_every_rung_is_there_in_its_order():
    rng = np.random.default_rng(0)
    above = ["linear_attention", "linear_attention", "scalar_gate", "value_gate", "linear_attention", "delta_rule"]
    below = ["fixed_decay", "scalar_gate", "value_gate", "key_gate", "delta_rule", "gated_delta_rule"]
    for _ in range(60):
        setting = degenerate(rng)
        risks, M = all_risks(setting), setting.M
        assert all(0.0 <= risk <= M * (1 + 1e-12) for risk in risks.values()), (setting, risks)  # NaN fails, too
        for more, less in [*zip(above, below, strict=True), ("scalar_gate", "gated_delta_rule")]:
            assert risks[less] <= risks[more] + 1e-12 * M, (setting, more, less, risks)


@pytest.mark.parametrize(("n", "d"), [((1000, 1000, 1000), 3), ((14390, 176), 1), ((1000, 3), 3), ((10**12, 1), 2)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_tasks_that_are_the_querys_are_the_limit_of_tasks_near_it(n, d, sign):
    """Without noise nothing tells the errors of such tasks apart, so the matrix of the gates is singular."""
    signs = np.append(np.full(len(n) - 1, sign), 1.0)

    def at(near, noise=0.0):
        return MultitaskSetting(n, np.outer(signs, signs), near * signs, np.eye(d), noise)

    found, near, noisy = (all_risks(setting) for setting in (at(1.0), at(1 - 1e-9), at(1.0, 1e-9)))
    for name, risk in found.items():
        assert near[name] == pytest.approx(risk, rel=1e-6, abs=1e-8 * d), name
        assert noisy[name] == pytest.approx(risk, rel=1e-6, abs=1e-8 * d), name
    for keys in ("gaussian", "unit") + ("nlms",) * (d > 2):
        rung = gated_delta_rule(at(1.0), keys=keys)
        assert 0.0 <= rung.risk <= delta_rule(at(1.0), keys=keys).risk
    assert 0.0 <= shared_step(at(1.0), gated=True).risk <= shared_step(at(1.0)).risk
    if max(n) < 10**5:
        assert 0.0 <= gated_delta_rule(at(1.0), per_task=True).risk <= found["gated_delta_rule"] * (1 + 1e-12)


@pytest.mark.parametrize(("variance", "noise"), [(1e-260, 1.0), (1e-260, 1e260), (1.0, 1e260)])
def test_features_that_are_nothing_beside_the_noise(variance, noise):
    setting = MultitaskSetting([25, 25], np.eye(2), [0.2, 0.8], np.diag([variance, variance / 4]), noise)
    assert all(risk == noise for risk in all_risks(setting).values())
    assert optimum(setting).omega == pytest.approx([0.25, 1.0])

"""The delta rule whose query takes the examples' step: simulated, and its best step against a dense scan."""

import numpy as np
import pytest

from gladient.landscape import delta_risk, delta_rule
from gladient.landscape.delta import query_share, shared_step, shared_step_risk
from gladient.prompts import MultitaskSetting

SETTING = MultitaskSetting.isotropic(n=[4, 6], r=[0.3, 0.8], d=4, sigma2=0.3)


@pytest.mark.parametrize("step", [0.02, 0.1, 0.2])
def test_the_querys_own_write_by_simulation(step: float) -> None:
    """Prompts are run token by token; the read-out scale is the best one for the exact moments."""
    rng, prompts, d = np.random.default_rng(3), 400_000, SETTING.d
    tasks = rng.multivariate_normal(
        np.zeros(3), np.block([[SETTING.R, SETTING.r[:, None]], [SETTING.r, 1.0]]), (prompts, d)
    )
    b = np.zeros((prompts, d))
    for k, n in enumerate(SETTING.n.astype(int)):
        for _ in range(n):
            x = rng.standard_normal((prompts, d))
            y = (x * tasks[:, :, k]).sum(1) + np.sqrt(SETTING.sigma2) * rng.standard_normal(prompts)
            b += step * (y - (x * b).sum(1))[:, None] * x
        b *= 0.6 if k == 0 else 1.0
    x = rng.standard_normal((prompts, d))
    y = (x * tasks[:, :, 2]).sum(1) + np.sqrt(SETTING.sigma2) * rng.standard_normal(prompts)
    o = (1.0 - step * (x**2).sum(1)) * (x * b).sum(1)
    half = prompts // 2  # the scale from one half, the risk from the other
    errors = (y - o * (o[:half] @ y[:half]) / (o[:half] @ o[:half]))[half:] ** 2
    exact = shared_step_risk(SETTING, step, decays=[0.6, 1.0])
    assert abs(errors.mean() - exact) < 4 * errors.std() / np.sqrt(half)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("r", [[0.2, 0.8], [0.8, 0.2], [0.0, 1.0], [0.5, -0.5]])
def test_the_best_shared_step_against_a_dense_scan(r: list[float], gated: bool) -> None:
    setting = MultitaskSetting.isotropic(n=[10, 10], r=r, d=5)
    best = shared_step(setting, gated=gated)
    assert shared_step_risk(setting, best.steps[0], decays=best.decays) == pytest.approx(best.risk, rel=1e-12)
    decays = np.linspace(0, 1, 11) if gated else [1.0]
    tried = [shared_step_risk(setting, b, decays=[a, 1.0]) for b in np.linspace(0, 2 / 7, 80) for a in decays]
    assert best.risk <= min(tried) * (1 + 1e-12)
    assert best.risk >= delta_rule(setting).risk or gated


def test_the_query_erases_its_own_answer() -> None:
    assert query_share(1 / 12, 10) == pytest.approx(0.0, abs=1e-30)
    assert query_share(0.0, 10) == 1.0
    one = MultitaskSetting.isotropic(n=[20], r=[1.0], d=10)
    assert shared_step_risk(one, 1 / 12) == pytest.approx(one.M)
    assert delta_risk(one, 1 / 12) < 0.2 * one.M


def test_other_features_are_refused() -> None:
    with pytest.raises(ValueError, match="exact risk for Σ ∝ I alone"):
        shared_step(MultitaskSetting(n=[5], R=[[1.0]], r=[1.0], Sigma=np.diag([1.0, 2.0])))

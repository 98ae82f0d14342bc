"""Risk given the features against simulated labels; the search against exact optima and free preconditioners."""

import numpy as np
import pytest
import torch

from gladient import landscape
from gladient.prompts import MultitaskSetting, PromptLayout, PromptSampler
from gladient.wpgd import WPGD, Step, TaskWeights, best_steps, conditional_risk, label_weights, risk_given_features


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def algorithm(layout: PromptLayout, gate: str, L: int) -> WPGD:
    d, m = layout.d, 3
    omega = {"key": normal(2, m).abs().cumsum(0) / 9, "value": normal(2), "scalar": torch.tensor([0.2, 0.7]).double()}
    weights = TaskWeights(omega[gate], layout, gate)
    return WPGD(tuple(Step(normal(d, m, seed=s) / 3, normal(d, m, seed=9 + s) / 3, weights) for s in range(L)))


@pytest.mark.parametrize("gate", ["scalar", "key", "value"])
@pytest.mark.parametrize("L", [1, 2, 4])
def test_label_weights_are_the_prediction(gate: str, L: int) -> None:
    layout = PromptLayout(n=(3, 2), d=4)
    steps, x, y = algorithm(layout, gate, L), normal(2, layout.length, 4, seed=1), normal(2, layout.length, seed=2)
    y[:, -1] = 0
    expected = steps(x, y).prediction
    torch.testing.assert_close((label_weights(steps, x) * y).sum(1), expected, rtol=1e-10, atol=1e-10)


def test_risk_given_features_is_that_of_simulated_labels() -> None:
    setting = MultitaskSetting(
        n=[2, 1], R=[[1.0, 0.3], [0.3, 1.0]], r=[0.5, 0.6], Sigma=np.diag([2.0, 1.0, 0.5]), sigma2=0.4
    )
    layout, draws = PromptLayout.of(setting), 400_000
    x, w = normal(1, layout.length, 3, seed=3), normal(1, layout.length, seed=4)
    joint = np.block([[setting.R, setting.r[:, None]], [setting.r[None], np.ones((1, 1))]])
    beta = torch.einsum("kl,bld->bkd", torch.tensor(np.linalg.cholesky(joint)), normal(draws, 3, 3, seed=5))
    noise = 0.4**0.5 * normal(draws, layout.length, seed=6)
    predicted = torch.zeros(draws, dtype=torch.float64)
    for k, block in enumerate(layout.blocks):
        predicted += ((beta[:, k] @ x[0, block].T + noise[:, block]) * w[0, block]).sum(1)
    errors = (beta[:, 2] @ x[0, -1] + noise[:, -1] - predicted).square()
    exact = risk_given_features(w, x, setting).item()
    assert abs(errors.mean().item() - exact) < 4 * errors.std().item() / draws**0.5


@pytest.mark.parametrize("gated", [False, True])
def test_one_step_is_the_exact_optimum(gated: bool) -> None:
    setting = MultitaskSetting.isotropic(n=[3, 5], r=[0.3, 0.7], d=3, sigma2=0.2)
    exact = (landscape.scalar_gate if gated else landscape.linear_attention)(setting)
    (one,) = best_steps(setting, 1, gated=gated, prompts=20_000, starts=1)
    (step,) = one.algorithm(PromptLayout.of(setting)).steps
    omega = one.algorithm(PromptLayout.of(setting)).steps[0].matrix[0, -1, [0, 4], 0].numpy()
    assert landscape.risk((step.P_q @ step.P_k.T).numpy(), omega, setting) == pytest.approx(exact.risk, rel=1e-3)
    assert one.agreeing == 1


def test_more_steps_are_better_and_the_algorithm_has_the_risk_found() -> None:
    """Simulated, for Σ that is no multiple of I."""
    setting = MultitaskSetting([4, 4], np.eye(2), [0.2, 0.8], np.diag([1.5, 0.5]))
    sampler = PromptSampler([setting], dtype=torch.float64)
    x = sampler.draw(500, [torch.Generator().manual_seed(0)]).tokens[0, ..., :2]  # those of the search
    for gated in (False, True):
        found = best_steps(setting, 3, gated=gated, prompts=500, starts=0)
        assert found[0].risk > found[1].risk > found[2].risk
        for steps in found:
            assert steps.method == "simulated"
            risk = conditional_risk(steps.algorithm(sampler.layout), x, setting).mean().item()
            assert risk == pytest.approx(steps.risk, rel=1e-9)


def sampled(steps: WPGD, setting: MultitaskSetting, prompts: int = 40_000) -> tuple[float, float]:
    """Mean conditional risk of fresh features, and its standard error."""
    x = PromptSampler([setting], dtype=torch.float64).draw(prompts, [torch.Generator().manual_seed(3)]).tokens
    risks = conditional_risk(steps, x[0, ..., : setting.d], setting)
    return risks.mean().item(), risks.std().item() / prompts**0.5


@pytest.mark.parametrize(("r", "gated"), [((0.2, 0.8), False), ((0.2, 0.8), True), ((0.8, 0.2), True)])
def test_exact_risks_are_those_of_fresh_features(r: tuple[float, float], gated: bool) -> None:
    base = MultitaskSetting.isotropic(n=[6, 6], r=list(r), d=4, sigma2=0.1)
    for scale in (1.0, 3.0):
        setting = MultitaskSetting(base.n, base.R, base.r, scale * base.Sigma, scale * base.sigma2)
        for steps in best_steps(setting, 2, gated=gated):
            mean, error = sampled(steps.algorithm(PromptLayout.of(setting)), setting)
            assert steps.method == "exact"
            assert abs(mean - steps.risk) < 4 * error
    found = landscape.depth.best_stack(setting, 2, "scalar" if gated else "none", starts=4)
    assert steps.risk == pytest.approx(found.risk, rel=2e-4)  # a limit is not reached


def test_features_that_were_whitened_have_an_exact_risk_too() -> None:
    """Σ is a multiple of I up to rounding, as `landscape` understands it."""
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    base = MultitaskSetting.isotropic(n=[4, 4], r=[0.2, 0.8], d=3)
    whitened = MultitaskSetting(base.n, base.R, base.r, (Q @ Q.T + Q @ Q.T) / 2, base.sigma2)
    assert not np.array_equal(whitened.Sigma, np.eye(3))
    (found,), (plain,) = best_steps(whitened, 1), best_steps(base, 1)
    assert (found.method, found.risk) == ("exact", pytest.approx(plain.risk, rel=1e-12))


def test_the_minimum_at_infinity_is_found() -> None:
    setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=10)
    _, two = best_steps(setting, 2)
    assert two.risk == pytest.approx(6.4244, rel=2e-4)
    assert two.gates[0][1] < 0.01
    mean, error = sampled(two.algorithm(PromptLayout.of(setting)), setting, 20_000)
    assert abs(mean - two.risk) < 4 * error


def test_preconditioners_that_are_no_multiples_of_the_identity() -> None:
    setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=2)
    alike, free = (best_steps(setting, 2, gated=False, diagonal=diagonal)[1] for diagonal in (False, True))
    assert alike.preconditioners is None
    assert free.preconditioners is not None
    assert (round(alike.risk / 2, 5), round(free.risk / 2, 5)) == (0.60441, 0.58631)
    mean, error = sampled(free.algorithm(PromptLayout.of(setting)), setting)
    assert abs(mean - free.risk) < 4 * error
    same = MultitaskSetting.isotropic(n=[10, 10], r=[0.2, 0.8], d=2)
    assert best_steps(same, 2, gated=False, diagonal=True)[1].preconditioners is None


def test_gated_steps_keep_tasks_apart_until_the_last() -> None:
    """Weights ω₁/ω₂ inside the second task's block are 0 in every step but the last, which weighs as one step would."""
    setting = MultitaskSetting.isotropic(n=[5, 5], r=[0.2, 0.8], d=3)
    *early, last = best_steps(setting, 3, prompts=1000, starts=0)[-1].gates
    assert all(gates[0] < 0.02 for gates in early)
    assert last[0] == pytest.approx(0.25, abs=0.03)


def test_free_preconditioners_do_no_better_on_fresh_features() -> None:
    setting = MultitaskSetting.isotropic(n=[4, 4], r=[0.2, 0.8], d=2)
    sampler = PromptSampler([setting], dtype=torch.float64)
    best = best_steps(setting, 2, prompts=1000, starts=0)[-1].algorithm(sampler.layout)
    x, fresh = (sampler.draw(1000, [torch.Generator().manual_seed(s)]).tokens[0, ..., :2] for s in (0, 1))
    free = [(step.P_q + 0.02 * normal(2, 2, seed=i)).requires_grad_() for i, step in enumerate(best.steps)]

    def risk(x: torch.Tensor) -> torch.Tensor:
        steps = (Step(step.P_k, P, step.matrix) for step, P in zip(best.steps, free, strict=True))
        return conditional_risk(WPGD(tuple(steps)), x, setting)

    optimiser = torch.optim.LBFGS(free, max_iter=40, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = risk(x).mean()
        value.backward()
        return value

    optimiser.step(closure)
    gain = (conditional_risk(best, fresh, setting) - risk(fresh)).detach()
    assert gain.mean() < 3 * gain.std() / 1000**0.5 + 1e-3


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="layers is 0"):
        best_steps(MultitaskSetting.isotropic(n=[1], r=[0.5], d=2), 0)

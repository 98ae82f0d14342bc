"""The delta rule against matrices multiplied out, WPGD where nothing is erased, and exact recursions of its risk."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln

from gladient.prompts import MultitaskSetting, PromptLayout, PromptSampler
from gladient.wpgd import WPGD, DeltaRule, Step, conditional_risk, gate_weights, label_weights

LAYOUT = PromptLayout(n=(3, 1, 2), d=4)
KEYS = ("gaussian", "unit", "nlms")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_rule(keys: str, *, m: int = 3, batch: tuple[int, ...] = (2,)) -> DeltaRule:
    shape = (*batch, LAYOUT.length)
    keep, erase, write = (uniform(*shape, seed=s) for s in (3, 4, 5))
    return DeltaRule(normal(4, m, seed=1), normal(4, m, seed=2), keep, erase, write, keys)


def prompts(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = normal(batch, LAYOUT.length, 4, seed=6), normal(batch, LAYOUT.length, seed=7)
    for block in LAYOUT.blocks:
        x[:, block.stop], y[:, block.stop] = 0, 0
    y[:, -1] = 0
    return x, y


def written_by(keys: str, x: np.ndarray, y: float) -> tuple[np.ndarray, float]:
    """Key and value of one token."""
    length = float(np.linalg.norm(x))
    if keys == "gaussian" or length == 0:
        return x, y
    return x / length, y / length if keys == "nlms" else y


def far(samples: torch.Tensor, exact: float) -> float:
    """|z| of a sample's mean."""
    return abs(samples.mean().item() - exact) / (samples.std().item() / len(samples) ** 0.5)


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_every_token_keeps_the_sum_of_its_prefix(keys: str, batch: tuple[int, ...]) -> None:
    """b_i = P_q Σ_j (Π_{j < l ≤ i} (p_l I - q_l k_l k_lᵀ)) w_j v_j k_j, each product by itself."""
    rule, (x, y) = random_rule(keys, batch=batch), prompts()
    run = rule(x, y)
    p, q, w = (value.expand(2, -1).numpy() for value in (rule.keep, rule.erase, rule.write))
    for i in range(2):
        written = [written_by(keys, rule.P_k.numpy().T @ x[i, j].numpy(), y[i, j].item()) for j in range(LAYOUT.length)]
        for t in range(LAYOUT.length):
            s = np.zeros(3)
            for j in range(t + 1):
                left = w[i, j] * written[j][1] * written[j][0]
                for later in range(j + 1, t + 1):
                    k = written[later][0]
                    left = (p[i, later] * np.eye(3) - q[i, later] * np.outer(k, k)) @ left
                s += left
            b = rule.P_q.numpy() @ s
            np.testing.assert_allclose(run.b[0, i, t].numpy(), b, rtol=1e-12, atol=1e-12)


def test_without_erasing_it_is_one_step_of_wpgd() -> None:
    rule, (x, y) = random_rule("gaussian"), prompts()
    rule = DeltaRule(rule.P_k, rule.P_q, rule.keep, 0 * rule.erase, rule.write)
    weights = gate_weights(rule.keep.log()[..., None]) * rule.write[:, None, :, None]
    expected = WPGD((Step(rule.P_k, rule.P_q, weights),))
    torch.testing.assert_close(rule(x, y).b, expected(x, y).b, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(label_weights(rule, x), label_weights(expected, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("keys", KEYS)
def test_label_weights_are_the_prediction(keys: str) -> None:
    rule, (x, y) = random_rule(keys), prompts()
    torch.testing.assert_close((label_weights(rule, x) * y).sum(1), rule(x, y).prediction, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("keys", KEYS)
def test_keys_of_zero_leave_slopes_finite(keys: str) -> None:
    rule, (x, _) = random_rule(keys), prompts()
    P_k = rule.P_k.requires_grad_()
    label_weights(rule, x).square().sum().backward()
    assert P_k.grad is not None
    assert P_k.grad.isfinite().all()
    assert P_k.grad.any()


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.sampled_from(KEYS), st.floats(0, 2))
@settings(deadline=None, max_examples=30)
def test_decays_of_delimiters_are_weights_of_tasks(decays: list[float], keys: str, step: float) -> None:
    """The state is the sum of what each task alone writes while all erase, times the decays that follow it."""
    x, y = prompts()
    whole = DeltaRule.by_task(LAYOUT, step, decays=decays, keys=keys)(x, y).b[0, :, -1]
    parts = torch.zeros_like(whole)
    for k in range(3):
        alone = torch.zeros(3, dtype=torch.float64)
        alone[k] = step
        left = float(np.prod(decays[k:]))
        parts += left * DeltaRule.by_task(LAYOUT, alone, erase=step, keys=keys)(x, y).b[0, :, -1]
    torch.testing.assert_close(whole, parts, rtol=1e-10, atol=1e-10)


def exact_risk(setting: MultitaskSetting, rule: DeltaRule) -> float:
    """theory of the general rule, token by token, for gaussian keys: the first two moments of the state."""
    Sigma, P_k, P_q = setting.Sigma, rule.P_k.numpy(), rule.P_q.numpy()
    C, G, R0 = P_k.T @ Sigma @ P_k, P_k.T @ Sigma, np.column_stack([setting.R, setting.r])
    A, B = np.zeros_like(C), np.zeros((setting.K + 1, *G.shape))
    task = {t: k for k, block in enumerate(PromptLayout.of(setting).blocks) for t in range(block.start, block.stop)}
    for t, (p, q, w) in enumerate(zip(rule.keep.tolist(), rule.erase.tolist(), rule.write.tolist(), strict=True)):
        if t not in task:  # x = 0; the query is masked
            A, B = p * p * A, p * B
            continue
        X = B[task[t]] @ G.T
        H = p * X - q * (C @ X + (C @ X).T + (B[task[t]] * G).sum() * C)
        A = p * p * A - p * q * (C @ A + A @ C) + q * q * (2 * C @ A @ C + (A * C).sum() * C)
        A += w * (H + H.T) + w * w * (setting.M * C + 2 * G @ G.T)
        B = np.stack([(p * np.eye(len(C)) - q * C) @ B[k] + w * R0[task[t], k] * G for k in range(setting.K + 1)])
    return float(setting.M - 2 * np.trace(Sigma @ P_q @ B[-1]) + np.trace(P_q.T @ Sigma @ P_q @ A))


def test_risk_is_that_of_the_moments_for_any_features_and_numbers() -> None:
    setting = MultitaskSetting([4, 3], [[1, 0.3], [0.3, 1]], [0.4, 0.7], np.diag([1.5, 1.0, 0.4]), sigma2=0.3)
    sampler = PromptSampler([setting], dtype=torch.float64)
    T, eye = sampler.layout.length, torch.eye(3, dtype=torch.float64)
    keep, erase, write = 0.8 + 0.2 * uniform(T, seed=1), 0.3 * uniform(T, seed=2), 0.3 * uniform(T, seed=3)
    erase[-1] = 0
    for P_k, P_q in (eye[:, :2] + normal(3, 2) / 4, eye[:, :2] / 2), (eye + normal(3, 3) / 4, eye / 2):
        rule = DeltaRule(P_k, P_q, keep, erase, write)
        x = sampler.draw(200_000, [torch.Generator().manual_seed(0)]).tokens[0, ..., :3]
        assert far(conditional_risk(rule, x, setting), exact_risk(setting, rule)) < 4


@pytest.mark.parametrize(
    ("keys", "step", "rate"), [("gaussian", 1 / 12, 11 / 12), ("nlms", 1.0, 9 / 10)], ids=["gaussian", "nlms"]
)
@pytest.mark.parametrize("n", [1, 5, 20])
def test_best_constant_steps_have_their_rate(keys: str, step: float, rate: float, n: int) -> None:
    """One task without noise, d = 10: the error shrinks by (d+1)/(d+2), or 1 - 1/d, with each example."""
    setting = MultitaskSetting.isotropic([n], [1.0], d=10)
    sampler = PromptSampler([setting], dtype=torch.float64)
    x = sampler.draw(50_000, [torch.Generator().manual_seed(n)]).tokens[0, ..., :10]
    risks = conditional_risk(DeltaRule.by_task(sampler.layout, step, keys=keys), x, setting)
    assert far(risks, 10 * rate**n) < 4


def schedule(keys: str, d: int, sigma2: float, gammas: list[float]) -> tuple[list[float], list[float], float, float]:
    """Steps, decays before each example, gain and risk of the best filter of a task that drifts."""
    mu2 = 2 * np.exp(2 * (gammaln((d + 1) / 2) - gammaln(d / 2)))
    slope, nu, gain = {
        "gaussian": (d + 2, sigma2, 1.0),
        "unit": (1, (d + sigma2) / mu2 - 1, float(mu2**-0.5)),
        "nlms": (1, sigma2 / (d - 2), 1.0),
    }[keys]
    e, steps = 1.0, []
    for gamma in gammas:
        prior = gamma**2 * e + 1 - gamma**2
        steps.append(prior / (slope * prior + nu))
        e = prior - steps[-1] * prior / (1 if keys == "gaussian" else d)
    return steps, gammas, gain, sigma2 + d * e


@pytest.mark.parametrize("keys", KEYS)
def test_schedules_of_a_drifting_noisy_task_reach_their_error(keys: str) -> None:
    d, gammas = 6, [1.0, 0.9, 1.0, 0.7, 0.95, 1.0]
    R = np.array([[np.prod(gammas[min(i, j) + 1 : max(i, j) + 1]) for j in range(6)] for i in range(6)])
    setting = MultitaskSetting.isotropic([1] * 6, R[-1], d=d, R=R, sigma2=0.5)
    steps, decays, gain, risk = schedule(keys, d, 0.5, gammas)
    sampler = PromptSampler([setting], dtype=torch.float64)
    rule = DeltaRule.by_task(sampler.layout, steps, decays=[*decays[1:], 1.0], gain=gain, keys=keys)
    x = sampler.draw(200_000, [torch.Generator().manual_seed(0)]).tokens[0, ..., :d]
    assert far(conditional_risk(rule, x, setting), risk) < 4


def test_at_the_critical_step_the_query_erases_its_own_answer() -> None:
    setting = MultitaskSetting.isotropic([8], [1.0], d=4)
    sampler = PromptSampler([setting], dtype=torch.float64)
    prompt = sampler.draw(100_000, [torch.Generator().manual_seed(0)])
    x, y = prompt.tokens[0, ..., :4], prompt.tokens[0, ..., 4]
    own, masked = (DeltaRule.by_task(sampler.layout, 1 / 6, query=query) for query in (1 / 6, 0.0))
    assert far(own(x, y).prediction * prompt.targets[0], 0.0) < 4
    assert far(masked(x, y).prediction * prompt.targets[0], 4 * (1 - (5 / 6) ** 8)) < 4


def test_numbers_by_task_or_by_example() -> None:
    by_task = DeltaRule.by_task(LAYOUT, [0.1, 0.2, 0.3], decays=[0.5, 0.6, 0.7], erase=0.9, query=0.4)
    by_example = DeltaRule.by_task(LAYOUT, np.array([0.1, 0.1, 0.1, 0.2, 0.3, 0.3]), decays=[0.5, 0.6, 0.7], erase=0.9)
    assert by_task.write.tolist() == [0.1, 0.1, 0.1, 0, 0.2, 0, 0.3, 0.3, 0, 0.4]
    assert by_task.keep.tolist() == [1, 1, 1, 0.5, 1, 0.6, 1, 1, 0.7, 1]
    assert by_task.erase.tolist() == [0.9, 0.9, 0.9, 0, 0.9, 0, 0.9, 0.9, 0, 0.4]
    assert torch.equal(by_example.write[:-1], by_task.write[:-1])
    assert by_example.write[-1] == 0


def test_bad_arguments_name_the_rule() -> None:
    eye, ones = torch.eye(4), torch.ones(10)
    with pytest.raises(ValueError, match="the same number of tokens T"):
        DeltaRule(eye, eye, ones, ones[:9], ones)
    with pytest.raises(ValueError, match="choose one of gaussian, unit, nlms"):
        DeltaRule(eye, eye, ones, ones, ones, "raw")
    with pytest.raises(ValueError, match=r"made for \[B, 10, 4\]"):
        DeltaRule(eye, eye, ones, ones, ones)(torch.zeros(1, 9, 4), torch.zeros(1, 9))
    with pytest.raises(ValueError, match=r"steps has shape \[2\]; give one number or \[3\] or \[6\]"):
        DeltaRule.by_task(LAYOUT, [0.1, 0.2])
    with pytest.raises(ValueError, match=r"decays has shape \[6\]; give one number or \[3\]"):
        DeltaRule.by_task(LAYOUT, 0.1, decays=[1.0] * 6)
    with pytest.raises(ValueError, match="erase is nan; every number must be finite"):
        DeltaRule.by_task(LAYOUT, 0.1, erase=float("nan"))


def test_a_layout_without_delimiters_has_no_decays() -> None:
    layout = PromptLayout(n=(2, 1), d=2, delimiters=False)
    assert DeltaRule.by_task(layout, 0.2).keep.tolist() == [1.0] * 4
    with pytest.raises(ValueError, match="without delimiters"):
        DeltaRule.by_task(layout, 0.2, decays=0.5)

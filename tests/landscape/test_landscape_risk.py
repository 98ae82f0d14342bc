"""The risk formula against plain sampling, against the per-example formula as printed, and against perturbations."""

import weakref

import numpy as np
import pytest
from random_settings import per_example, random_setting

from gladient.landscape import linear_attention, optimum, profile_risk, reduce, risk, scalar_gate
from gladient.prompts import MultitaskSetting


def sampled_losses(P, omega, setting, prompts, rng):
    """Squared errors of WPGD on sampled prompts, one plain step after the other."""
    K, d = setting.K, setting.d
    joint = np.block([[setting.R, setting.r[:, None]], [setting.r, 1.0]])
    eigenvalues, vectors = np.linalg.eigh(joint)
    mix = vectors * np.sqrt(np.clip(eigenvalues, 0, None))
    tasks = np.einsum("kl,bld->bkd", mix, rng.standard_normal((prompts, K + 1, d)))
    s, V = np.linalg.eigh(setting.Sigma)
    root = (V * np.sqrt(np.clip(s, 0, None))) @ V.T
    noise = np.sqrt(setting.sigma2)
    beta_hat = np.zeros((prompts, d))
    for k in range(K):
        for _ in range(setting.n[k]):
            x = rng.standard_normal((prompts, d)) @ root
            y = np.sum(x * tasks[:, k], axis=1) + noise * rng.standard_normal(prompts)
            beta_hat += omega[k] * y[:, None] * x
    x = rng.standard_normal((prompts, d)) @ root
    y = np.sum(x * tasks[:, K], axis=1) + noise * rng.standard_normal(prompts)
    return (y - np.sum(x * (beta_hat @ P.T), axis=1)) ** 2


def z_score(P, omega, setting, rng, prompts=40_000):
    losses = sampled_losses(P, omega, setting, prompts, rng)
    return (losses.mean() - risk(P, omega, setting)) / (losses.std() / np.sqrt(prompts))


@pytest.mark.parametrize("seed", range(8))
def test_risk_matches_simulation(seed):
    rng = np.random.default_rng(seed)
    setting = random_setting(rng, K=1 + seed % 4, d=3, max_log_n=0.9, min_log_s=-1.0)
    P = rng.standard_normal((3, 3)) / setting.n.sum() / setting.M
    assert abs(z_score(P, rng.standard_normal(setting.K), setting, rng)) < 4


@pytest.mark.parametrize("rung", [linear_attention, scalar_gate, optimum])
def test_optimal_risks_match_simulation(rung):
    rng = np.random.default_rng(7)
    for K in (2, 3):
        setting = random_setting(rng, K=K, d=3, max_log_n=0.9, min_log_s=-1.0)
        best = rung(setting)
        assert abs(z_score(best.P, best.omega, setting, rng)) < 4


def printed_risk(P, omega, setting):
    """theory: M - 2 (ωᵀr) tr(PΣ²) + tr(PᵀΣP[(ωᵀRω + ‖ω‖²)Σ² + M‖ω‖²Σ]), one ω an example."""
    S = setting.Sigma
    inner = (omega @ setting.R @ omega + omega @ omega) * S @ S + setting.M * (omega @ omega) * S
    return setting.M - 2 * (omega @ setting.r) * np.trace(P @ S @ S) + np.trace(P.T @ S @ P @ inner)


@pytest.mark.parametrize("seed", range(10))
def test_blocks_equal_examples(seed):
    rng = np.random.default_rng(seed)
    setting = random_setting(rng, K=1 + seed % 4, d=4, max_log_n=1.2)
    examples = per_example(setting)
    P, omega = rng.standard_normal((4, 4)), rng.standard_normal(setting.K)
    each = np.repeat(omega, setting.n)
    np.testing.assert_allclose(risk(P, omega, setting), printed_risk(P, each, examples), rtol=1e-11)
    np.testing.assert_allclose(risk(P, omega, setting), risk(P, each, examples), rtol=1e-11)
    np.testing.assert_allclose(profile_risk(omega, setting), profile_risk(each, examples), rtol=1e-11)
    np.testing.assert_allclose(optimum(setting).risk, optimum(examples).risk, rtol=1e-11)
    np.testing.assert_allclose(linear_attention(setting).risk, linear_attention(examples).risk, rtol=1e-11)


@pytest.mark.parametrize("seed", range(10))
def test_profile_risk_is_the_minimum_over_preconditioners(seed):
    rng = np.random.default_rng(seed)
    setting = random_setting(rng, K=3, d=4)
    omega = rng.standard_normal(3)
    each, examples = np.repeat(omega, setting.n), per_example(setting)
    signal, energy = each @ examples.r, each @ each
    P = signal * np.linalg.inv(
        (each @ examples.R @ each + energy) * setting.Sigma + setting.M * energy * np.eye(setting.d)
    )
    np.testing.assert_allclose(risk(P, omega, setting), profile_risk(omega, setting), rtol=1e-11)
    for _ in range(20):
        worse = P + 1e-3 * np.abs(P).max() * rng.standard_normal(P.shape)
        assert risk(worse, omega, setting) > profile_risk(omega, setting)


def test_profile_risk_ignores_scale_and_sign():
    setting = random_setting(np.random.default_rng(0), K=3, d=4)
    omega = np.array([0.3, -1.0, 2.0])
    for factor in (-1.0, 1e-200, -1e200):
        np.testing.assert_allclose(profile_risk(factor * omega, setting), profile_risk(omega, setting), rtol=1e-13)
    assert profile_risk(np.zeros(3), setting) == setting.M


def test_tiny_risks_keep_their_digits():
    # one noiseless task equal to the query's: L* = d (d + 1) / (n + d + 1)
    for n in (10, 10**6, 10**9, 10**12):
        best = optimum(MultitaskSetting.isotropic(n=[n], r=[1.0], d=5))
        np.testing.assert_allclose([best.risk], 30 / (n + 6), rtol=1e-13)


@pytest.mark.parametrize(
    ("P", "omega", "message"),
    [
        (np.eye(3), [1.0, 1.0], r"P has shape \(3, 3\)"),
        (np.eye(2), [1.0], r"omega has shape \(1,\)"),
        (np.eye(2) * np.nan, [1.0, 1.0], "P holds NaN"),
        (np.eye(2), [1.0, np.inf], "omega holds NaN or infinity"),
    ],
)
def test_bad_arguments(P, omega, message):
    setting = MultitaskSetting.isotropic(n=[2, 2], r=[0.1, 0.2], d=2)
    with pytest.raises(ValueError, match=message):
        risk(P, omega, setting)


def test_a_setting_is_reduced_once_and_goes_with_its_answers():
    setting = MultitaskSetting.isotropic(n=[5, 5], r=[0.2, 0.8], d=3)
    found = optimum(setting)
    assert found.reduced is reduce(setting)
    with pytest.raises(ValueError, match="read-only"):
        reduce(setting).w[0] = 0.0
    gone = weakref.ref(found.reduced)
    del setting, found
    assert gone() is None

"""All stationary points: none missed, kinds as the Hessian says, and the certificates of uniqueness."""

import numpy as np
import pytest
from random_settings import random_setting

from gladient.landscape import optimum, optimum_batch, profile_risk, stationary_points, uniqueness
from gladient.prompts import MultitaskSetting

THREE_POINTS = MultitaskSetting(
    n=[10, 20000], R=np.eye(2), r=[0.1, 0.2], Sigma=np.diag([10.0] + [0.02] * 100), sigma2=0.01
)


def several_minima(rng, K):
    """One strong direction and many weak ones, few examples of some tasks and very many of others: often not unique."""
    few = np.arange(K) < 1 + (rng.random(K) < 0.3)
    return MultitaskSetting(
        n=np.floor(10 ** np.where(few, rng.uniform(0, 1.5, K), rng.uniform(4, 6, K))),
        R=np.eye(K),
        r=rng.uniform(0.03, 0.3, K),
        Sigma=np.diag([10 ** rng.uniform(0.5, 2)] + [10 ** rng.uniform(-2.5, -1.5)] * 150),
        sigma2=0.01,
    )


def dense_search(setting, points=5_000):
    """Sign changes of T(γ) - γ, written out plainly, on a dense grid."""
    root = np.sqrt(setting.n)
    eigenvalues, E = np.linalg.eigh(setting.R * np.outer(root, root))
    power = (E.T @ (root * setting.r)) ** 2
    s, count = np.unique(np.linalg.eigvalsh(setting.Sigma), return_counts=True)
    M = setting.M
    gammas = np.geomspace(1 + max(eigenvalues[0], 0) - 1e-9, 1 + eigenvalues[-1] + 1e-9, points)[:, None]
    inverse = 1 / (M + s * gammas) ** 2
    c = (1 / (1 + M * (inverse @ (count * s**2)) / (inverse @ (count * s**3))))[:, None]
    weights = power / (1 + eigenvalues * c) ** 2
    image = 1 + np.sum(eigenvalues * weights, axis=1) / np.sum(weights, axis=1)
    return int(np.sum(np.diff(image > gammas[:, 0])))


def curvatures(setting, omega):
    """Eigenvalues of the Hessian of the profile risk in u = √n ω, on the sphere |u| = 1."""
    root, s, M = np.sqrt(setting.n), np.linalg.eigvalsh(setting.Sigma), setting.M
    u = root * omega / np.linalg.norm(root * omega)
    R, r = setting.R * np.outer(root, root), root * setting.r
    D = s * (u @ R @ u + 1) + M
    Ru, g = R @ u + u, u @ r
    psi, slope, bend = np.sum(s**2 / D), np.zeros(len(u)), np.zeros_like(R)
    for sj, Dj in zip(s, D, strict=True):  # one direction after the other
        A, Au = sj * (R + np.eye(len(u))) + M * np.eye(len(u)), sj * Ru + M * u
        slope -= sj**2 / Dj**2 * 2 * Au
        bend += sj**2 * (8 * np.outer(Au, Au) / Dj**3 - 2 * A / Dj**2)
    hessian = -(2 * psi * np.outer(r, r) + 2 * g * (np.outer(r, slope) + np.outer(slope, r)) + g**2 * bend)
    tangent = np.linalg.svd(u[None])[2][1:]
    return np.linalg.eigvalsh(tangent @ hessian @ tangent.T)


def test_three_points():
    found = stationary_points(THREE_POINTS)
    assert [round(point.risk, 5) for point in found.points] == [11.51664, 11.52172, 11.51962]
    assert [point.kind for point in found.points] == ["minimum", "saddle", "minimum"]
    assert found.undecided == ()
    verdict = uniqueness(THREE_POINTS)
    assert (verdict.verdict, verdict.count) == ("several", 3)
    assert verdict.paper_margin is not None
    assert verdict.paper_margin < 0
    assert verdict.slope_bound > 1


def test_more_landscapes_with_several_minima():
    rng = np.random.default_rng(0)
    several = 0
    while several < 9:
        setting = several_minima(rng, K=int(rng.integers(2, 5)))
        found = stationary_points(setting)
        assert len(found.points) == dense_search(setting)
        if len(found.points) == 1:
            continue
        several += 1
        verdict = uniqueness(setting)
        assert verdict.verdict == "several"
        assert verdict.paper_margin is not None
        assert verdict.paper_margin <= 0
        best = min(point.risk for point in found.points)
        np.testing.assert_allclose(optimum(setting).risk, best, rtol=1e-12)
        assert [point.kind for point in found.points] == ["minimum", "saddle", "minimum"][: len(found.points)]
        for point in found.points:
            negative = int((curvatures(setting, point.omega) < 0).sum())
            assert negative == (1 if point.kind == "saddle" else 0)


@pytest.mark.slow
def test_never_unique_wrongly():
    rng = np.random.default_rng(1)
    for i in range(90):
        if i % 2:
            setting = several_minima(rng, K=2)
        else:
            setting = random_setting(rng, K=int(rng.integers(1, 6)), d=8, max_log_n=4.0, min_log_s=-4.0)
        verdict = uniqueness(setting)
        assert verdict.verdict != "undecided"
        assert (verdict.verdict == "unique") == (dense_search(setting) <= 1)


def test_stationary_points_are_stationary():
    rng = np.random.default_rng(2)
    for _ in range(20):
        setting = random_setting(rng, K=3, d=4, max_log_n=1.5)
        (point,) = stationary_points(setting).points
        for direction in rng.standard_normal((5, 3)):
            step = 1e-5 * direction
            slope = profile_risk(point.omega + step, setting) - profile_risk(point.omega - step, setting)
            assert abs(slope) / 2e-5 < 1e-6 * setting.M
        np.testing.assert_allclose(point.risk, optimum(setting).risk, rtol=1e-12)
        assert curvatures(setting, point.omega).min() > 0


def test_degenerate_settings():
    nothing = MultitaskSetting.isotropic(n=[3, 4], r=[0.0, 0.0], d=2)
    assert stationary_points(nothing).points == ()
    assert uniqueness(nothing).reason == "trivial"
    one_task = MultitaskSetting([7], np.eye(1), [0.4], np.diag([1.0, 1e-9, 0.0]), 0.0)
    (point,) = stationary_points(one_task).points
    assert point.gamma == pytest.approx(8.0, rel=1e-12)
    copies = MultitaskSetting([10**9, 1], np.ones((2, 2)), [0.5, 0.5], np.diag([2.0, 1.0]), 0.1)
    assert uniqueness(copies).verdict == "unique"


@pytest.mark.slow
def test_papers_condition_never_holds_where_several_exist():
    # 10^5 settings of the kind that often has several: the condition must fail wherever the squeeze leaves a gap
    rng = np.random.default_rng(3)
    several = 0
    for _ in range(10):
        B, K, d = 10_000, int(rng.integers(2, 5)), 40
        n, r = np.floor(10 ** rng.uniform(0, 5, (B, K))), rng.uniform(-0.5, 0.5, (B, K))
        spectrum = np.where(np.arange(d) == 0, 10 ** rng.uniform(0, 3, (B, 1)), 10 ** rng.uniform(-4, 0, (B, 1)))
        found = optimum_batch(n, np.eye(K), r, spectrum, 0.01)
        spread_R = n.max(axis=1) - n.min(axis=1)
        M = 0.01 + spectrum.sum(axis=1)
        holds = (spectrum[:, 0] - spectrum[:, 1]) * spread_R < M + spectrum.min(axis=1)
        assert not (holds & found.valid & ~found.unique).any()
        several += int((found.valid & ~found.unique).sum())
    assert several > 100

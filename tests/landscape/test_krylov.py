"""The optimum of many tasks in a Krylov space: against dense solves, closed forms, and settings of few tasks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_settings import random_setting

from gladient.landscape import optimum, profile_risk, risk
from gladient.landscape.gates import krylov
from gladient.landscape.gates.krylov import measure
from gladient.landscape.gates.reduced import reduce
from gladient.prompts import MultitaskSetting


def few_features(K, d=4, **options):
    return random_setting(np.random.default_rng(K), K, d, **options)


def many_tasks(K, d, rng, most=50):
    """Tasks whose correlation matrix is well conditioned, and Σ of several scales."""
    directions = rng.standard_normal((K + 1, 2 * K)) + 0.3 * rng.standard_normal(2 * K)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    joint = directions @ directions.T
    np.fill_diagonal(joint, 1.0)
    Sigma = np.diag(10 ** rng.uniform(-2.0, 1.0, d))
    return MultitaskSetting(rng.integers(1, most, K), joint[:K, :K], joint[:K, K], Sigma, 0.1)


@pytest.mark.parametrize("K", [150, 400])
def test_measure_gives_the_solutions_of_dense_systems(K):
    reduced = reduce(many_tasks(K, 20, np.random.default_rng(K), most=10))
    found = measure(reduced)
    assert found.basis is not None
    np.testing.assert_allclose(found.basis @ found.basis.T, np.eye(len(found.values)), atol=1e-13)
    root = np.sqrt(reduced.n)
    R, r = reduced.R * np.outer(root, root), root * reduced.r_unit
    weight = reduced.s**2 / (reduced.s + reduced.M) ** 2
    largest = (weight @ reduced.s) / (weight @ (reduced.s + reduced.M))  # h2 at γ = 1
    for c in (0.0, 1e-3, largest / 3, largest):
        u = np.linalg.solve(np.eye(K) + c * R, r)
        weights = found.parts / (1 + c * found.values)
        np.testing.assert_allclose(weights @ found.basis, u, rtol=1e-10, atol=1e-12 * np.abs(u).max())
        np.testing.assert_allclose(found.parts @ weights, r @ u, rtol=1e-13)
        np.testing.assert_allclose(weights @ (found.values * weights), u @ R @ u, rtol=1e-11)


def test_copies_of_few_tasks_are_these_tasks():
    rng = np.random.default_rng(0)
    for _ in range(10):
        few = random_setting(rng, 3, 5, max_log_n=1.0)
        copies = np.repeat(np.arange(3), 60)
        many = MultitaskSetting(np.tile([1, 2, 3], 60), few.R[np.ix_(copies, copies)], few.r[copies], few.Sigma, 0.2)
        once = MultitaskSetting([120] * 3, few.R, few.r, few.Sigma, 0.2)
        assert len(measure(reduce(many)).values) <= 3
        best, expected = optimum(many), optimum(once)
        assert best.risk == pytest.approx(expected.risk, rel=1e-12)
        assert best.certificate.lower_bound == pytest.approx(best.risk, rel=1e-10)
        assert best.certificate.stationarity is not None
        assert best.certificate.stationarity < 1e-12
        np.testing.assert_allclose(best.omega, expected.omega[copies], rtol=1e-10)
        assert risk(best.P, best.omega, many) == pytest.approx(best.risk, rel=1e-12)


def test_tasks_that_tell_nothing_do_not_matter():
    """r lies in an invariant subspace: its block of R alone decides."""
    rng = np.random.default_rng(1)
    block, rest = few_features(5, sigma2=0.1), many_tasks(200, 4, rng)
    R = np.eye(205)
    R[:5, :5], R[5:, 5:] = block.R, rest.R
    order = rng.permutation(205)
    n, r = np.append(block.n, rest.n), np.append(block.r, np.zeros(200))
    both = MultitaskSetting(n[order], R[np.ix_(order, order)], r[order], block.Sigma, 0.1)
    assert len(measure(reduce(both)).values) <= 5
    best, alone = optimum(both), optimum(block)
    assert best.risk == pytest.approx(alone.risk, rel=1e-12)
    omega = np.append(alone.omega, np.zeros(200))[order]
    np.testing.assert_allclose(best.omega, omega, atol=1e-12)


def test_repeated_eigenvalues_count_once():
    rng = np.random.default_rng(2)
    r, n, d = rng.uniform(-1, 1, 300) / 20, np.repeat([3, 7], 150), 6
    found = measure(reduce(MultitaskSetting.isotropic(n=n, r=r, d=d)))
    np.testing.assert_allclose(found.values, [3.0, 7.0], rtol=1e-12)
    best = optimum(MultitaskSetting.isotropic(n=n, r=r, d=d))
    assert best.risk == pytest.approx(d - d * np.sum(n * r**2 / (n + d + 1)), rel=1e-13)
    expected = r / (n + d + 1)
    np.testing.assert_allclose(best.omega, expected / np.abs(expected).max(), atol=1e-12)


def test_nothing_helps_without_correlation():
    best = optimum(MultitaskSetting.isotropic(n=[5] * 200, r=[0.0] * 200, d=3, sigma2=0.2))
    assert best.risk == pytest.approx(3.2, rel=1e-15)
    assert best.certificate.lower_bound == pytest.approx(3.2, rel=1e-12)
    assert best.omega.tolist() == [1.0] * 200
    assert not best.P.any()


def test_a_basis_that_grows_too_long_gives_way_to_all_eigenvectors():
    setting = few_features(200, max_log_n=6.0)
    assert measure(reduce(setting)).basis is None
    best = optimum(setting)
    nearby = [best.omega * (1 + 0.01 * np.random.default_rng(i).standard_normal(200)) for i in range(20)]
    assert best.risk <= min(profile_risk(omega, setting) for omega in nearby)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    K=st.integers(1, 7),
    max_log_n=st.sampled_from([0.0, 1.0, 4.0]),
    r_is=st.sampled_from(["any", "one task", "0"]),
)
def test_few_tasks_the_same_way(seed, K, max_log_n, r_is):
    setting = random_setting(np.random.default_rng(seed), K, 3, max_log_n=max_log_n)
    R, r = setting.R, setting.r
    if r_is != "any":
        R, r = np.eye(K), np.where(np.arange(K) == K // 2, 0.7 if r_is == "one task" else 0.0, 0.0)
    setting = MultitaskSetting(setting.n, R, r, setting.Sigma, setting.sigma2)
    expected = optimum(setting)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(krylov, "_FEW_TASKS", 0)
        patch.setattr(krylov, "_SHARE", 1)
        found = optimum(setting)
    assert found.risk == pytest.approx(expected.risk, rel=1e-12)
    assert found.certificate.lower_bound == pytest.approx(expected.certificate.lower_bound, abs=1e-11 * setting.M)
    np.testing.assert_allclose(found.omega, expected.omega, rtol=1e-7, atol=1e-9)

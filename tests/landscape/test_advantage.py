"""Advantage, best order, gradients, and the batched optimum, each against a plain computation."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from random_settings import random_setting

from gladient.landscape import (
    advantage,
    best_order,
    gradients,
    linear_attention,
    optimum,
    optimum_batch,
    scalar_gate,
    value_of_example,
)
from gladient.prompts import MultitaskSetting


def reordered(setting, order):
    order = list(order)
    R = setting.R[np.ix_(order, order)]
    return MultitaskSetting(setting.n[order], R, setting.r[order], setting.Sigma, setting.sigma2)


def test_advantage_of_the_papers_panels():
    later, equal, earlier = (
        advantage(MultitaskSetting.isotropic(n=[25, 25], r=r, d=10)) for r in ([0.2, 0.8], [0.5, 0.5], [0.8, 0.2])
    )
    assert (later.strict, later.scalar_attains, later.binding) == (True, True, ())
    assert (equal.strict, equal.scalar_attains, equal.binding) == (False, True, ())
    assert (earlier.strict, earlier.scalar_attains, earlier.binding) == (True, False, (1,))
    assert later.gain == pytest.approx(1.25, rel=1e-12)
    assert equal.margin < 1e-12
    assert later.tasks[1] > 0 > later.tasks[0]
    assert earlier.scalar_gap == pytest.approx(1.25, rel=1e-12)


def test_papers_condition_for_isotropic_features():
    # r ∝ (R + (d + σ² + 1) I) 1 over examples: linear attention is already optimal
    R, n, d, sigma2 = np.array([[1.0, 0.3], [0.3, 1.0]]), np.array([10, 40]), 5, 0.5
    r = R @ n + (d + sigma2 + 1)
    same = advantage(MultitaskSetting.isotropic(n=n, r=0.5 * r / r.max(), R=R, d=d, sigma2=sigma2))
    assert not same.strict
    assert same.margin < 1e-12
    other = advantage(MultitaskSetting.isotropic(n=n, r=0.5 * r / r.max() + [0.01, 0.0], R=R, d=d, sigma2=sigma2))
    assert other.strict
    assert other.tasks[0] > 0


def test_first_constraint_binds_when_a_weight_wants_to_be_negative():
    found = advantage(MultitaskSetting.isotropic(n=[25, 25], r=[-0.3, 0.6], d=5))
    assert found.binding == (0,)


def test_random_advantages_are_consistent():
    rng = np.random.default_rng(0)
    for _ in range(40):
        setting = random_setting(rng, K=int(rng.integers(1, 6)), d=4)
        found = advantage(setting)
        gain = linear_attention(setting).risk - optimum(setting).risk
        np.testing.assert_allclose(found.gain, gain, atol=1e-12 * setting.M)
        np.testing.assert_allclose(np.sum(found.tasks**2), found.margin**2, rtol=1e-10, atol=1e-25)
        assert found.strict == (found.margin > 1e-9)
        assert bool(found.binding) != found.scalar_attains


@pytest.mark.parametrize("K", [1, 2, 3, 4, 5])
def test_best_order_against_all_orders(K):
    rng = np.random.default_rng(K)
    for _ in range(1 if K == 5 else 2):
        setting = random_setting(rng, K, d=4)
        best = best_order(setting)
        assert sorted(best.order) == list(range(K))
        risks = [scalar_gate(reordered(setting, order)).risk for order in itertools.permutations(range(K))]
        np.testing.assert_allclose(best.risk, min(risks), rtol=1e-10)
        np.testing.assert_allclose(scalar_gate(reordered(setting, best.order)).risk, best.risk, rtol=1e-10)
        np.testing.assert_allclose(best.lower_bound, best.risk, rtol=1e-10)


def difference(risk_at, h):
    return (8 * (risk_at(h) - risk_at(-h)) - (risk_at(2 * h) - risk_at(-2 * h))) / (12 * h)


@pytest.mark.parametrize("seed", range(6))
def test_gradients_against_finite_differences(seed):
    rng = np.random.default_rng(seed)
    setting = random_setting(rng, K=3, d=3, max_log_n=1.5, sigma2=0.2)
    # keep the joint matrix away from the border of the possible
    base = MultitaskSetting(setting.n, 0.8 * setting.R + 0.2 * np.eye(3), 0.8 * setting.r, setting.Sigma, 0.2)
    found, scale = gradients(base), base.M

    def changed(**change):
        return optimum(MultitaskSetting(**{**base.to_dict(), **change})).risk

    for k in range(3):
        e = np.eye(3)[k]
        np.testing.assert_allclose(
            found.r[k], difference(lambda h, e=e: changed(r=base.r + h * e), 1e-3), rtol=1e-6, atol=1e-8 * scale
        )
        pair = np.outer(e, np.eye(3)[k - 1]) + np.outer(np.eye(3)[k - 1], e)
        np.testing.assert_allclose(
            np.sum(found.R * pair),
            difference(lambda h, pair=pair: changed(R=base.R + h * pair), 1e-3),
            rtol=1e-6,
            atol=1e-8 * scale,
        )
    direction = rng.standard_normal((3, 3))
    direction = (direction + direction.T) * np.linalg.eigvalsh(base.Sigma)[0]
    np.testing.assert_allclose(
        np.sum(found.Sigma * direction),
        difference(lambda h: changed(Sigma=base.Sigma + h * direction), 1e-3),
        rtol=1e-6,
        atol=1e-8 * scale,
    )
    np.testing.assert_allclose(found.sigma2, difference(lambda h: changed(sigma2=0.2 + h), 1e-3), rtol=1e-6)


def test_count_derivative_against_larger_counts():
    # counts are whole, so scale: 10^6 examples more or fewer of 10^8
    base = MultitaskSetting([10**8, 2 * 10**8], [[1, 0.3], [0.3, 1]], [0.3, 0.6], np.diag([2.0, 0.5]), 0.3)
    for k in range(2):

        def at(h, k=k):
            n = base.n.copy()
            n[k] += round(h)
            return optimum(MultitaskSetting(n, base.R, base.r, base.Sigma, base.sigma2)).risk

        np.testing.assert_allclose(gradients(base).n[k], difference(at, 1e6), rtol=2e-4)


def test_value_of_example_predicts_the_next_example():
    setting = MultitaskSetting([200, 300], [[1, 0.3], [0.3, 1]], [0.3, 0.6], np.diag([2.0, 0.5]), 0.3)
    value = value_of_example(setting)
    for k in range(2):
        more = MultitaskSetting(setting.n + np.eye(2, dtype=int)[k], setting.R, setting.r, setting.Sigma, 0.3)
        np.testing.assert_allclose(value[k], optimum(setting).risk - optimum(more).risk, rtol=2e-2)
    assert (value > 0).all()


@pytest.mark.parametrize("K", [1, 2, 5])
def test_batch_equals_loop(K):
    rng = np.random.default_rng(K)
    drawn = [random_setting(rng, K, d=6, max_log_n=float(rng.choice([2, 5, 9]))) for _ in range(60)]
    batch = optimum_batch(
        n=np.array([setting.n for setting in drawn]),
        R=np.array([setting.R for setting in drawn]),
        r=np.array([setting.r for setting in drawn]),
        spectrum=np.array([np.linalg.eigvalsh(setting.Sigma) for setting in drawn]),
        sigma2=[setting.sigma2 for setting in drawn],
    )
    assert batch.valid.all()
    for i, setting in enumerate(drawn):
        best = optimum(setting)
        np.testing.assert_allclose(batch.risk[i], best.risk, rtol=1e-9)
        if setting.n.max() < 10**5:
            np.testing.assert_allclose(batch.omega[i], best.omega, atol=1e-7)


def test_batch_of_linear_attention_and_multiplicities():
    rng = np.random.default_rng(8)
    drawn = [random_setting(rng, K=3, d=4, max_log_n=6.0) for _ in range(20)]
    spectrum, times = np.array([np.linalg.eigvalsh(setting.Sigma) for setting in drawn]), np.array([3, 1, 40, 2])
    given = {name: np.array([getattr(setting, name) for setting in drawn]) for name in ("n", "R", "r", "sigma2")}
    short = optimum_batch(**given, spectrum=spectrum, multiplicity=times)
    full = optimum_batch(**given, spectrum=np.repeat(spectrum, times, axis=1))
    for i, setting in enumerate(drawn):
        Sigma = np.diag(np.repeat(spectrum[i], times))
        whole = MultitaskSetting(setting.n, setting.R, setting.r, Sigma, setting.sigma2)
        np.testing.assert_allclose(short.linear_attention[i], linear_attention(whole).risk, rtol=1e-12)
        np.testing.assert_allclose(short.risk[i], optimum(whole).risk, rtol=1e-11)
        attains = scalar_gate(whole).risk <= optimum(whole).risk * (1 + 1e-10)
        assert attains == (short.scalar_margin[i] >= -1e-9)
    np.testing.assert_allclose(short.omega, full.omega, atol=1e-7)
    hard = optimum_batch([10, 20000], np.eye(2), [0.1, 0.2], [10.0, 0.02], 0.01, [1, 100])
    assert round(hard.risk[0], 5) == 11.51664
    with pytest.raises(ValueError, match="must end in"):
        optimum_batch([5], np.eye(1), [0.1], [1.0, 2.0], 0.0, [1])


def test_batch_does_not_cancel():
    """A risk of 1e-12 M keeps its digits: L = d - d n² / (n (d + 1) + n²) for r = 1."""
    n, d = 10**12, 3
    found = optimum_batch([n], np.eye(1), [1.0], [1.0], 0.0, [d])
    exact = Fraction(d) - Fraction(d) * n * n / (n * (d + 1) + n * n)
    np.testing.assert_allclose(found.linear_attention, float(exact), rtol=1e-14)


def test_batch_finds_global_optimum_among_several():
    batch = optimum_batch([10, 20000], np.eye(2), [[0.1, 0.2], [0.2, 0.1]], [10.0] + [0.02] * 100, 0.01)
    assert round(batch.risk[0], 5) == 11.51664
    assert not batch.unique[0]


def test_batch_marks_impossible_correlations():
    batch = optimum_batch([5, 5], np.eye(2), [[0.1, 0.2], [0.8, 0.8], [1.5, 0.0]], [1.0, 1.0])
    assert batch.valid.tolist() == [True, False, False]
    assert np.isnan(batch.risk[1:]).all()
    none = optimum_batch([5, 5], np.eye(2), [0.0, 0.0], [1.0, 1.0])
    assert none.risk == pytest.approx([2.0], rel=1e-15)
    assert none.omega.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": [0, 5]}, "count is below 1"),
        ({"n": [[[1, 2]]]}, "n has shape"),
        ({"r": [0.1]}, r"must end in \[K\]"),
        ({"r": [[0.1, 0.2]] * 3, "n": [[1, 2]] * 2}, "batch sizes"),
        ({"spectrum": [1.0, -1.0]}, "eigenvalue"),
        ({"spectrum": [0.0, 0.0]}, "all 0"),
        ({"sigma2": np.nan}, "sigma2 holds NaN"),
    ],
)
def test_batch_bad_input(change, message):
    good = {"n": [5, 5], "R": np.eye(2), "r": [0.1, 0.2], "spectrum": [1.0, 1.0], "sigma2": 0.0}
    with pytest.raises(ValueError, match=message):
        optimum_batch(**{**good, **change})

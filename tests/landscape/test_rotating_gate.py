"""Gates that turn the state: what they reach, with how many channels, and the best fixed rotation."""

import numpy as np
import pytest
from modern_oracles import rotating_state, z_score
from random_settings import per_example, random_setting
from scipy.optimize import nnls

from gladient.landscape import (
    advantage,
    filter_floor,
    fixed_decay,
    fixed_rotation,
    key_gate,
    ladder,
    linear_attention,
    optimum,
    profile_risk,
    reduce,
    risk,
    rotating_gate,
    scalar_gate,
)
from gladient.prompts import MultitaskSetting

FALLING = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=5)
SIGNED = MultitaskSetting(
    [4, 6, 5], [[1, 0.3, 0], [0.3, 1, -0.2], [0, -0.2, 1]], [0.6, -0.4, 0.3], np.diag([0.1, 0.5, 1.0, 2.0]), 0.3
)


@pytest.mark.parametrize("setting", [FALLING, SIGNED])
def test_one_turning_head_weighs_tasks_in_any_order_and_sign(setting):
    rng = np.random.default_rng(0)
    best, pairs = rotating_gate(setting), rotating_gate(setting, angles="pair")
    assert best.risk == optimum(setting).risk
    assert pairs.risk == key_gate(setting).risk
    assert best.attained
    assert best.turns is not None
    assert pairs.turns is not None
    assert pairs.turns.shape == (setting.K, setting.d)
    predict = rotating_state(setting, best.turns)
    P = optimum(setting).P
    assert abs(z_score(setting, lambda *prompt: predict(*prompt, P), best.risk, rng)) < 4
    by_pair = rotating_state(setting, pairs.turns)
    W = np.diag(np.abs(pairs.omega).max(axis=0))
    assert abs(z_score(setting, lambda *prompt: by_pair(*prompt, W), pairs.risk, rng)) < 4


def bordered(ratios, eigenvalues):
    """P_q, A, P_k: A normal with these eigenvalues, P_q A P_k' = diag(ratios), P_q P_k' = I; one channel to spare."""
    d = len(ratios)
    product = np.array([-np.prod(b - eigenvalues) / np.prod(b - np.delete(ratios, i)) for i, b in enumerate(ratios)])
    u = np.sqrt(np.abs(product.real))
    border = np.zeros((d + 1, d + 1))
    border[:d, :d], border[:d, d], border[d, :d] = np.diag(ratios), u, product.real / u
    border[d, d] = eigenvalues.sum().real - ratios.sum()
    values, vectors = np.linalg.eig(border)
    order = np.argsort(values.imag)
    # columns x - iy, 1, x + iy of a pair and a plain channel: real and imaginary parts make A a rotation
    low, plain, _ = (vectors[:, i] for i in order)
    S = np.column_stack((low.real, -low.imag, plain.real))
    S = S / np.linalg.norm(S[:d], axis=0).clip(1e-12)
    return S[:d], np.linalg.solve(S, border @ S), np.linalg.inv(S)[:, :d].T


def test_one_channel_to_spare_comes_as_near_as_you_like():
    """Two tasks, a turning pair and a plain channel for two features: the risk falls to the optimum, weights grow."""
    setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=2)
    turn, before, sizes = np.array([np.exp(1j), np.exp(-1j), 1.0]), np.inf, []
    least = optimum(setting).risk
    for spread in (2.0, 0.5, 0.05):
        ratios = 4.0 + spread * np.array([-0.5, 0.5])
        P_q, A, P_k = bordered(ratios, turn)
        np.testing.assert_allclose(P_q @ A @ P_k.T, np.diag(ratios), atol=1e-6)
        np.testing.assert_allclose(P_q @ P_k.T, np.eye(2), atol=1e-6)
        np.testing.assert_allclose(sorted(np.abs(np.linalg.eigvals(A))), 1.0, atol=1e-6)
        found = float(np.mean([profile_risk([ratio, 1.0], setting) for ratio in ratios]))
        assert least < found < before
        before = found
        sizes.append(np.linalg.norm(P_q) * np.linalg.norm(P_k))
    assert before - least < 1e-4
    assert sizes == sorted(sizes)
    limit = rotating_gate(setting, angles="pair", channels=3)
    assert (limit.risk, limit.attained) == (least, False)


def test_few_channels():
    assert [rotating_gate(FALLING, channels=c).risk / 5 for c in (5, 6, 10)] == pytest.approx([0.6875, 0.665, 0.575])
    assert (rotating_gate(FALLING, channels=6).certificate.lower_bound or np.inf) <= optimum(FALLING).risk
    rising = MultitaskSetting.isotropic(n=[10, 10], r=[0.2, 0.8], d=5)  # nothing has to turn
    assert rotating_gate(rising, channels=5).attained
    assert rotating_gate(rising, channels=5).risk == pytest.approx(optimum(rising).risk)
    signed = MultitaskSetting.isotropic(n=[10, 10], r=[-0.2, 0.8], d=4)  # a turn by π is enough
    few = rotating_gate(signed, channels=4)
    assert few.risk == pytest.approx(optimum(signed).risk)
    assert np.prod(np.sign(few.omega)) == -1
    assert rotating_gate(MultitaskSetting.isotropic(n=[3] * 9, r=[-0.1, 0.2] * 4 + [0.1], d=4), channels=5).risk > 0


def test_two_channels_for_half_of_the_features_may_be_better():
    """d channels need not serve all d features with sizes in order: here one feature alone is better than two."""
    setting = MultitaskSetting.isotropic(n=[10, 10, 10], r=[0.9, 0.0, 0.0], d=2)
    found = rotating_gate(setting, channels=2)
    best = optimum(setting)
    assert found.risk == pytest.approx(risk(np.diag([best.P[0, 0], 0.0]), best.omega, setting))
    assert found.risk == pytest.approx(1.376923, abs=1e-6)
    assert scalar_gate(setting).risk == pytest.approx(1.584615, abs=1e-6)  # the best with sizes in order


def test_what_a_rotating_gate_refuses():
    with pytest.raises(ValueError, match="angles is 'all'; it must be"):
        rotating_gate(FALLING, angles="all")
    with pytest.raises(ValueError, match="channels is 4 for 5 features"):
        rotating_gate(FALLING, channels=4)
    with pytest.raises(ValueError, match="channels is 7 < 2 d = 8; so few have a known risk for Σ ∝ I alone"):
        rotating_gate(SIGNED, channels=7)


def test_values_of_the_fixed_rotation():
    for r, n, exact in (((0.2, 0.8), 20, 0.6829), ((0.8, 0.2), 20, 0.6867), ((0.8, 0.2), 100, 0.4505)):
        setting = MultitaskSetting.isotropic(n=[n // 2] * 2, r=r, d=10)
        assert fixed_rotation(setting).risk / 10 == pytest.approx(exact, abs=5e-5)
    assert fixed_rotation(FALLING).risk / 5 == pytest.approx(0.5852, abs=5e-5)


@pytest.mark.parametrize("seed", range(12))
def test_the_fixed_rotation_is_what_it_says_and_no_grid_is_lower(seed):
    rng = np.random.default_rng(seed)
    setting = random_setting(rng, int(rng.integers(1, 4)), d=2, max_log_n=1.0)
    found, examples = fixed_rotation(setting), per_example(setting)
    place = np.concatenate([np.arange(n) for n in setting.n]) + np.repeat(
        np.cumsum(np.append(0, setting.n[:-1] + 1)), setting.n
    )
    m = setting.n.sum() + setting.K - place  # tokens after an example, the query's among them
    weights = found.gamma ** (m - 2.0) * np.cos(found.theta * m + found.phase)
    assert profile_risk(weights, examples) == pytest.approx(found.risk, rel=1e-9)
    assert risk(found.P, weights, examples) == pytest.approx(found.risk, rel=1e-9)
    assert optimum(setting).risk * (1 - 1e-10) <= found.risk <= fixed_decay(setting).risk
    assert (found.certificate.lower_bound or 0.0) <= found.risk
    best = min(
        profile_risk(gamma ** (m - 2.0) * np.cos(theta * m + phase), examples)
        for gamma, theta, phase in zip(
            rng.uniform(0.3, 1.0, 300), rng.uniform(0.0, np.pi, 300), rng.uniform(-np.pi, np.pi, 300), strict=True
        )
    )
    assert found.risk <= best * (1 + 1e-12)


def test_the_fixed_rotation_at_any_length_and_scale():
    setting = MultitaskSetting.isotropic(n=[10**9, 10**9], r=[0.8, 0.2], d=6, sigma2=0.1)
    assert optimum(setting).risk <= fixed_rotation(setting).risk <= linear_attention(setting).risk
    for scale in (1e-200, 1e200):
        scaled = MultitaskSetting(SIGNED.n, SIGNED.R, SIGNED.r, scale * SIGNED.Sigma, scale * SIGNED.sigma2)
        assert fixed_rotation(scaled).risk / scale == pytest.approx(fixed_rotation(SIGNED).risk, rel=1e-9)
    nothing = fixed_rotation(MultitaskSetting.isotropic(n=[4, 5], r=[0.0, 0.0], d=2))
    assert (nothing.risk, nothing.theta) == (2.0, 0.0)


def test_features_that_are_not_gaussian():
    signs = reduce(FALLING, F=FALLING.M * np.eye(5))
    assert rotating_gate(signs).risk == optimum(signs).risk < fixed_rotation(signs).risk
    with pytest.raises(ValueError, match="the floor is known for Gaussian features alone"):
        filter_floor(signs)
    assert advantage(signs).floor_gap is None


def test_advantage_tells_what_turning_and_erasing_gain():
    found, rungs = advantage(FALLING), ladder(FALLING)
    assert found.fixed_rotation_gap == pytest.approx(rungs.fixed_rotation.risk - rungs.value_gate.risk)
    assert found.floor_gap == pytest.approx(rungs.value_gate.risk - rungs.filter_floor.risk)
    assert found.numbers()["floor_gap"] == found.floor_gap
    assert found.scalar_gap == pytest.approx(rungs.scalar_gate.risk - rungs.rotating_gate.risk)


def with_taps(setting):
    """Least risk where the last example of each task may have any weight ≥ 0 and the others are in order; Σ = I."""
    n, task = np.column_stack((setting.n - 1.0, np.ones(2))).ravel(), np.repeat([0, 1], 2)
    Q = setting.R[np.ix_(task, task)] * np.outer(n, n) + (setting.M + 1.0) * np.diag(n)
    rises = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])  # the second task's gate is the larger
    root = np.linalg.cholesky(rises.T @ Q @ rises)
    target = np.linalg.solve(root, rises.T @ (n * setting.r[task]))
    gained = max(target @ target - nnls(root.T, sign * target)[1] ** 2 for sign in (1.0, -1.0))
    return setting.M - setting.d * gained


def test_two_taps_change_nothing_unless_the_order_binds():
    """A task's last example may weigh more or less; that helps where a scalar gate cannot weigh the first task more."""
    rising = MultitaskSetting.isotropic(n=[10, 10], r=[0.2, 0.8], d=5)
    assert with_taps(rising) == pytest.approx(scalar_gate(rising).risk, rel=1e-12)
    assert scalar_gate(FALLING).risk / 5 == pytest.approx(0.6875)
    assert with_taps(FALLING) / 5 == pytest.approx(0.662687, abs=1e-6)

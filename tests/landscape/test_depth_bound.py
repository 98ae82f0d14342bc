"""Bounds, floors, full steps and closed forms of several layers: against one another, published digits and limits."""

import numpy as np
import pytest

from depth_oracles import hermite, random_setting, random_stack, risk_given_features
from gladient.landscape import delta_risk, optimum
from gladient.landscape.delta import delta_schedule
from gladient.landscape.depth import (
    Stack,
    best_readout,
    depth_bound,
    depth_floor,
    full_steps,
    long_prompt_share,
    marked_layers,
    one_task_share,
    proportional_share,
    stack_risk,
)
from gladient.prompts import MultitaskSetting

# risk / d for d = 10, n / 2 examples of each of two uncorrelated tasks, no noise:
# r, n, the bound of 2, 3, 4 layers, two layers with marks, the floor, full steps 2, 3
TABLE = [
    ((0.0, 1.0), 20, (0.4134, 0.3765, 0.3621), 0.5017, 0.3487, (0.3673, 0.2902)),
    ((0.0, 1.0), 100, (0.0612, 0.0292, 0.0175), 0.1596, 0.0052, (0.0408, 0.0104)),
    ((0.2, 0.8), 20, (0.6011, 0.5760, 0.5662), 0.6541, 0.5571, (0.5698, 0.5173)),
    ((0.2, 0.8), 100, (0.3616, 0.3399, 0.3319), 0.4219, 0.3235, (0.3477, 0.3271)),
    ((0.5, 0.5), 20, (0.7067, 0.6883, 0.6810), 0.7398, 0.6743, (0.6837, 0.6451)),
    ((0.5, 0.5), 100, (0.5306, 0.5146, 0.5087), 0.5695, 0.5026, (0.5204, 0.5052)),
    ((0.8, 0.2), 20, (0.6011, 0.5760, 0.5662), 0.6541, 0.5571, (0.5698, 0.5173)),
    ((0.8, 0.2), 100, (0.3616, 0.3399, 0.3319), 0.4219, 0.3235, (0.3477, 0.3271)),
]


def task(n, d, sigma2=0.0):
    return MultitaskSetting.isotropic(n=[n], r=[1.0], d=d, sigma2=sigma2)


@pytest.mark.parametrize(("r", "n", "bounds", "marks", "floor", "full"), TABLE)
def test_table(r, n, bounds, marks, floor, full):
    setting = MultitaskSetting.isotropic(n=[n // 2] * 2, r=r, d=10)
    found = [depth_bound(setting, layers) for layers in (1, 2, 3, 4)]
    assert found[0].risk == pytest.approx(optimum(setting).risk, rel=1e-12)
    assert tuple(round(one.risk / 10, 4) for one in found[1:]) == bounds
    for one in (*found, marked_layers(setting)):
        assert stack_risk(setting, one.stack).risk == pytest.approx(one.risk, rel=1e-11)
    assert round(marked_layers(setting).risk / 10, 4) == marks
    assert round(depth_floor(setting).risk / 10, 4) == floor
    assert tuple(round(full_steps(setting, layers).risk / 10, 4) for layers in (2, 3)) == full


def test_marks_of_the_trained_setting():
    for n, risk in ((10, 0.6661), (20, 0.5468), (40, 0.4523)):
        assert round(marked_layers(MultitaskSetting.isotropic(n=[n // 2] * 2, r=[0.2, 0.8], d=5)).risk / 5, 4) == risk


def test_docs_setting():
    bounds = {10: (0.6132, 0.5830, 0.5682), 20: (0.4776, 0.4414, 0.4243), 40: (0.3855, 0.3573, 0.3458)}
    floors = {10: 0.5428, 20: 0.3930, 40: 0.3278}
    for n, expected in bounds.items():
        setting = MultitaskSetting.isotropic(n=[n // 2] * 2, r=[0.2, 0.8], d=5)
        assert tuple(round(depth_bound(setting, layers).risk / 5, 4) for layers in (2, 3, 4)) == expected
        assert round(depth_floor(setting).risk / 5, 4) == floors[n]


def test_no_stack_is_below_the_bound_nor_the_bound_below_the_floor():
    rng = np.random.default_rng(0)
    for case in range(40):
        n, d = rng.integers(1, 40, int(rng.integers(1, 4))), int(rng.integers(1, 9))
        setting = random_setting(rng, n, d, float(10 ** rng.uniform(-1, 1)))
        H = 1 + case % 3
        stack = random_stack(rng, H, len(n), 0.5 / (n.sum() + d) / setting.Sigma[0, 0], plain=True)
        stack = best_readout(setting, Stack(**{**stack.to_dict(), "own": np.ones(H)}))
        bound = depth_bound(setting, H).risk
        slack = 1e-10 * setting.M
        assert bound <= stack_risk(setting, stack).risk + slack
        assert depth_floor(setting).risk <= depth_bound(setting, H + 1).risk + slack <= bound + 2 * slack
        steps = rng.uniform(0, 1.0 / (d + 2), len(n)) / setting.Sigma[0, 0]
        assert depth_floor(setting).risk <= delta_risk(setting, steps) + slack


def test_one_task_that_reads_before_it_writes():
    """P1: 1 / Σ C(n, k) (d + 1)^-k, from linear attention to the delta rule."""
    for n, d in ((5, 5), (20, 10), (100, 10)):
        for layers in (1, 2, 3):
            share = one_task_share(n, d, layers, own=0.0)
            assert depth_bound(task(n, d), layers, own=0.0).risk / d == pytest.approx(share, rel=1e-11)
    assert one_task_share(9, 4, 9, own=0.0) == pytest.approx((5 / 6) ** 9, rel=1e-14)
    assert one_task_share(9, 4, 9, own=0.0) == pytest.approx(delta_schedule(task(9, 4)).risk / 4, rel=1e-12)
    assert one_task_share(30, 7, 1, own=0.0) == pytest.approx(optimum(task(30, 7)).risk / 7, rel=1e-13)


def test_two_layers_of_one_task():
    """P1 with its own token: the best read-out of V y and V V y by their second moments."""
    for n, d, sigma2 in ((10, 10, 0.0), (20, 3, 0.7), (2, 6, 0.2)):
        D, C2, C3, C4 = d + 2, *(_choose(n, k) for k in (2, 3, 4))
        m = np.array([n, n * D + C2])
        Q11 = n * (n + d + 1 + sigma2)
        Q12 = n * D * (d + 4) + 4 * D * C2 + 3 * C3 + sigma2 * (n * D + C2)
        Q22 = n * D * (d + 4) * (d + 6) + (3 * D**2 + 4 * D * (d + 4)) * C2 + 12 * D * C3 + 6 * C4
        Q22 += sigma2 * (n * D * (d + 4) + 3 * D * C2 + 2 * C3)
        share = 1 - m @ np.linalg.solve([[Q11, Q12], [Q12, Q22]], m)
        assert one_task_share(n, d, 2, sigma2=sigma2) == pytest.approx(share, rel=1e-12)
        found = depth_bound(task(n, d, sigma2), 2).risk
        assert (found - sigma2) / d == pytest.approx(share, rel=1e-12)
    assert round(one_task_share(10, 10, 2), 4) == 0.4134


def _choose(n, k):
    return float(np.prod([(n - i) / (i + 1) for i in range(k)]))


def test_one_task_of_many_layers():
    assert [round(one_task_share(20, 10, L), 4) for L in (1, 2, 3, 4)] == [0.3548, 0.2146, 0.1653, 0.1444]
    assert [round(one_task_share(20, 10, L, sigma2=1.0), 4) for L in (1, 2, 3, 4)] == [0.3750, 0.2523, 0.2171, 0.2059]
    assert [round(one_task_share(100, 10, L, sigma2=1.0), 4) for L in (1, 2, 3, 4)] == [0.1071, 0.0318, 0.0223, 0.0217]
    assert [round(one_task_share(10, 10, L), 4) for L in (4, 10)] == [0.3621, 0.3492]
    for layers in (3, 4):
        for sigma2 in (0.0, 0.5):
            found = (depth_bound(task(30, 6, sigma2), layers).risk - sigma2) / 6
            assert found == pytest.approx(one_task_share(30, 6, layers, sigma2=sigma2), rel=1e-10)


def test_many_features():
    """P2: n / d → τ."""
    for tau in (0.5, 2.0, 5.0):
        for layers in (1, 2, 3):
            causal = one_task_share(int(tau * 20_000), 20_000, layers)
            assert causal == pytest.approx(proportional_share(tau, layers), rel=2e-3)
            noisy = one_task_share(int(tau * 20_000), 20_000, layers, sigma2=6000.0)
            assert noisy == pytest.approx(proportional_share(tau, layers, nu=0.3), rel=2e-3)
            full = full_steps(task(int(tau * 200), 200), layers).risk / 200
            assert full == pytest.approx(proportional_share(tau, layers, full=True), rel=4e-2)
    assert proportional_share(2.0, 40) == pytest.approx(np.exp(-2.0), rel=1e-12)


def test_floor():
    """P3: approached by many layers on one task, reached by the nlms delta rule with a head for each task."""
    assert depth_floor(task(20, 10)).risk / 10 == pytest.approx(0.9**20, rel=1e-12)
    assert one_task_share(10, 10, 10) == pytest.approx(0.9**10, rel=2e-3)
    setting = MultitaskSetting.isotropic(n=[6, 8], r=[0.3, 0.7], d=4)
    heads = 1 - sum(r**2 * (1 - delta_schedule(task(n, 4), keys="nlms").risk / 4) for n, r in ((6, 0.3), (8, 0.7)))
    assert depth_floor(setting).risk / 4 == pytest.approx(heads, rel=1e-12)
    # by enumeration of the sets of active tasks
    R, r, n, d = np.array([[1, 0.4, 0.1], [0.4, 1, -0.2], [0.1, -0.2, 1]]), np.array([0.2, 0.7, 0.3]), [4, 6, 2], 3
    total, chance = np.zeros(()), 1 - (1 - 1 / d) ** np.array(n)
    for active in np.ndindex(2, 2, 2):
        i = np.flatnonzero(active)
        p = np.prod(np.where(active, chance, 1 - chance))
        total = total + p * (1 - (r[i] @ np.linalg.solve(R[np.ix_(i, i)], r[i]) if len(i) else 0.0))
    assert depth_floor(MultitaskSetting(n, R, r, np.eye(d))).risk / d == pytest.approx(total, rel=1e-12)


def test_floor_with_noise_is_below_bayes_of_the_scalar_prompts():
    rng, draws = np.random.default_rng(1), 200_000
    n, d, sigma2, r = [4, 6], 3, 0.7, np.array([0.3, 0.7])
    R = np.array([[1, 0.4], [0.4, 1]])
    energy = np.stack([rng.chisquare(d * np.maximum(N, 1e-9)) * (N > 0) for N in rng.binomial(n, 1 / d, (draws, 2)).T])
    F = R + np.einsum("kN,kl->Nkl", sigma2 / np.maximum(energy, 1e-12), np.eye(2))
    known = np.einsum("k,Nk->N", r, np.linalg.solve(F, np.broadcast_to(r, (draws, 2))[..., None])[..., 0])
    bayes, error = sigma2 + d * (1 - known.mean()), d * known.std() / draws**0.5
    floor = depth_floor(MultitaskSetting(n, R, r, np.eye(d), sigma2)).risk
    assert 0.95 * bayes < floor < bayes + 4 * error


def test_uncorrelated_tasks():
    """P5: d + σ² - d Σ r_k² φ_k, φ of one task."""
    for sigma2 in (0.0, 0.6):
        setting = MultitaskSetting.isotropic(n=[5, 9, 30], r=[0.3, -0.5, 0.6], d=4, sigma2=sigma2)
        for layers in (1, 2, 3):
            phi = [1 - one_task_share(n, 4, layers, sigma2=sigma2) for n in (5, 9, 30)]
            expected = 4 + sigma2 - 4 * np.array([0.09, 0.25, 0.36]) @ phi
            assert depth_bound(setting, layers).risk == pytest.approx(expected, rel=1e-12)


def test_long_prompts():
    """P6."""
    for layers, n, within in ((1, 10**5, 2e-3), (2, 10**5, 2e-3), (3, 10**6, 2e-3), (4, 10**6, 5e-3)):
        share = one_task_share(n, 10, layers, sigma2=1.0)
        assert share == pytest.approx(long_prompt_share(n, 10, layers, sigma2=1.0), rel=within)
    for layers in (1, 2, 3):
        share = one_task_share(10**6, 3, layers, own=0.0)
        assert share == pytest.approx(long_prompt_share(10**6, 3, layers), rel=1e-4)
    assert full_steps(task(10**6, 4), 2).risk / 4 == pytest.approx(
        long_prompt_share(10**6, 4, 2, kind="full"), rel=1e-4
    )
    noisy = (full_steps(task(10**6, 4, 0.5), 2).risk - 0.5) / 4
    assert noisy == pytest.approx(long_prompt_share(10**6, 4, 2, sigma2=0.5, kind="full"), rel=1e-3)
    with pytest.raises(ValueError, match="no law of long prompts"):
        long_prompt_share(10**6, 4, 3, kind="full")


def test_full_steps_by_cubature():
    rng = np.random.default_rng(2)
    for case in range(30):
        layers = 1 + case % 3
        n, d = [((1, 1), 2), ((2,), 2), ((1, 2), 1), ((2, 2), 1), ((1, 1, 1), 1)][case % 5]
        setting = random_setting(rng, n, d, 2.0)
        omega, task_of = 0.2 * rng.standard_normal((layers, len(n))), np.repeat(np.arange(len(n)), n)
        x, weights = hermite(sum(n), d, 2 * layers + 1, setting.Sigma)
        b = np.zeros((len(x), d, sum(n)))
        for row in omega:
            b = b + np.swapaxes(x, 1, 2) @ (row[task_of][:, None] * (np.eye(sum(n)) - x @ b))
        z, w = hermite(1, d, 3, setting.Sigma)
        expected = sum(
            v
            * (
                weights
                @ risk_given_features(np.column_stack((b.swapaxes(1, 2) @ q[0], b[:, 0, 0])), _asked(x, q), setting)
            )
            for q, v in zip(z, w, strict=True)
        )
        assert full_steps(setting, layers, omega).risk == pytest.approx(expected, rel=1e-12)
        assert full_steps(setting, layers).risk <= expected * (1 + 1e-12)


def _asked(x, query):
    return np.concatenate([x, np.broadcast_to(query, (len(x), *query.shape))], axis=1)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda s: depth_bound(s, 0), "layers is 0"),
        (lambda s: full_steps(s, -1), "layers is -1"),
        (lambda s: one_task_share(5, 5, 0), "layers is 0"),
        (lambda s: depth_bound(s, 400), "GB at once"),
        (lambda s: full_steps(s, 7), "254 words"),
        (lambda s: full_steps(s, 2, [[0.1, 0.1]]), r"omega has shape \(1, 2\)"),
        (lambda s: proportional_share(1.0, 2, full=True, nu=0.1), "use full_steps"),
        (lambda s: depth_floor(random_setting(np.random.default_rng(0), [2] * 15, 3)), "15 correlated tasks"),
        (lambda s: depth_floor(MultitaskSetting([5], [[1.0]], [1.0], np.diag([3.0, 1.0]))), "whiten x"),
    ],
)
def test_bad_input(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(MultitaskSetting.isotropic(n=[10, 10], r=[0.2, 0.8], d=10))

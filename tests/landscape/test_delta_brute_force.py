"""The best steps and decays against a dense scan and a generic optimiser from many starts, for each kind of keys.

The risks of brute force come from powers of one token's matrix, which share nothing with the package's closed forms.
"""

import numpy as np
import pytest
from delta_oracles import block_risks, bound, one_kind, plain_risk
from scipy.optimize import minimize

from gladient.landscape import delta_risk, delta_rule, gated_delta_rule
from gladient.prompts import MultitaskSetting

KINDS = [("gaussian", "isotropic"), ("gaussian", "general"), ("unit", "isotropic"), ("nlms", "isotropic")]


def drawn(rng, keys, kind, K):
    """Correlations of any sign; half of those with four tasks are like the setting with two dips."""
    if K == 4 and kind == "isotropic" and rng.random() < 0.5:
        r = [0.6, 0, 0, 0.6] * rng.choice([-1, 1], 4)
        return MultitaskSetting.isotropic(n=rng.integers(20, 60, 4), r=r, d=int(rng.integers(3, 7)))
    setting = one_kind(rng, keys, kind, K=K, most=40)
    sigma2 = setting.sigma2 if rng.random() < 0.7 else 0.0
    return MultitaskSetting(setting.n, setting.R, setting.r, setting.Sigma, sigma2)


def best_step(setting, keys):
    """Dense scan of the step, its lowest points refined by the densest neighbours."""
    grid = np.concatenate((np.geomspace(1e-7, 1, 1500), np.linspace(0, 1, 500)[1:]))
    grid = bound(setting, keys) * np.sort(grid)

    def risks(beta):
        rows = np.repeat(beta[:, None], setting.K, axis=1)
        return block_risks(setting, rows, np.ones_like(rows), keys)

    values = risks(grid)
    least = values.min()
    for i in np.argsort(values)[:3]:
        least = min(least, risks(np.linspace(grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)], 400)).min())
    return least


def best_gates(setting, keys, rng, starts, per_task):
    """L-BFGS-B over the logarithms of the steps and the decays, from the best points of a cloud and from others."""
    top, K = np.log(bound(setting, keys)), setting.K
    J = K if per_task else 1
    m = J + K - 1
    low, high = np.append(np.full(J, top - 14), np.zeros(K - 1)), np.append(np.full(J, top - 1e-6), np.ones(K - 1))

    def risks(x):
        steps = np.exp(np.broadcast_to(x[:, :J], (len(x), K)))
        return block_risks(setting, steps, np.column_stack((x[:, J:], np.ones(len(x)))), keys) / setting.M

    def value(x):
        ends = np.clip(np.vstack((x + 1e-6 * np.eye(m), x - 1e-6 * np.eye(m))), low, high)
        values = risks(np.vstack((x[None], ends)))
        return values[0], (values[1 : m + 1] - values[m + 1 :]) / np.sum(ends[:m] - ends[m:], axis=1)

    size = 300 * starts
    cloud = rng.uniform(low, high, (size, m))
    cloud[:, :J] = np.maximum(top - rng.exponential(2.0, (size, J)), low[:J])
    ends = rng.integers(0, 3, (size, K - 1))
    cloud[:, J:] = np.where(ends < 2, ends, cloud[:, J:])
    order = np.argsort(risks(cloud))
    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 300}
    limits = list(zip(low, high, strict=True))
    found = [
        minimize(value, cloud[i], jac=True, bounds=limits, method="L-BFGS-B", options=options).fun
        for i in (*order[: starts // 2], *rng.integers(0, size, starts - starts // 2))
    ]
    return min(found) * setting.M


def holds(found, setting, keys, brute):
    """No risk of brute force is lower; and the risk that was found is that of its steps."""
    assert found.risk <= brute + 1e-8 * setting.M
    again = delta_risk(setting, found.steps, decays=found.decays, keys=keys)
    assert again == pytest.approx(found.risk, rel=1e-12, abs=1e-13 * setting.M)


def compare(keys, kind, rng, count, starts):
    for index in range(count):
        setting = drawn(rng, keys, kind, K=int(rng.integers(2, 5 if kind == "isotropic" else 4)))
        holds(delta_rule(setting, keys=keys), setting, keys, best_step(setting, keys))
        for per_task in (False, True) if index % 3 == 0 else (False,):
            found = gated_delta_rule(setting, per_task, keys=keys)
            holds(found, setting, keys, best_gates(setting, keys, rng, starts, per_task))


@pytest.mark.parametrize(("keys", "kind"), KINDS)
def test_powers_of_a_tokens_matrix(keys, kind):
    """The oracle of this file is the plain recursion, token by token."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        setting = one_kind(rng, keys, kind)
        steps = bound(setting, keys) * rng.uniform(0.05, 0.9, (1, setting.K))
        decays = np.append(rng.uniform(0, 1, setting.K - 1), 1.0)
        value = block_risks(setting, steps, decays[None], keys)[0]
        if keys == "gaussian":
            exact = plain_risk(setting, steps[0], steps[0], decays)[0]
        else:
            exact = delta_risk(setting, steps[0], decays=decays, keys=keys)
        assert value == pytest.approx(exact, rel=1e-9, abs=1e-11 * setting.M)


@pytest.mark.parametrize(("keys", "kind"), KINDS)
def test_best_step(keys, kind):
    rng = np.random.default_rng(7)
    for index in range(30):
        setting = drawn(rng, keys, kind, K=1 + index % 4)
        holds(delta_rule(setting, keys=keys), setting, keys, best_step(setting, keys))


@pytest.mark.parametrize(("keys", "kind"), KINDS)
def test_best_gates(keys, kind):
    compare(keys, kind, np.random.default_rng(8), 2, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("keys", "kind"), KINDS)
def test_best_gates_of_many(keys, kind):
    compare(keys, kind, np.random.default_rng(9), 12, 8)


def test_a_minimum_that_starts_along_lines_miss():
    setting = MultitaskSetting.isotropic(n=[1, 35], r=[0.486, 0.523], d=2, sigma2=0.1)
    found = gated_delta_rule(setting, True, keys="unit")
    holds(found, setting, "unit", best_gates(setting, "unit", np.random.default_rng(0), 4, True))

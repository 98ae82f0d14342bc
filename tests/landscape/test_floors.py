"""The floors of linear layers and the delta rule's relatives, against plain recursions, simulation, an optimiser."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from modern_oracles import block_risk, linear_gain, plain_floor, prompts, rotating_state, z_score
from random_settings import random_setting

from gladient.landscape import any_key_floor, delta_rule, filter_floor, gated_delta_rule, key_gate, optimum
from gladient.landscape.delta import channel_rates, delta_schedule, key_copies, repeated_steps, rotating_delta_rule
from gladient.landscape.delta.advance import advance
from gladient.prompts import MultitaskSetting

ROOT = Path(__file__).parents[2]
CORRELATED = MultitaskSetting([4, 5], [[1, 0.6], [0.6, 1]], [0.3, 0.7], np.diag([0.3, 1.0, 2.0]), 0.2)


@pytest.fixture
def modern(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.modern")


def test_the_floor_is_the_plain_recursion_and_below_all_rungs():
    rng = np.random.default_rng(0)
    for _ in range(40):
        setting = random_setting(rng, int(rng.integers(1, 5)), int(rng.integers(1, 6)), max_log_n=1.5)
        floor, lower = filter_floor(setting), any_key_floor(setting)
        assert floor.risk == pytest.approx(plain_floor(setting, linear_gain), rel=1e-10)
        assert setting.sigma2 <= lower.risk <= floor.risk * (1 + 1e-12) <= key_gate(setting).risk * (1 + 1e-9)
        assert ((lower.unknown >= 0) & (lower.unknown <= floor.unknown + 1e-12) & (floor.unknown <= 1)).all()
    for gated in (delta_rule(CORRELATED), gated_delta_rule(CORRELATED, per_task=True)):
        assert filter_floor(CORRELATED).risk < gated.risk


def test_closed_forms_and_length():
    for d, r in ((10, 0.7), (1, 1.0)):
        setting = MultitaskSetting.isotropic(n=[1000], r=[r], d=d)
        left = ((d + 1) / (d + 2)) ** 1000, (1 - 1 / d) ** 1000
        for floor, e in zip((filter_floor(setting), any_key_floor(setting)), left, strict=True):
            assert floor.kind == "closed form"
            assert floor.risk == pytest.approx(
                d * (1 - r**2 * (1 - e)), rel=1e-12
            )  # also where r = 1: no digit is lost
    drift = MultitaskSetting.drifting(30, 0.9, d=4, sigma2=0.3)
    assert filter_floor(drift).risk == pytest.approx(delta_schedule(drift).risk, rel=1e-12)
    long = MultitaskSetting([3000, 10], [[1, 0.5], [0.5, 1]], [0.8, 0.6], np.diag([1.0, 0.01]), 0.3)
    assert filter_floor(long).risk == pytest.approx(plain_floor(long, linear_gain), rel=1e-11)
    endless = MultitaskSetting([10**12], [[1.0]], [1.0], np.diag([1.0, 0.01]), 0.3)
    for floor in (filter_floor(endless), any_key_floor(endless)):
        assert floor.risk == pytest.approx(0.3, rel=1e-10)
        assert floor.unknown[0] == pytest.approx(2 * 0.3 * 1e-12 / 1.01, rel=1e-9)
    same = MultitaskSetting.isotropic(n=[300, 300], r=[1, 1], R=np.ones((2, 2)), d=3)
    assert filter_floor(same).risk == pytest.approx(3 * 0.8**600, rel=1e-9)


def test_leaps_are_rounds():
    def growth(x):
        return 1.0 / (1.0 + 3.0 / x + x[::-1] / 1e3)

    x = np.array([0.1, 2.0])
    way = np.zeros(2)
    for _ in range(5000):
        way = way + growth(x + way)
    np.testing.assert_allclose(advance(x, 5000, growth), way, rtol=1e-11)


def kalman(setting, gains):
    """The layer that attains a floor: read along e_k x, erase and write along V e_k x, times gains(x, v)."""

    def predict(x, y, task, query):
        s = np.diag(setting.Sigma)
        V = np.block([[np.ones((1, 1)), setting.r[None]], [setting.r[:, None], setting.R]])
        V = np.repeat(V[None], len(s), axis=0)
        b = np.zeros((len(x), setting.K + 1, len(s)))
        for t, k in enumerate(task + 1):
            per_prompt, mean = gains(x[:, t], V[:, k, k])
            error = per_prompt * (y[:, t] - np.einsum("bd,bd->b", x[:, t], b[:, k]))
            b = b + np.einsum("jl,j,bj,b->blj", V[:, :, k], mean[0], x[:, t], error)
            V = V - mean[1][:, None, None] * V[:, :, k, None] * V[:, None, k, :]
        return np.einsum("bd,bd->b", b[:, 0], query)

    return predict


@pytest.mark.parametrize("setting", [CORRELATED, MultitaskSetting.isotropic(n=[5, 4], r=[0.8, 0.2], d=3)])
def test_layers_attain_the_floors(setting):
    rng, s = np.random.default_rng(1), np.diag(setting.Sigma)
    sample = rng.standard_normal((400_000, len(s))) ** 2

    def linear(x, v):
        den = 2 * s * v + s @ v + setting.sigma2
        return 1.0, (1 / den, s / den)

    def any_key(x, v):
        mean = (s * sample / (sample @ (s * v) + setting.sigma2)[:, None]).mean(axis=0)
        return 1 / (x**2 @ v + setting.sigma2), (np.ones(len(s)), mean)

    assert abs(z_score(setting, kalman(setting, linear), filter_floor(setting).risk, rng)) < 4
    assert abs(z_score(setting, kalman(setting, any_key), any_key_floor(setting).risk, rng)) < 4


def test_no_optimiser_passes_the_floor(modern):
    """All matrices of every example free; 2000 steps instead of 150 end 6e-6 of M above (benchmarks/modern.py)."""
    settings = modern.random_settings(50, np.random.default_rng(2))
    above = modern.attempts(settings, 150) - [filter_floor(setting).risk for setting in settings]
    assert above.min() > -1e-10
    assert np.median(above) < 5e-2


def test_values_of_the_table(modern):
    for r, n, *exact in (
        ((0.2, 0.8), 20, 0.7619, 0.6829, 0.6762, 0.6762, 0.6049, 0.5571),
        ((0.8, 0.2), 20, 0.7619, 0.6867, 0.6762, 0.7200, 0.6049, 0.5571),
        ((0.8, 0.2), 100, 0.5902, 0.4505, 0.4426, 0.4592, 0.3288, 0.3235),
    ):
        row = modern.risks(r, n)
        names = ("linear", "fixed", "WPGD", "log-linear", "floor", "any key")
        assert [row[name] for name in names] == pytest.approx(exact, abs=5.1e-5)
    pair = MultitaskSetting.isotropic(n=[10, 10], r=[0.3, 0.7], R=[[1, 0.6], [0.6, 1]], d=10)
    assert filter_floor(pair).risk / 10 == pytest.approx(0.68721, abs=5.1e-6)
    assert list(modern.rates(10).values())[1:] == pytest.approx([1.1950, 1.1137, 1.1082, 1.0898], abs=5.1e-5)
    assert list(modern.rates(40).values())[1:] == pytest.approx([0.6341, 0.5867, 0.5685, 0.5634], abs=5.1e-5)
    assert [modern.copies(ratio)["risk / d"] for ratio in (1.0, 0.5, 0.1)] == pytest.approx(
        [0.6093, 0.6062, 0.6049], abs=5.1e-5
    )
    assert [modern.several(count)["left"] for count in (1, 2, 3)] == pytest.approx(
        [0.916667, 0.904762, 0.901786], abs=1e-6
    )


def test_log_linear_weighs_freely_where_tasks_end_on_its_borders(modern):
    """15 examples and a delimiter are a block; with 10 they are not."""
    aligned = MultitaskSetting.isotropic(n=[15, 10], r=[0.8, 0.2], d=5)
    assert modern.log_linear(aligned) == pytest.approx(optimum(aligned).risk, rel=1e-9)
    other = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=5)
    assert modern.log_linear(other) > optimum(other).risk * 1.01


def test_one_key_per_task_is_enough():
    """Tasks once each: keys h_k x that read, erase and write, longer from task to task, attain the floor."""
    R = np.array([[1, 0.9, 0.65], [0.9, 1, 0.9], [0.65, 0.9, 1]])
    setting = MultitaskSetting.isotropic(n=[6, 6, 6], r=R @ [0, 0.3, 0.6], R=R, d=5)
    V, gram = R.copy(), np.zeros((3, 3))
    for k in range(3):
        gram[k, k] = 30.0**k
        gram[k, k:] = gram[k:, k] = gram[k, k] * V[k, k:] / V[k, k]
        V = V - (1 - (6 / 7) ** 6) / V[k, k] * np.outer(V[k], V[k])
    h = np.linalg.cholesky(gram)
    found = block_risk(setting, lambda k, i: (h[k] / (7 * gram[k, k]), h[k], h[k] / (7 * gram[k, k])))
    assert found == pytest.approx(filter_floor(setting).risk, rel=1e-9)
    assert found / 5 == pytest.approx(0.32464, abs=5.1e-6)


def test_copies_of_keys_are_the_block_recursion():
    setting = MultitaskSetting.isotropic(n=[5, 4], r=[0.8, 0.2], R=[[1, 0.3], [0.3, 1]], d=4, sigma2=0.1)
    found, scales = key_copies(setting, 0.5), np.array([0.5, 1.0])

    def rules(k, i):
        on = np.eye(2)[k] * found.steps[k]
        return on / scales[k], scales, on

    assert found.risk == pytest.approx(block_risk(setting, rules), rel=1e-10)


def test_rates_per_channel_match_simulation():
    setting, rng = MultitaskSetting([8], [[1.0]], [0.9], np.diag([0.3, 1.0, 2.0]), 0.2), np.random.default_rng(3)
    for schedule in ("constant", "common", "own"):
        found = channel_rates(setting, schedule=schedule)
        a = found.steps if schedule == "own" else np.repeat(found.steps[None, :3], 8, axis=0)
        if schedule == "common":
            a = a / (1 + found.steps[3] * np.arange(8)[:, None])

        def state(x, y, a=a):
            b = np.zeros((len(x), 3))
            for t in range(8):
                b = b + a[t] * x[:, t] * (y[:, t] - np.einsum("bd,bd->b", b, x[:, t]))[:, None]
            return b

        x, y, *_ = prompts(setting, 20_000, rng)
        x2, y2, _, query, target = prompts(setting, 20_000, rng)
        # the best read-out of each direction, from other prompts: with y = θ'x of unit variance it is E bθ / E b²
        b = state(x, y)
        g = b.var(axis=0)
        gain = np.array([0.9 * _mean(a[:, j], s) for j, s in enumerate((0.3, 1.0, 2.0))]) / g
        loss = (np.einsum("bd,bd->b", state(x2, y2) * gain, query) - target) ** 2
        assert abs(loss.mean() - found.risk) < 4 * loss.std() / np.sqrt(len(loss))


def _mean(rates, s):
    """E b θ of one direction."""
    return 1 - np.prod(1 - rates * s)


@pytest.mark.parametrize(("r", "rho"), [([0.8, 0.2], 0.0), ([0.3, 0.7], 0.6), ([0.6, -0.3], 0.4), ([0.5, 0.5], 1.0)])
def test_the_rotating_delta_rule_attains_the_floor(r, rho):
    setting = MultitaskSetting.isotropic(n=[6, 5], r=r, R=[[1, rho], [rho, 1]], d=3)
    found, rng = rotating_delta_rule(setting), np.random.default_rng(4)
    assert found.risk == filter_floor(setting).risk
    predict = rotating_state(setting, found.turns, found.steps[0])
    x, y, task, query, target = prompts(setting, 40_000, rng)
    read = predict(x, y, task, query, np.eye(3), read=-np.pi / 2)  # a quarter turn from the query's key
    loss = (read * ((read @ target) / (read @ read)) - target) ** 2
    assert abs(loss.mean() - found.risk) < 4 * loss.std() / np.sqrt(len(loss))


def test_one_task_needs_no_turn_before_it():
    one = rotating_delta_rule(MultitaskSetting.isotropic(n=[6], r=[0.8], d=3))
    assert one.turns == pytest.approx([np.pi / 2])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_steps_match_simulation(count):
    setting = MultitaskSetting.isotropic(n=[6], r=[1.0], d=4)
    found = repeated_steps(setting, count)

    def predict(x, y, task, query):
        b = np.zeros((len(x), 4))
        for t in range(6):
            for step in found.steps:
                b = b + step * x[:, t] * (y[:, t] - np.einsum("bd,bd->b", b, x[:, t]))[:, None]
        return np.einsum("bd,bd->b", b, query)

    assert abs(z_score(setting, predict, found.risk, np.random.default_rng(5))) < 4
    limit = any_key_floor(setting).risk
    assert limit < found.risk <= filter_floor(setting).risk * (1 + 1e-12)
    assert repeated_steps(setting, 60).risk == pytest.approx(limit, rel=2e-3)


TWO = MultitaskSetting.isotropic(n=[3, 3], r=[0.5, 0.5], d=3)
NOISY, SPREAD = (
    MultitaskSetting.isotropic(n=[3], r=[1], d=3, sigma2=0.1),
    MultitaskSetting([3], [[1]], [1], np.diag([1.0, 2.0])),
)
LONG = MultitaskSetting([2000], [[1]], [1], np.diag([1.0, 2.0]))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: channel_rates(TWO), "2 tasks; a rate per channel is solved for one"),
        (lambda: channel_rates(NOISY, schedule="best"), "schedule is 'best'; it must be"),
        (lambda: channel_rates(LONG, schedule="constant"), "2000 examples; a search takes 1000 at most"),
        (lambda: key_copies(TWO, 0.0), "ratio is 0; it lies above 0, at most 1"),
        (lambda: key_copies(SPREAD, 0.5), "Sigma has eigenvalues from 1 to 2; copies of keys"),
        (lambda: repeated_steps(TWO, 2), "2 tasks; several steps per example"),
        (lambda: repeated_steps(NOISY, 2), "sigma2 is 0.1; several steps per example is solved without noise"),
        (lambda: repeated_steps(NOISY, 0), "count is 0; an example takes a whole number of steps"),
        (lambda: rotating_delta_rule(NOISY), "sigma2 is 0.1; the rotating delta rule is solved without noise"),
        (lambda: rotating_delta_rule(SPREAD), "the rotating delta rule has an exact risk for Σ ∝ I alone"),
        (lambda: rotating_delta_rule(MultitaskSetting.isotropic([1] * 3, [0.1] * 3, d=2)), "3 tasks; a plane"),
    ],
)
def test_what_they_refuse(call, says):
    with pytest.raises(ValueError, match=says):
        call()

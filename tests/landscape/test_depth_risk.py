"""The risk of stacks of layers against cubature, simulation, the theory of one layer, and the delta rule's."""

import time

import numpy as np
import pytest
import torch

from depth_oracles import cubature, hermite, random_setting, random_stack, risk_given_features, simulated
from gladient.landscape import delta_risk, optimum, risk
from gladient.landscape.depth import Stack, best_readout, stack_risk, two_layers_diagonal
from gladient.prompts import MultitaskSetting, PromptLayout
from gladient.wpgd import WPGD, Step, TaskWeights, conditional_risk

SMALL = {  # layers: nodes that are exact for them, and examples and features that fit
    1: (4, [((2, 1), 1), ((1,), 3), ((1, 1), 2)]),
    2: (6, [((2, 1), 1), ((1,), 2), ((1, 1), 2)]),
    3: (8, [((2, 1), 1), ((1,), 2), ((1, 1, 1), 1)]),
    4: (10, [((1, 2), 1), ((1,), 2), ((3,), 1)]),
}


@pytest.mark.parametrize("layers", SMALL)
def test_cubature(layers):
    rng = np.random.default_rng(layers)
    nodes, sizes = SMALL[layers]
    for case in range(30):
        n, d = sizes[case % 3]
        scale = float(10 ** rng.uniform(-1, 1))
        setting = random_setting(rng, n, d, scale)
        stack = random_stack(rng, layers, len(n), 0.3 / scale, plain=case % 2 == 0)
        assert stack_risk(setting, stack).risk == pytest.approx(cubature(setting, stack, nodes), rel=1e-12)


@pytest.mark.parametrize("layers", SMALL)
def test_conditional_risk_of_the_algorithm(layers):
    """The package's own steps at the nodes of the cubature."""
    rng = np.random.default_rng(20 + layers)
    nodes, sizes = SMALL[layers]
    for n, d in sizes:
        setting = random_setting(rng, n, d)
        rates, gates = 0.3 * rng.standard_normal(layers), rng.uniform(0.05, 1, (layers, len(n)))
        layout, eye = PromptLayout.of(setting), torch.eye(d, dtype=torch.float64)
        x, weights = hermite(sum(n) + 1, d, nodes, setting.Sigma)
        tokens = torch.zeros(len(x), layout.length, d, dtype=torch.float64)
        tokens[:, [t for block in layout.blocks for t in range(block.start, block.stop)] + [-1]] = torch.tensor(x)
        omega = torch.tensor(gates).flip(1).cumprod(1).flip(1)
        steps = [Step(eye, float(c) * eye, TaskWeights(w, layout)) for c, w in zip(rates, omega, strict=True)]
        expected = weights @ conditional_risk(WPGD(tuple(steps)), tokens, setting).numpy()
        assert stack_risk(setting, Stack.steps(rates, gates)).risk == pytest.approx(expected, rel=1e-12)


def test_heads_side_by_side_are_one_layer():
    rng = np.random.default_rng(5)
    stack = random_stack(rng, 3, 2, 0.3)
    side = Stack(**{**stack.to_dict(), "skips": np.zeros((3, 3))})
    assert (stack.depth, side.depth) == (3, 1)
    setting = random_setting(rng, (1, 1), 2)
    assert stack_risk(setting, side).risk == pytest.approx(cubature(setting, side, 6), rel=1e-12)


def test_delta_heads_one_for_each_task():
    """Heads that erase, each at its own task, with a decay after it: by cubature."""
    rng = np.random.default_rng(13)
    for _ in range(5):
        write = np.column_stack((np.diag(rng.uniform(0.05, 0.3, 2)), np.zeros(2)))
        stack = Stack(rng.standard_normal(2), np.zeros((2, 2)), gates=rng.random((2, 2)), write=write, erase=1.0)
        setting = random_setting(rng, (1, 1), 2)
        assert stack_risk(setting, stack).risk == pytest.approx(cubature(setting, stack, 6), rel=1e-12)


def drawn(rng, case):
    """A setting of a few examples and a stack with rates up to 1/(n + d), where sampling can be trusted."""
    n, d = rng.integers(1, 6, int(rng.integers(1, 4))), int(rng.integers(3, 9))
    setting = random_setting(rng, n, d)
    H, size = 1 + case % 4, 1.0 / (n.sum() + d)
    stack = random_stack(rng, H, len(n), size, plain=case % 3 == 0)
    if case % 3 == 2:
        stack = Stack.steps(size * rng.uniform(-0.5, 1, H), rng.random((H, len(n))), own=rng.random(H))
    return setting, stack


@pytest.mark.parametrize("cases", [30, pytest.param(150, marks=pytest.mark.slow)])
def test_simulation(cases):
    rng, scores = np.random.default_rng(cases), []
    for case in range(cases):
        setting, stack = drawn(rng, case)
        mean, error = simulated(rng, setting, stack, 20_000)
        scores.append((mean - stack_risk(setting, stack).risk) / error)
    assert np.abs(scores).max() < 4.0
    assert 0.6 < np.std(scores) < 1.4


def test_one_layer_is_the_theory_of_one_layer():
    rng = np.random.default_rng(6)
    for _ in range(40):
        n, d = rng.integers(1, 200, int(rng.integers(1, 5))), int(rng.integers(1, 9))
        setting = random_setting(rng, n, d, float(10 ** rng.uniform(-2, 2)))
        gates = rng.random(len(n))
        c, omega = rng.uniform(-1, 1) / (n.sum() + d) / setting.Sigma[0, 0], np.cumprod(gates[::-1])[::-1]
        expected = risk(c * np.eye(d), omega, setting)
        assert stack_risk(setting, Stack.steps([c], gates[None])).risk == pytest.approx(expected, rel=1e-13)


def test_delta_layers_are_the_theory_of_the_delta_rule():
    rng = np.random.default_rng(7)
    for _ in range(40):
        n, d = rng.integers(1, 60, int(rng.integers(1, 4))), int(rng.integers(1, 9))
        setting = random_setting(rng, n, d, float(10 ** rng.uniform(-1, 1)))
        steps, decays = rng.uniform(0, 1.5 / (d + 2), len(n)) / setting.Sigma[0, 0], rng.random(len(n))
        stack = Stack([1.0], [[0.0]], gates=decays[None], write=[[*steps, 0.0]], erase=1.0)
        found = stack_risk(setting, best_readout(setting, stack)).risk
        assert found == pytest.approx(delta_risk(setting, steps, decays=decays), rel=1e-11)


def test_marks_give_any_weights_without_gates():
    """Heads that write at one task each are what a first layer's marks at the delimiters make of a second layer."""
    rng = np.random.default_rng(8)
    for _ in range(20):
        n = rng.integers(1, 50, 3)
        setting = random_setting(rng, n, 4)
        write = np.column_stack((np.eye(3), np.zeros(3)))
        stack = best_readout(setting, Stack(np.ones(3), np.zeros((3, 3)), gates=np.ones((3, 3)), write=write))
        assert stack_risk(setting, stack).risk == pytest.approx(optimum(setting).risk, rel=1e-12)


def test_gradient():
    rng = np.random.default_rng(9)
    for case in range(12):
        setting = random_setting(rng, (3, 4), 3, scale=float(rng.choice([0.5, 1.0, 3.0])))
        stack = random_stack(rng, 1 + case % 3, 2, 0.1 / setting.Sigma[0, 0], plain=case % 2 == 0)
        found = stack_risk(setting, stack).gradient
        for name, slopes in found.items():
            for place in np.ndindex(slopes.shape):
                if name == "skips" and place[1] >= place[0]:
                    assert slopes[place] == 0.0
                    continue
                h, value = 1e-6, getattr(stack, name)
                ends = []
                for sign in (1, -1):
                    moved = value.copy()
                    moved[place] += sign * h
                    ends.append(stack_risk(setting, Stack(**{**stack.to_dict(), name: moved})).risk)
                assert slopes[place] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6, abs=1e-6 * setting.M)


def test_powers_of_a_matrix_agree_with_the_polynomial():
    rng = np.random.default_rng(10)
    for n in ([40, 3], [10**9, 10**9]):
        setting = random_setting(rng, n, 5)
        stack = Stack.steps(rng.uniform(0.2, 1.0, 3) / sum(n), rng.random((3, 2)))
        near = Stack(**{**stack.to_dict(), "erase": np.full(3, 1e-300)})  # a number that changes nothing but the way
        assert stack_risk(setting, near).risk == pytest.approx(stack_risk(setting, stack).risk, rel=1e-10)


def test_huge_counts_in_milliseconds():
    setting = MultitaskSetting.isotropic(n=[10**12] * 2, r=[0.2, 0.8], d=10, sigma2=0.5)
    stack = Stack.steps([1e-12, 1e-12], [[0.0, 0.3], [0.2, 1.0]])
    stack_risk(setting, stack)
    start = time.perf_counter()
    found = [stack_risk(setting, stack).risk for _ in range(20)]
    assert (time.perf_counter() - start) / 20 < 0.05
    assert 0.5 < found[0] < 10.5


def test_two_layers_with_a_diagonal_covariance():
    rng = np.random.default_rng(11)
    for n, d in [((1, 1), 2), ((2,), 2), ((1,), 3), ((2, 1), 1), ((1, 2), 1)] * 2:
        base = random_setting(rng, n, d)
        Sigma = np.diag(rng.uniform(0.3, 2, d))
        setting = MultitaskSetting(n, base.R, base.r, Sigma, base.sigma2)
        rates, gates = 0.3 * rng.standard_normal((2, d)), rng.random((2, len(n)))
        x, weights = _nodes(setting)
        expected = weights @ _two_steps(x, setting, rates, gates)
        assert two_layers_diagonal(setting, rates, gates).risk == pytest.approx(expected, rel=1e-12)
        turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
        order = np.argsort(np.diag(Sigma))
        turned = MultitaskSetting(n, base.R, base.r, turn @ Sigma @ turn.T, base.sigma2)
        assert two_layers_diagonal(turned, rates[:, order], gates).risk == pytest.approx(expected, rel=1e-11)


def test_equal_rates_are_the_isotropic_stack():
    rng = np.random.default_rng(12)
    for _ in range(20):
        n, d = rng.integers(1, 300, 3), int(rng.integers(1, 9))
        setting = random_setting(rng, n, d, 2.0)
        c, gates = rng.uniform(-1, 1, 2) / (n.sum() + d), rng.random((2, 3))
        expected = stack_risk(setting, Stack.steps(c, gates)).risk
        found = two_layers_diagonal(setting, np.repeat(c[:, None], d, axis=1), gates).risk
        assert found == pytest.approx(expected, rel=1e-12)


def _nodes(setting):
    return hermite(int(setting.n.sum()) + 1, setting.d, 6, setting.Sigma)


def _two_steps(x, setting, rates, gates):
    N, T, _ = x.shape
    task = np.repeat(np.arange(setting.K + 1), [*setting.n, 1])
    left = np.broadcast_to(np.eye(T), (N, T, T)).copy()
    left[:, -1] = 0.0
    for p, g in zip(rates, gates, strict=True):
        weights = np.array([[np.prod(g[task[j] : task[i]]) * (j <= i) for j in range(T)] for i in range(T)])
        left = left - (weights * np.einsum("Nid,d,Njd->Nij", x, p, x)) @ left
    return risk_given_features(-left[:, -1], x, setting)


TWO = MultitaskSetting.isotropic(n=[10, 10], r=[0.2, 0.8], d=10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stack([1.0], [[1.0]], gates=[[1.0]]), r"skips\[0\]\[0\] is not 0"),
        (lambda: Stack([1.0, 1.0], np.zeros((2, 2)), gates=[[1.0]]), r"must be \[H\] and \[H, K\]"),
        (lambda: Stack([1.0], [[0.0]], gates=[[1.0]], write=[[1.0]]), r"write has shape \(1, 1\)"),
        (lambda: Stack([1.0], [[0.0]], gates=[[1.0]], own=[1.0, 1.0]), r"own has shape \(2,\)"),
        (lambda: Stack.steps([np.nan]), "rates holds NaN"),
        (lambda: stack_risk(TWO, Stack.steps([0.1])), "gates for 1 tasks and the setting 2"),
        (lambda: stack_risk(TWO, Stack.steps([1e200, 1e200], tasks=2)), "overflows within task 1, after up to 10 ex"),
        (
            lambda: stack_risk(
                MultitaskSetting.isotropic(n=[10, 10**9], r=[0.1, 0.1], d=10),
                Stack([1.0], [[0.0]], gates=[[1.0, 1.0]], write=[[0.1, 0.3, 0.0]], erase=1.0),
            ),
            "overflows within task 2",
        ),
        (
            lambda: stack_risk(MultitaskSetting([5], [[1.0]], [1.0], np.diag([3.0, 1.0])), Stack.steps([0.1])),
            "use two_layers_diagonal",
        ),
        (lambda: stack_risk(TWO, random_stack(np.random.default_rng(0), 200, 2, 1e-3)), "GB at once"),
        (lambda: two_layers_diagonal(TWO, [[0.1], [0.1]]), r"rates has shape \(2, 1\)"),
        (lambda: two_layers_diagonal(TWO, np.full((2, 10), 1e300)), "overflows"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()

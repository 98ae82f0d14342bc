"""Panels at the edge of what can be estimated: an answer, or one error with its reason; never a warning of NumPy."""

import re

import numpy as np
import pytest
from numpy.linalg import LinAlgError

from gladient.data import CrossFit, Prompt, cross_fit, estimate_setting
from gladient.data.nearest import _correlations


def draw(seed: int, prompts: int = 40, counts: tuple[int, ...] = (4, 4), width: int = 2) -> list[Prompt]:
    """All roles of a prompt have one task."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(prompts):
        beta = rng.normal(size=width)
        Xs = [rng.normal(size=(n, width)) for n in counts]
        *sources, query = [(X, X @ beta + rng.normal(size=len(X))) for X in Xs]
        found.append(Prompt(sources, query))
    return found


def changed(prompts: list[Prompt], change) -> list[Prompt]:
    tasks = [[change(i, X, y) for X, y in prompt.tasks] for i, prompt in enumerate(prompts)]
    return [Prompt(sources, query) for *sources, query in tasks]


@pytest.mark.parametrize("seed", range(8))
def test_one_task_for_all_roles_is_no_rounding_error(seed: int) -> None:
    """Correlations whose estimates lie at 1, in every block of the jackknife."""
    estimated = estimate_setting(draw(seed))
    for point in estimated.points:
        assert np.abs(point.setting.r).max() <= 1.0


def test_correlations_never_exceed_1() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        a = rng.normal(size=(3, 1)) @ np.ones((1, 3)) * 1e-3 + np.ones((3, 3)) * rng.uniform(0.9, 1.3)
        np.fill_diagonal(a, 1.0)
        found = _correlations((a + a.T) / 2)
        assert np.abs(found).max() == 1.0
        np.testing.assert_array_equal(found, found.T)


def rare(i: int, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.column_stack([X, np.full(len(X), float(i == 3)) * X[:, 0]]), y


def units(i: int, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return X * [1e13, 1e-9], y


EDGES = {
    "one example per role": (lambda: draw(0, counts=(1, 1, 1)), "no prompt has two examples of a role"),
    "one feature, one example": (lambda: draw(0, counts=(1, 1), width=1), "no prompt has two examples of a role"),
    "a feature of one prompt": (
        lambda: changed(draw(0), rare),
        r"with fold 1 of 5 held out, feature 3 of 3 is 0 in every",
    ),
    "constant labels": (lambda: changed(draw(0), lambda i, X, y: (X, 0 * y + 3)), "explains every label"),
    "labels of 0": (lambda: changed(draw(0), lambda i, X, y: (X, 0 * y)), "explains every label"),
    "one feature twice": (lambda: changed(draw(0), lambda i, X, y: (X[:, [0, 0]], y)), "follow from one another"),
    "huge": (lambda: changed(draw(0), lambda i, X, y: (X * 1e200, y)), r"feature 1 of 2 has the size .*within 1e-100"),
    "tiny": (lambda: changed(draw(0), lambda i, X, y: (X, y * 1e-200)), "the label has the size"),
    "noise": (lambda: changed(draw(0), lambda i, X, y: (X, np.cos(1e6 * X[:, 0]))), "do not differ"),
    "two prompts": (lambda: draw(0, prompts=2), "with fold 1 held out, 1 of 2 prompts are left to fit"),
    "units far apart": (lambda: changed(draw(0), units), None),
    "one outlier": (lambda: changed(draw(0), lambda i, X, y: (X, y + 1e9 * (i == 7))), "do not differ"),
    "features per prompt": (
        lambda: changed(draw(0), lambda i, X, y: (0 * X + [i % 7, i * i % 5], y)),
        "do not reach all",
    ),
    "signs": (lambda: changed(draw(0), lambda i, X, y: (np.sign(X), np.sign(y))), None),
}


def outcome(prompts: list[Prompt], **options) -> CrossFit | str:
    """What is found, or why nothing can be."""
    try:
        return cross_fit(prompts, **options)
    except LinAlgError:  # a ValueError without a reason that a user knows
        raise
    except ValueError as refused:
        return str(refused)


@pytest.mark.parametrize("name", EDGES)
def test_edges(name: str) -> None:
    make, message = EDGES[name]
    found = outcome(make())
    if message is not None:
        assert isinstance(found, str)
        assert re.search(message, found), found
    else:
        assert isinstance(found, CrossFit), found
        for gate in found.risks.values():
            assert np.isfinite([gate.predicted, gate.predicted_error, gate.measured, gate.measured_error]).all()
    outcome(make(), intercept=True)


def test_random_edges() -> None:
    """Small panels of any shape: an answer in finite numbers, or a reason."""
    rng, answered = np.random.default_rng(1), 0
    for seed in range(12):
        counts = tuple(rng.integers(1, 4, size=rng.integers(2, 5)).tolist())
        prompts = draw(seed, prompts=int(rng.integers(2, 60)), counts=counts, width=int(rng.integers(1, 4)))
        kind = rng.integers(4)
        if kind == 1:
            prompts = changed(prompts, lambda i, X, y: (np.round(X), np.round(y)))
        elif kind == 2:
            prompts = changed(prompts, lambda i, X, y: (X * 10.0 ** (10 - 8 * np.arange(X.shape[1])), y * 1e-9))
        elif kind == 3:
            prompts = changed(prompts, lambda i, X, y: (X**3 + 1e4 * (i == 1), y))
        found = outcome(prompts, folds=2, intercept=bool(seed % 2))
        if isinstance(found, CrossFit):
            answered += 1
            assert np.isfinite(found.risks["value_gate"].predicted)
            assert all(map(str, found.warnings))
        else:
            assert "correlation lies between" not in found
    assert answered > 2

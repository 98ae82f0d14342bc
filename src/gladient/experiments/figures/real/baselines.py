"""Predictors without gates, from scikit-learn and statsmodels."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from gladient._linalg import psd_factor
from gladient._types import Array, Float
from gladient.data import Prompt
from gladient.prompts import MultitaskSetting

__all__ = ["best_source_ridge", "correlated_predictor", "mixed_model", "mixed_predictor", "pooled_ridge"]

_CHOOSE = 200
_PENALTIES = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0)


def pooled_ridge(train: Sequence[Prompt], test: Sequence[Prompt]) -> Float[Array, " G"]:
    """One ridge for all sources of a prompt, its penalty the best on the training prompts."""
    some = _some(train)
    penalty = min(_PENALTIES, key=lambda each: _ridge(some, each, None).mean())
    return _ridge(test, penalty, None)


def best_source_ridge(train: Sequence[Prompt], test: Sequence[Prompt]) -> Float[Array, " G"]:
    """The ridge of one source, which source and what penalty the best on the training prompts."""
    some = _some(train)
    choices = [(penalty, k) for penalty in _PENALTIES for k in range(len(train[0].sources))]
    return _ridge(test, *min(choices, key=lambda choice: _ridge(some, *choice).mean()))


def mixed_model(train: Sequence[Prompt]) -> tuple[Float[Array, "d d"], float]:
    """Covariance of the tasks' coefficients and noise variance, by REML on the queries of some training prompts."""
    train = _some(train)
    X, y = (np.concatenate([prompt.query[part] for prompt in train]) for part in (0, 1))
    groups = np.repeat(np.arange(len(train)), [len(prompt.query[1]) for prompt in train])
    from statsmodels.regression.mixed_linear_model import MixedLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a variance is near 0, which is not a failure here
        fitted = MixedLM(y, np.ones((len(y), 1)), groups, exog_re=X).fit(reml=True, method="lbfgs")
    return np.asarray(fitted.cov_re), float(fitted.scale)


def mixed_predictor(model: tuple[Array, float], test: Sequence[Prompt]) -> Float[Array, " G"]:
    """Best linear predictor of the mixed model, all sources taken as the query's task."""
    cov, noise = model
    half = psd_factor(cov)

    def predict(prompt: Prompt) -> Array:
        X, y = _together(prompt)
        return np.asarray(prompt.query[0] @ half @ _coefficients(X @ half, y, noise))

    return _errors(test, predict)


def correlated_predictor(setting: MultitaskSetting, test: Sequence[Prompt]) -> Float[Array, " G"]:
    r"""Best linear predictor with the tasks' correlations of the setting; prompts in its units.

    A ridge on $L_k \otimes x$, L a root of the tasks' correlation matrix: coefficients of different tasks then
    covary as the tasks do.
    """
    joint = np.ones((setting.K + 1, setting.K + 1))
    joint[:-1, :-1], joint[:-1, -1], joint[-1, :-1] = setting.R, setting.r, setting.r
    L = psd_factor(joint)

    def predict(prompt: Prompt) -> Array:
        X = np.concatenate([np.kron(L[k], X) for k, (X, _) in enumerate(prompt.sources)])
        y = np.concatenate([y for _, y in prompt.sources])
        return np.asarray(np.kron(L[-1], prompt.query[0]) @ _coefficients(X, y, max(setting.sigma2, 1e-6)))

    return _errors(test, predict)


def _ridge(prompts: Sequence[Prompt], penalty: float, source: int | None) -> Array:
    def predict(prompt: Prompt) -> Array:
        X, y = _together(prompt) if source is None else prompt.sources[source]
        return np.asarray(prompt.query[0] @ _coefficients(X, y, penalty))

    return _errors(prompts, predict)


def _coefficients(X: Array, y: Array, penalty: float) -> Array:
    from sklearn.linear_model import ridge_regression

    return np.asarray(ridge_regression(X, y, penalty, solver="cholesky"))


def _some(train: Sequence[Prompt]) -> Sequence[Prompt]:
    """At most 200 training prompts, evenly spaced: enough for a penalty or a covariance."""
    return train[:: -(-len(train) // _CHOOSE)]


def _together(prompt: Prompt) -> tuple[Array, Array]:
    return np.concatenate([X for X, _ in prompt.sources]), np.concatenate([y for _, y in prompt.sources])


def _errors(prompts: Sequence[Prompt], predict: Callable[[Prompt], Array]) -> Array:
    return np.array([np.mean((prompt.query[1] - predict(prompt)) ** 2) for prompt in prompts])

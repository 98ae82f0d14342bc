"""What predictors without gates do on the same held-out prompts: ridge, means, last values and a mixed model."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gladient._optional import have
from gladient._types import Array, Float
from gladient.data.crossfitting import CrossFit, Fold
from gladient.data.folds import clustered_error
from gladient.data.intervals import mean_intervals
from gladient.data.prompt import Prompts, RoleExamples

__all__ = ["Baseline", "baselines", "lower_risk"]

# Of each fold's mixed model: REML of so few takes about a second, and their covariance is known well enough to compare.
_PROMPTS, _FEATURES, _ITERATIONS = 50, 6, 50


@dataclass(frozen=True)
class Baseline:
    """A predictor without gates.

    Attributes:
        risk, error: measured as the gates' risks are, with its clustered standard error; NaN if it was not run.
        low, high: the ends of its 95% interval.
        note: why it was not run.
    """

    risk: float
    error: float
    low: float
    high: float
    note: str = ""

    @property
    def text(self) -> str:
        """The risk, or why there is none."""
        return self.note or f"{self.risk:.4f} ± {self.error:.4f}"

    def to_json(self) -> dict[str, Any]:
        """Its parts; of one that was not run the note alone, as JSON has no NaN."""
        return {"note": self.note} if self.note else asdict(self)


def baselines(found: CrossFit) -> dict[str, Baseline]:
    """Risks of predictors without gates, fitted on the same clusters and measured on the same held-out ones.

    *one_fit*: the fit to all examples, 1 but for what folds differ in. *ridge*: of the examples that a prompt shows,
    all as one task, its penalty the estimated noise. *last_ridge*: of the last source alone. *last_mean*, *last_value*:
    the labels of the last source, without features. *mixed_model*: ridge with the covariance of the tasks that REML of
    `statsmodels` finds on some prompts of the fit.

    Args:
        found: the comparison.
    """
    names = ("one_fit", "ridge", "last_ridge", "last_mean", "last_value")
    errors = {name: np.empty(found.prompts) for name in names}
    note, mixed = _why_not(found), np.empty(found.prompts)
    for fold in found.of.folds:
        raw = found.of.gathered.take(fold.held_out)
        for name, each in _simple(fold, raw, found.n).items():
            errors[name][fold.held_out] = each
        if not note:
            each, note = _mixed(fold, found.of.gathered.take(fold.fitted), raw, found.n)
            mixed[fold.held_out] = each
    if not note:
        errors["mixed_model"] = mixed
    risks = {name: _measured(each, found) for name, each in errors.items()}
    return risks | ({"mixed_model": Baseline(np.nan, np.nan, np.nan, np.nan, note)} if note else {})


def lower_risk(found: CrossFit, beside: Mapping[str, Baseline]) -> str:
    """Which predictor without gates has a lower measured risk than every gate; nothing if none has."""
    run = {name: each.risk for name, each in beside.items() if not each.note}
    best, least = min(run, key=lambda name: run[name]), min(each.measured for each in found.risks.values())
    if run[best] >= least:
        return ""
    return f"{best} has a lower measured risk, {run[best]:.4g}, than the best gate, {least:.4g}"


def _measured(errors: Array, found: CrossFit) -> Baseline:
    interval = mean_intervals(errors[:, None], found.of.clusters)[0].tolist()
    return Baseline(float(errors.mean()), clustered_error(errors, found.of.clusters), *interval)


def _simple(fold: Fold, raw: Prompts, n: tuple[int, ...]) -> dict[str, Array]:
    transform, noise = fold.estimated.transform, fold.estimated.setting.sigma2
    moved = transform.prompts(raw)
    _, last = raw.sources[-1].first(n[-1])
    penalty = np.eye(moved.d) * max(noise, 1e-9)  # in the setting's units coefficients have the covariance I
    return {
        "one_fit": moved.query.means(moved.query.y**2),
        "ridge": _ridge(moved.sources, n, moved.query, penalty),
        "last_ridge": _ridge(moved.sources[-1:], n[-1:], moved.query, penalty),
        "last_mean": _constant(raw.query, last.mean(1)) / transform.scale**2,
        "last_value": _constant(raw.query, last[:, -1]) / transform.scale**2,
    }


def _constant(query: RoleExamples, guess: Array) -> Array:
    return query.means((query.y - guess[query.prompt]) ** 2)


def _ridge(
    sources: tuple[RoleExamples, ...], n: tuple[int, ...], query: RoleExamples, penalty: Float[Array, "d d"]
) -> Array:
    """Squared errors of the ridge on the shown examples of some sources, taken as one task."""
    shown = [role.first(count) for role, count in zip(sources, n, strict=True)]
    S = penalty + sum(np.einsum("gni,gnj->gij", X, X) for X, _ in shown)
    z = np.sum([np.einsum("gni,gn->gi", X, y) for X, y in shown], axis=0)
    beta = np.linalg.solve(S, z[..., None])[..., 0]
    return query.means((query.y - np.einsum("nd,nd->n", query.X, beta[query.prompt])) ** 2)


def _why_not(found: CrossFit) -> str:
    """Why no mixed model is fitted; nothing if one is."""
    if not have("statsmodels"):
        return "not run: statsmodels is not installed (pip install 'gladient[data]')"
    d = found.of.gathered.d
    return f"not run: {d} features would take long, {_FEATURES} at most" if d > _FEATURES else ""


def _mixed(fold: Fold, fitted: Prompts, raw: Prompts, n: tuple[int, ...]) -> tuple[Array, str]:
    from statsmodels.regression.mixed_linear_model import MixedLM

    white = fold.estimated.transform.unmapped
    some = white.prompts(fitted.take(np.arange(0, len(fitted), -(-len(fitted) // _PROMPTS)))).query
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a variance is near 0, or REML not at its end: no failure here
        try:
            model = MixedLM(some.y, np.ones((len(some.y), 1)), some.prompt, exog_re=some.X)
            of = model.fit(reml=True, method="lbfgs", maxiter=_ITERATIONS)
            penalty = np.linalg.inv(of.cov_re + 1e-9 * np.eye(white.map.shape[0])) * float(of.scale)
        except (ValueError, np.linalg.LinAlgError) as error:
            return np.empty(len(raw)), f"not run: REML fails ({error})"
    moved = white.prompts(raw)
    return _ridge(moved.sources, n, moved.query, penalty), ""

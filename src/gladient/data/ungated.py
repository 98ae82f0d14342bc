"""What predictors without gates do on the same held-out prompts: ridge, means, last values and a mixed model."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from gladient._optional import have
from gladient._text import plus_minus
from gladient._types import Array, Float
from gladient.data.crossfitting import CrossFit
from gladient.data.folds import Split, clustered_error
from gladient.data.intervals import mean_intervals
from gladient.data.prompt import Prompts, RoleExamples
from gladient.data.transform import Transform, standardise

__all__ = ["Baseline", "baselines", "lower_risk"]

# Of each fold's mixed model: REML of so few takes about a second, and their covariance is known well enough to compare.
_PROMPTS, _FEATURES, _ITERATIONS = 50, 6, 50
_PENALTIES = np.geomspace(0.01, 1000.0, 11)  # of white features and labels: from hardly any to the one fit
_TUNED = 2000  # prompts on which a penalty is chosen: they tell it to a few percent, and a ridge of all takes long


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
        return self.note or plus_minus(self.risk, self.error)

    def to_json(self) -> dict[str, Any]:
        """Its parts; of one that was not run the note alone, as JSON has no NaN."""
        return {"note": self.note} if self.note else asdict(self)


def baselines(of: Split) -> dict[str, Baseline]:
    """Risks of predictors without gates, fitted on the same clusters and measured on the same held-out ones.

    They ask nothing of the theory, and are measured where it gives no prediction, too. *one_fit*: the fit to all
    examples; its risk is 1, except for differences between folds. *ridge*: a ridge regression on the examples of one
    prompt, taken as one task; the penalty is the best one for the fitted prompts. *last_ridge*: the same on the last
    source alone. *last_mean*, *last_value*: labels of the last source, without features. *mixed_model*: ridge with the
    covariance of the tasks that REML of `statsmodels` finds on some of the fitted prompts.

    Args:
        of: the prompts in folds, `CrossFit.of.split` or `Answer.split`.
    """
    names = ("one_fit", "ridge", "last_ridge", "last_mean", "last_value")
    errors = {name: np.empty(len(of.prompts)) for name in names}
    note, mixed = _why_not(of), np.empty(len(of.prompts))
    white = standardise(of.prompts, intercept=of.intercept)
    for fitted, held_out in of.folds:
        known, raw = of.prompts.take(fitted), of.prompts.take(held_out)
        transform = _fit(white, known)
        for name, each in _simple(transform, known, raw, of.n).items():
            errors[name][held_out] = each
        if not note:
            mixed[held_out], note = _mixed(transform, known, raw, of.n)
    if not note:
        errors["mixed_model"] = mixed
    risks = {name: _measured(each, of) for name, each in errors.items()}
    return risks | ({"mixed_model": Baseline(np.nan, np.nan, np.nan, np.nan, note)} if note else {})


def least(beside: Mapping[str, Baseline]) -> tuple[str, float]:
    """The predictor without gates of the lowest measured risk, and that risk."""
    run = {name: each.risk for name, each in beside.items() if not each.note}
    return min(run.items(), key=lambda each: each[1])


def lower_risk(found: CrossFit | None, beside: Mapping[str, Baseline]) -> str:
    """Which predictor without gates has a lower measured risk than every gate; nothing if none has.

    Args:
        found: the comparison of gates; None if there is none.
        beside: predictors without gates.
    """
    if not beside:
        return ""
    name, risk = least(beside)
    if found is None:
        return f"{name} has the lowest measured risk, {risk:.4g}"
    best = min(each.measured for each in found.risks.values())
    return f"{name} has a lower measured risk, {risk:.4g}, than the best gate, {best:.4g}" if risk < best else ""


def _measured(errors: Array, of: Split) -> Baseline:
    interval = mean_intervals(errors[:, None], of.clusters)[0].tolist()
    return Baseline(float(errors.mean()), clustered_error(errors, of.clusters), *interval)


def _fit(white: Transform, known: Prompts) -> Transform:
    """White features as of all prompts, labels after the fit to some of them: a feature may be constant in those."""
    X = np.concatenate([role.X for role in known.roles]) - white.mean
    y = np.concatenate([role.y for role in known.roles])
    slope, *_ = np.linalg.lstsq(X @ white.whiten - (X @ white.whiten).mean(0), y - y.mean())
    slope = white.whiten @ slope
    level = float(y.mean() - X.mean(0) @ slope)
    scale = float(np.sqrt(np.mean((y - level - X @ slope) ** 2)))
    return replace(white, level=level, slope=slope, scale=scale or white.scale)


def _simple(transform: Transform, known: Prompts, raw: Prompts, n: tuple[int, ...]) -> dict[str, Array]:
    moved = transform.prompts(raw)
    some = transform.prompts(known.take(np.arange(0, len(known), -(-len(known) // _TUNED))))
    _, last = raw.sources[-1].first(n[-1])
    return {
        "one_fit": moved.query.means(moved.query.y**2),
        "ridge": _tuned(some, moved, n, slice(None)),
        "last_ridge": _tuned(some, moved, n, slice(-1, None)),
        "last_mean": _constant(raw.query, last.mean(1)) / transform.scale**2,
        "last_value": _constant(raw.query, last[:, -1]) / transform.scale**2,
    }


def _tuned(known: Prompts, moved: Prompts, n: tuple[int, ...], sources: slice) -> Array:
    """Errors of the ridge of some sources, with the penalty that is best on prompts that are known."""

    def errors(prompts: Prompts, penalty: float) -> Array:
        return _ridge(prompts.sources[sources], n[sources], prompts.query, penalty * np.eye(prompts.d))

    return errors(moved, min(_PENALTIES, key=lambda penalty: float(errors(known, penalty).mean())))


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


def _why_not(of: Split) -> str:
    """Why no mixed model is fitted; nothing if one is."""
    if not have("statsmodels"):
        return "not run: statsmodels is not installed (pip install 'gladient[data]')"
    d = of.prompts.d
    return f"not run: {d} features would take long, {_FEATURES} at most" if d > _FEATURES else ""


def _mixed(transform: Transform, known: Prompts, raw: Prompts, n: tuple[int, ...]) -> tuple[Array, str]:
    from statsmodels.regression.mixed_linear_model import MixedLM

    some = transform.prompts(known.take(np.arange(0, len(known), -(-len(known) // _PROMPTS)))).query
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a variance is near 0, or REML not at its end: no failure here
        try:
            model = MixedLM(some.y, np.ones((len(some.y), 1)), some.prompt, exog_re=some.X)
            of = model.fit(reml=True, method="lbfgs", maxiter=_ITERATIONS)
            penalty = np.linalg.inv(of.cov_re + 1e-9 * np.eye(some.X.shape[1])) * float(of.scale)
        except (ValueError, np.linalg.LinAlgError) as error:
            return np.empty(len(raw)), f"not run: REML fails ({error})"
    moved = transform.prompts(raw)
    return _ridge(moved.sources, n, moved.query, penalty), ""

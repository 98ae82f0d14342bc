"""The work of the figure on real prompts: predictions, fits and baselines, each prompt held out once."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gladient._types import Array
from gladient.data import CrossFit, Estimated, Fold, Prompt, estimate_setting, held_out
from gladient.data.folds import clustered_error
from gladient.experiments.figures.real import baselines
from gladient.experiments.figures.real.fitted import fit_step, step_errors
from gladient.experiments.figures.real.sets import ORDERS, SETS, RealSet, in_order
from gladient.experiments.work import Measurement, OnStep, Outcome

__all__ = ["BASE", "FITTED", "CrossFitted", "Errors", "estimate", "measured", "shown"]

BASE = "linear_attention"
"""The model that gains are measured from."""
FITTED = (BASE, "scalar_gate", "value_gate")
"""The models whose step is fitted to the data."""
Errors = dict[tuple[int, str], Array]
"""The error of each prompt, by n and model."""


@dataclass(frozen=True)
class CrossFitted:
    """One data set in one order, at several lengths.

    Args:
        data: a name in `SETS`.
        order: one of `ORDERS`.
        n: examples of each source that a prompt shows.
        folds: contiguous blocks of clusters, each held out once.
    """

    data: str
    order: str
    n: tuple[int, ...]
    folds: int

    @property
    def name(self) -> str:
        """What files are called."""
        return f"{self.data}-{self.order.replace(' ', '-')}"

    @property
    def steps(self) -> int:
        """The folds."""
        return self.folds

    @property
    def cost(self) -> float:
        """Seconds, roughly."""
        return (30.0 if self.order == ORDERS[0] else 10.0) * len(self.n)

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """One measurement for each n and model: risks, gains, weights, predicted and measured."""
        real = in_order(SETS[self.data](), self.order)
        roles = len(real.prompts[0].sources)
        found = held_out(
            real.prompts,
            clusters=real.clusters,
            n=[1] * roles,
            folds=self.folds,
            gap=real.gap,
            intercept=real.intercept,
        )
        compared = {n: found.compare([n] * roles) for n in self.n}
        errors: Errors = defaultdict(lambda: np.empty(len(real.prompts)))
        weights: dict[tuple[int, str], list[Array]] = defaultdict(list)
        for number, fold in enumerate(found.folds, start=1):
            for n in self.n:
                _fit(fold, real, n, errors, weights)
            if self.order == ORDERS[0]:  # the others do not look at the order
                self._compare(fold, real, errors)
            on_step(number)
        return Outcome(
            [
                measurement
                for n in self.n
                for measurement in (
                    *_predicted(n, compared[n]),
                    *_fitted(n, weights, errors, real.clusters),
                    *_baselines(n, compared[n], errors, real.clusters),
                )
            ]
        )

    def _compare(self, fold: Fold, real: RealSet, errors: Errors) -> None:
        model = baselines.mixed_model(shown(fold.estimated, real, fold.fitted, max(self.n)))
        for n in self.n:
            train, test = (shown(fold.estimated, real, part, n) for part in (fold.fitted, fold.held_out))
            own = [_cut(fold.estimated.transform.prompt(real.prompts[i]), n) for i in fold.held_out]
            for name, found in {
                "pooled_ridge": baselines.pooled_ridge(train, test),
                "best_source_ridge": baselines.best_source_ridge(train, test),
                "mixed_model": baselines.mixed_predictor(model, test),
                "correlated_mixed_model": baselines.correlated_predictor(fold.estimated.setting, own),
            }.items():
                errors[n, name][fold.held_out] = found


def _fit(fold: Fold, real: RealSet, n: int, errors: Errors, weights: dict[tuple[int, str], list[Array]]) -> None:
    train, test = (shown(fold.estimated, real, part, n) for part in (fold.fitted, fold.held_out))
    for gate in FITTED:
        P, omega = fit_step(train, np.ones(len(train[0].sources)), gate)
        errors[n, gate][fold.held_out] = step_errors(test, P, omega)
        weights[n, gate].append(omega)


def estimate(real: RealSet, rows: np.ndarray) -> Estimated:
    """The setting estimated from some of a set's prompts, with all their examples."""
    return estimate_setting(
        [real.prompts[i] for i in rows],
        clusters=[real.clusters[i] for i in rows],
        n=[1] * len(real.prompts[0].sources),
        intercept=real.intercept,
    )


def shown(estimated: Estimated, real: RealSet, rows: np.ndarray, n: int) -> list[Prompt]:
    """Prompts with white features and n examples of each source."""
    return [_cut(estimated.transform.white(real.prompts[i]), n) for i in rows]


def measured(errors: Array, base: Array, clusters: Sequence[Hashable]) -> Measurement:
    """Risk and gain over `base` on all prompts, with clustered standard errors."""
    return {
        "risk": float(errors.mean()),
        "risk_error": clustered_error(errors, clusters),
        "gain": float(np.mean(base - errors)),
        "gain_error": clustered_error(base - errors, clusters),
    }


def _cut(prompt: Prompt, n: int) -> Prompt:
    return Prompt([(X[:n], y[:n]) for X, y in prompt.sources], prompt.query)


def _predicted(n: int, found: CrossFit) -> list[Measurement]:
    return [
        {
            "n": n,
            "kind": "predicted",
            "model": gate,
            "predicted_risk": found.risks[gate].predicted,
            "predicted_risk_error": found.risks[gate].predicted_error,
            "predicted": found.gains[gate].predicted,
            "predicted_error": found.gains[gate].predicted_error,
            "risk": found.risks[gate].measured,
            "risk_error": found.risks[gate].measured_error,
            "gain": found.gains[gate].measured,
            "gain_error": found.gains[gate].measured_error,
            "omega": one.omega.tolist() if one.omega.ndim == 1 else [],
            "omega_error": one.omega_error.tolist() if one.omega.ndim == 1 else [],
        }
        for gate, one in found.gates.items()
    ]


def _fitted(
    n: int, weights: Mapping[tuple[int, str], list[Array]], errors: Errors, clusters: Sequence[Hashable]
) -> list[Measurement]:
    return [
        {
            "n": n,
            "kind": "fitted",
            "model": gate,
            **measured(errors[n, gate], errors[n, BASE], clusters),
            "omega": np.mean(weights[n, gate], axis=0).tolist(),
            "omega_error": np.std(weights[n, gate], axis=0, ddof=1).tolist(),
        }
        for gate in FITTED
    ]


def _baselines(n: int, found: CrossFit, errors: Errors, clusters: Sequence[Hashable]) -> list[Measurement]:
    return [
        {
            "n": n,
            "kind": "baseline",
            "model": model,
            **measured(own, found.errors[BASE], clusters),
            "omega": [],
            "omega_error": [],
        }
        for (length, model), own in errors.items()
        if length == n and model not in FITTED
    ]

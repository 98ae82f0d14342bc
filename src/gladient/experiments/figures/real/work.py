"""The work of the figure on real prompts: predictions, fits and baselines, each prompt held out once."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gladient._types import Array
from gladient.data import Estimated, Prompt, estimate_setting
from gladient.data.folds import clustered_error, folds_of
from gladient.experiments.figures.real import baselines
from gladient.experiments.figures.real.fitted import fit_step, step_errors
from gladient.experiments.figures.real.sets import ORDERS, SETS, RealSet, in_order
from gladient.experiments.work import Measurement, OnStep, Outcome

__all__ = ["BASE", "FITTED", "CrossFitted", "Errors", "estimate", "measured", "shown"]

BASE = "linear_attention"
"""The model that gains are measured from."""
FITTED = (BASE, "scalar_gate", "value_gate")
"""The models whose step is fitted to the data."""
Errors = dict[tuple[int, str, str], Array]
"""The error of each prompt, by n, kind and model."""


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
        """One record for each n and model: risks, gains, weights, predicted and measured."""
        real = in_order(SETS[self.data](), self.order)
        errors: Errors = defaultdict(lambda: np.empty(len(real.prompts)))
        predicted: dict[tuple[int, str], Array] = defaultdict(lambda: np.empty(len(real.prompts)))
        weights: dict[tuple[int, str], list[Array]] = defaultdict(list)
        for fold, (train, test) in enumerate(folds_of(real.clusters, self.folds, real.gap)):
            estimated = estimate(real, train)
            for n in self.n:
                self._predict(estimated, real, test, n, errors, predicted)
                self._fit(estimated, real, (train, test), n, errors, weights)
            if self.order == ORDERS[0]:  # the others do not look at the order
                self._compare(estimated, real, (train, test), errors)
            on_step(fold + 1)
        full = estimate(real, np.arange(len(real.prompts)))
        return Outcome(
            [
                record
                for n in self.n
                for record in (
                    *_predicted_records(full, n, predicted, errors, real.clusters),
                    *_fitted_records(n, weights, errors, real.clusters),
                    *_baseline_records(n, errors, real.clusters),
                )
            ]
        )

    def _predict(
        self,
        estimated: Estimated,
        real: RealSet,
        test: np.ndarray,
        n: int,
        errors: Errors,
        predicted: dict[tuple[int, str], Array],
    ) -> None:
        counts = [n] * len(real.prompts[0].sources)
        held_out = [real.prompts[i] for i in test]
        rungs = estimated.rungs(counts)
        for gate, found in estimated.errors(held_out, counts).items():
            errors[n, "predicted", gate][test] = found
            predicted[n, gate][test] = rungs[gate].risk

    def _fit(
        self,
        estimated: Estimated,
        real: RealSet,
        parts: tuple[np.ndarray, np.ndarray],
        n: int,
        errors: Errors,
        weights: dict[tuple[int, str], list[Array]],
    ) -> None:
        train, test = (shown(estimated, real, part, n) for part in parts)
        for gate in FITTED:
            P, omega = fit_step(train, np.ones(len(train[0].sources)), gate)
            errors[n, "fitted", gate][parts[1]] = step_errors(test, P, omega)
            weights[n, gate].append(omega)

    def _compare(
        self, estimated: Estimated, real: RealSet, parts: tuple[np.ndarray, np.ndarray], errors: Errors
    ) -> None:
        white = [shown(estimated, real, part, max(self.n)) for part in parts]
        model = baselines.mixed_model(white[0])
        for n in self.n:
            train, test = (shown(estimated, real, part, n) for part in parts)
            own = [_cut(estimated.transform.prompt(real.prompts[i]), n) for i in parts[1]]
            for name, found in {
                "pooled_ridge": baselines.pooled_ridge(train, test),
                "best_source_ridge": baselines.best_source_ridge(train, test),
                "mixed_model": baselines.mixed_predictor(model, test),
                "correlated_mixed_model": baselines.correlated_predictor(estimated.setting, own),
            }.items():
                errors[n, "baseline", name][parts[1]] = found


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


def _predicted_records(
    full: Estimated,
    n: int,
    predicted: Mapping[tuple[int, str], Array],
    errors: Errors,
    clusters: Sequence[Hashable],
) -> list[Measurement]:
    base = errors[n, "predicted", BASE]
    return [
        {
            "n": n,
            "kind": "predicted",
            "model": gate,
            "predicted_risk": float(predicted[n, gate].mean()),
            "predicted_risk_error": found.risk_error,
            "predicted": float(np.mean(predicted[n, BASE] - predicted[n, gate])),
            "predicted_error": found.gain_error,
            **measured(errors[n, "predicted", gate], base, clusters),
            "omega": found.omega.tolist() if found.omega.ndim == 1 else [],
            "omega_error": found.omega_error.tolist() if found.omega.ndim == 1 else [],
        }
        for gate, found in full.predict_ladder([n] * full.setting.K).items()
    ]


def _fitted_records(
    n: int, weights: Mapping[tuple[int, str], list[Array]], errors: Errors, clusters: Sequence[Hashable]
) -> list[Measurement]:
    return [
        {
            "n": n,
            "kind": "fitted",
            "model": gate,
            **measured(errors[n, "fitted", gate], errors[n, "fitted", BASE], clusters),
            "omega": np.mean(weights[n, gate], axis=0).tolist(),
            "omega_error": np.std(weights[n, gate], axis=0, ddof=1).tolist(),
        }
        for gate in FITTED
    ]


def _baseline_records(n: int, errors: Errors, clusters: Sequence[Hashable]) -> list[Measurement]:
    return [
        {
            "n": n,
            "kind": "baseline",
            "model": model,
            **measured(found, errors[n, "predicted", BASE], clusters),
            "omega": [],
            "omega_error": [],
        }
        for (length, kind, model), found in errors.items()
        if length == n and kind == "baseline"
    ]

"""Predictions beside what is measured on clusters that they have not seen."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from gladient._types import Array
from gladient.data.cautions import Caution
from gladient.data.estimate import GATES, Estimated, PredictedGate, estimate_setting
from gladient.data.folds import clustered_error, folds_of
from gladient.data.prompt import Prompt

__all__ = ["Compared", "CrossFit", "cross_fit"]


@dataclass(frozen=True)
class Compared:
    """One number predicted from other clusters, and measured on these.

    Attributes:
        predicted, predicted_error: mean over the folds; the standard error is that of the estimate from all prompts.
        measured, measured_error: mean over the prompts, each held out once; its standard error is clustered.
    """

    predicted: float
    predicted_error: float
    measured: float
    measured_error: float

    @property
    def z(self) -> float:
        """Their difference in standard errors, taken as independent; 0 if only rounding tells them apart."""
        difference = self.predicted - self.measured
        return (
            difference / float(np.hypot(self.predicted_error, self.measured_error)) if abs(difference) > 1e-9 else 0.0
        )


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Every prompt predicted from clusters that do not hold it.

    Attributes:
        prompts: how many there are.
        estimated: the estimate from all of them.
        risks: the risk of every gate family, in units of the labels' mean square after the fit to all.
        gains: the gain of every gate family over linear attention.
        gates: predictions from all prompts, with the weights.
        warnings: cautions about that estimate, and about folds whose held-out prompts differ from the others.
    """

    prompts: int
    estimated: Estimated
    risks: dict[str, Compared]
    gains: dict[str, Compared]
    gates: dict[str, PredictedGate]
    warnings: tuple[Caution, ...]


def cross_fit(
    prompts: Sequence[Prompt],
    *,
    clusters: Sequence[Hashable] | None = None,
    n: Sequence[int] | None = None,
    folds: int = 5,
    gap: int = 0,
    intercept: bool = False,
) -> CrossFit:
    """Predict every gate family's risk and gain from some clusters, and measure both on the others.

    Args:
        prompts: as for `estimate_setting`, in an order in which neighbours may be alike (time, say).
        clusters: the cluster of each prompt; each prompt is its own if not given.
        n: examples of each source in a prompt; not needed if all prompts have as many.
        folds: contiguous blocks of clusters, each held out once.
        gap: clusters on either side of a held-out block that are left out too; for prompts that share examples with
            those of neighbouring clusters.
        intercept: see `estimate_setting`.

    Raises:
        ValueError: as `estimate_setting` does, or if folds are fewer than two or more than the clusters.
    """
    labels = list(range(len(prompts))) if clusters is None else list(clusters)

    def estimate(chosen: Sequence[int]) -> Estimated:
        return estimate_setting(
            [prompts[i] for i in chosen],
            clusters=[labels[i] for i in chosen],
            n=n,
            intercept=intercept,
        )

    estimated = estimate(range(len(prompts)))
    gates = estimated.predict_ladder()
    errors = {name: np.empty(len(prompts)) for name in GATES}
    predicted = {name: np.empty(len(prompts)) for name in GATES}
    warnings = list(estimated.warnings)  # of the estimate from all prompts, which is what is reported
    for fold, (train, test) in enumerate(folds_of(labels, folds, gap), start=1):
        fitted = estimate(train.tolist())
        held_out, rungs = [prompts[i] for i in test], fitted.rungs()
        for name, found in fitted.errors(held_out).items():
            errors[name][test] = found
            predicted[name][test] = rungs[name].risk
        warnings += [Caution(c.kind, f"fold {fold} of {folds}: {c.message}") for c in fitted.check(held_out)]

    base = "linear_attention"
    return CrossFit(
        prompts=len(prompts),
        estimated=estimated,
        risks={name: _compared(predicted[name], gates[name].risk_error, errors[name], labels) for name in GATES},
        gains={
            name: _compared(
                predicted[base] - predicted[name], gates[name].gain_error, errors[base] - errors[name], labels
            )
            for name in GATES
        },
        gates=gates,
        warnings=tuple(warnings),
    )


def _compared(predicted: Array, error: float, measured: Array, labels: Sequence[Hashable]) -> Compared:
    return Compared(float(predicted.mean()), error, float(measured.mean()), clustered_error(measured, labels))

"""Predictions beside what is measured on clusters that they have not seen."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gladient._types import Array
from gladient.data.cautions import Caution
from gladient.data.estimate import GATES, Estimated, PredictedGate, estimate_setting
from gladient.data.folds import clustered_error, folds_of
from gladient.data.intervals import mean_intervals
from gladient.data.prompt import Prompt, Prompts

__all__ = ["Compared", "CrossFit", "Fold", "HeldOut", "cross_fit", "held_out"]


@dataclass(frozen=True)
class Compared:
    """One number predicted from other clusters, and measured on these.

    Attributes:
        predicted, predicted_error: mean over the folds; the standard error is that of the estimate from all prompts.
        measured, measured_error: mean over the prompts, each held out once; its standard error is clustered.
        low, high: the ends of the measured one's 95% interval, by the bootstrap over clusters.
    """

    predicted: float
    predicted_error: float
    measured: float
    measured_error: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def z(self) -> float:
        """Their difference in standard errors, taken as independent; 0 if only rounding tells them apart."""
        difference = self.predicted - self.measured
        if abs(difference) <= 1e-9:
            return 0.0
        error = float(np.hypot(self.predicted_error, self.measured_error))
        return difference / error if error else math.copysign(math.inf, difference)


@dataclass(frozen=True, eq=False)
class Fold:
    """A block of clusters that is held out.

    Attributes:
        estimated: the setting, from the prompts that are fitted.
        fitted, held_out: the places of both kinds of prompts.
    """

    estimated: Estimated
    fitted: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Prompts in folds, and what is estimated from the others of each fold.

    Attributes:
        prompts, clusters: all of them, and the cluster of each.
        estimated: the setting, from all of them.
        folds: the blocks; every prompt is held out once.
        names: what each prompt is called; empty if they have numbers alone.
    """

    prompts: Sequence[Prompt]
    clusters: Sequence[Hashable]
    estimated: Estimated
    folds: tuple[Fold, ...]
    names: Sequence[str] = ()

    @cached_property
    def gathered(self) -> Prompts:
        """The prompts, with the examples of each role in one array."""
        return Prompts.of(self.prompts)

    @cached_property
    def warnings(self) -> tuple[Caution, ...]:
        """Cautions about the estimate, and about folds whose held-out prompts differ from the others."""
        found = list(self.estimated.doubts)
        for number, fold in enumerate(self.folds, start=1):
            cautions = fold.estimated.check(self.gathered.take(fold.held_out))
            found += [Caution(c.kind, f"fold {number} of {len(self.folds)}: {c.message}") for c in cautions]
        return tuple(found)

    def compare(self, n: Sequence[int] | None = None) -> "CrossFit":
        """Every gate family's risk and gain, predicted and measured.

        Args:
            n: examples of each source in a prompt; those of the setting if not given.

        Raises:
            ValueError: if a prompt has fewer.
        """
        errors, predicted = ({name: np.empty(len(self.prompts)) for name in GATES} for _ in range(2))
        for fold in self.folds:
            rungs = fold.estimated.rungs(n)
            for name, found in fold.estimated.errors(self.gathered.take(fold.held_out), n).items():
                errors[name][fold.held_out] = found
                predicted[name][fold.held_out] = rungs[name].risk
        gates, base = self.estimated.predict_ladder(n), "linear_attention"
        gains = {name: (predicted[base] - predicted[name], errors[base] - errors[name]) for name in GATES}
        return CrossFit(
            of=self,
            n=tuple(self.estimated.setting.n.tolist() if n is None else n),
            errors=errors,
            risks=self._compared(
                {name: (predicted[name], errors[name]) for name in GATES}, [gates[name].risk_error for name in GATES]
            ),
            gains=self._compared(gains, [gates[name].gain_error for name in GATES]),
            gates=gates,
        )

    def _compared(self, of: dict[str, tuple[Array, Array]], errors: Sequence[float]) -> dict[str, Compared]:
        """Predictions and measurements of each prompt, by name, as one number each."""
        intervals = mean_intervals(np.column_stack([measured for _, measured in of.values()]), self.clusters)
        return {
            name: Compared(
                float(predicted.mean()),
                error,
                float(measured.mean()),
                clustered_error(measured, self.clusters),
                *interval,
            )
            for (name, (predicted, measured)), error, interval in zip(
                of.items(), errors, intervals.tolist(), strict=True
            )
        }


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Every prompt predicted from clusters that do not hold it.

    Attributes:
        of: the prompts and their folds.
        n: examples of each source that a prompt shows.
        errors: of every gate family's step on each prompt, in the units of the risks.
        risks: the risk of every gate family, in units of the labels' mean square after the fit to all.
        gains: the gain of every gate family over linear attention.
        gates: predictions from all prompts, with the weights.
    """

    of: HeldOut
    n: tuple[int, ...]
    errors: dict[str, Array]
    risks: dict[str, Compared]
    gains: dict[str, Compared]
    gates: dict[str, PredictedGate]

    @property
    def prompts(self) -> int:
        """How many there are."""
        return len(self.of.prompts)

    @property
    def estimated(self) -> Estimated:
        """The estimate from all of them."""
        return self.of.estimated

    @property
    def warnings(self) -> tuple[Caution, ...]:
        """See `HeldOut.warnings`."""
        return self.of.warnings


def held_out(
    prompts: Sequence[Prompt],
    *,
    clusters: Sequence[Hashable] | None = None,
    n: Sequence[int] | None = None,
    folds: int = 5,
    gap: int = 0,
    intercept: bool = False,
    names: Sequence[str] = (),
    done: Callable[[], None] = lambda: None,
) -> HeldOut:
    """Hold each block of clusters out, and estimate the setting from the others.

    See `cross_fit` for the arguments; `done` is called after each estimate, of all prompts and for each fold.
    """
    labels = list(range(len(prompts))) if clusters is None else list(clusters)
    gathered = Prompts.of(prompts)

    def estimate(chosen: np.ndarray) -> Estimated:
        some = [labels[i] for i in chosen.tolist()]
        own = [names[i] for i in chosen.tolist()] if names else [f"prompt {i + 1}" for i in chosen.tolist()]
        return estimate_setting(gathered.take(chosen), clusters=some, n=n, intercept=intercept, names=own)

    blocks = folds_of(labels, folds, gap)
    whole, parts = estimate(np.arange(len(prompts))), []
    done()
    for number, (fitted, block) in enumerate(blocks, start=1):
        if len(fitted) < 2:
            raise ValueError(
                f"folds is {folds} and gap {gap}: with fold {number} held out, {len(fitted)} of {len(prompts)} prompts "
                "are left to fit; take more folds, a smaller gap, or more clusters"
            )
        try:
            parts.append(Fold(estimate(fitted), fitted, block))
            done()
        except ValueError as error:
            raise ValueError(f"with fold {number} of {folds} held out, {error}") from None
    return HeldOut(prompts=prompts, clusters=labels, estimated=whole, folds=tuple(parts), names=names)


def cross_fit(
    prompts: Sequence[Prompt],
    *,
    clusters: Sequence[Hashable] | None = None,
    n: Sequence[int] | None = None,
    folds: int = 5,
    gap: int = 0,
    intercept: bool = False,
    names: Sequence[str] = (),
) -> CrossFit:
    """Predict every gate family's risk and gain from some clusters, and measure both on the others.

    Args:
        prompts: as for `estimate_setting`, in an order in which neighbours may be alike (time, say).
        clusters: the cluster of each prompt; each prompt is its own if not given.
        n: examples of each source in a prompt, its first ones (`table_prompts(n=…)` draws them); not needed if all
            prompts have as many.
        folds: contiguous blocks of clusters, each held out once.
        gap: clusters on either side of a held-out block that are left out too; for prompts that share examples with
            those of neighbouring clusters.
        intercept: see `estimate_setting`.
        names: see `estimate_setting`.

    Raises:
        ValueError: as `estimate_setting` does, or if folds are fewer than two or more than the clusters.
    """
    found = held_out(prompts, clusters=clusters, n=n, folds=folds, gap=gap, intercept=intercept, names=names)
    return found.compare()

"""Predictions beside what is measured on clusters that they have not seen."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gladient._types import Array
from gladient.data.cautions import Caution, about_shift
from gladient.data.estimate import GATES, Estimated, PredictedGate, estimate_setting
from gladient.data.folds import Split, clustered_error, split
from gladient.data.intervals import mean_intervals
from gladient.data.prompt import Prompt, Prompts
from gladient.data.refusal import RefusedError

__all__ = ["Compared", "CrossFit", "Fold", "HeldOut", "cross_fit", "estimates", "held_out"]


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
        split: the prompts in blocks, every prompt held out once.
        estimated: the setting, from all of them.
        folds: the blocks, each with the setting from the others.
    """

    split: Split
    estimated: Estimated
    folds: tuple[Fold, ...]

    @property
    def prompts(self) -> Prompts:
        """All of them, with the examples of each role in one array."""
        return self.split.prompts

    @property
    def clusters(self) -> Sequence[Hashable]:
        """The cluster of each prompt."""
        return self.split.clusters

    @cached_property
    def warnings(self) -> tuple[Caution, ...]:
        """Cautions about the estimate, and about folds whose held-out prompts differ from the others."""
        parts = [(fold.estimated.transform, self.prompts.take(fold.held_out)) for fold in self.folds]
        return (*self.estimated.doubts, *about_shift(parts))

    def compare(self, n: Sequence[int] | None = None) -> "CrossFit":
        """Every gate family's risk and gain, predicted and measured.

        Args:
            n: examples of each source in a prompt; those of the setting if not given.

        Raises:
            ValueError: if a prompt has fewer.
        """
        errors, predicted = ({name: np.empty(len(self.prompts)) for name in GATES} for _ in range(2))
        fit = np.empty(len(self.prompts))
        for fold in self.folds:
            rungs, held_out = fold.estimated.rungs(n), self.prompts.take(fold.held_out)
            query = held_out.query
            fit[fold.held_out] = query.means(fold.estimated.transform.labels(query.X, query.y) ** 2)
            for name, found in fold.estimated.errors(held_out, n).items():
                errors[name][fold.held_out] = found
                predicted[name][fold.held_out] = rungs[name].risk
        gates, base = self.estimated.predict_ladder(n), "linear_attention"
        gains = {name: (predicted[base] - predicted[name], errors[base] - errors[name]) for name in GATES}
        return CrossFit(
            of=self,
            n=self.split.n if n is None else tuple(n),
            errors=errors,
            risks=self._compared(
                {name: (predicted[name], errors[name]) for name in GATES}, [gates[name].risk_error for name in GATES]
            ),
            gains=self._compared(gains, [gates[name].gain_error for name in GATES]),
            gates=gates,
            one_fit=float(fit.mean()),
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
        one_fit: the risk of the fit to all examples, measured as the gates' are; 1 but for what prompts differ in.
    """

    of: HeldOut
    n: tuple[int, ...]
    errors: dict[str, Array]
    risks: dict[str, Compared]
    gains: dict[str, Compared]
    gates: dict[str, PredictedGate]
    one_fit: float

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
    folds: int | None = None,
    gap: int = 0,
    intercept: bool = False,
    names: Sequence[str] = (),
) -> HeldOut:
    """Hold each block of clusters out, and estimate the setting from the others.

    See `cross_fit` for the arguments.
    """
    return estimates(split(prompts, clusters=clusters, n=n, folds=folds, gap=gap, intercept=intercept, names=names))


def estimates(of: Split, done: Callable[[], None] = lambda: None) -> HeldOut:
    """The setting, from all prompts and with each block held out.

    Args:
        of: the prompts in blocks.
        done: called after each estimate.

    Raises:
        ValueError: if the prompts are not well formed.
        RefusedError: a ValueError, if they are and tell no setting, or those of a fold do not.
    """

    def estimate(chosen: np.ndarray) -> Estimated:
        names = [of.names[i] if of.names else f"prompt {i + 1}" for i in chosen.tolist()]
        some = [of.clusters[i] for i in chosen.tolist()]
        found = estimate_setting(of.prompts.take(chosen), clusters=some, n=of.n, intercept=of.intercept, names=names)
        done()
        return found

    whole, parts = estimate(np.arange(len(of.prompts))), []
    for number, (fitted, block) in enumerate(of.folds, start=1):
        where = f"with fold {number} of {len(of.folds)} held out"
        try:
            parts.append(Fold(estimate(fitted), fitted, block))
        except RefusedError as error:
            raise error.within(where) from None
        except ValueError as error:  # all prompts together passed, so nothing is wrong with them
            raise RefusedError(f"{where}, {error}") from None
    return HeldOut(of, whole, tuple(parts))


def cross_fit(
    prompts: Sequence[Prompt],
    *,
    clusters: Sequence[Hashable] | None = None,
    n: Sequence[int] | None = None,
    folds: int | None = None,
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
        folds: contiguous blocks of clusters, each held out once; 5 if not given, or the clusters if they are fewer.
        gap: clusters on either side of a held-out block that are left out too; for prompts that share examples with
            those of neighbouring clusters.
        intercept: see `estimate_setting`.
        names: see `estimate_setting`.

    Raises:
        ValueError: as `estimate_setting` does, or if folds are fewer than two or more than the clusters.
        RefusedError: a ValueError, if the prompts are well formed and tell no setting; `ask` makes a verdict of it.
    """
    return held_out(prompts, clusters=clusters, n=n, folds=folds, gap=gap, intercept=intercept, names=names).compare()

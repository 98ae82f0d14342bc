"""What may be wrong with a prediction, and what to believe then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gladient._types import Array
from gladient.data.prompt import Prompts, RoleExamples
from gladient.data.refusal import RefusedError
from gladient.data.transform import Transform

__all__ = [
    "Caution",
    "about_clusters",
    "about_fourth_moments",
    "about_gain",
    "about_levels",
    "about_no_spread",
    "about_shift",
    "about_tasks",
    "called",
    "outlier",
]

FEW = 20  # clusters: a standard error from B of them is itself off by 1/√(2 (B - 1)), here a sixth
NOTABLE = 0.02  # relative change of a risk, or share of the labels: nobody chooses a gate for less
SHIFTED = 0.25  # relative change of a second moment; many prompts prove smaller ones, which are not worth a warning
SHARE = 0.2  # of a sum of squares in one prompt or row: of 40 Gaussian ones the largest has a tenth
Z = 3.0  # standard errors: a run checks many numbers, and two would warn of good data


@dataclass(frozen=True)
class Caution:
    """One caution.

    Attributes:
        kind: clusters, level, tasks, features, gain or shift.
        message: what was seen, and what to believe.
    """

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def about_clusters(clusters: int) -> list[Caution]:
    """Few clusters make standard errors unreliable."""
    if clusters >= FEW:
        return []
    return [
        Caution(
            "clusters",
            f"{clusters} clusters are few: standard errors are rough and often too small; take a gain for real only if "
            "it is many standard errors from 0",
        )
    ]


def about_levels(prompts: Prompts) -> list[Caution]:
    """Labels of one task that share a level, which features of mean 0 do not carry; prompts in the setting's units."""
    # y_i y_j of two examples of one task: features of mean 0 make its mean 0, a level makes it the level's square
    sums, counts = np.zeros(len(prompts)), np.zeros(len(prompts))
    for role in prompts.sources:
        several = role.n > 1
        pairs = role.totals(role.y) ** 2 - role.totals(role.y**2)
        sums += np.where(several, pairs / np.where(several, role.n * (role.n - 1.0), 1.0), 0.0)
        counts += several
    each = sums[counts > 0] / counts[counts > 0]
    if len(each) < 2:
        return []
    level, error = float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each)))
    if level < NOTABLE or level < Z * error:
        return []
    return [
        Caution(
            "level",
            f"tasks differ in level: {level:.1%} of the labels' mean square is shared by a task's examples, whatever "
            "their features; estimate with an intercept, or the level passes for noise",
        )
    ]


def about_tasks(strength: Array, errors: Array) -> list[Caution]:
    """Roles whose tasks hardly differ."""
    weak = [k + 1 for k, (value, error) in enumerate(zip(strength, errors, strict=True)) if value < 2.0 * error]
    if not weak:
        return []
    return [
        Caution(
            "tasks",
            f"the tasks of role {', '.join(map(str, weak))} of {len(strength)} differ by less than two standard "
            "errors: their correlations are a guess, and so are the weights",
        )
    ]


def about_no_spread(
    white: Prompts, variance: float, error: float, names: Sequence[str] = (), *, intercept: bool
) -> RefusedError:
    """What is known where the estimated variance of the tasks' coefficients is not above 0.

    Args:
        white: prompts with white features and labels of mean square 1.
        variance: the estimate, a mean over the roles.
        error: its standard error.
        names: what each prompt is called.
        intercept: whether tasks have levels.
    """
    place, share = outlier(np.sum([role.totals(role.y**2) for role in white.roles], axis=0))
    plain = False
    if share > max(SHARE, 4.0 / len(white)):  # of a few prompts each has a large share
        cause = f"{called(names, place)} holds {share:.0%} of the labels' squares: look at it, or leave it out"
    elif not intercept and about_levels(white):
        cause = "tasks differ in level, which features do not carry: estimate with an intercept (--intercept)"
    else:
        cause = "if they are all alike, the one fit to all examples is what the data support; more prompts would tell"
        plain = True
    return RefusedError(
        f"the tasks do not differ as far as these prompts tell (the estimated variance of their coefficients is "
        f"{variance:.3g} ± {error:.2g} of the labels' mean square); {cause}",
        variance=variance,
        error=error,
        plain=plain,
    )


def called(names: Sequence[str], place: int) -> str:
    """What a prompt is called.

    >>> called(["day 1"], 0), called([], 0)
    ('day 1', 'prompt 1')
    """
    return names[place] if names else f"prompt {place + 1}"


def outlier(squares: Array) -> tuple[int, float]:
    """The largest of some numbers ≥ 0, by its place, and its share of their sum.

    >>> outlier(np.array([1.0, 3.0]))
    (1, 0.75)
    """
    place, total = int(np.argmax(squares)), float(squares.sum())
    return place, float(squares[place]) / total if total else 0.0


def about_fourth_moments(kappa: float, own: Mapping[str, Any], gaussian: Mapping[str, Any]) -> list[Caution]:
    """Features far from Gaussian fourth moments."""
    change = own["linear_attention"].risk / gaussian["linear_attention"].risk - 1.0
    if abs(change) < NOTABLE:
        return []
    return [
        Caution(
            "features",
            f"the features are not Gaussian (E|x|⁴ is {kappa:.2f} times theirs), which moves the risk of linear "
            f"attention by {change:+.1%}: believe the ladder of the features' own moments, not that of Gaussian ones",
        )
    ]


def about_gain(gains: Mapping[str, tuple[float, float]]) -> list[Caution]:
    """Gains within two standard errors of 0."""
    lost = {name: gain for name, gain in gains.items() if gain[0] < 2.0 * gain[1]}
    if not lost:
        return []
    listed = ", ".join(f"{name} {gain:.4f} ± {error:.4f}" for name, (gain, error) in lost.items())
    return [
        Caution(
            "gain",
            f"no gain over linear attention beyond two standard errors: {listed}; the tasks are nearly exchangeable or "
            "the order is wrong for the gate, so choose without it",
        )
    ]


def about_shift(parts: Sequence[tuple[Transform, Prompts]]) -> list[Caution]:
    """Other prompts whose features or labels have other second moments than those of the estimate.

    Args:
        parts: the estimate's transform and other prompts; several pairs are folds.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for fold, part in enumerate(parts, start=1):
        for what, ratio in _shifts(*part):
            found.setdefault(what, []).append((fold, ratio))
    return [Caution("shift", _shifted(what, each, len(parts))) for what, each in found.items()]


def _shifted(what: str, folds: Sequence[tuple[int, float]], of: int) -> str:
    ratios = ", ".join(f"{ratio:.2f}" for _, ratio in folds)
    where = f" in fold {', '.join(str(fold) for fold, _ in folds)} of {of}" if of > 1 else ""
    return (
        f"the mean square of {what} is {ratios} times that of the prompts of the estimate{where}: predictions for such "
        "prompts are not to be believed"
    )


def _shifts(transform: Transform, prompts: Prompts) -> list[tuple[str, float]]:
    """What has another mean square, and how many times that of the estimate."""
    moved = transform.unmapped.prompts(prompts)
    rows = np.sum([role.n for role in moved.roles], axis=0)
    features = np.sum([_outer(role) for role in moved.roles], axis=0) / rows[:, None, None]
    values, vectors = np.linalg.eigh(features.mean(0))
    # the direction whose variance changed by the largest factor, up or down
    worst = int(np.argmax(np.abs(np.log(values.clip(1e-300)))))
    along = np.einsum("gij,i,j->g", features, vectors[:, worst], vectors[:, worst])
    labels = np.sum([role.totals(role.y**2) for role in moved.roles], axis=0) / rows
    found = []
    for what, each in (("a direction of the features", along), ("the labels", labels)):
        ratio, error = float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else np.inf
        if abs(ratio - 1.0) > SHIFTED and abs(ratio - 1.0) > Z * error:
            found.append((what, ratio))
    return found


def _outer(role: RoleExamples) -> Array:
    """Sum of x xᵀ in each prompt, [G, d, d]."""
    # pair by pair of features: x xᵀ of every example would be d² times the data
    d = role.X.shape[1]
    found = np.empty((len(role.n), d, d))
    for i in range(d):
        found[:, i] = role.totals(role.X[:, i, None] * role.X)
    return found

"""Where predicted and measured part: on the whole, or as clusters follow one another."""

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from gladient._types import Array
from gladient.data.crossfitting import Compared, CrossFit

__all__ = ["BASE", "SMALL", "Z", "Drift", "apart", "drift_of"]

BASE = "linear_attention"
SMALL = 0.01  # part of the risk of linear attention: nobody chooses a gate to lower an error by less
Z = 3.0  # standard errors between predicted and measured: ten such numbers are looked at, and two would cry wolf
WORSE = 1.25  # times the prediction: with 1 + few standard errors alone a risk near 1 would cross 1 by chance
# Of ranks in the order of the clusters. Held-out errors of few queries are noisy beside the labels of whole prompts, so
# that those may carry the proof if the errors follow: among made sets without drift fewer than one in a thousand pass.
_PROOF, _FOLLOWS, _CHANCE = 3.7, 2.0, 1e-4
_LEAST = 0.2  # rank correlation, or root of the explained share: many clusters prove smaller ones, which do not matter


@dataclass(frozen=True)
class Drift:
    """Held-out errors that change with the order of the clusters.

    Attributes:
        factors: the measured over the predicted risk of linear attention in each fold.
        rises: whether they rise or fall all the way; else they differ from fold to fold, as seasons do.
        text: what is seen.
    """

    factors: tuple[float, ...]
    rises: bool
    text: str


def drift_of(found: CrossFit) -> Drift | None:
    """How errors change beside their predictions with the order of the clusters; None if chance may do it.

    A trend is looked for by Spearman's rank correlation, any other change by Kruskal and Wallis' test of the folds,
    both of cluster means: ranks, which no outlier moves far.
    """
    predicted, fold = np.empty(found.prompts), np.empty(found.prompts)
    for k, each in enumerate(found.of.folds):
        predicted[each.held_out] = each.estimated.rungs(found.n)[BASE].risk
        fold[each.held_out] = k
    white = found.estimated.transform.unmapped.prompts(found.of.prompts)
    labels = np.sum([role.totals(role.y**2) for role in white.roles], axis=0) / np.sum(
        [role.n for role in white.roles], axis=0
    )
    errors = found.errors[BASE] / predicted
    places = {label: i for i, label in enumerate(dict.fromkeys(found.of.clusters))}
    code = np.array([places[label] for label in found.of.clusters])
    by_error, by_label, of_fold = (_means(values, code) for values in (errors, labels, fold))
    own, proof = _trend(by_error), _trend(by_label)
    root, least = np.sqrt(len(by_error) - 1.0), _LEAST
    proved = max(abs(own), abs(proof)) * root > _PROOF and own * proof > 0
    rising = bool(proved and abs(own) * root > _FOLLOWS and min(abs(own), abs(proof)) > least)
    if not rising and not _differ(by_error, of_fold.round().astype(int)):
        return None
    factors = tuple(float(errors[fold == k].mean()) for k in range(len(found.of.folds)))
    how = ("rise" if own > 0 else "fall") if rising else "differ"
    listed = ", ".join(f"{factor:.2f}" for factor in factors)
    return Drift(
        factors, rising, f"held-out errors {how} from fold to fold: they are {listed} times the predicted ones"
    )


def apart(found: CrossFit, gate: str) -> str:
    """In which way predicted and measured disagree for a gate over all clusters; nothing if they do not."""
    base, risk, gain = found.risks[BASE], found.risks[gate], found.gains[gate]
    named = {"the risk": risk, "the risk of linear attention": base}
    for what, each in named.items():
        if _is_worse(each):
            worse = "worse than" if each.measured > found.one_fit else "which is no worse than"
            measured = f"measured {each.measured:.4g}, {worse} one fit to all ({found.one_fit:.4g})"
            return f"{what} is predicted {each.predicted:.4g} and {measured}"
    for what, each in (named | {"the gain": gain}).items():
        if abs(each.z) > Z and abs(each.predicted - each.measured) > SMALL * abs(base.measured):
            predicted = f"{each.predicted:.4g} ± {each.predicted_error:.2g}"
            measured = f"{each.measured:.4g} ± {each.measured_error:.2g}"
            return f"{what} is predicted {predicted} and measured {measured}, {abs(each.z):.1f} standard errors apart"
    return ""


def _is_worse(risk: Compared) -> bool:
    # without the measured one's own error, which the prompt that makes the risk large makes large as well
    beyond = max(1.0, WORSE * risk.predicted, risk.predicted + 2.0 * risk.predicted_error)
    return risk.measured > beyond


def _means(values: Array, code: np.ndarray) -> Array:
    return np.asarray(np.bincount(code, weights=values) / np.bincount(code))


def _ranks(values: Array) -> Array:
    """From 1, the mean of those that tie."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2.0)[place])


def _trend(values: Array) -> float:
    """Spearman's rank correlation with the order; 0 if all are equal.

    >>> _trend(np.array([1.0, 5.0, 9.0]))
    1.0
    """
    ranks, order = _ranks(values), np.arange(len(values))
    return round(float(np.corrcoef(ranks, order)[0, 1]), 12) if ranks.std() > 0 else 0.0


def _differ(values: Array, fold: np.ndarray) -> bool:
    """Whether folds differ by Kruskal and Wallis' test, and enough to matter."""
    ranks, counts = _ranks(values), np.bincount(fold).astype(np.float64)
    N, F = len(values), len(counts)
    if F >= N or (counts == 0).any():
        return False
    H = 12.0 / (N * (N + 1.0)) * float(np.sum(np.bincount(fold, weights=ranks) ** 2 / counts)) - 3.0 * (N + 1.0)
    return bool(chdtrc(F - 1, H) < _CHANCE and (H - F + 1) / (N - F) > _LEAST**2)

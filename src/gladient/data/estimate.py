"""From prompts to the nearest setting, with standard errors, cautions and the ladder it predicts."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from gladient._types import Array, ArrayLike, Float
from gladient.data import cautions
from gladient.data.cautions import Caution
from gladient.data.moments import moments
from gladient.data.nearest import Nearest, nearest, strengths
from gladient.data.prompt import Prompt, Prompts
from gladient.data.transform import Transform, standardise
from gladient.landscape import KeyGate, Reduced, Rung, ladder, reduce
from gladient.prompts import MultitaskSetting, PromptLayout

__all__ = ["GATES", "Estimated", "Features", "PredictedGate", "counts_shown", "estimate_setting"]

GATES = ("linear_attention", "fixed_decay", "scalar_gate", "value_gate", "key_gate")
Features = Literal["own", "gaussian"]
Best = Rung | KeyGate

_MOST_BLOCKS = 50  # of the jackknife: errors of errors are a tenth then, and each block costs an estimate and a ladder
_MOST_FEATURES = 24  # moments of two tasks are d² equations for d² numbers: 576 here, solved for each pair and block


@dataclass(frozen=True, eq=False)
class PredictedGate:
    """What a gate family is predicted to do; risks in units of the labels' mean square after the fit to all.

    Attributes:
        risk, risk_error: expected squared error and its standard error.
        gain, gain_error: how far the risk is below that of linear attention.
        gain_low, gain_high: the ends of its 95% interval.
        omega: weight of one example of each task, the largest 1 (for a decay the mean), [K]; for the key gate of each
            task and direction with tasks in it, [K, directions].
        omega_error: its standard error; NaN for the key gate, whose directions change with the data.
        rung: the best weights with their certificate, in the setting's units; `rung.matrices` makes the estimate.
    """

    risk: float
    risk_error: float
    gain: float
    gain_error: float
    gain_low: float
    gain_high: float
    omega: Array
    omega_error: Array
    rung: Best


@dataclass(frozen=True, eq=False)
class Estimated:
    """A setting estimated from prompts.

    Attributes:
        setting: the nearest one; M is 1 (above 1 where sigma2 would be below 0).
        transform: from the data's units to the setting's, and back.
        standard_errors: those of R, r, spectrum (the eigenvalues of Sigma) and sigma2, by the jackknife over clusters.
        points: the estimate, then those with one block of clusters left out each.
        clusters: how many there are.
        seen: cautions about the prompts.
        kappa: mean of |x|⁴ of white features beside that of Gaussian ones, d (d + 2).
    """

    setting: MultitaskSetting
    transform: Transform
    standard_errors: dict[str, Array]
    points: tuple[Nearest, ...]
    clusters: int
    seen: tuple[Caution, ...]
    kappa: float

    @property
    def spectrum(self) -> Float[Array, " d"]:
        """Eigenvalues of the setting's Sigma, ascending."""
        return np.asarray(np.linalg.eigvalsh(self.setting.Sigma))

    @cached_property
    def warnings(self) -> tuple[Caution, ...]:
        """What may be wrong with a prediction, and what to believe then."""
        own = self.predict_ladder()
        gains = {name: (own[name].gain, own[name].gain_error) for name in ("scalar_gate", "value_gate")}
        return (*self.doubts, *cautions.about_gain(gains))

    @cached_property
    def doubts(self) -> tuple[Caution, ...]:
        """The warnings but that of small gains, of which held-out data tell more."""
        moments = cautions.about_fourth_moments(self.kappa, self.rungs(), self.rungs(features="gaussian"))
        return (*self.seen, *moments)

    def predict_ladder(self, n: Sequence[int] | None = None, *, features: Features = "own") -> dict[str, PredictedGate]:
        """Risk, gain over linear attention and weights of every gate family, with standard errors.

        Args:
            n: examples of each source in a prompt; those of the setting if not given.
            features: own, with the fourth moments of the data's features, which is exact for weighted steps whatever
                their distribution; or gaussian, with those of Gaussian ones.
        """
        ladders = [_rungs(point, n, features) for point in self.points]
        return {name: _predicted(ladders, name) for name in ladders[0]}

    def reduced(self, n: Sequence[int] | None = None, *, features: Features = "own") -> Reduced:
        """The setting with the features' moments, for `landscape`'s functions: uniqueness, advantage and the rest.

        See `predict_ladder` for the arguments.
        """
        return _reduced(self.points[0], n, features)

    def rungs(self, n: Sequence[int] | None = None, *, features: Features = "own") -> dict[str, Best]:
        """Each gate family's best weights, without standard errors; see `predict_ladder`."""
        return _rungs(self.points[0], n, features)

    def errors(self, prompts: Sequence[Prompt], n: Sequence[int] | None = None) -> dict[str, Float[Array, " G"]]:
        """Mean squared error of each gate family's best step on each prompt, in the units of the risks.

        Args:
            prompts: fresh ones; of a source with more examples than n the first n are shown.
            n: examples of each source in a prompt; those of the setting if not given.

        Raises:
            ValueError: if a prompt has other roles or features, or a source with fewer examples than n.
        """
        counts = tuple(self.setting.n.tolist() if n is None else n)
        moved = self.transform.prompts(Prompts.of(prompts))
        _check_shown(moved, counts)
        return {name: _errors(rung, moved, counts) for name, rung in self.rungs(counts).items()}

    def check(self, prompts: Sequence[Prompt]) -> tuple[Caution, ...]:
        """Whether other prompts have the second moments of those that the setting was estimated from."""
        return tuple(cautions.about_shift([(self.transform, Prompts.of(prompts))]))


def estimate_setting(
    prompts: Sequence[Prompt],
    *,
    clusters: Sequence[Hashable] | None = None,
    n: Sequence[int] | None = None,
    intercept: bool = False,
    names: Sequence[str] = (),
) -> Estimated:
    r"""The multitask setting nearest to real prompts: unbiased moments, whatever the distributions.

    The fit to all examples is taken off, features are whitened, E[y²] = 1. Haseman–Elston regression then gives
    $C_{kl} = E[\beta_k \beta_l^\top]$ for every two roles, and the setting has
    $\Sigma = \mathrm{psd}(\mathrm{mean}_k\, C_{kk})$,
    $R_{kl} = \operatorname{tr} C_{kl} / \sqrt{\operatorname{tr} C_{kk} \operatorname{tr} C_{ll}}$, with features
    multiplied by $\Sigma^{1/2}$. Assumed: coefficients that are independent of the features, noise that is independent
    from example to example, features of the same second moments in every role.

    Args:
        prompts: at least two, with the same roles in the same order. Examples beyond n are used for the estimate too.
        clusters: each prompt's cluster; prompts that share data belong to one. Each prompt is its own if not given.
        n: examples of each source in a prompt; not needed if all prompts have as many.
        intercept: whether each task has a level of its own: a 1 before the features.
        names: what each prompt is called in errors; its number if not given.

    Raises:
        ValueError: if prompts have different roles, features or (without n) counts, there are fewer than two clusters,
            a feature is constant or follows from others, or examples are too few.
        RefusedError: a ValueError, if the prompts are well formed and do not tell a setting: tasks do not differ as far
            as they tell, or a role's examples do not reach all features.

    Source: Haseman and Elston (1972) for one task; derived for pairs of tasks and the nearest setting.

    >>> rng = np.random.default_rng(0)
    >>> def prompt():
    ...     shared = rng.normal(size=2)
    ...     tasks = [0.8 * shared + 0.6 * rng.normal(size=2), shared, shared]
    ...     X = rng.normal(size=(3, 20, 2))
    ...     return [(x, x @ beta + rng.normal(size=20)) for x, beta in zip(X, tasks)]
    >>> estimated = estimate_setting([Prompt(tasks[:2], tasks[2]) for tasks in (prompt() for _ in range(300))])
    >>> estimated.setting.r.round(2), estimated.standard_errors["r"].round(2)
    (array([0.84, 1.  ]), array([0.02, 0.01]))
    """
    if len(prompts) < 2:
        raise ValueError(f"{len(prompts)} prompt came: each role has one task; give many prompts, with new tasks each")
    gathered = Prompts.of(prompts)
    counts = counts_shown(gathered, n)
    labels = list(range(len(prompts)) if clusters is None else clusters)
    block, number = _blocks(labels, len(prompts))
    first = standardise(gathered, intercept=intercept)
    white = first.prompts(gathered)
    found = moments(white, block)
    own = strengths(found)
    mean = np.nanmean(own, axis=1)
    if (mean <= 0.0).any():  # with a block left out, too: then the estimate itself is within its error of 0
        raise cautions.about_no_spread(white, float(mean[0]), float(jackknife(mean)), names, intercept=intercept)
    points = tuple(nearest(found, b, counts) for b in range(len(found.yy)))
    point = points[0]
    transform = replace(first, map=point.map, scale=first.scale * point.scale)
    return Estimated(
        setting=point.setting,
        transform=transform,
        standard_errors={
            "R": jackknife([each.setting.R for each in points]),
            "r": jackknife([each.setting.r for each in points]),
            "spectrum": jackknife([np.linalg.eigvalsh(each.setting.Sigma) for each in points]),
            "sigma2": jackknife([each.setting.sigma2 for each in points]),
        },
        points=points,
        clusters=number,
        seen=tuple(_seen(white, own, number, intercept=intercept)),
        kappa=_kappa(white),
    )


def jackknife(values: ArrayLike) -> Array:
    """Standard error of values[0], from the others with one block left out each."""
    left_out = np.asarray(values, dtype=np.float64)[1:]
    # Leaving out one of B blocks moves an estimate by a (B - 1)-th of what the block itself is off, hence not 1/(B (B -
    # 1)).
    B = len(left_out)
    return np.asarray(np.sqrt((B - 1) / B * np.sum((left_out - left_out.mean(0)) ** 2, axis=0)))


def counts_shown(prompts: Prompts, n: Sequence[int] | None) -> np.ndarray:
    """Examples of each source in a prompt, as given or as all prompts have them.

    Raises:
        ValueError: if they do not fit the prompts, or there are too many features.
    """
    if prompts.d > _MOST_FEATURES:
        raise ValueError(
            f"{prompts.d} features came; d² numbers per pair of tasks are estimated: {_MOST_FEATURES} at most"
        )
    if n is not None:
        if len(n) != len(prompts.sources):
            raise ValueError(f"n lists {len(n)} counts and prompts have {len(prompts.sources)} sources; give one each")
        return np.asarray(n)
    counts = np.column_stack([role.n for role in prompts.sources])
    if (counts != counts[0]).any():
        k = int(np.argmax((counts != counts[0]).any(0)))
        raise ValueError(
            f"source {k + 1} has from {counts[:, k].min()} to {counts[:, k].max()} examples; say with n how many of "
            "each source a prompt shows"
        )
    return counts[0]


def _blocks(labels: list[Hashable], prompts: int) -> tuple[np.ndarray, int]:
    """The jackknife's block of each prompt: a cluster, or several neighbours where there are many; and their number."""
    if len(labels) != prompts:
        raise ValueError(f"clusters has {len(labels)} entries for {prompts} prompts; give each prompt's cluster")
    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    if len(numbers) < 2:
        raise ValueError("all prompts are in one cluster; standard errors need at least two, and predictions many")
    blocks = min(len(numbers), _MOST_BLOCKS)
    return np.array([numbers[label] * blocks // len(numbers) for label in labels]), len(numbers)


def _seen(white: Prompts, strength: Array, clusters: int, *, intercept: bool) -> list[Caution]:
    return [
        *cautions.about_clusters(clusters),
        *([] if intercept else cautions.about_levels(white)),
        *cautions.about_tasks(strength[0], jackknife(strength)),
    ]


def _kappa(white: Prompts) -> float:
    fourth = np.concatenate([np.einsum("nd,nd->n", role.X, role.X) ** 2 for role in white.roles])
    return float(np.mean(fourth) / (white.d * (white.d + 2)))


def _reduced(point: Nearest, n: Sequence[int] | None, features: Features) -> Reduced:
    setting = point.setting
    if n is not None:
        setting = MultitaskSetting(n, setting.R, setting.r, setting.Sigma, setting.sigma2)
    if features not in ("own", "gaussian"):
        raise ValueError(f"features is {features!r}; choose own or gaussian fourth moments")
    return reduce(setting, point.yyxx if features == "own" else None)


def _rungs(point: Nearest, n: Sequence[int] | None, features: Features) -> dict[str, Best]:
    found = ladder(_reduced(point, n, features))
    return {name: getattr(found, name) for name in GATES}


def _predicted(ladders: Sequence[dict[str, Best]], name: str) -> PredictedGate:
    risks = np.array([rungs[name].risk for rungs in ladders])
    gains = np.array([rungs["linear_attention"].risk for rungs in ladders]) - risks
    omegas = [rungs[name].omega for rungs in ladders]
    low, high = _gain_interval(gains)
    return PredictedGate(
        risk=float(risks[0]),
        risk_error=float(jackknife(risks)),
        gain=float(gains[0]),
        gain_error=float(jackknife(gains)),
        gain_low=low,
        gain_high=high,
        omega=omegas[0],
        omega_error=jackknife(omegas) if omegas[0].ndim == 1 else np.full_like(omegas[0], np.nan),
        rung=ladders[0][name],
    )


def _gain_interval(gains: Array) -> tuple[float, float]:
    """95%, by Student's quantile of as many blocks as there are, on the root of the gain.

    A gain is about a square of what is estimated: small ones have small errors, and ± would miss the larger truth. The
    jackknife of few blocks has an error of its own. `benchmarks.data_coverage` measures both.
    """
    roots = np.sqrt(gains.clip(0.0))
    half = float(stdtrit(max(1, len(roots) - 2), 0.975) * jackknife(roots))
    return max(0.0, float(roots[0]) - half) ** 2, (float(roots[0]) + half) ** 2


def _check_shown(prompts: Prompts, n: tuple[int, ...]) -> None:
    counts = np.column_stack([role.n for role in prompts.sources])
    short = np.array([True]) if len(n) != counts.shape[1] else (counts < n).any(1)
    if short.any():
        have = counts[np.argmax(short)].tolist()
        raise ValueError(f"a prompt's sources have {have} examples; the gates' weights are for {list(n)}")


def _errors(rung: Best, prompts: Prompts, n: tuple[int, ...]) -> Float[Array, " G"]:
    """Mean squared error on each prompt's query, from the first n examples of each source."""
    layout = PromptLayout(n, d=1)
    # counted from the last example, which weighs 1, as in `fixed_decay`; delimiters count as tokens
    decay = rung.token_decay ** (layout.blocks[-1].stop - 1.0 - np.arange(layout.length))
    beta = np.zeros((len(prompts), prompts.d))
    for W, role, block in zip(rung.matrices, prompts.sources, layout.blocks, strict=True):
        X, y = role.first(block.stop - block.start)
        beta += np.einsum("gnd,gn->gd", X, y * decay[block]) @ W.T
    query = prompts.query
    return query.means((query.y - np.einsum("nd,nd->n", query.X, beta[query.prompt])) ** 2)

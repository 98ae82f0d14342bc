"""Are the verdicts of `gladient.data` right? On seventeen kinds of made data, whose truth is measured on fresh prompts.

    python -m benchmarks.data_coverage [--sets 40] [--prompts 80] [--kinds equal drift]

Two sources of 6 examples, 4 queries, 2 features. The true gain is that of the same fitted value gate, on 40
times as many fresh prompts of the same kind and the same times. Coverage: the share of data sets whose 95% interval of
that gate's measured gain holds the true one: ± 1.96 standard errors, the percentile bootstrap, the studentised one, and
the wider of that and Student's, which `gladient` uses; then that of the predicted gain. Wrong: the share of data sets
in which any gate is said to help whose true gain is 0 or below. Missed: in which one is said not to help whose true
gain is above 2% of the risk. Then how often the answer is each verdict, in how many data sets the prompts told no
setting, and which broken assumption the answer names first. Some ten minutes on one core.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gladient.data import CrossFit, Prompts, ask, estimate_setting
from gladient.data.intervals import percentile, studentised
from gladient.data.prompt import RoleExamples

REPEATS = 40  # of the fresh prompts: their own error is a sixth of what is judged
GATES = ("fixed_decay", "scalar_gate", "value_gate", "key_gate")
KINDS = ("helps", "does not help", "cannot be told", "the model fails")


@dataclass(frozen=True)
class Made:
    """A kind of data: how its tasks, features and labels differ from fresh Gaussian ones.

    Attributes:
        r: correlations of both sources' tasks with the query's, and between them.
        cluster: prompts in one cluster.
        shared: part of the tasks' variance that a cluster has in common.
        strength: standard deviation of the tasks, by prompt.
        tasks: what multiplies a prompt's tasks, by draw.
        features: draws features of unit variance.
        own: part of the features' variance that a task's examples have in common.
        trend: what is added to the features from role to role.
        noise: draws noise of unit variance.
        level: standard deviation of a task's level, which is not estimated.
        n: examples of a source, least and most.
        spread: standard deviation of each feature.
        mean: coefficients that all tasks have in common.
        shown: examples of a source that a prompt shows; all if None.
    """

    r: tuple[float, float, float] = (0.2, 0.8, 0.16)
    cluster: int = 1
    shared: float = 0.0
    strength: Callable[[np.ndarray], np.ndarray] = np.ones_like
    tasks: Callable[[np.random.Generator, int], np.ndarray] = lambda rng, count: np.ones(count)
    features: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray] = lambda rng, s: rng.standard_normal(s)
    own: float = 0.0
    trend: float = 0.0
    noise: Callable[[np.random.Generator, int], np.ndarray] = lambda rng, count: rng.standard_normal(count)
    level: float = 0.0
    n: tuple[int, int] = (6, 6)
    spread: tuple[float, ...] = (1.0, 1.0)
    mean: float = 0.0
    shown: tuple[int, int] | None = None


def student(rng: np.random.Generator, shape: int, freedom: float = 3.0) -> np.ndarray:
    """Student's t of unit variance; with 3 degrees of freedom its fourth moment is infinite, with 5 its fifth."""
    return rng.standard_t(freedom, shape) / np.sqrt(freedom / (freedom - 2.0))


def outliers(rng: np.random.Generator, count: int) -> np.ndarray:
    """One in a hundred is 15 standard deviations off."""
    return rng.standard_normal(count) + 15.0 * (rng.random(count) < 0.01)


MADE = {
    "Gaussian": Made(),
    "heavy-tailed tasks": Made(tasks=lambda rng, count: np.abs(student(rng, count, 5.0))),
    "heavy-tailed noise": Made(noise=student),
    "outliers": Made(noise=outliers),
    "level not estimated": Made(level=1.0),
    "drift": Made(strength=lambda time: 0.3 + 1.5 * time),
    "few clusters": Made(cluster=10),
    "correlated clusters": Made(cluster=4, shared=0.7),
    "anisotropic features": Made(spread=(1.0, 0.1)),
    "binary features": Made(features=lambda rng, shape: (rng.random(shape) < 0.2) / 0.4 - 0.5),
    "unequal counts": Made(n=(3, 12), shown=(3, 3)),
    "small gain": Made(r=(0.5, 0.65, 0.5)),
    "equal tasks": Made(r=(1.0, 1.0, 1.0)),
    "exchangeable tasks": Made(r=(0.6, 0.6, 0.6)),
    "no differences": Made(mean=1.0, strength=np.zeros_like),
    "features of a task": Made(own=0.9),
    "a trend": Made(own=0.5, trend=1.0),
}


def draw(rng: np.random.Generator, made: Made, count: int, repeats: int = 1) -> Prompts:
    """Prompts of all times, `repeats` times one after another."""
    total, d = count * repeats, len(made.spread)
    joint = np.array([[1, made.r[2], made.r[0]], [made.r[2], 1, made.r[1]], [made.r[0], made.r[1], 1]])
    values, vectors = np.linalg.eigh(joint)
    root = vectors * np.sqrt(values.clip(0.0))
    cluster = np.arange(total) // made.cluster
    together = rng.standard_normal((cluster[-1] + 1, 3, d))[cluster]
    own = rng.standard_normal((total, 3, d))
    beta = np.einsum("kl,gld->gkd", root, np.sqrt(made.shared) * together + np.sqrt(1.0 - made.shared) * own)
    strength = made.strength(np.tile(np.linspace(0.0, 1.0, count), repeats)) * made.tasks(rng, total)
    beta = made.mean + strength[:, None, None] * beta
    level = made.level * rng.standard_normal(total)
    home = rng.standard_normal((total, d))
    roles = []
    for k in range(3):
        n = rng.integers(made.n[0], made.n[1] + 1, total) if k < 2 else np.full(total, 4)
        prompt = np.repeat(np.arange(total), n)
        X = np.sqrt(1.0 - made.own) * made.features(rng, (len(prompt), d)) + np.sqrt(made.own) * home[prompt]
        X = (X + made.trend * k) * made.spread
        y = np.einsum("nd,nd->n", X, beta[prompt, k]) + level[prompt] + made.noise(rng, len(prompt))
        roles.append(RoleExamples(X, y, n))
    return Prompts(tuple(roles))


def true_gains(found: CrossFit, fresh: Prompts, count: int) -> tuple[dict[str, float], float]:
    """What the measured steps gain on fresh prompts of the times at which they were measured, and the risk without."""
    gains, risk = dict.fromkeys(GATES, 0.0), 0.0
    for fold in found.of.folds:
        places = (fold.held_out[None] + count * np.arange(REPEATS)[:, None]).ravel()
        errors = {name: each.mean() for name, each in fold.estimated.errors(fresh.take(places)).items()}
        share, base = len(fold.held_out) / count, float(errors["linear_attention"])
        risk += share * base
        for name in GATES:
            gains[name] += share * (base - float(errors[name]))
    return gains, risk


def judged(name: str, sets: int, count: int) -> str:
    """A row of the table."""
    made, rng = MADE[name], np.random.default_rng(list(MADE).index(name))
    fresh = draw(rng, made, count, REPEATS)
    labels = [i // made.cluster for i in range(count)]
    try:
        limit = estimate_setting(fresh, n=made.shown).rungs()
        best = limit["linear_attention"].risk - limit["value_gate"].risk
    except ValueError:
        best = np.nan
    kinds: Counter[str] = Counter()
    named: Counter[str] = Counter()
    held, wrong, missed, refused, true = [], 0, 0, 0, []
    for _ in range(sets):
        answer = ask(draw(rng, made, count), clusters=labels, n=made.shown)
        verdicts, found = answer.verdicts, answer.found
        kinds[verdicts.kind] += 1
        named.update(each.kind for each in verdicts.culprits[:1])
        if found is None:
            refused += 1
            wrong += verdicts.kind == "does not help" and best > 0.02
            continue
        gains, risk = true_gains(found, fresh, count)
        gain, truth = found.gains["value_gate"], gains["value_gate"]
        errors = found.errors["linear_attention"] - found.errors["value_gate"]
        ends = [
            (gain.measured - 1.96 * gain.measured_error, gain.measured + 1.96 * gain.measured_error),
            *(method(errors[:, None], labels)[0] for method in (percentile, studentised)),
            (gain.low, gain.high),
        ]
        gate = found.gates["value_gate"]
        known = gate.gain_low <= best <= gate.gain_high if np.isfinite(best) else np.nan
        held.append([*(low <= truth <= high for low, high in ends), known])
        said = {gate: verdict.kind for gate, verdict in verdicts.gates.items()}
        wrong += any(said[gate] == "helps" and gains[gate] <= 0.0 for gate in GATES)
        missed += any(said[gate] == "does not help" and gains[gate] > 0.02 * risk for gate in GATES)
        true.append(truth / risk)
    shares = np.mean(held, axis=0) if held else np.full(5, np.nan)
    coverage = [f"{share:.0%}" if np.isfinite(share) else "–" for share in shares]
    cells = [f"{np.mean(true):.1%}" if true else "–", *coverage, f"{wrong / sets:.0%}", f"{missed / sets:.0%}"]
    counted = [f"{number / sets:.0%}" for number in (*(kinds[kind] for kind in KINDS), refused)]
    blamed = ", ".join(f"{kind} {number / sets:.0%}" for kind, number in named.most_common())
    return " | ".join([name, *cells, *counted, blamed])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=40)
    parser.add_argument("--prompts", type=int, default=80)
    parser.add_argument("--kinds", nargs="*", default=list(MADE), choices=list(MADE))
    options = parser.parse_args()
    heads = ["data", "true gain", "±1.96", "percentile", "studentised", "wider", "predicted", "wrong", "missed", *KINDS]
    heads += ["no setting", "named"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    start = time.process_time()
    for name in options.kinds:
        print(f"| {judged(name, options.sets, options.prompts)} |", flush=True)
    print(f"\n{time.process_time() - start:.0f} s")


if __name__ == "__main__":
    main()

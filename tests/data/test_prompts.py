"""Many prompts in arrays: the same as one by one, whatever the number of examples."""

import numpy as np
import pytest

from gladient.data import Prompt, Prompts, estimate_setting
from gladient.data.folds import clustered_error
from gladient.data.transform import standardise


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """Roles of 2 to 6 examples, a query of 1 to 3."""
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        beta = rng.normal(size=2)
        Xs = [rng.normal(size=(int(n), 2)) for n in (*rng.integers(2, 7, size=2), rng.integers(1, 4))]
        *sources, query = [(X, X @ beta + rng.normal(size=len(X))) for X in Xs]
        found.append(Prompt(sources, query))
    return found


def same(one: Prompt, other: Prompt) -> None:
    for (X, y), (Z, w) in zip(one.tasks, other.tasks, strict=True):
        np.testing.assert_allclose(X, Z, rtol=1e-12)
        np.testing.assert_allclose(y, w, rtol=1e-12)


def test_they_are_a_sequence(prompts: list[Prompt]) -> None:
    gathered = Prompts.of(prompts)
    assert Prompts.of(gathered) is gathered
    assert len(gathered) == 40
    for one, other in zip(prompts, gathered, strict=True):
        same(one, other)
    same(gathered[-1], prompts[-1])
    for some in (gathered[5:20:3], gathered.take(range(5, 20, 3))):
        for one, other in zip(prompts[5:20:3], some, strict=True):
            same(one, other)
    with pytest.raises(IndexError):
        gathered[40]


def test_their_transform_is_that_of_each(prompts: list[Prompt]) -> None:
    transform = standardise(Prompts.of(prompts), intercept=True)
    for one, other in zip(prompts, transform.prompts(Prompts.of(prompts)), strict=True):
        same(transform.prompt(one), other)


def test_errors_by_plain_loops(prompts: list[Prompt]) -> None:
    estimated = estimate_setting(prompts, n=[2, 1])
    rungs = estimated.rungs()
    for name, errors in estimated.errors(prompts).items():
        for prompt, error in zip(prompts, errors, strict=True):
            moved, rung, beta = estimated.transform.prompt(prompt), rungs[name], np.zeros(2)
            steps = [[3, 2], [0]]  # tokens after each example shown, up to the last one; a delimiter is one
            for k, n in enumerate((2, 1)):
                X, y = moved.sources[k]
                for i in range(n):
                    beta += rung.matrices[k] @ X[i] * y[i] * rung.token_decay ** steps[k][i]
            X, y = moved.query
            assert error == pytest.approx(np.mean([(b - a @ beta) ** 2 for a, b in zip(X, y, strict=True)]), rel=1e-10)


def test_the_order_of_prompts_and_of_clusters_does_not_matter(prompts: list[Prompt]) -> None:
    clusters = [i % 8 for i in range(40)]  # neighbours are in different ones
    order = np.argsort(clusters, kind="stable")
    one = estimate_setting(prompts, clusters=clusters, n=[2, 2])
    other = estimate_setting([prompts[i] for i in order], clusters=[clusters[i] for i in order], n=[2, 2])
    np.testing.assert_allclose(one.setting.r, other.setting.r, rtol=1e-9)
    np.testing.assert_allclose(one.standard_errors["R"], other.standard_errors["R"], rtol=1e-7)


def test_clustered_errors_by_plain_loops() -> None:
    rng = np.random.default_rng(1)
    values, labels = rng.normal(size=60), rng.choice(list("abcdefg"), size=60).tolist()
    mean, names = sum(values) / 60, sorted(set(labels))
    sums = [sum(v - mean for v, label in zip(values, labels, strict=True) if label == name) for name in names]
    error = (sum(s * s for s in sums) * 7 / 6) ** 0.5 / 60
    assert clustered_error(values, labels) == pytest.approx(error, rel=1e-12)


def test_a_million_examples_per_task_are_predicted_from_few(prompts: list[Prompt]) -> None:
    """The decay's 4001 rates sum geometric series; examples by examples they would take 60 GB."""
    found = estimate_setting(prompts, n=[2, 2]).predict_ladder([10**6, 10**6])
    assert found["value_gate"].risk <= found["fixed_decay"].risk + 1e-9

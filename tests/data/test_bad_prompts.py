"""What cannot be estimated: one clear error each."""

from collections.abc import Sequence

import numpy as np
import pytest
import simulated
from hypothesis import given
from hypothesis import strategies as st

from gladient.data import Prompt, estimate_setting
from gladient.prompts import MultitaskSetting

SETTING = MultitaskSetting([4, 4], np.eye(2), [0.1, 0.8], np.diag([0.4, 0.2]), 0.4)
GOOD = simulated.prompts(SETTING, 30, np.random.default_rng(0))
PAIR = ([[1.0, 2.0]], [1.0])


def with_features(make) -> list[Prompt]:
    tasks = [[(np.column_stack([X, make(X)]), y) for X, y in prompt.tasks] for prompt in GOOD]
    return [Prompt(sources, query) for *sources, query in tasks]


@pytest.mark.parametrize(
    ("sources", "query", "message"),
    [
        ([], PAIR, "without sources"),
        ([PAIR], ([[1.0]], [1.0]), r"tasks have \[1, 2\] features"),
        ([([[np.nan, 1.0]], [1.0])], PAIR, "source 1 has a missing or infinite value; drop"),
        ([PAIR], ([[1.0, 2.0]], [np.inf]), "the query has a missing or infinite value"),
        ([([["red", "blue"]], [1.0])], PAIR, "source 1 holds something that is not a number; code categories"),
        ([([1.0, 2.0], [1.0])], PAIR, r"source 1 has X \[2\] and y \[1\]; give X \[n, d\]"),
        ([(np.ones((0, 2)), [])], PAIR, r"X \[0, 2\]"),
    ],
)
def test_prompts(sources: Sequence, query: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prompt(sources, query)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        (GOOD[:1], {}, "1 prompt came: each role has one task; give many prompts"),
        (
            [*GOOD, Prompt(GOOD[0].sources[:1], GOOD[0].query)],
            {},
            r"the prompts have \[1, 2\] sources; all need the same",
        ),
        ([*GOOD, Prompt([PAIR, PAIR], PAIR)], {}, "source 1 has from 1 to 4 examples; say with n how many"),
        (GOOD, {"n": [4]}, "n lists 1 counts and prompts have 2 sources"),
        (GOOD, {"clusters": [0] * 30}, "all prompts are in one cluster"),
        (GOOD, {"clusters": [0, 1]}, "clusters has 2 entries for 30 prompts"),
        (with_features(lambda X: np.full(len(X), 7.0)), {}, r"feature 3 of 3 is 7 in every example; leave it out"),
        (with_features(lambda X: X.sum(1)), {}, "the features follow from one another"),
        ([Prompt([PAIR, PAIR], PAIR)] * 2, {"clusters": [0, 1]}, "is 1 in every example"),
        (with_features(lambda X: np.zeros((len(X), 30))), {}, "32 features came"),
    ],
)
def test_estimates(prompts: list[Prompt], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_setting(prompts, **options)


def test_fewer_examples_than_features() -> None:
    X = np.random.default_rng(1).normal(size=(2, 2, 1, 12))
    prompts = [Prompt([(x[0], [1.0])], (x[1], [2.0])) for x in X]
    with pytest.raises(ValueError, match="4 examples of 12 features came; give more examples than features"):
        estimate_setting(prompts)
    X = np.random.default_rng(1).normal(size=(8, 2, 2, 12))
    prompts = [Prompt([(x[0], [1.0, 2.0])], (x[1], [2.0, 0.5])) for x in X]
    with pytest.raises(ValueError, match="do not reach all 12 features"):
        estimate_setting(prompts)


def test_labels_that_one_fit_explains() -> None:
    prompts = [Prompt([(X, X @ [1.0, 2.0]) for X, _ in p.sources], (p.query[0], p.query[0] @ [1, 2])) for p in GOOD]
    with pytest.raises(ValueError, match="one fit to all examples explains every label"):
        estimate_setting(prompts)


def test_errors_of_prompts_that_are_too_short() -> None:
    with pytest.raises(
        ValueError, match=r"a prompt's sources have \[4, 4\] examples; the gates' weights are for \[5, 4\]"
    ):
        estimate_setting(GOOD).errors(GOOD, [5, 4])


@given(st.lists(st.integers(0, 3), min_size=2, max_size=3), st.lists(st.integers(0, 3), min_size=1, max_size=2))
def test_shapes_of_any_kind(X: list[int], y: list[int]) -> None:
    """Shapes that do not belong together never pass."""
    if len(X) == 2 and len(y) == 1 and X[0] == y[0] and min(X) > 0:
        Prompt([(np.ones(X), np.ones(y))], (np.ones((1, X[1])), [1.0]))
    else:
        with pytest.raises(ValueError):
            Prompt([(np.ones(X), np.ones(y))], (np.ones((1, 2)), [1.0]))

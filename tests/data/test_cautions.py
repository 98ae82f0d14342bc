"""Each caution where it is due, and none where all is well."""

import numpy as np
import simulated

from gladient.data import Prompt, estimate_setting
from gladient.prompts import MultitaskSetting

SETTING = MultitaskSetting([8, 8], [[1, 0.3], [0.3, 1]], [0.1, 0.8], np.diag([0.4, 0.2]), 0.4)


def draw(count: int = 200, setting: MultitaskSetting = SETTING, features: simulated.Draw = simulated.gaussian):
    return simulated.prompts(setting, count, np.random.default_rng(0), features)


def kinds(prompts: list[Prompt], **options) -> set[str]:
    return {caution.kind for caution in estimate_setting(prompts, **options).warnings}


def test_none_where_all_is_well() -> None:
    assert kinds(draw()) == set()


def test_few_clusters() -> None:
    assert "clusters" in kinds(draw(), clusters=[i // 20 for i in range(200)])


def test_levels_and_their_cure() -> None:
    rng = np.random.default_rng(1)
    prompts = []
    for prompt in draw():
        level = rng.normal()
        *sources, query = [(X, y + level) for X, y in prompt.tasks]
        prompts.append(Prompt(sources, query))
    assert "level" in kinds(prompts)
    assert "level" not in kinds(prompts, intercept=True)


def test_tasks_that_hardly_differ() -> None:
    """Labels of one role that are noise, also where its estimated variance is below 0."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        prompts = [
            Prompt([(p.sources[0][0], rng.normal(size=8)), p.sources[1]], p.query)
            for p in simulated.prompts(SETTING, 60, rng)
        ]
        assert "tasks" in kinds(prompts)


def test_features_that_are_not_gaussian() -> None:
    estimated = estimate_setting(draw(400, features=simulated.sparse))
    (caution,) = [c for c in estimated.warnings if c.kind == "features"]
    assert "believe the ladder of the features' own moments" in str(caution)
    own, gaussian = estimated.predict_ladder(), estimated.predict_ladder(features="gaussian")
    assert own["linear_attention"].risk > 1.02 * gaussian["linear_attention"].risk


def test_tasks_that_are_exchangeable() -> None:
    same = MultitaskSetting([8, 8], [[1, 0.6], [0.6, 1]], [0.6, 0.6], SETTING.Sigma, 0.4)
    (caution,) = estimate_setting(draw(setting=same)).warnings
    assert caution.kind == "gain"
    assert "nearly exchangeable" in caution.message


def test_drift() -> None:
    estimated = estimate_setting(draw())
    rng = np.random.default_rng(5)
    assert estimated.check(simulated.prompts(SETTING, 200, rng)) == ()
    moved = [
        Prompt([(X + np.array([2, 0]), y) for X, y in p.sources], p.query) for p in simulated.prompts(SETTING, 200, rng)
    ]
    (caution,) = estimated.check(moved)
    assert caution.kind == "shift"
    assert "not to be believed" in caution.message
    louder = [Prompt([(X, 2 * y) for X, y in p.sources], (p.query[0], 2 * p.query[1])) for p in draw()]
    assert [c.message[:32] for c in estimated.check(louder)] == ["the mean square of the labels is"]

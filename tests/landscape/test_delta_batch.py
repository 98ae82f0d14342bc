"""The delta rules of many settings at once are those of each alone."""

import numpy as np
import pytest
from random_settings import random_setting

from gladient.landscape import delta_risk, delta_rule, gated_delta_rule
from gladient.landscape.delta import delta_rule_batch
from gladient.prompts import MultitaskSetting


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("keys", ["gaussian", "unit", "nlms"])
def test_equals_one_by_one(keys, gated):
    rng = np.random.default_rng(0)
    for K in (1, 2, 3):
        drawn, d = random_setting(rng, K, 2), int(rng.integers(3, 8))
        r = drawn.r * np.concatenate((rng.uniform(-1, 1, 12), [0.0, 1.0]))[:, None]
        found = delta_rule_batch(drawn.n, drawn.R, r, d, drawn.sigma2, gated=gated, keys=keys)
        assert found.valid.all()
        for i, one in enumerate(r):
            setting = MultitaskSetting.isotropic(n=drawn.n, R=drawn.R, r=one, d=d, sigma2=drawn.sigma2)
            alone = (gated_delta_rule if gated else delta_rule)(setting, keys=keys)
            assert found.risk[i] == pytest.approx(alone.risk, rel=1e-12)
            again = delta_risk(setting, found.steps[i], decays=found.decays[i], keys=keys)
            assert again == pytest.approx(found.risk[i], rel=1e-12)
            assert (found.steps[i] == 0.0) == (not alone.certificate.attained)


def test_blocks_of_settings(monkeypatch):
    monkeypatch.setattr("gladient.landscape.delta.batch._ROWS", 500)
    r = np.random.default_rng(1).uniform(0, 0.9, (17, 2))
    found = delta_rule_batch([5, 9], np.eye(2), r, 4, gated=True)
    assert found.valid.tolist() == [a**2 + b**2 <= 1 for a, b in r]
    for i in np.flatnonzero(found.valid):
        alone = gated_delta_rule(MultitaskSetting.isotropic(n=[5, 9], r=r[i], d=4))
        assert found.risk[i] == pytest.approx(alone.risk, rel=1e-12)
    assert np.isnan(found.risk[~found.valid]).all()
    assert np.isnan(found.decays[~found.valid]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": [0.1, 0.2]}, "give \\[K\\]"),
        ({"d": 0}, "d ≥ 1"),
        ({"n": [0, 5]}, "count is below 1"),
        ({"n": [5]}, "must end in"),
        ({"sigma2": float("nan")}, "NaN"),
        ({"sigma2": -1.0}, "noise variance"),
        ({"keys": "odd"}, "keys is 'odd'"),
        ({"keys": "nlms", "d": 2}, "infinite for d ≤ 2"),
    ],
)
def test_bad_input(change, message):
    arguments = {"n": [5, 9], "R": np.eye(2), "r": [[0.1, 0.2]], "d": 4} | change
    with pytest.raises(ValueError, match=message):
        delta_rule_batch(**arguments)

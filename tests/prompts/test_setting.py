"""The checks of MultitaskSetting: each bad input gets one clear error."""

from typing import Any

import numpy as np
import pytest

from gladient.prompts import MultitaskSetting

GOOD: dict[str, Any] = {"n": [3, 4], "R": np.eye(2), "r": [0.1, 0.5], "Sigma": np.eye(3), "sigma2": 0.1}


def test_properties():
    setting = MultitaskSetting(**GOOD)
    assert (setting.K, setting.d, setting.M) == (2, 3, 3.1)
    assert setting.n.dtype == np.int64
    assert not setting.R.flags.writeable


def test_round_trip():
    setting = MultitaskSetting(**GOOD)
    again = MultitaskSetting(**setting.to_dict())
    assert again.to_dict() == setting.to_dict()


def test_arguments_are_copied():
    r = np.array([0.1, 0.5])
    setting = MultitaskSetting(**{**GOOD, "r": r})
    r[0] = 7.0
    assert setting.r[0] == 0.1


def test_singular_correlations_are_allowed():
    MultitaskSetting(n=[1, 1], R=np.ones((2, 2)), r=[1.0, 1.0], Sigma=np.eye(2))
    MultitaskSetting(n=[1, 1], R=[[1, -1], [-1, 1]], r=[1.0, -1.0], Sigma=np.diag([1.0, 0.0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": []}, "must list the examples of each task"),
        ({"n": 5}, "must list the examples of each task"),
        ({"n": [0, 4]}, "at least 1"),
        ({"n": [1.5, 4]}, "whole number"),
        ({"n": [np.nan, 4]}, "n holds NaN"),
        ({"n": ["a", 4]}, "real numbers"),
        ({"n": [10**400, 4]}, "real numbers"),
        ({"n": [10**12 + 1, 4]}, "1e12 examples at most"),
        ({"n": [2**63 - 1, 4]}, "1e12 examples at most"),
        ({"R": np.eye(3)}, r"R has shape \(3, 3\)"),
        ({"R": [[1.0, 0.5], [0.4, 1.0]]}, "not symmetric"),
        ({"R": 2 * np.eye(2)}, "diagonal"),
        ({"R": [[1.0, 1.5], [1.5, 1.0]]}, "R has the eigenvalue -0.5"),
        ({"R": [[1.0, np.nan], [np.nan, 1.0]]}, "R holds NaN"),
        ({"r": [0.1]}, r"r has shape \(1,\)"),
        ({"r": [0.1, 1.2]}, "between -1 and 1"),
        ({"r": [0.1, np.inf]}, "r holds NaN or infinity"),
        ({"r": [0.8, 0.8]}, r"joint correlation matrix \[\[R, r\], \[rᵀ, 1\]\]"),
        ({"Sigma": np.ones((2, 3))}, "square matrix"),
        ({"Sigma": np.zeros((0, 0))}, "square matrix"),
        ({"Sigma": np.zeros((2, 2))}, "Sigma is zero"),
        ({"Sigma": np.diag([1.0, -0.1])}, "Sigma has the eigenvalue -0.1"),
        ({"Sigma": [[1.0, 0.2], [0.3, 1.0]]}, "Sigma is not symmetric"),
        ({"Sigma": np.diag([1.0, np.inf])}, "Sigma holds NaN or infinity"),
        ({"Sigma": np.diag([1e-11, -5e-12])}, "Sigma has the eigenvalue"),
        ({"Sigma": [[1e-11, 5e-12], [0.0, 1e-11]]}, "Sigma is not symmetric"),
        ({"Sigma": np.diag([1e300, 1e300])}, "within 1e-260 and 1e260"),
        ({"Sigma": np.diag([1e-300, 0.0])}, "within 1e-260 and 1e260"),
        ({"sigma2": 1e300}, "1e260 at most"),
        ({"sigma2": -0.1}, "noise variance"),
        ({"sigma2": np.nan}, "sigma2 holds NaN"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        MultitaskSetting(**{**GOOD, **change})


@pytest.mark.parametrize("d", [0, -1, True])
def test_bad_dimension(d):
    with pytest.raises(ValueError, match="d is"):
        MultitaskSetting.isotropic(n=[1], r=[0.5], d=d)


@pytest.mark.parametrize("gamma", [0.0, 0.7, 1.0])
def test_one_task_that_drifts(gamma):
    setting = MultitaskSetting.drifting(4, gamma, d=3, sigma2=0.2)
    joint = np.eye(5)  # the recursion, step by step: E β_t β_s = γ E β_{t-1} β_s
    for t in range(1, 5):
        joint[t, :t] = joint[:t, t] = gamma * joint[t - 1, :t]
    np.testing.assert_allclose(setting.R, joint[:4, :4], rtol=1e-14)
    np.testing.assert_allclose(setting.r, joint[:4, 4], rtol=1e-14)
    assert (setting.n.tolist(), setting.d, setting.sigma2) == ([1] * 4, 3, 0.2)


@pytest.mark.parametrize(("T", "gamma", "message"), [(0, 0.5, "T is 0"), (3, 1.1, "gamma is")])
def test_bad_drift(T, gamma, message):
    with pytest.raises(ValueError, match=message):
        MultitaskSetting.drifting(T, gamma, d=3)

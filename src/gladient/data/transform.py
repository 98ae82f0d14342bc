"""Between the units of the data and those of a setting."""

from dataclasses import dataclass, replace

import numpy as np

from gladient._types import Array, Float
from gladient.data.prompt import Prompt, Prompts, RoleExamples

__all__ = ["Transform", "standardise"]

_LARGEST = 1e100  # size of a feature or label: products of two stay within float64, 1e-308 to 1e308


@dataclass(frozen=True, eq=False)
class Transform:
    r"""Features and labels in the units of a setting, and predictions back.

    $x' = A\,[1; W (x - \bar x)]$ (the 1 only with an intercept) and $y' = (y - a - b^\top (x - \bar x)) / s$.

    Attributes:
        mean: x̄, [p].
        whiten: W, [p, p].
        map: A, [d, d]; d is p, or p + 1 with an intercept.
        level: a.
        slope: b, the fit to all examples together, [p].
        scale: s.
    """

    mean: Float[Array, " p"]
    whiten: Float[Array, "p p"]
    map: Float[Array, "d d"]
    level: float
    slope: Float[Array, " p"]
    scale: float

    def features(self, X: Float[Array, "m p"]) -> Float[Array, "m d"]:
        """Features of examples in the setting's units."""
        white = (X - self.mean) @ self.whiten
        if len(self.map) > len(self.mean):
            white = np.column_stack([np.ones(len(X)), white])
        return np.asarray(white @ self.map.T)

    def labels(self, X: Float[Array, "m p"], y: Float[Array, " m"]) -> Float[Array, " m"]:
        """Labels in the setting's units, without the fit to all examples."""
        return np.asarray((y - self._fit(X)) / self.scale)

    def predictions(self, X: Float[Array, "m p"], y: Float[Array, " m"]) -> Float[Array, " m"]:
        """Predictions in the setting's units as labels of the data."""
        return np.asarray(self.scale * y + self._fit(X))

    def prompt(self, prompt: Prompt) -> Prompt:
        """A whole prompt in the setting's units."""
        *sources, query = [(self.features(X), self.labels(X, y)) for X, y in prompt.tasks]
        return Prompt(sources, query)

    def white(self, prompt: Prompt) -> Prompt:
        """A whole prompt with white features, before they meet the tasks."""
        return self.unmapped.prompt(prompt)

    def prompts(self, prompts: Prompts) -> Prompts:
        """Many prompts in the setting's units."""
        return Prompts(
            tuple(RoleExamples(self.features(role.X), self.labels(role.X, role.y), role.n) for role in prompts.roles)
        )

    @property
    def unmapped(self) -> "Transform":
        """The way to white features, before they meet the tasks."""
        return replace(self, map=np.eye(len(self.map)))

    def _fit(self, X: Array) -> Array:
        return np.asarray(self.level + (X - self.mean) @ self.slope)


def standardise(prompts: Prompts, *, intercept: bool) -> Transform:
    """Features of mean 0 and covariance I, labels of mean square 1 after the fit to all examples.

    Raises:
        ValueError: if there are fewer examples than features, a feature is constant, follows from the others or has an
            extreme size, or the fit explains every label.
    """
    X, y = np.concatenate([role.X for role in prompts.roles]), np.concatenate([role.y for role in prompts.roles])
    p = X.shape[1]
    if len(X) <= p:
        raise ValueError(f"{len(X)} examples of {p} features came; give more examples than features")
    _check_sizes(X, y)
    mean, level = np.asarray(X.mean(0)), float(y.mean())
    # Each feature in its own units: a matrix of metres and milligrams looks singular though it is not.
    spread = _spread(X)
    centred = (X - mean) / spread
    values, vectors = np.linalg.eigh(centred.T @ centred / len(X))
    if values[0] <= 1e-9 * values[-1]:
        raise ValueError("the features follow from one another (their covariance is singular); leave one out")
    slope = np.asarray(np.linalg.lstsq(centred, y - level)[0])
    rest = y - level - centred @ slope
    scale = float(np.sqrt(np.mean(rest**2)))
    if scale <= 1e-9 * float(np.abs(y).max()):  # the residuals of a perfect fit are rounding, about 1e-15
        raise ValueError("one fit to all examples explains every label; there is nothing left for gates to weigh")
    whiten = np.asarray((vectors / np.sqrt(values)) @ vectors.T) / spread[:, None]
    return Transform(mean, whiten, np.eye(p + intercept), level, slope / spread, scale)


def _check_sizes(X: Array, y: Array) -> None:
    for name, values in ((f"feature {j + 1} of {X.shape[1]}", X[:, j]) for j in range(X.shape[1])):
        _check_size(name, values)
    _check_size("the label", y)


def _check_size(name: str, values: Array) -> None:
    largest = float(np.abs(values).max())
    if largest > 0.0 and not 1.0 / _LARGEST <= largest <= _LARGEST:
        raise ValueError(f"{name} has the size {largest:g}; give it in units in which it is within 1e-100 and 1e100")


def _spread(X: Array) -> Array:
    spread = X.std(0)
    still = np.flatnonzero(spread <= 1e-9 * np.abs(X).max(0))
    if len(still):
        raise ValueError(
            f"feature {still[0] + 1} of {X.shape[1]} is {X[0, still[0]] + 0.0:g} in every example; leave it out (an "
            "intercept gives each task a level)"
        )
    return np.asarray(spread)

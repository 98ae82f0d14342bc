"""A regressor for panels, after scikit-learn's conventions, whose weights of the past are those of the theory."""

from collections import Counter
from collections.abc import Hashable
from typing import Any, Literal

import numpy as np

from gladient._optional import have, require
from gladient._types import Array
from gladient.data.estimate import Estimated, estimate_setting
from gladient.data.panel import prompts_from_panel
from gladient.data.shaping import Table

__all__ = ["GatedRegressor"]

Gate = Literal["linear_attention", "scalar_gate", "value_gate", "key_gate"]


class GatedRegressor:
    r"""One weighted step on each group's past: a linear model whose coefficients differ from group to group.

    `fit` makes prompts of the panel (`prompts_from_panel`), estimates the setting, and takes the best weights of a gate
    family. Each group's coefficients are then $\sum_k W_k \sum_i y_i x_i$ over its latest periods, on top of the one
    fit to all. `predict` answers for the period after the rows of the fit; groups that are unknown or have too short a
    past have the one fit to all, and without groups there is nothing else: such a fit is ordinary least squares.

    Args:
        gate: linear_attention, scalar_gate, value_gate or key_gate.
        intercept: whether each group has a level of its own.
        lags: periods that a prompt shows, 3 if there are as many.
        windows: length of a period; see `prompts_from_panel`.

    Attributes:
        coef_, intercept_: the one fit to all examples, [p] and a number.
        groups_: groups with coefficients of their own, [G]; empty without groups.
        estimated_: the estimate, None without groups.
        n_features_in_, feature_names_in_: of X.

    >>> import pandas
    >>> rng, rows = np.random.default_rng(0), []
    >>> for person in range(60):
    ...     slope = rng.normal()
    ...     rows += [(person, t, x := rng.normal(), slope * x + 0.1 * rng.normal()) for t in range(20)]
    >>> frame = pandas.DataFrame(rows, columns=["person", "t", "x", "y"])
    >>> past, next = frame[frame.t < 16], frame[frame.t >= 16]
    >>> model = GatedRegressor(intercept=False).fit(past[["x"]], past.y, groups=past.person, time=past.t)
    >>> print(f"{model.score(next[['x']], next.y, groups=next.person):.2f}, {model.score(next[['x']], next.y):.2f}")
    0.81, -0.00
    """

    def __init__(
        self,
        gate: Gate = "value_gate",
        *,
        intercept: bool = True,
        lags: int | None = None,
        windows: str | None = None,
    ) -> None:
        self.gate, self.intercept, self.lags, self.windows = gate, intercept, lags, windows

    def fit(self, X: Any, y: Any, groups: Any = None, time: Any = None) -> "GatedRegressor":
        """Learn from a panel.

        Args:
            X: features, [n, p]; an array or a frame.
            y: labels, [n].
            groups: the group of each row, [n], or a column of the frame, which is then no feature.
            time: the time of each row, [n], or a column of the frame; if not given rows stand in the order of time.

        Raises:
            ValueError: if values are missing or the panel gives no prompts or no setting; see `estimate_setting`.
        """
        self.columns_ = [name for name in (groups, time) if isinstance(name, str)]
        self.groups_column_ = groups if isinstance(groups, str) else None
        groups, time = _named(X, groups), _named(X, time)
        X, y = self._checked(X, y, fit=True)
        # around the means: a level of 1e9 would take the slopes' digits
        coef, *_ = np.linalg.lstsq(X - X.mean(0), y - y.mean())
        self.coef_, self.intercept_ = coef, float(y.mean() - X.mean(0) @ coef)
        self.groups_, self._beta = np.array([]), np.zeros((0, X.shape[1]))
        self.estimated_: Estimated | None = None
        if groups is not None:
            self._fit_groups(
                X, y, _one_each(groups, len(X)), _one_each(_order(groups) if time is None else time, len(X))
            )
        return self

    def predict(self, X: Any, groups: Any = None) -> Array:
        """Labels of rows of the next period.

        Args:
            X: features, [m, p].
            groups: the group of each row; that column of the frame, if the fit had one.
        """
        self._require_fit()
        groups = _named(X, groups if groups is not None else self._column_of(X))
        X, _ = self._checked(X)
        found = X @ self.coef_ + self.intercept_
        if groups is None or self.estimated_ is None:
            return np.asarray(found)
        place = {group: i for i, group in enumerate(self.groups_.tolist())}
        codes = np.array([place.get(group, -1) for group in _one_each(groups, len(X)).tolist()], dtype=np.intp)
        known, transform = codes >= 0, self.estimated_.transform
        steps = np.einsum("nd,nd->n", transform.features(X[known]), self._beta[codes[known]])
        found[known] = transform.predictions(X[known], steps)
        return np.asarray(found)

    def score(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> float:
        """R²: 1 less the share of the labels' variance that the predictions leave."""
        y = np.asarray(y, dtype=np.float64)
        weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        left = np.sum(weight * (y - self.predict(X, groups)) ** 2)
        return float(1.0 - left / np.sum(weight * (y - np.average(y, weights=weight)) ** 2))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """What `__init__` was given."""
        return {"gate": self.gate, "intercept": self.intercept, "lags": self.lags, "windows": self.windows}

    def set_params(self, **params: Any) -> "GatedRegressor":
        """Change what `__init__` was given.

        Raises:
            ValueError: if there is no such parameter.
        """
        for name, value in params.items():
            if name not in self.get_params():
                raise ValueError(f"{name!r} is no parameter; there are {', '.join(self.get_params())}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"GatedRegressor({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.base import BaseEstimator, RegressorMixin

        return type("_Tagged", (RegressorMixin, BaseEstimator), {})().__sklearn_tags__()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")

    def _require_fit(self) -> None:
        if not self.__sklearn_is_fitted__():
            said = "this GatedRegressor is not fitted; call fit first"
            if have("sklearn"):
                raise require("sklearn.exceptions", needed_for="", install="").NotFittedError(said)
            raise ValueError(said)

    def _column_of(self, X: Any) -> str | None:
        return self.groups_column_ if self.groups_column_ in list(getattr(X, "columns", [])) else None

    def _checked(self, X: Any, y: Any = None, *, fit: bool = False) -> tuple[Array, Array]:
        """X and y as numbers, checked as scikit-learn does if it is there."""
        if hasattr(X, "columns"):
            X = X.drop(columns=[name for name in self.columns_ if name in X.columns])
        if have("sklearn"):
            from sklearn.utils.validation import validate_data

            if not fit:
                return validate_data(self, X, reset=False, dtype=np.float64), np.empty(0)
            return validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        X, y = np.asarray(X, dtype=np.float64), np.asarray(y if fit else [], dtype=np.float64)
        wrong = X.ndim != 2 or y.ndim != 1 or (fit and len(X) != len(y))
        if wrong or not (np.isfinite(X).all() and np.isfinite(y).all()):
            raise ValueError(f"X {list(X.shape)} and y {list(y.shape)} came; give finite numbers, X [n, p] and y [n]")
        if fit:
            self.n_features_in_ = X.shape[1]
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {X.shape[1]} features, but the fit had {self.n_features_in_}; give the same ones")
        return X, y

    def _fit_groups(self, X: Array, y: Array, groups: np.ndarray, time: np.ndarray) -> None:
        pandas = require("pandas", needed_for="panels", install="pip install 'gladient[data]'")
        names = [f"x{j + 1}" for j in range(X.shape[1])]
        codes, known = pandas.factorize(groups)
        frame = pandas.DataFrame(X, columns=names).assign(y=y, group=codes, time=time)
        table = prompts_from_panel(
            frame, target="y", features=names, group="group", time="time", lags=self.lags, windows=self.windows
        )
        estimated = estimate_setting(table.prompts, clusters=table.clusters, n=table.n, intercept=self.intercept)
        latest = _latest(table, codes, np.unique(time, return_inverse=True)[1])
        self.groups_ = np.asarray(known)[codes[[table.rows[-1][table.prompts.query.starts[i]] for i in latest]]]
        self._beta = _coefficients(table, estimated, self.gate, latest)
        self.estimated_ = estimated


def _named(X: Any, values: Any) -> Any:
    """A column of the frame, if its name came."""
    if not isinstance(values, str):
        return values
    if values not in list(getattr(X, "columns", [])):
        raise ValueError(f"X has no column {values!r}; give the values themselves, or a frame with that column")
    return X[values]


def _one_each(values: Any, rows: int) -> np.ndarray:
    found = np.asarray(values)
    if found.shape != (rows,):
        raise ValueError(f"groups or time have the shape {list(found.shape)} for {rows} rows; give one for each row")
    return found


def _order(groups: Any) -> np.ndarray:
    """The place of each row among those of its group."""
    seen: Counter[Hashable] = Counter()
    places = []
    for group in np.asarray(groups).tolist():
        places.append(seen[group])
        seen[group] += 1
    return np.array(places)


def _latest(table: Table, codes: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The last prompt of each group."""
    query = table.prompts.query
    group, when = codes[table.rows[-1][query.starts]], time[table.rows[-1][query.starts]]
    order = np.lexsort((when, group))
    last = np.append(np.diff(group[order]) > 0, True)
    return np.asarray(order[last])


def _coefficients(table: Table, estimated: Estimated, gate: Gate, latest: np.ndarray) -> Array:
    """Each group's step on its latest periods, in the setting's units: every role of its last prompt one place back."""
    assert table.n is not None
    moved = estimated.transform.prompts(table.prompts.take(latest))
    beta = np.zeros((len(latest), moved.d))
    for W, role, n in zip(estimated.rungs(table.n)[gate].matrices, moved.roles[1:], table.n, strict=True):
        # Of a source with more than n examples all serve, and count as n: its mean is what the step asks for.
        beta += n * role.means(role.X * role.y[:, None]) @ W.T
    return beta

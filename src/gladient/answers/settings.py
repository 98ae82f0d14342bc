"""A setting as people write it: on the command line, in a file, in the fields of a page."""

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from gladient.prompts import MultitaskSetting

__all__ = ["SETTING_KEYS", "described", "number", "numbers", "parts", "real", "require_memory", "whole"]

SETTING_KEYS = ("n", "r", "d", "rho", "spectrum", "sigma2", "drift", "T", "R", "Sigma")
"""What describes a setting, as options and as keys of a file."""

_DRIFT_NEEDS = {
    "drift": "what is left of it after each example, such as 0.95",
    "T": "a number of examples, such as 40",
    "d": "a number of features, such as 10",
}

# Floats end at 309 digits. An int of more raises OverflowError wherever it meets one; as a float it is infinite, which
# the checks behind this refuse by name.
_DIGITS = 300

Read = TypeVar("Read")


def number(text: str) -> int | float:
    """The number that `text` spells; a whole one is exact.

    Raises:
        ValueError: if it spells none.

    >>> number("25"), number("1e9"), number("-0.5")
    (25, 1000000000.0, -0.5)
    """
    if len(text) <= _DIGITS:
        try:
            return int(text)
        except ValueError:
            pass
    return float(text)


def whole(text: str) -> int:
    """The whole number that `text` spells; ValueError if it spells none.

    >>> whole("25"), whole("1e9")
    (25, 1000000000)
    """
    try:
        value = number(text)
        exact = int(value)
    except (ValueError, OverflowError):  # infinity overflows
        exact, value = 0, 0.5  # two that differ, for the message below
    if exact != value:
        raise ValueError(f"{text!r} is not a whole number; type 25 or 1e9")
    return exact


def real(text: str) -> float:
    """The number that `text` spells; ValueError if it spells none, with what to type where that is known.

    >>> real(".5")
    0.5
    >>> real("5%")
    Traceback (most recent call last):
    ValueError: '5%' is a percentage; type 0.05
    """
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is {_wrong(text)}") from None


def _wrong(text: str) -> str:
    """What a text is that spells no number, and what to type."""
    try:
        if text.endswith("%"):
            return f"a percentage; type {float(text[:-1]) / 100:g}"
        if text.count(",") == 1:
            return f"a number with a decimal comma; type {float(text.replace(',', '.')):g}"
    except ValueError:
        pass
    return "not a number; type 0.5 or 1e-3"


def numbers(text: str, read: Callable[[str], Read]) -> tuple[Read, ...]:
    """The numbers of a list that is typed with spaces or commas between them.

    >>> numbers("25, 1e2, 50", whole)
    (25, 100, 50)
    >>> numbers("0,2 0,8", real)
    Traceback (most recent call last):
    ValueError: '0,2 0,8' has commas inside what spaces separate; type 0.2 0.8 for decimals, 0,2,0,8 for a list
    """
    # Both 0,2 0,8 and 25,25 10 are refused: nothing tells decimal commas from those between numbers.
    if len(text.split()) > 1 and re.search(r"[^\s,],[^\s,]", text):
        decimals, listed = re.sub(r"(?<=[^\s,]),(?=[^\s,])", ".", text), ",".join(parts(text))
        raise ValueError(
            f"{text!r} has commas inside what spaces separate; type {decimals} for decimals, {listed} for a list"
        )
    return tuple(map(read, parts(text)))


def parts(text: str) -> list[str]:
    """The texts of a list that is typed with spaces or commas between them.

    >>> parts("25, 1e2 x")
    ['25', '1e2', 'x']
    """
    # Nothing between two commas is read as "", which no reader takes: a number that was lost is not passed over.
    return [part for between in text.split(",") for part in between.split() or [""]] if text.strip() else []


def described(options: Mapping[str, Any]) -> "MultitaskSetting":
    """The setting that some of `SETTING_KEYS` describe, checked.

    Args:
        options: n, examples of each task in prompt order [K]; r, correlation of each task with the query's task [K];
            d, number of features, or spectrum, the eigenvalues of Σ [d], or Sigma itself [d, d]; rho, correlations
            between tasks (none, one for all pairs, or the upper triangle row by row), or the whole matrix R [K, K];
            sigma2, variance of the label noise. Or, in place of n, r and rho, one task that moves: drift, what is left
            of it after each of T examples, see `MultitaskSetting.drifting`; with d and sigma2.

    Raises:
        ValueError: if one is missing or contradicts another, a number is out of its range, the correlations cannot
            occur together, or the matrices would not fit into memory.

    >>> described({"n": [25, 25], "r": [0.2, 0.8], "d": 3}).Sigma.shape
    (3, 3)
    >>> described({"drift": 0.5, "T": 3, "d": 10}).r.tolist()
    [0.125, 0.25, 0.5]
    """
    import numpy as np

    from gladient.prompts import MultitaskSetting, correlation_matrix

    if "drift" in options or "T" in options:
        return _drifting(options)
    for name in ("n", "r"):
        if len(options.get(name, ())) == 0:
            raise ValueError(
                f"{name} is missing or empty; list one number per task, such as 25 25 for n and 0.2 0.8 for r"
            )
    for name, matrix in (("rho", "R"), ("spectrum", "Sigma"), ("d", "Sigma")):
        if name in options and matrix in options:
            raise ValueError(f"both {name} and {matrix} are given; they say the same thing: leave one out")
    K = len(options["n"])
    if len(options["r"]) != K:
        raise ValueError(f"n lists {K} tasks but r lists {len(options['r'])}; give one correlation per task")
    d = len(options["Sigma"]) if "Sigma" in options else _features(options)
    # Four matrices of that size exist at once, and LAPACK's work space.
    require_memory(6.0 * (float(d) * float(d) + K**2), f"a setting with {K} tasks and {d:g} features")
    return MultitaskSetting(
        n=options["n"],
        R=options["R"] if "R" in options else correlation_matrix(options.get("rho", ()), K),
        r=options["r"],
        Sigma=options["Sigma"] if "Sigma" in options else np.diag(options.get("spectrum") or [1.0] * d),
        sigma2=options.get("sigma2", 0.0),
    )


def _drifting(options: Mapping[str, Any]) -> "MultitaskSetting":
    from gladient.prompts import MultitaskSetting

    _require_drift_alone(options)
    T, drift, d = _count("T", options["T"]), options["drift"], _count("d", options["d"])
    if not 0.0 <= drift <= 1.0:
        raise ValueError(f"drift is {drift!r}; choose a number from 0 (a new task for each example) to 1 (one task)")
    require_memory(6.0 * (float(d) * d + float(T) * T), f"a setting with {T} examples and {d} features")
    return MultitaskSetting.drifting(T, drift, d=d, sigma2=options.get("sigma2", 0.0))


def _require_drift_alone(options: Mapping[str, Any]) -> None:
    for name in ("n", "r", "rho", "spectrum", "R", "Sigma"):
        if name in options:
            raise ValueError(
                f"{'drift' if 'drift' in options else 'T'} is given beside {name}; a task that drifts is described by "
                f"drift, T, d and sigma2 alone: leave {name} or drift and T out"
            )
    for name, needed in _DRIFT_NEEDS.items():
        if name not in options:
            raise ValueError(f"{name} is missing; a task that drifts needs {needed}")


def _count(name: str, value: float) -> int:
    if not (1 <= value < float("inf") and value == int(value)):
        raise ValueError(f"{name} is {value!r}; it must be a whole number ≥ 1")
    return int(value)


def require_memory(floats: float, what: str) -> None:
    """Stop before the work starts if `floats` of them do not fit into this machine's memory.

    Raises:
        ValueError: if they do not.
    """
    if not hasattr(os, "sysconf"):  # Windows: what does not fit ends in a MemoryError
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 8.0 * floats > memory:
        raise ValueError(
            f"{what} needs about {8.0 * floats / 2**30:.3g} GiB and this machine has {memory / 2**30:.3g} GiB: "
            "make it smaller"
        )


def _features(options: Mapping[str, Any]) -> int:
    """How many features d or spectrum describe."""
    d, spectrum = options.get("d"), options.get("spectrum", ())
    if d is None and not spectrum:
        raise ValueError("neither d nor spectrum is given; one must say how many features there are, such as 10 for d")
    if d is not None:
        _count("d", d)
    if d is not None and spectrum and len(spectrum) != d:
        raise ValueError(f"d is {d} but spectrum lists {len(spectrum)} eigenvalues; they must agree: leave d out")
    if min(spectrum, default=0.0) < 0.0:
        raise ValueError(f"spectrum lists {min(spectrum):g}; the variance along a direction is never below 0")
    return len(spectrum) or int(d or 0)

"""What the answers about several layers hold."""

from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any, Literal

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.depth.stack import Heads, Stack, chain
from gladient.landscape.gates.result import few

__all__ = ["BestStack", "Bound", "StackCertificate", "in_units", "require_layers"]

_LARGE = (
    1e4  # the rate that grows of steps near a limit, in units of what its gates leave of it: their risk is 1e-4 above
)


@dataclass(frozen=True)
class StackCertificate:
    """How good a best stack is known to be.

    Attributes:
        kind: "solved": the best of its family, by a linear solve or the theory of one layer. "proved": searched, and it
            meets the lower bound. "searched": the best minimum that the starts led to.
        lower_bound: nothing of the family has a smaller risk; `depth_bound` where it was searched.
        starts: points that searches began from.
        followed: the most promising of them, which were followed to their minimum.
        agreeing: how many of those ended at this risk.
        attained: whether a stack has this risk; if not, it is the limit of rates without end.
    """

    kind: Literal["solved", "proved", "searched"]
    lower_bound: float
    starts: int
    followed: int
    agreeing: int
    attained: bool


@dataclass(frozen=True, eq=False)
class BestStack:
    """The best stack of a family of gates: `stack_risk(setting, found.stack)` gives `risk` back.

    Attributes:
        risk: expected squared error of the query's prediction.
        stack: the layers; where the risk is a limit, the limit itself, one head of which writes at the query alone.
        gates: the family.
        certificate: what is proved of it.
    """

    risk: float
    stack: Stack = field(repr=False)
    gates: str
    certificate: StackCertificate

    @property
    def gap(self) -> float:
        """How much lower the risk of a stack of the family could be."""
        return 0.0 if self.certificate.kind == "solved" else max(self.risk - self.certificate.lower_bound, 0.0)

    @property
    def steps(self) -> tuple[Float[Array, " L"], Float[Array, "L K"]] | None:
        r"""Rates and gates of plain steps, `Stack.steps`; None where the stack is of another kind.

        Where the risk is a limit a rate is large, and the risk of the steps within about 1e-4 of it.
        """
        return self._steps(_LARGE)

    def finite(self, large: float = _LARGE) -> Stack:
        """The stack, or, where the risk is a limit, plain steps near it: their risk is above it by about 1 / `large`.

        Args:
            large: the rate that grows, in units of what its gates leave of it.

        >>> from gladient.landscape.depth import best_stack, stack_risk
        >>> from gladient.prompts import MultitaskSetting
        >>> setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=10)
        >>> found = best_stack(setting, 2, "scalar")
        >>> [f"{stack_risk(setting, found.finite(large)).risk - found.risk:.0e}" for large in (1e2, 1e4, 1e6)]
        ['4e-03', '4e-05', '4e-07']
        """
        steps = None if self.certificate.attained else self._steps(large)
        return self.stack if steps is None else Stack.steps(*steps)

    def _steps(self, large: float) -> tuple[Float[Array, " L"], Float[Array, "L K"]] | None:
        f, g, skips = self.stack.readout, self.stack.gates, self.stack.skips
        if self.certificate.attained:
            return (f, g) if np.array_equal(skips, chain(f)) and (self.stack.write == 1.0).all() else None
        own = int(np.flatnonzero(~self.stack.write[:, :-1].any(axis=1))[0])  # the head of the query's own token
        j = own - 1
        rates, gates = np.concatenate([-skips[j, :j], f[j:own], f[own + 1 :]]), np.delete(g, own, axis=0)
        seen = len(gates) - (j < len(gates) - 1)  # a last layer above layer j has its rate to shrink
        less = 1.0 / (large * max(1.0, gates[:seen, -1].max()))
        gates[:seen, -1] *= less
        rates[j] /= less
        rates[seen:] *= less
        return rates, gates

    @property
    def weights(self) -> None:
        """None: what an example weighs depends on the features of the others."""

    @property
    def text(self) -> str:
        """Rates and gates of steps, and how much of it is proved."""
        proof = {"solved": "exact", "proved": "proved"}.get(
            self.certificate.kind, f"searched; bound {self.certificate.lower_bound:.6g}"
        )
        return f"{self._shape()} ({proof}{'' if self.certificate.attained else '; a limit of large rates'})"

    def _shape(self) -> str:
        if self.steps is None:
            return f"{len(self.stack.readout)} heads"
        f, g = self.steps
        gates = "" if (g == 1.0).all() else f"; gates {' | '.join(few(row) for row in g)}"
        return f"rates {few(f)}{gates}"

    def numbers(self) -> dict[str, Any]:
        """risk, gap, the stack and the certificate, for JSON."""
        certificate, stack = asdict(self.certificate), self.stack.to_dict()
        return {"risk": self.risk, "gap": self.gap, "stack": stack, "certificate": certificate}


@dataclass(frozen=True)
class Bound:
    """A risk that is exact or a proved bound, without one stack that has it.

    Attributes:
        risk: expected squared error of the query's prediction.
        text: what it is, in a line.
    """

    risk: float
    text: str

    @property
    def weights(self) -> None:
        """None: it belongs to no weights."""

    def numbers(self) -> dict[str, Any]:
        """The risk, for JSON."""
        return {"risk": self.risk}


def in_units(heads: Heads, scale: float) -> Stack:
    """One stack in the units of a setting with Σ = scale I."""
    arrays = {name: np.asarray(value) for name, value in heads._asdict().items()}
    for name in ("readout", "skips", "erase"):
        arrays[name] = arrays[name] / scale
    return Stack(**arrays)


def require_layers(layers: int) -> None:
    """Raises ValueError for what is no whole number of layers."""
    if not isinstance(layers, Real) or not layers >= 1 or layers % 1:
        raise ValueError(f"layers is {layers!r}; a stack has a whole number of layers, 1 or more")

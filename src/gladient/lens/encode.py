"""Numbers as text for a page: whole multiples of a step, bytes of equal weight together, deflated, in base64."""

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["FINE", "SHUT", "Logs", "Rows", "encode_single"]

FINE = 2**15 - 1  # steps from 0 to a row's largest entry: 16 bits
SHUT = -745.0  # exp of it is 0
_LOG_STEP = 2.0**-13
_COARSER = 8.0  # times that, where a layer is not kept in FINE steps
_SAMPLE = 2**15  # numbers from which the size of all is estimated


@dataclass(frozen=True)
class Rows:
    """Rows of numbers in 16 bits: each in whole steps of its own, `FINE` of them up to its largest entry.

    Attributes:
        numbers: the steps, [R, S].
        scales: how large they are, [R].
        of: for each head which of the parts of R it has; heads may share them.
    """

    numbers: Tensor
    scales: Tensor
    of: list[int] | None = None

    @classmethod
    def of_heads(cls, x: Float[Tensor, "T H K"]) -> "Rows":
        """A row for each head and token; equal heads once."""
        unique, of = _find_equal(x)
        return cls.of_rows(x[:, unique].movedim(1, 0).flatten(0, 1), of)

    @classmethod
    def of_rows(cls, x: Float[Tensor, "R S"], of: list[int] | None = None) -> "Rows":
        """Each row as it is.

        >>> Rows.of_rows(torch.tensor([[1.0, -2.0], [0.0, 0.0]])).numbers.tolist()
        [[16384, -32767], [0, 0]]
        """
        scales = x.double().abs().amax(1).clamp_min(1e-300) / FINE
        scales = scales.masked_fill(scales.isinf(), torch.nan)  # as of a row with NaN: all of it is shown as missing
        return cls((x.double() / scales[:, None]).round().nan_to_num(0.0).short(), scales.float(), of)

    def some(self, heads: list[int]) -> "Rows":
        """Those of some heads."""
        of = list(range(len(self.numbers))) if self.of is None else self.of
        unique, found = _renumbered([of[head] for head in heads])
        numbers, scales = (x.unflatten(0, (max(of) + 1, -1))[unique].flatten(0, 1) for x in (self.numbers, self.scales))
        return Rows(numbers, scales, None if self.of is None else found)

    def encode(self, steps: int) -> dict[str, Any]:
        """In so many steps instead; fewer steps are fewer bits."""
        size = 1 if steps < 128 else 2
        numbers = self._in_steps(steps).numpy().astype(f"<i{size}")
        of = {} if self.of is None else {"of": self.of}
        return {**of, **_integers(numbers, self.scales * (FINE / steps))}

    def size(self, steps: int) -> float:
        """About how many characters they take so."""
        every = max(1, self.numbers.numel() // _SAMPLE)
        some = Rows(self.numbers[::every], self.scales[::every]).encode(steps)
        return (len(some["integers"]) + len(some["scales"])) * len(self.numbers) / len(self.numbers[::every])

    def distance(self, steps: int) -> float:
        """Root mean square distance of rows in so many steps from what they were, relative to their length."""
        lost = self.numbers - self._in_steps(steps).double() * (FINE / steps)
        whole = self.numbers.double().square().sum(1)
        return (lost.square().sum(1) / whole.clamp_min(1.0)).mean().sqrt().item()

    def _in_steps(self, steps: int) -> Tensor:
        return self.numbers if steps == FINE else (self.numbers * (steps / FINE)).round()


@dataclass(frozen=True)
class Logs:
    """Log gates whose running sums over tokens are rounded, so that no sum of them is farther off than one step.

    Attributes:
        numbers: minus the gates, in whole steps, [U, T] or [U, T, K].
        steps: 2⁻¹³, divided by the largest rate that they are to be multiplied by, [U]; NaN for a head whose gates hold
            NaN or more than can be told.
        of: for each head which of the U it has.
    """

    numbers: Tensor
    steps: Tensor
    of: list[int]

    @classmethod
    def of_heads(cls, x: Float[Tensor, "T H *K"], rate: float = 1.0) -> "Logs":
        """Equal heads once."""
        unique, of = _find_equal(x)
        step = _LOG_STEP * 2.0 ** -np.ceil(np.log2(max(1.0, rate)))
        numbers = _rounded(-x[:, unique].movedim(1, 0).double().clamp_min(SHUT), step)
        known = numbers.flatten(1).abs().amax(1) < 2**31  # NaN is not
        numbers[~known] = 0.0
        return cls(numbers.int(), torch.where(known, step, torch.nan), of)

    def some(self, heads: list[int]) -> "Logs":
        """Those of some heads."""
        unique, of = _renumbered([self.of[head] for head in heads])
        return Logs(self.numbers[unique], self.steps[unique], of)

    def encode(self, steps: int) -> dict[str, Any]:
        """Sums to 2⁻¹³ beside rows of `FINE` steps, else to 2⁻¹⁰."""
        times = 1.0 if steps == FINE else _COARSER
        numbers = self.numbers if times == 1.0 else _rounded(self.numbers.double(), times)
        return {"of": self.of, **_integers(numbers.numpy().astype("<i4"), -self.steps * times)}


def encode_single(x: Tensor) -> dict[str, Any]:
    """Float32."""
    return {"f32": _text(_planes(x.detach().double().numpy(force=True).astype("<f4")))}


def _rounded(x: Tensor, step: float) -> Tensor:
    """Differences of the running sums over dimension 1, in whole steps."""
    sums = (x.cumsum(1) / step).round()
    return sums.diff(dim=1, prepend=torch.zeros_like(sums[:, :1]))


def _renumbered(of: list[int]) -> tuple[list[int], list[int]]:
    """The different entries, and for each its place among them.

    >>> _renumbered([3, 1, 3])
    ([3, 1], [0, 1, 0])
    """
    unique = list(dict.fromkeys(of))
    return unique, [unique.index(part) for part in of]


def _find_equal(x: Float[Tensor, "T H *K"]) -> tuple[list[int], list[int]]:
    """The heads that differ, and for each head which of these it equals.

    >>> _find_equal(torch.tensor([[1.0, 2.0, 1.0]]))
    ([0, 1], [0, 1, 0])
    """
    heads, unique, of = x.unbind(1), [0], [0]
    for head in heads[1:]:
        same = next((place for place, other in enumerate(unique) if _equal(head, heads[other])), None)
        of.append(len(unique) if same is None else same)
        unique += [len(of) - 1] if same is None else []
    return unique, of


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() or torch.equal(a, b)


def _integers(numbers: np.ndarray, scales: Tensor) -> dict[str, Any]:
    size = numbers.dtype.itemsize
    return {"bytes": size, "integers": _text(_planes(numbers)), "scales": encode_single(scales)["f32"]}


def _planes(x: np.ndarray) -> bytes:
    """All lowest bytes, then all next ones …: they deflate better."""
    return np.ascontiguousarray(x).view("u1").reshape(-1, x.dtype.itemsize).T.tobytes()


def _text(raw: bytes) -> str:
    """Numbers seldom repeat: deflate finds their frequencies and runs, and looks for nothing else."""
    deflate = zlib.compressobj(strategy=zlib.Z_RLE)
    return base64.b64encode(deflate.compress(raw) + deflate.flush()).decode()

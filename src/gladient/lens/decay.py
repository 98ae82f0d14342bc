"""Products of gates between any two tokens, from running sums of their logs that lose nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Decays"]

_SHUT = -1e6  # log of a gate that leaves nothing in float64, however large what it gates


@dataclass(frozen=True)
class Decays:
    """Running sums of log gates before positions 0 … T, [B, H, T+1] or [B, H, T+1, K].

    A difference of running sums loses what is small against the sums. So every log gate is split into a multiple of a
    power of two, coarse enough for exact sums, and a rest, too small for its sums' rounding to count. A gate of 0 is
    counted instead of summed, and so is one so small that it would cost the others their digits.
    """

    coarse: Tensor
    fine: Tensor
    closed: Tensor | None

    @classmethod
    def of(cls, log_gates: Tensor) -> "Decays":
        """From log gates [B, T, H] or [B, T, H, K] in float64."""
        closed = log_gates < _SHUT
        finite = log_gates.masked_fill(closed, 0.0)
        exponent = torch.frexp(finite.abs().sum(1).amax()).exponent if finite.numel() else torch.tensor(0)
        quantum = torch.ldexp(finite.new_ones(()), (exponent - 52).clamp_min(-1000))  # sums of multiples fit 53 bits
        coarse = (finite / quantum).round() * quantum
        counts = _running(closed.to(finite.dtype)) if closed.any() else None
        return cls(_running(coarse), _running(finite - coarse), counts)

    def logs(self, ends: Tensor, starts: Tensor) -> Tensor:
        """Log of the product of the gates from each start up to before each end, [B, H, E, S] or [B, H, E, S, K]."""
        found = _differences(self.coarse, ends, starts)
        found += self.fine[:, :, ends, None]
        found -= self.fine[:, :, None, starts]
        if self.closed is not None:
            found.masked_fill_(_differences(self.closed, ends, starts) != 0, -torch.inf)
        return found


def _running(values: Tensor) -> Tensor:
    values = values.movedim(1, 2)
    return torch.cat([torch.zeros_like(values[:, :, :1]), values.cumsum(2)], 2)


def _differences(sums: Tensor, ends: Tensor, starts: Tensor) -> Tensor:
    return sums[:, :, ends, None] - sums[:, :, None, starts]

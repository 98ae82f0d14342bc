"""Norms of transformers' layers by this package's kernels: those with a gate behind a scan, and keys of length 1."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from gladient._autocast import outside_autocast
from gladient.integrations.sequences import wide
from gladient.ops import native
from gladient.ops.formulas import L2_EPS, unit

__all__ = ["gated_norm", "is_gated_norm", "unit_heads"]


def is_gated_norm(kind: type) -> bool:
    """Whether a class of transformers is a norm with a gate whose parts have the names that are read here."""
    return kind.__name__.endswith("RMSNormGated")


@outside_autocast
def gated_norm(forward: Callable[..., Tensor], self: Any, hidden_states: Tensor, gate: Tensor | None = None) -> Tensor:
    r"""$w \odot n(x \odot \mathrm{silu}(z))$ or, of the delta rule's layers, $w \odot n(x) \odot \mathrm{act}(z)$.

    What is rounded to half precision in between there, is here once, at the end.
    """
    x, z, w = wide(hidden_states), None if gate is None else wide(gate), self.weight
    size, act, first = _shape(self, x.shape[-1])
    same = z is None or z.shape == x.shape
    w = w.to(x.dtype)
    if act not in ("silu", "sigmoid") or not same or not native.serves(x, z, w):
        return forward(self, hidden_states, gate)
    return native.norm(x, z, w, size, self.variance_epsilon, True, act, first).to(hidden_states.dtype)


def _shape(norm: Any, width: int) -> tuple[int, str, bool]:
    """Channels in a group, the gate's activation, and whether it comes before the norm."""
    if hasattr(norm, "activation"):  # of the delta rule's layers
        return width, norm.activation, False
    if hasattr(norm, "group_size"):
        return norm.group_size, "silu", True
    known = hasattr(norm, "norm_before_gate")
    return (width // norm.n_groups, "silu", not norm.norm_before_gate) if known else (width, "of another kind", True)


def unit_heads(x: Tensor) -> Tensor:
    """Queries or keys [B, T, h, K] of length 1."""
    if not native.serves(x):
        return unit(x)
    return native.norm(x.flatten(2), None, None, x.shape[3], L2_EPS, False, "none", False).view(x.shape)

"""What a causal stack of layers is, as far as the risk knows it: its heads, and how they read one another."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gladient._types import Array, ArrayLike, Float

__all__ = ["Heads", "Stack", "chain", "longest_chain"]


class Heads(NamedTuple):
    """The numbers of a `Stack` in the order of its fields; here each may have more dimensions in front."""

    readout: Any  # real numbers, or complex ones for slopes
    skips: Any
    label: Any
    write: Any
    gates: Any
    own: Any
    erase: Any
    decay: Any


@dataclass(frozen=True, eq=False)
class Stack:
    r"""H heads with a state $s_h \in R^d$ each; a layer is a set of heads that do not read one another.

    With $\xi = |x|^2$, an example (x, y) of task k moves the heads in order,

    $$s_h \leftarrow \delta_h s_h, \quad
      w_h = t_{hk}\,\Big(a_h y + \sum_{m < h} B_{hm}\, o_m - e_h\, x^\top s_h\Big), \quad
      o_h = x^\top s_h + u_h\, \xi\, w_h, \quad s_h \leftarrow s_h + w_h x,$$

    the delimiter after task k multiplies $s_h$ by $g_{hk}$, the query has y = 0, the prediction is $\sum_h f_h o_h$.
    Every stack that is linear in the labels is of this kind if its keys and queries are x: WPGD steps (`Stack.steps`),
    delta layers (e = 1, t = β), RetNet (δ), rows of a value gate and heads (several h), skips (B).

    Args:
        readout: f, weight of each head's output in the prediction, [H].
        skips: B, what a head's value takes of the output of each head before it, [H, H], 0 on and above the diagonal.
        label: a, what it takes of the label, [H]; 1 if not given.
        write: t, how much it writes at the examples of each task, and last at the query, [H, K + 1]; β of a delta
            layer. A 0 in the last column masks the query: it writes nothing of its own.
        gates: g, what the delimiter after each task leaves, [H, K].
        own: u, weight of a token's own write in its own output, [H]: 1 reads after the write (GLA, the delta rule), 0
            before it; between them lies the bonus of RWKV-6. 1 if not given.
        erase: e, [H]; 0 if not given, 1 in a layer of the delta rule.
        decay: δ, what every example leaves of the state before it is read, [H]; 1 if not given.

    Raises:
        ValueError: if shapes do not go together, an entry is not finite, or a head reads itself or a later one.

    Source: derived.

    >>> two = Stack.steps([0.02, 0.05], gates=[[0.0, 0.0], [0.25, 1.0]])
    >>> two.depth, two.skips.tolist()
    (2, [[0.0, 0.0], [-0.02, 0.0]])
    """

    readout: Float[Array, " H"]
    skips: Float[Array, "H H"]
    write: Float[Array, "H K1"] = field(repr=False)
    gates: Float[Array, "H K"]
    label: Float[Array, " H"] = field(repr=False)
    own: Float[Array, " H"] = field(repr=False)
    erase: Float[Array, " H"] = field(repr=False)
    decay: Float[Array, " H"] = field(repr=False)

    def __init__(
        self,
        readout: ArrayLike,
        skips: ArrayLike,
        *,
        gates: ArrayLike,
        write: ArrayLike | None = None,
        label: ArrayLike | None = None,
        own: ArrayLike = 1.0,
        erase: ArrayLike = 0.0,
        decay: ArrayLike = 1.0,
    ) -> None:
        f, g = np.atleast_1d(_finite("readout", readout)), _finite("gates", gates)
        if f.ndim != 1 or g.ndim != 2 or len(g) != len(f) or not g.size:
            raise ValueError(
                f"readout has shape {f.shape} and gates {g.shape}; they must be [H] and [H, K]: a row for each head"
            )
        H, K = g.shape
        arrays = {
            "readout": f,
            "skips": _shaped("skips", skips, (H, H)),
            "write": _shaped("write", np.ones((H, K + 1)) if write is None else write, (H, K + 1)),
            "gates": g,
            "label": _shaped("label", np.ones(H) if label is None else label, (H,)),
            **{name: _each(name, value, H) for name, value in (("own", own), ("erase", erase), ("decay", decay))},
        }
        if np.triu(arrays["skips"]).any():
            row, column = np.argwhere(np.triu(arrays["skips"]))[0].tolist()
            raise ValueError(f"skips[{row}][{column}] is not 0; a head reads heads before it alone: put readers last")
        for name, array in arrays.items():
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def steps(
        cls,
        rates: Sequence[float] | Array,
        gates: ArrayLike | None = None,
        *,
        tasks: int = 1,
        own: ArrayLike = 1.0,
        decay: ArrayLike = 1.0,
        masked: bool = False,
    ) -> "Stack":
        r"""L causal steps of WPGD with $P_l = c_l I$ and scalar gates: what L residual layers of GLA run.

        Args:
            rates: c, [L].
            gates: g, gate of each delimiter in each layer, [L, K]; 1 if not given.
            tasks: K, where no gates are given.
            own: u, one number or [L].
            decay: δ, one number or [L].
            masked: whether the query writes nothing.
        """
        c = np.atleast_1d(_finite("rates", rates))
        g = np.ones((len(c), tasks)) if gates is None else _finite("gates", gates)
        write = np.ones((len(c), g.shape[-1] + 1))
        write[:, -1] = 0.0 if masked else 1.0
        return cls(c, chain(c), gates=g, write=write, own=own, decay=decay)

    @property
    def depth(self) -> int:
        """Number of layers: heads in the longest chain of heads that read one another."""
        return longest_chain(self.skips)

    @property
    def heads(self) -> Heads:
        """All numbers, in the order of `Heads`."""
        return Heads(*(getattr(self, name) for name in Heads._fields))

    def to_dict(self) -> dict[str, Any]:
        """The arguments as lists; `Stack(**stack.to_dict())` rebuilds it."""
        return {name: value.tolist() for name, value in self.heads._asdict().items()}


def chain(rates: Array) -> Array:
    """B of WPGD steps with rates c, [..., L]: each takes the outputs of those before it off the labels."""
    L = rates.shape[-1]
    return np.asarray(np.where(np.tri(L, k=-1, dtype=bool), -rates[..., None, :], 0.0))


def longest_chain(skips: Array) -> int:
    """Heads in the longest chain; where dimensions stand in front, of all of them together."""
    H = skips.shape[-1]
    reads = (skips != 0).reshape(-1, H, H).any(axis=0)
    place = np.ones(H, dtype=int)
    for h in range(H):
        place[h] += place[reads[h]].max(initial=0)
    return int(place.max())


def _finite(name: str, value: ArrayLike) -> Array:
    array = np.array(value, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity; every entry must be finite: {array.tolist()}")
    return array


def _shaped(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    array = _finite(name, value)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; with this readout and these gates it must be {shape}")
    return array


def _each(name: str, value: ArrayLike, H: int) -> Array:
    array = _finite(name, value)
    if array.shape not in ((), (H,)):
        raise ValueError(f"{name} has shape {array.shape}; give one number, or one per head, [{H}]")
    return np.broadcast_to(array, (H,)).copy()

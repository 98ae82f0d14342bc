"""What every gated layer is, whatever its library calls it: the operands of one gated recurrence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gladient._autocast import casts
from gladient.ops.rotation import join_pairs, split_pairs, turned

__all__ = ["HEAD_DIMS", "Recurrence", "Selection", "autocast_dtype", "change_each", "resolve"]

Selection = int | slice | Sequence[int] | None  # of heads or positions: one, a range, some, all

# Which fields run over positions of the queries, over tokens, and over heads (and in which dimension).
_QUERY_FIELDS = ("q", "skip", "output_gate", "output")
_READS, _NORMALISERS, _PAIRS = ("after", "before"), ("none", "sum", "mlstm"), ("adjacent", "halves")
_TURNING = ("q", "k", "erase_query", "erase_key")
HEAD_DIMS = {"rate": 0, "bonus": 0, "initial_state": 1, "initial_normaliser": 1, "initial_log_scale": 1}
"""The dimension that counts heads, where it is not 2."""


@dataclass(frozen=True, eq=False)
class Recurrence:
    r"""The operands of one layer's recurrence, as the layer computed them, and the output that it made of them.

    $$ S_t = \Gamma_t \odot S_{t-1} + e^{w_t} k_t v_t^\top, \quad o_t = S_t^\top q_t, \quad
       \text{output}_t = (o_t / n_t + \text{skip}_t) \odot \text{output\_gate}_t $$

    with log gates $\log \Gamma_t$ = `rate` · `log_gates`. With `beta` it is the gated delta rule,
    $S_t = (I - b_t m_t^\top)(\Gamma_t \odot S_{t-1}) + \beta_t k_t v_t^\top$, where $b_t = k_t$ and
    $m_t = \beta_t k_t$ unless a layer erases by keys of its own; with `erase_read` "before" (RWKV-7) it is
    $S_t = \Gamma_t \odot S_{t-1} - b_t m_t^\top S_{t-1} + \beta_t k_t v_t^\top$. With `phase` (Mamba-3, RoPE) pair p
    of the channels of $q_t$, $k_t$, $m_t$ and $b_t$ is turned by $\Phi_{tp}$ before all that. A layer whose channels
    are gated one by one (Mamba, RG-LRU, RWKV-4) has as many heads as channels, with values of one number. Tensors may
    be expanded views.

    Args:
        q: queries, [B, Q, H, K]; Q positions of the T tokens.
        k: keys, [B, T, H, K].
        v: values, [B, T, H, V].
        output: what the layer computed, [B, Q, H, V].
        positions: the token at which each query stands, [Q].
        log_gates: [B, T, H] or [B, T, H, K]; None for gates of 1.
        rate: factor of the log gates, [H] or [H, K]; None for 1.
        log_write: log of an input gate, $w_t$, [B, T, H].
        beta: write strength of the delta rule, [B, T, H].
        erase_query: what is erased is what the state holds for it, $m_t$, [B, T, H, K]; None for β k.
        erase_key: where it is erased, $b_t$, [B, T, H, K]; None for k.
        erase_read: whether that is the state "after" the decay at t, or "before" it.
        phase: the sum of all angles up to t, $\Phi_t$, [B, T, H, P]; the first P pairs turn. None for no rotation.
        pairs: which channels turn together, "adjacent", (2i, 2i + 1), or "halves", (i, i + K/2). Gates of key channels
            are the same within a pair.
        own: weight of a token's write at its own query, where it is not 1, [B, T, H] (Mamba-3, whose next token adds to
            it).
        ranks: how many tokens are written together (Mamba-3's MIMO). Their queries stand at the last of them, read all
            of them by `own`, and the gate of all is the first one's.
        read: "after" the write at t, or "before" it and before the decay at t (RWKV).
        bonus: weight of the current token's key where `read` is "before", [H, K].
        initial_state: $S_0$, [B, H, K, V]; None for zeros.
        normalise: $n_t$: "none"; "sum", the same recurrence with values of 1, and `eps`; "mlstm", max(|sum|, e^-m) and
            `eps`.
        initial_normaliser: the sum's initial state, [B, H, K].
        initial_log_scale: $m_0$: both initial states are multiplied by $e^{m_0}$, [B, H].
        eps: added to the normaliser.
        skip: added to the output, D ⊙ x, [B, Q, H, V].
        output_gate: multiplied into the output, [B, Q, H, V].
        products: the dtype that the layer's matrix products round their factors and results to, where it is not that of
            its sums: autocast's; None for none. The proof allows for it.

    Raises:
        ValueError: if `read`, `erase_read`, `pairs` or `normalise` is none of these; if gates, phases or queries do not
            fit the keys; if the delta rule comes with an input gate, a bonus or a normaliser, or erases without `beta`;
            if `own` comes with any of them or a read before the write, or `phase` with a bonus.

    Source: equations of gated linear attention in section 2 of arXiv 2504.04308; delta rule: arXiv 2412.06464; RWKV-7:
    arXiv 2503.14456; Mamba-3: arXiv 2603.15569.

    >>> import torch
    >>> ones = torch.ones(1, 3, 1, 1)
    >>> Recurrence(ones, ones, ones, ones, torch.arange(3), log_gates=ones[..., 0].log())
    Recurrence(batch 1, 3 queries, 3 tokens, 1 heads, keys of 1, values of 1, scalar gates)
    """

    q: Float[Tensor, "B Q H K"]
    k: Float[Tensor, "B T H K"]
    v: Float[Tensor, "B T H V"]
    output: Float[Tensor, "B Q H V"]
    positions: Tensor
    log_gates: Tensor | None = None
    rate: Tensor | None = None
    log_write: Float[Tensor, "B T H"] | None = None
    beta: Float[Tensor, "B T H"] | None = None
    erase_query: Float[Tensor, "B T H K"] | None = None
    erase_key: Float[Tensor, "B T H K"] | None = None
    erase_read: str = "after"
    phase: Float[Tensor, "B T H P"] | None = None
    pairs: str = "adjacent"
    own: Float[Tensor, "B T H"] | None = None
    ranks: int = 1
    read: str = "after"
    bonus: Float[Tensor, "H K"] | None = None
    initial_state: Float[Tensor, "B H K V"] | None = None
    normalise: str = "none"
    initial_normaliser: Float[Tensor, "B H K"] | None = None
    initial_log_scale: Float[Tensor, "B H"] | None = None
    eps: float = 0.0
    skip: Float[Tensor, "B Q H V"] | None = None
    output_gate: Float[Tensor, "B Q H V"] | None = None
    products: torch.dtype | None = None

    def __post_init__(self) -> None:
        allowed = {"read": _READS, "erase_read": _READS, "pairs": _PAIRS, "normalise": _NORMALISERS}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(values)}")
        if self.log_gates is not None and self.log_gates.shape[:3] != self.k.shape[:3]:
            raise ValueError(f"log_gates {tuple(self.log_gates.shape)} do not begin as keys do: {tuple(self.k.shape)}")
        if len(self.positions) != self.q.shape[1]:
            raise ValueError(f"{self.q.shape[1]} queries stand at {len(self.positions)} positions; give one for each")
        plain = self.normalise == "none" and self.log_write is None and self.bonus is None
        if self.beta is None and (self.erase_query is not None or self.erase_key is not None):
            raise ValueError("erase_query and erase_key belong to the delta rule; give beta too, 1 for whole writes")
        if self.beta is not None and not plain:
            raise ValueError("the delta rule (beta) goes without log_write, bonus and normaliser; leave them out")
        if (self.own is not None or self.ranks > 1) and not (plain and self.beta is None and self.read == "after"):
            raise ValueError("own and ranks go with plain linear attention that reads after the write; leave them out")
        self._check_phase()

    def _check_phase(self) -> None:
        K = self.k.shape[3]
        if self.phase is None:
            return
        if K % 2 or self.phase.shape[:3] != self.k.shape[:3] or self.phase.shape[3] > K // 2:
            raise ValueError(
                f"phase has shape {tuple(self.phase.shape)}; beside keys {tuple(self.k.shape)} it is [B, T, H, P]: "
                "P of K / 2 pairs of channels turn, and K must be even"
            )
        if self.bonus is not None:
            raise ValueError("a bonus of channels does not commute with a turn; leave phase or bonus out")

    def __repr__(self) -> str:
        B, Q, _, K = self.q.shape
        rule = ", delta rule" if self.beta is not None else ""
        rule += f", {self.phase.shape[3]} of {K // 2} pairs turn" if self.phase is not None else ""
        return (
            f"Recurrence(batch {B}, {Q} queries, {self.tokens} tokens, {self.heads} heads, keys of {K}, "
            f"values of {self.v.shape[3]}, {self.family} gates{rule})"
        )

    @property
    def tokens(self) -> int:
        """T."""
        return self.k.shape[1]

    @property
    def heads(self) -> int:
        """H."""
        return self.k.shape[2]

    @property
    def family(self) -> str:
        """none, scalar or key: how many gates a head has at a token."""
        per_key = (self.log_gates is not None and self.log_gates.ndim == 4) or (
            self.rate is not None and self.rate.ndim == 2
        )
        return "none" if self.log_gates is None else "key" if per_key and self.q.shape[3] > 1 else "scalar"

    @property
    def separable(self) -> bool:
        """Whether weights are gates times similarity, with key gates channel by channel; not so for the delta rule."""
        return self.beta is None

    @property
    def nbytes(self) -> int:
        """Memory that the operands keep alive."""
        stores = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for _, t in self._tensors()}
        return sum(stores.values())

    @property
    def erasing(self) -> tuple[Tensor, Tensor]:
        """The delta rule's m and b: what it reads of the decayed state, and where it takes that away."""
        if self.beta is None:
            raise ValueError("a recurrence without beta erases nothing")
        query = self.beta[..., None] * self.k if self.erase_query is None else self.erase_query
        return query, self.k if self.erase_key is None else self.erase_key

    @property
    def turned(self) -> "Recurrence":
        """The same without rotation: what turns is turned, by the phase at its token."""
        if self.phase is None:
            return self
        phases = {name: self.phase[:, self.positions] if name == "q" else self.phase for name in _TURNING}
        given = {name: getattr(self, name) for name in _TURNING if getattr(self, name) is not None}
        changed: dict[str, Any] = {name: turned(phases[name], self.pairs, x)[0] for name, x in given.items()}
        return replace(self, phase=None, **changed)

    @property
    def aligned(self) -> "Recurrence":
        """The same with every pair of queries, keys and state at its length and along its first channel."""
        if self.phase is None:
            return self
        state = None if self.initial_state is None else _align(self.initial_state.mT, self.pairs).mT
        q, k = (_align(x, self.pairs) for x in (self.q, self.k))
        return replace(self, q=q, k=k, initial_state=state)

    def select(self, heads: Selection = None, queries: Selection = None) -> "Recurrence":
        """The same recurrence for some heads, and for the queries at some of the captured positions.

        Raises:
            ValueError: if a head does not exist or a position was not captured.
        """
        if heads is None and queries is None:
            return self
        chosen = resolve(heads, self.heads, "head")
        wanted = self.positions.tolist() if queries is None else resolve(queries, self.tokens, "position")
        where = {position: row for row, position in enumerate(self.positions.tolist())}
        missing = [position for position in wanted if position not in where]
        if missing:
            raise ValueError(
                f"position {missing[0]} was not captured; {len(where)} positions were: ask for one of them, "
                "or capture with positions=None for all"
            )
        rows = [where[position] for position in wanted]
        changed: dict[str, Any] = {"positions": _take(self.positions, 0, rows)}
        for name, tensor in self._tensors():
            tensor = _take(tensor, HEAD_DIMS.get(name, 2), chosen)
            changed[name] = _take(tensor, 1, rows) if name in _QUERY_FIELDS else tensor
        return replace(self, **changed)

    def double(self) -> "Recurrence":
        """The same in float64, log gates multiplied out; those of a single key channel are the head's."""
        return replace(self.cast(torch.float64), log_gates=self.log_decay, rate=None)

    def cast(self, dtype: torch.dtype) -> "Recurrence":
        """The same in `dtype`; phases, whose sums are long, stay in float64."""
        named = [(name, tensor) for name, tensor in self._tensors() if name != "phase" or dtype == torch.float64]
        changed: dict[str, Any] = {name: change_each(tensor, lambda y: y.to(dtype)) for name, tensor in named}
        return replace(self, **changed)

    def gates_alone(self) -> "Recurrence":
        """The same with zeros, which take no memory, for all that gate weights do not depend on."""
        names = ("q", "k", "v", "output")
        zeros: dict[str, Any] = {name: self.q.new_zeros(()).expand(getattr(self, name).shape) for name in names}
        return replace(self, **zeros, skip=None, output_gate=None)

    @property
    def log_decay(self) -> Tensor | None:
        """Log gates in float64, multiplied by their rates: [B, T, H], or [B, T, H, K] of more key channels than one."""
        return self.log_decay_in(torch.float64)

    def log_decay_in(self, dtype: torch.dtype) -> Tensor | None:
        """`log_decay` in another dtype."""
        if self.log_gates is None:
            return None
        gates, rate = self.log_gates.to(dtype), self.rate
        if rate is not None:
            gates = gates[..., None] if rate.ndim == 2 and gates.ndim == 3 else gates
            gates = gates * (rate[:, None] if gates.ndim == 4 and rate.ndim == 1 else rate).to(dtype)
        return gates[..., 0] if gates.ndim == 4 and self.q.shape[3] == 1 else gates

    def operands(self) -> list[Tensor]:
        """All tensors but the positions and the output."""
        return [tensor for name, tensor in self._tensors() if name != "output"]

    def not_finite(self) -> list[str]:
        """The names of the tensors that hold NaN or infinity; a log of 0 is neither gate's nor write's fault."""
        found = []
        for name, tensor in self._tensors():
            least = (
                -torch.inf if name in ("log_gates", "log_write", "initial_log_scale") else torch.finfo(tensor.dtype).min
            )
            if not bool(((tensor >= least) & (tensor < torch.inf)).all()):  # NaN is neither
                found.append(name)
        return found

    def _tensors(self) -> list[tuple[str, Tensor]]:
        found = ((field.name, getattr(self, field.name)) for field in fields(self) if field.name != "positions")
        return [(name, value) for name, value in found if isinstance(value, Tensor)]


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast rounds the factors of matrix products to where `x` is; None where it is off.

    >>> x = torch.ones(1)
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     autocast_dtype(x)
    torch.bfloat16
    >>> autocast_dtype(x) is None
    True
    """
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if casts(kind) else None


def change_each(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A change of every number for itself; what an expanded tensor holds once, it goes on holding once.

    >>> change_each(torch.ones(2, 1, 3).expand(2, 4, 3), torch.neg).stride()
    (3, 0, 1)
    """
    own = tuple(slice(0, 1) if step == 0 else slice(None) for step in x.stride())
    return change(x[own]).expand(x.shape)


def _align(x: Tensor, pairs: str) -> Tensor:
    """Each pair of channels [..., K] as its length and 0."""
    first, second = split_pairs(x, pairs)
    return join_pairs(torch.hypot(first, second), torch.zeros_like(first), pairs)


def _take(x: Tensor, dim: int, chosen: list[int]) -> Tensor:
    """A view where the chosen stand side by side, or are all the same."""
    start = chosen[0] if chosen else 0
    if chosen == list(range(start, start + len(chosen))):
        return x.narrow(dim, start, len(chosen))
    if x.stride(dim) == 0 and len(chosen) <= x.shape[dim]:
        return x.narrow(dim, 0, len(chosen))
    return x[(slice(None),) * dim + (torch.tensor(chosen, dtype=torch.long, device=x.device),)]


def resolve(selection: Selection, size: int, what: str) -> list[int]:
    """The chosen indices out of `size`, negative ones counted from the end.

    Raises:
        ValueError: if one is out of range.

    >>> resolve([0, -1], 4, "head"), resolve(slice(1, 3), 4, "head"), resolve(2, 4, "head")
    ([0, 3], [1, 2], [2])
    """
    if selection is None or isinstance(selection, slice):
        return list(range(size))[selection or slice(None)]
    chosen = [selection] if isinstance(selection, int) else list(selection)
    wrong = [index for index in chosen if not -size <= index < size]
    if wrong:
        raise ValueError(f"there is no {what} {wrong[0]}; there are {size}, 0 to {size - 1}")
    return [index % size for index in chosen]

"""Token weights of a recurrence in float64: gate products, similarity, and their exact sum, the implicit attention."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.lens._recurrence import Recurrence

__all__ = ["carry", "gate_weights", "implicit_attention", "rebuild", "similarity"]

_BLOCK_BYTES = 2**26  # of the largest temporary
_QUERY_BLOCK = 32  # queries whose weights with key gates are formed together
_BYTES = 8


def gate_weights(
    x: Recurrence, *, channel: int | None = None, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "B H Q T"]:
    r"""$\Gamma_{i \to t} = \prod_{i < j \le t} G_j$, times the input gate where there is one; 0 for i > t.

    With a gate for each key channel it is the mean over channels, or one `channel`. Where the layer normalises, rows
    are scaled by the largest weight that enters them, as the layer does. `x` is in float64.
    """
    out = x.q.new_zeros(x.q.shape[0], x.heads, x.q.shape[1], x.tokens, dtype=dtype)
    for rows, log_weights in _log_weights(x):
        weights = log_weights.to(dtype).exp()
        if weights.ndim == 5:
            weights = weights.mean(4) if channel is None else weights[..., channel]
        out[:, :, rows] = weights
    return out


def similarity(x: Recurrence) -> Float[Tensor, "B H Q T"]:
    """$q_t^T k_i$ for tokens that t sees, 0 for the others; the current token's with the bonus, where there is one."""
    scores = torch.einsum("bqhk,bthk->bhqt", x.q, x.k)
    if x.bonus is not None:
        own = torch.einsum("bqhk,hk,bqhk->bhq", x.q, x.bonus, x.k[:, x.positions])
        scores = torch.where(_is_self(x, x.positions), own[..., None], scores)
    return torch.where(_visible(x, x.positions), scores, 0.0)


def implicit_attention(x: Recurrence) -> Float[Tensor, "B H Q T"]:
    r"""The weights A with $o_t = \sum_i A_{ti} v_i$ (plus the carry of an initial state): what a layer attends to.

    $A_{ti} = q_t^\top (\Gamma_{i \to t} \odot k_i)$, divided by the layer's normaliser if it has one; for the delta
    rule $A = (QK^\top \odot \Gamma)(I + \mathrm{diag}(\beta)\,
    \mathrm{tril}(KK^\top \odot \Gamma, -1))^{-1}\mathrm{diag}(\beta)$.
    """
    return _attend(x)[0]


def carry(x: Recurrence, attended: tuple[Tensor, Tensor] | None = None) -> Float[Tensor, "B Q H V"]:
    """What the initial state adds to each output; zeros if there is none. `attended` is `_attend(x)`, if known."""
    if x.initial_state is None:
        return torch.zeros_like(x.output)
    read = _read_initial(x, x.q, x.positions)
    o = torch.einsum("bhqk,bhkv->bqhv", read, x.initial_state)
    if x.beta is None and x.normalise == "none":
        return o
    attention, normaliser = attended or _attend(x)
    if x.beta is not None:  # what the old state already predicts of every value is not written again
        recalled = torch.einsum("bhtk,bhkv->bthv", _read_initial(x, x.k, _tokens(x)), x.initial_state)
        o = o - torch.einsum("bhqt,bthv->bqhv", attention, recalled)
    return o / normaliser.movedim(1, 2)[..., None]


def rebuild(x: Recurrence) -> Float[Tensor, "B Q H V"]:
    """The layer's output from the implicit attention: attention times values, carry, skip, output gate."""
    attended = _attend(x)
    o = torch.einsum("bhqt,bthv->bqhv", attended[0], x.v) + carry(x, attended)
    o = o if x.skip is None else o + x.skip
    return o if x.output_gate is None else o * x.output_gate


def _attend(x: Recurrence) -> tuple[Float[Tensor, "B H Q T"], Float[Tensor, "B H Q"]]:
    """The implicit attention, and the normaliser that it was divided by."""
    scores = _scores(x, x.q, x.k)
    if x.beta is not None:
        scores = _solve_delta(x, scores) * x.beta.movedim(1, 2)[:, :, None]
    normaliser = _normaliser(x, scores)
    return (scores if x.normalise == "none" else scores / normaliser[..., None]), normaliser


def _tokens(x: Recurrence) -> Tensor:
    return torch.arange(x.tokens, device=x.k.device)


def _visible(x: Recurrence, positions: Tensor) -> Tensor:
    """[Q, T]: a query reads the tokens before it, and its own after the write or with a bonus."""
    own = x.read == "after" or x.bonus is not None
    return _tokens(x) < positions[:, None] + own


def _is_self(x: Recurrence, positions: Tensor) -> Tensor:
    return _tokens(x) == positions[:, None]


def _scores(x: Recurrence, a: Tensor, b: Tensor, positions: Tensor | None = None) -> Tensor:
    """Σ_k a_tk Γ_{i→t,k} b_ik, [B, H, Q, T]."""
    a, b = a.movedim(1, 2), b.movedim(1, 2)
    if x.family == "key" and x.log_write is None:
        out = _key_scores(x, a, b, x.positions if positions is None else positions)
    else:
        out = a.new_zeros(*a.shape[:3], x.tokens)
        for rows, log_weights in _log_weights(x, positions):
            weights, part = log_weights.exp(), a[:, :, rows]
            out[:, :, rows] = (
                weights * (part @ b.mT)
                if weights.ndim == 4
                else torch.einsum("bhqk,bhqtk,bhtk->bhqt", part, weights, b)
            )
    if x.bonus is not None:
        own = torch.einsum("bhqk,hk,bhqk->bhq", a, x.bonus, b[:, :, x.positions])
        if x.log_write is not None:
            own = own * (x.log_write.movedim(1, 2)[:, :, x.positions] - _scale(x)).exp()
        out = torch.where(_is_self(x, x.positions), own[..., None], out)
    return out


def _key_scores(x: Recurrence, a: Tensor, b: Tensor, positions: Tensor) -> Tensor:
    """`_scores` with a gate for each key channel: a matrix product over the tokens before each block of queries.

    The weights of those tokens split at the block's start, Γ_{i→t} = Γ_{i→start} Γ_{start→t}, into factors that are at
    most 1; only the block's own tokens need weights for each pair.
    """
    sums, resets = _cumulative(x)
    ends = positions + (x.read == "after")
    out = a.new_zeros(*a.shape[:3], x.tokens)

    def weights(end: Tensor, start: Tensor) -> Tensor:
        kept = resets[:, :, end] == resets[:, :, start]
        return torch.where(kept, sums[:, :, end] - sums[:, :, start], -torch.inf).exp()

    for begin in range(0, len(positions), _QUERY_BLOCK):
        rows = slice(begin, begin + _QUERY_BLOCK)
        end, part = ends[rows], a[:, :, rows]
        start, stop = int(end.min()), int(end.max())
        steps = torch.arange(x.tokens + 1, device=a.device)
        edge, before, own = steps[start : start + 1], steps[1 : start + 1], steps[start:stop]
        left, right = part * weights(end, edge), b[:, :, :start] * weights(edge, before)
        out[:, :, rows, :start] = left @ right.mT
        pairs = weights(end[:, None].expand(-1, len(own)), (own + 1).expand(len(end), -1))
        pairs = torch.where((own < end[:, None])[..., None], pairs, 0.0)
        out[:, :, rows, start:stop] = torch.einsum("bhqk,bhqtk,bhtk->bhqt", part, pairs, b[:, :, own])
    return out


def _solve_delta(x: Recurrence, scores: Tensor) -> Tensor:
    """Scores · (I + diag(β) tril(KKᵀ ⊙ Γ, −1))⁻¹."""
    assert x.beta is not None
    recall = _scores(x, x.k, x.k, _tokens(x)).tril(-1) * x.beta.movedim(1, 2)[..., None]
    return torch.linalg.solve_triangular(recall, scores, upper=False, left=False, unitriangular=True)


def _normaliser(x: Recurrence, scores: Tensor) -> Tensor:
    """[B, H, Q], ones where the layer does not normalise."""
    if x.normalise == "none":
        return torch.ones_like(scores[..., 0])
    total = scores.sum(3)
    if x.initial_normaliser is not None:
        total = total + torch.einsum("bhqk,bhk->bhq", _read_initial(x, x.q, x.positions), x.initial_normaliser)
    if x.normalise == "sum":
        return total
    return torch.maximum(total.abs(), (-_scale(x)).exp()) + x.eps


def _read_initial(x: Recurrence, a: Tensor, positions: Tensor) -> Float[Tensor, "B H Q K"]:
    """a_t ⊙ Γ_{0→t}, with the initial scale."""
    sums, resets = _cumulative(x)
    end = positions + (x.read == "after")
    log_decay = torch.where(resets[:, :, end] > 0, -torch.inf, sums[:, :, end])
    log_decay = log_decay[..., None] if log_decay.ndim == 3 else log_decay
    if x.normalise != "none":
        log_decay = log_decay + (_initial_scale(x)[..., None] - _scale(x))[..., None]
    return a.movedim(1, 2) * log_decay.exp()


def _initial_scale(x: Recurrence) -> Tensor:
    if x.initial_log_scale is not None:
        return x.initial_log_scale
    return x.q.new_full((x.q.shape[0], x.heads), 0.0 if x.normalise == "mlstm" else -torch.inf)


def _cumulative(x: Recurrence) -> tuple[Tensor, Tensor]:
    """Sums of the finite log gates before positions 0 … T, and how many gates of 0: [B, H, T+1] or [B, H, T+1, K]."""
    gates = x.k.new_zeros(*x.k.shape[:3]) if x.log_gates is None else x.log_gates
    closed = torch.isneginf(gates)

    def running(values: Tensor) -> Tensor:
        values = values.movedim(1, 2)
        return torch.cat([torch.zeros_like(values[:, :, :1]), values.cumsum(2)], 2)

    return running(torch.where(closed, 0.0, gates)), running(closed.to(gates.dtype))


def _log_weights(x: Recurrence, positions: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of queries, and the log weights of all tokens at them: [B, H, rows, T] or [B, H, rows, T, K].

    Differences of float64 sums of log gates; a gate of 0 in between is counted, not summed.
    """
    positions = x.positions if positions is None else positions
    sums, resets = _cumulative(x)
    ends = positions + (x.read == "after")
    starts = _tokens(x) + 1
    visible, itself = _visible(x, positions), _is_self(x, positions)
    per_row = _BYTES * sums[:, :, 0].numel() * x.tokens
    size = max(1, _BLOCK_BYTES // max(per_row, 1))
    scale = _scale(x) if x.log_write is not None else None
    for begin in range(0, len(positions), size):
        rows = slice(begin, begin + size)
        end, seen, own = ends[rows], visible[rows], itself[rows]
        logs = sums[:, :, end, None] - sums[:, :, None, starts]
        kept = resets[:, :, end, None] == resets[:, :, None, starts]
        seen, own = (seen, own) if logs.ndim == 4 else (seen[..., None], own[..., None])
        logs = torch.where((kept | own) & seen, logs.masked_fill(own, 0.0), -torch.inf)
        if x.log_write is not None and scale is not None:
            shift = x.log_write.movedim(1, 2)[:, :, None] - scale[:, :, rows, None]
            logs = logs + (shift if logs.ndim == 4 else shift[..., None])
        yield rows, logs


def _scale(x: Recurrence) -> Tensor:
    """m_t, the largest log weight that enters each query, [B, H, Q]: what layers with input gates are stabilised by."""
    if x.log_write is None or x.normalise == "none":
        return x.q.new_zeros(x.q.shape[0], x.heads, x.q.shape[1])
    m, gates = _initial_scale(x)[:, None], 0.0 if x.log_gates is None else x.log_gates
    if not torch.isneginf(torch.as_tensor(gates)).any():  # m_t - Σ g is a running maximum
        sums = torch.as_tensor(gates).expand_as(x.log_write).cumsum(1)
        after = sums + torch.maximum(m, (x.log_write - sums).cummax(1).values)
    else:
        steps = [m[:, 0]]
        for gate, write in zip(gates.unbind(1), x.log_write.unbind(1), strict=True):
            steps.append(torch.maximum(steps[-1] + gate, write))
        after = torch.stack(steps[1:], 1)
    if x.read == "before":  # the decay, beside the bonus
        after = torch.maximum(torch.cat([m, after[:, :-1]], 1), x.log_write)
    return after.movedim(1, 2)[:, :, x.positions]

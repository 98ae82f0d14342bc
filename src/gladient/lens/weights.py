"""Token weights of a recurrence in float64: gate products, similarity, and their exact sum, the implicit attention."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.lens.decay import Decays
from gladient.lens.recurrence import Recurrence

__all__ = [
    "DELTA_TOKENS",
    "block_bytes",
    "carry",
    "channel_weights",
    "gate_weights",
    "implicit_attention",
    "largest_log_weight",
    "rebuild",
    "signed_weights",
    "similarity",
]

_BLOCK_BYTES = 2**22  # of the largest temporary: what a cache holds
_BYTES = 8
DELTA_TOKENS = 64  # whose overwriting is solved for together
_QUERY_BLOCK = 32  # queries whose weights with key gates are formed together


def gate_weights(
    x: Recurrence, *, channel: int | None = None, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "B H Q T"]:
    r"""$\Gamma_{i \to t} = \prod_{i < j \le t} G_j$, times the input gate where there is one; 0 for i > t.

    With a gate for each key channel it is the mean over channels, or one `channel`. Where the layer normalises, rows
    are scaled by the largest weight that enters them, as the layer does. `x` is in float64.
    """
    if x.log_gates is None or x.log_gates.ndim == 3:
        return channel_weights(x, dtype=dtype)
    if channel is not None:
        return channel_weights(replace(x, log_gates=x.log_gates[..., channel]), dtype=dtype)
    ones = x.k.new_ones(()).expand_as(x.k)
    own = None if x.bonus is None else torch.ones_like(x.bonus)
    scores = _scores(replace(x, bonus=own), ones[:, x.positions] / x.k.shape[3], ones)
    return scores.to(dtype)


def signed_weights(x: Recurrence, *, channel: int | None = None) -> Float[Tensor, "B H Q T"]:
    r"""$\Gamma_{i \to t}$ times the cosine of what turns between i and t: negative where a write is read reversed.

    Pairs turn by angles of their own, and their cosines count by what they could add to the attention at most:

    $$ \frac{\sum_p |q_{tp}| |k_{ip}| \, \Gamma_{i \to t, p} \cos(\Phi_{tp} - \Phi_{ip})}{\sum_p |q_{tp}| |k_{ip}|} $$

    with a cosine of 1 for pairs that do not turn: the attention of keys that point along the query before they turn,
    over the similarity of such keys. 0 where query or key is 0. Of one `channel`: its pair's alone. `x` is in float64.
    """
    if channel is not None:
        return gate_weights(x, channel=channel if x.family == "key" else None) * _cosines(x, channel)
    pointed = x.aligned.turned
    most, found = similarity(replace(x.aligned, phase=None)), _scores(pointed, pointed.q, pointed.k)
    return torch.where(most == 0, 0.0, found / most)


def _cosines(x: Recurrence, channel: int) -> Float[Tensor, "B H Q T"]:
    """Of the angle by which the pair of a key channel turns between each token and each query."""
    assert x.phase is not None
    pair = channel // 2 if x.pairs == "adjacent" else channel % (x.k.shape[3] // 2)
    turns = pair < x.phase.shape[3]
    phase = (x.phase[..., pair] if turns else x.k.new_zeros(x.k.shape[:3])).movedim(1, 2)
    return (phase[:, :, x.positions, None] - phase[:, :, None]).cos()


def channel_weights(x: Recurrence, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """`gate_weights` with every key channel's own: [B, H, Q, T], or [B, H, Q, T, K] for gates of key channels."""
    channels = x.log_gates.shape[3:] if x.log_gates is not None else ()
    out = x.q.new_zeros(x.q.shape[0], x.heads, x.q.shape[1], x.tokens, *channels, dtype=dtype)
    for rows, columns, logs in _log_weights(x):
        out[:, :, rows, columns] = logs.to(dtype).exp_()
    return _weigh_own(x, out)


def similarity(x: Recurrence, *, channel: int | None = None) -> Float[Tensor, "B H Q T"]:
    """$q_t^T k_i$ for tokens that t sees, 0 for the others; the current token's with the bonus, where there is one."""
    x, part = x.turned, slice(None) if channel is None else slice(channel, channel + 1)
    q, k = x.q[..., part], x.k[..., part]
    scores = torch.einsum("bqhk,bthk->bhqt", q, k)
    if x.bonus is not None:
        own = torch.einsum("bqhk,hk,bqhk->bhq", q, x.bonus[:, part], k[:, x.positions])
        scores = torch.where(_is_self(x, x.positions), own[..., None], scores)
    return scores.masked_fill_(~_visible(x, x.positions), 0.0)


def implicit_attention(x: Recurrence) -> Float[Tensor, "B H Q T"]:
    r"""The weights A with $o_t = \sum_i A_{ti} v_i$ (plus the carry of an initial state): what a layer attends to.

    $A_{ti} = q_t^\top (\Gamma_{i \to t} \odot k_i)$, divided by the layer's normaliser if it has one; for the delta
    rule $A = (QK^\top \odot \Gamma)(I + \mathrm{diag}(\beta)\,
    \mathrm{tril}(KK^\top \odot \Gamma, -1))^{-1}\mathrm{diag}(\beta)$, and where it erases by keys of its own
    $A = (QK^\top \odot \Gamma - Z\, \mathrm{tril}(MK^\top \odot \Gamma, -1))\, \mathrm{diag}(\beta)$ with
    $Z = (QB^\top \odot \Gamma)(I + \mathrm{tril}(MB^\top \odot \Gamma, -1))^{-1}$, where M reads what is left
    before its own token's decay if `erase_read` is "before".
    """
    return _attend(x)[0]


def carry(x: Recurrence, attended: "_Attended | None" = None) -> Float[Tensor, "B Q H V"]:
    """What the initial state adds to each output; zeros if there is none. `attended` is `_attend(x)`, if known."""
    if x.initial_state is None:
        return torch.zeros_like(x.output)
    x = x.turned
    if not x.separable or x.normalise != "none":
        attended = attended or _attend(x)
    known = None if attended is None else attended.initial
    read = _read_initial(x, x.q, x.positions) if known is None else known
    o = torch.einsum("bhqk,bhkv->bqhv", read, x.initial_state)
    return o if attended is None else o / attended.normaliser.movedim(1, 2)[..., None]


def rebuild(x: Recurrence) -> Float[Tensor, "B Q H V"]:
    """The layer's output from the implicit attention: attention times values, carry, skip, output gate."""
    attended = _attend(x)
    o = torch.einsum("bhqt,bthv->bqhv", attended[0], x.v) + carry(x, attended)
    o = o if x.skip is None else o + x.skip
    return o if x.output_gate is None else o * x.output_gate


class _Attended(NamedTuple):
    """The implicit attention, [B, H, Q, T], and the normaliser that it was divided by, [B, H, Q].

    For the delta rule also what queries read of the initial state, [B, H, Q, K].
    """

    attention: Tensor
    normaliser: Tensor
    initial: Tensor | None = None


def _attend(x: Recurrence) -> _Attended:
    x = x.turned
    if not x.separable:
        attention, initial = _delta_scores(x)
        return _Attended(attention, _normaliser(x, attention), initial)
    scores = _scores(x, x.q, x.k)
    normaliser = _normaliser(x, scores)
    return _Attended(scores if x.normalise == "none" else scores.div_(normaliser[..., None]), normaliser)


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
    if x.family != "key" and a.stride(1) == b.stride(1) == 0:  # of all heads, to be weighed by each one's gates
        a, b = a[:, :1], b[:, :1]
    if x.family == "key" and x.log_write is None:
        out = _key_scores(x, a, b, x.positions if positions is None else positions)
    else:
        out = a.new_zeros(a.shape[0], x.heads, a.shape[2], x.tokens)
        for rows, columns, logs in _log_weights(x, positions):
            weights, part, keys = logs.exp_(), a[:, :, rows], b[:, :, columns]
            if weights.ndim == 4:
                torch.mul(part @ keys.mT, weights, out=out[:, :, rows, columns])
            else:
                out[:, :, rows, columns] = (weights.mul_(keys[:, :, None]) @ part[..., None])[..., 0]
    if x.bonus is not None:
        own = torch.einsum("bhqk,hk,bhqk->bhq", a, x.bonus, b[:, :, x.positions])
        if x.log_write is not None:
            own = own * (x.log_write.movedim(1, 2)[:, :, x.positions] - largest_log_weight(x)).exp()
        out.scatter_(3, x.positions.expand(own.shape)[..., None], own[..., None])
    return _weigh_own(x, out)


def _weigh_own(x: Recurrence, out: Tensor) -> Tensor:
    """Weights [B, H, Q, T] or [B, H, Q, T, K], those of the query's own step by their weight there."""
    if x.own is None:
        return out
    device = x.k.device
    rows = torch.arange(len(x.positions), device=device)[:, None]
    step = x.positions[:, None] - torch.arange(x.ranks, device=device)
    own = x.own.movedim(1, 2)[:, :, step].to(out.dtype)
    out[:, :, rows, step] *= own if out.ndim == 4 else own[..., None]
    return out


def _key_scores(x: Recurrence, a: Tensor, b: Tensor, positions: Tensor) -> Tensor:
    """`_scores` with a gate for each key channel: a matrix product over the tokens before each block of queries.

    The weights of those tokens split at the block's start, Γ_{i→t} = Γ_{i→start} Γ_{start→t}, into factors that are at
    most 1; only the block's own tokens need weights for each pair.
    """
    decays, ends = _decays(x), positions + (x.read == "after")
    out = a.new_zeros(*a.shape[:3], x.tokens)
    steps = torch.arange(x.tokens + 1, device=a.device)
    for rows in _key_blocks(ends, _pair_span(a[:, :, 0].numel())):
        end, part = ends[rows], a[:, :, rows]
        start, stop = int(end.min()), int(end.max())
        edge, before, own = steps[start : start + 1], steps[1 : start + 1], steps[start:stop]
        left = decays.logs(end, edge)[:, :, :, 0].exp_().mul_(part)
        right = decays.logs(edge, before)[:, :, 0].exp_().mul_(b[:, :, :start])
        out[:, :, rows, :start] = left @ right.mT
        pairs = decays.logs(end, own + 1).masked_fill_((own >= end[:, None])[..., None], -torch.inf).exp_()
        out[:, :, rows, start:stop] = (pairs.mul_(b[:, :, None, own]) @ part[..., None])[..., 0]
    return out


def block_bytes(width: int, rows: int, tokens: int) -> int:
    """The largest temporary for so many gates at each of so many tokens: a block of queries, or a single one."""
    return max(_BYTES * width * tokens, min(_BLOCK_BYTES, _BYTES * width * rows * tokens))


def _pair_span(width: int) -> int:
    return max(1, min(_QUERY_BLOCK, int((_BLOCK_BYTES / (_BYTES * max(width, 1))) ** 0.5)))


def _key_blocks(ends: Tensor, span: int) -> Iterator[slice]:
    """Slices of queries that stand close together, so that the weights of their pairs of tokens take little memory."""
    where, begin = ends.tolist(), 0
    for row in range(1, len(where) + 1):
        block = where[begin : row + 1]
        if row == len(where) or len(block) > span or max(block) - min(block) > span:
            yield slice(begin, row)
            begin = row


def _delta_scores(x: Recurrence) -> tuple[Float[Tensor, "B H Q T"], Float[Tensor, "B H Q K"]]:
    """Implicit attention of the delta rule, some tokens at a time, backwards from the queries to the initial state.

    What a query reads of the state before these tokens is read by another query, less what they overwrite. Before the
    write of its token it reads what the token before left.
    """
    x = x if x.read == "after" else replace(x, read="after", positions=x.positions - 1)
    out, reading = x.q.new_zeros(x.q.shape[0], x.heads, x.q.shape[1], x.tokens), x.q.movedim(1, 2).clone()
    for start in reversed(range(0, int(x.positions.max()) + 1, DELTA_TOKENS)):
        some, rows = slice(start, start + DELTA_TOKENS), (x.positions >= start).nonzero()[:, 0]
        part = _part(x, some, rows, reading[:, :, rows].movedim(1, 2))
        out[:, :, rows, some], erased = _solve_delta(part)
        erasing = _read_initial(part, part.erasing[0], _recalled(part))
        reading[:, :, rows] = _read_initial(part, part.q, part.positions) - erased @ erasing
    return out, reading


def _part(x: Recurrence, some: slice, rows: Tensor, q: Tensor) -> Recurrence:
    """Some tokens of a delta rule, from no state, and some of its queries: those after them stand at the last."""
    names = ("k", "v", "log_gates", "beta", "erase_query", "erase_key")  # what turns is turned already
    tokens = {name: value[:, some] for name in names if (value := getattr(x, name)) is not None}
    queries: dict[str, Any] = {"q": q, "output": x.output[:, rows], "skip": None, "output_gate": None}
    positions = (x.positions[rows] - some.start).clamp_max(tokens["k"].shape[1] - 1)
    return replace(x, positions=positions, initial_state=None, **queries, **tokens)


def _solve_delta(x: Recurrence) -> tuple[Tensor, Tensor]:
    """The attention, and Z: how much of what each token erases is missing at each query."""
    assert x.beta is not None
    (m, b), beta = x.erasing, x.beta.movedim(1, 2)[:, :, None]
    recall, scores = _scores(x, m, b, _recalled(x)).tril_(-1), _scores(x, x.q, b)
    Z = torch.linalg.solve_triangular(recall, scores, upper=False, left=False, unitriangular=True)
    if x.erase_query is None and x.erase_key is None and x.erase_read == "after":
        return Z * beta, Z
    return (_scores(x, x.q, x.k) - Z @ _scores(x, m, x.k, _recalled(x)).tril_(-1)) * beta, Z


def _recalled(x: Recurrence) -> Tensor:
    """After which token's decay each token reads what it erases, [T]."""
    return _tokens(x) - int(x.erase_read == "before")


def _normaliser(x: Recurrence, scores: Tensor) -> Tensor:
    """[B, H, Q], ones where the layer does not normalise."""
    if x.normalise == "none":
        return torch.ones_like(scores[..., 0])
    total = scores.sum(3)
    if x.initial_normaliser is not None:
        total = total + torch.einsum("bhqk,bhk->bhq", _read_initial(x, x.q, x.positions), x.initial_normaliser)
    if x.normalise == "sum":
        return total + x.eps
    return torch.maximum(total.abs(), (-largest_log_weight(x)).exp()) + x.eps


def _read_initial(x: Recurrence, a: Tensor, positions: Tensor) -> Float[Tensor, "B H Q K"]:
    """a_t ⊙ Γ_{0→t}, with the initial scale."""
    log_decay = _decays(x).logs(positions + (x.read == "after"), torch.zeros(1, dtype=torch.long, device=a.device))
    log_decay = log_decay[:, :, :, 0] if log_decay.ndim == 5 else log_decay
    scale = _initial_scale(x)[..., None] - (0.0 if x.log_write is None else largest_log_weight(x))
    log_decay = log_decay + scale[..., None]
    return a.movedim(1, 2) * log_decay.exp()


def _initial_scale(x: Recurrence) -> Tensor:
    if x.initial_log_scale is not None:
        return x.initial_log_scale
    empty = x.normalise == "sum" and x.initial_state is None and x.initial_normaliser is None
    return x.q.new_full((x.q.shape[0], x.heads), -torch.inf if empty else 0.0)


def _decays(x: Recurrence) -> Decays:
    return Decays.of(x.k.new_zeros(x.k.shape[:3]) if x.log_gates is None else x.log_gates)


def _log_weights(x: Recurrence, positions: Tensor | None = None) -> Iterator[tuple[slice, slice, Tensor]]:
    """Blocks of queries, the tokens up to them, and the log weights of these: [B, H, rows, columns] or [… , K]."""
    positions = x.positions if positions is None else positions
    decays, ends, tokens = _decays(x), positions + (x.read == "after"), _tokens(x)
    size = max(1, _BLOCK_BYTES // max(_BYTES * decays.coarse[:, :, 0].numel() * x.tokens, 1))
    scale = None if x.log_write is None else largest_log_weight(x)
    for begin in range(0, len(positions), size):
        rows = slice(begin, begin + size)
        columns = slice(0, int(positions[rows].max()) + 1)
        logs = decays.logs(ends[rows], tokens[columns] + 1)
        own, seen = (mask(x, positions[rows])[:, columns] for mask in (_is_self, _visible))
        own, seen = (own, seen) if logs.ndim == 4 else (own[..., None], seen[..., None])
        logs.masked_fill_(own, 0.0).masked_fill_(~seen, -torch.inf)
        if x.log_write is not None and scale is not None:
            shift = x.log_write.movedim(1, 2)[:, :, None, columns] - scale[:, :, rows, None]
            logs += shift if logs.ndim == 4 else shift[..., None]
        yield rows, columns, logs


def largest_log_weight(x: Recurrence) -> Tensor:
    """m_t, the largest log weight that enters each query, [B, H, Q]: what layers with input gates are stabilised by."""
    if x.log_write is None or x.normalise == "none":
        return x.q.new_zeros(x.q.shape[0], x.heads, x.q.shape[1])
    m, gates = _initial_scale(x)[:, None], torch.zeros_like(x.log_write) if x.log_gates is None else x.log_gates
    gates = gates.amax(3) if gates.ndim == 4 else gates
    if not torch.isneginf(gates).any():  # m_t - Σ g is a running maximum
        sums = gates.cumsum(1)
        after = sums + torch.maximum(m, (x.log_write - sums).cummax(1).values)
    else:
        steps = [m[:, 0]]
        for gate, write in zip(gates.unbind(1), x.log_write.unbind(1), strict=True):
            steps.append(torch.maximum(steps[-1] + gate, write))
        after = torch.stack(steps[1:], 1)
    if x.read == "before":  # the decay, beside the bonus
        after = torch.maximum(torch.cat([m, after[:, :-1]], 1), x.log_write)
    found = after.movedim(1, 2)[:, :, x.positions]
    return found.masked_fill(torch.isneginf(found), 0.0)  # nothing was written: any scale does

"""Rotations of queries and keys by angles that add up from token to token, and Mamba-3, which has them."""

import math
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from gladient._autocast import outside_autocast
from gladient.ops.call import Backend, prepare
from gladient.ops.check import check_kinds, check_option
from gladient.ops.dispatch import run_call
from gladient.ops.gates import earlier, to_heads
from gladient.ops.sequences import accumulation
from gladient.ops.watched import transformed

__all__ = [
    "Mamba3Call", "Mamba3State", "Pairs", "cumulative_angles", "join_pairs", "mamba3", "rotate", "run_mamba3",
    "split_pairs", "turned",
]  # fmt: skip

Pairs: TypeAlias = Literal["adjacent", "halves"]
"""Which channels turn together: (2i, 2i + 1), or (i, i + K/2)."""
_Form: TypeAlias = Literal["auto", "recurrent", "parallel", "chunked", "last_query"]


class Mamba3State(NamedTuple):
    """What Mamba-3 carries from token to token.

    Attributes:
        S: the state, [B, H, K, V].
        phase: the sum of all angles, in [0, 2π), [B, H, P], float64.
        key: the last token's keys, turned, [B, H, K] or [B, H, r, K].
        value: the last token's values, [B, H, V] or [B, H, r, V].
    """

    S: Tensor
    phase: Tensor
    key: Tensor
    value: Tensor


class Mamba3Call(NamedTuple):
    """One call of Mamba-3, checked: all have H heads, the dtype of sums, and r ranks, one where none were given.

    Attributes:
        q: queries before they turn, [B, T, H, r, K].
        k: keys before they turn, [B, T, H, r, K].
        v: values, [B, T, H, r, V].
        g: log gates, [B, T, H].
        own: λ Δ, what a token writes for itself and for later ones, [B, T, H].
        former: (1 - λ) Δ, what it writes of the token before, [B, T, H].
        phase: the sum of all angles, [B, T, H, P], float64.
        state: what the tokens before left.
        pairs: which channels turn together.
        scale: factor of every output.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    own: Tensor
    former: Tensor
    phase: Tensor
    state: Mamba3State
    pairs: Pairs
    scale: float

    def many(self) -> bool:
        """Whether ranks were given."""
        return self.state.key.ndim == 4

    def written(self) -> Tensor:
        """What later tokens read of each, which the next one adds to: [B, T, H]."""
        return self.own + earlier(self.former)

    def initial(self) -> Tensor:
        """The state before the first token, with what that writes of the one before: [B, H, K, V]."""
        key, value = (x if self.many() else x[:, :, None] for x in (self.state.key, self.state.value))
        return self.state.S + self.former[:, :1].sum(1)[..., None, None] * torch.einsum("bhrk,bhrv->bhkv", key, value)


def cumulative_angles(angles: Float[Tensor, "B T *rest"], initial: Tensor | None = None) -> Float[Tensor, "B T *rest"]:
    r"""$\Phi_t = \Phi_0 + \sum_{i \le t} \theta_i$, modulo 2π, in float64.

    A float32 sum of 10⁵ angles has few digits left.

    Args:
        angles: θ, in radians, [B, T, …].
        initial: Φ₀, [B, …]; 0 if not given.

    Raises:
        ValueError: if the initial ones are not those of the angles' rows and heads.

    >>> cumulative_angles(torch.full((1, 3), 3.0))[0].tolist() == [3.0, 6.0, 9.0 - 2 * math.pi]
    True
    """
    wanted = (*angles.shape[:1], *angles.shape[2:])
    if initial is not None and tuple(initial.shape) != wanted:
        raise ValueError(f"initial has shape {tuple(initial.shape)}; beside these angles it must be {wanted}")
    total = angles.double().cumsum(1)
    return torch.remainder(total if initial is None else initial.double()[:, None] + total, 2 * math.pi)


def rotate(
    x: Float[Tensor, "B T h K"],
    angles: Float[Tensor, "B T h2 P"],
    pairs: Pairs = "adjacent",
    *,
    initial: Tensor | None = None,
) -> Float[Tensor, "B T H K"]:
    r"""Turns pairs of channels by the sum of all angles up to each token.

    With queries and keys both turned, what token i gives to token t is turned by $\sum_{i < j \le t} \theta_j$: a
    complex gate $e^{g + \mathrm{i} \theta}$ in place of $e^g$. A gate that the two channels of a pair share commutes
    with it; gates per key channel that differ within a pair do not, and the turn would not be one of the state.

    Args:
        x: queries or keys, [B, T, h, K].
        angles: what each token turns by, in radians, [B, T, h, P], P ≤ K / 2. The first P pairs turn, the others stay.
            Either has a divisor of H heads.
        pairs: which channels turn together, "adjacent", (2i, 2i + 1), or "halves", (i, i + K/2).
        initial: the sum of the angles before the first token, [B, h, P], for decoding.

    Returns:
        [B, T, H, K], in x's dtype.

    Raises:
        ValueError: if K is odd, there are more angles than pairs, or a shape or the pairs are wrong.

    Source: Su et al., arXiv 2104.09864 (RoPE); angles that depend on the token: arXiv 2511.17388, 2603.15569.

    >>> x = torch.tensor([1.0, 0.0, 1.0, 0.0]).expand(1, 2, 1, 4)
    >>> [[f"{y:+.1f}" for y in token] for token in rotate(x, torch.full((1, 2, 1, 1), math.pi / 4))[0, :, 0].tolist()]
    [['+0.7', '+0.7', '+1.0', '+0.0'], ['-0.0', '+1.0', '+1.0', '+0.0']]
    """
    _check(x, angles, pairs)
    H = max(x.shape[2], angles.shape[2])
    if H % x.shape[2] or H % angles.shape[2]:
        raise ValueError(f"x has {x.shape[2]} heads and angles {angles.shape[2]}; one number must divide the other")
    (found,) = turned(to_heads(cumulative_angles(angles, initial), H), pairs, to_heads(x, H))
    return found


@outside_autocast
def mamba3(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    step: Tensor,
    mix: Tensor,
    angles: Tensor | None = None,
    *,
    pairs: Pairs = "adjacent",
    state: Mamba3State | None = None,
    output_final_state: bool = False,
    scale: float | None = 1.0,
    form: _Form = "auto",
    backend: Backend = "auto",
) -> tuple[Tensor, Mamba3State | None]:
    r"""Mamba-3: a state that turns as it decays, into which each token is written twice.

    $$S_t = e^{g_t} S_{t-1} + (1 - \lambda_t) \Delta_t e^{g_t} \sum_j k_{t-1,j} v_{t-1,j}^\top
      + \lambda_t \Delta_t \sum_j k_{tj} v_{tj}^\top, \qquad o_{ti} = S_t^\top q_{ti}$$

    with queries and keys turned by the sum of all angles. It is one call of `gated_linear_attention`: a token's two
    writes become one, $s_t = \lambda_t \Delta_t + (1 - \lambda_{t+1}) \Delta_{t+1}$, which the next token reads.
    With r ranks (MIMO) there are r queries, keys and values per token, and 2 r - 1 tokens in that call.
    Norms, biases, the skip D v and the output gate are the layer's.

    Args:
        q: queries, [B, T, h, K], or [B, T, h, r, K].
        k: keys, like q.
        v: values, [B, T, h, V], or [B, T, h, r, V].
        g: log gates Δ A ≤ 0, [B, T, h].
        step: Δ ≥ 0, [B, T, h].
        mix: λ, the part of a step that is the token's own, in [0, 1], [B, T, h].
        angles: what each token turns by, in radians (Mamba-3: π tanh(·) Δ), [B, T, h, P], P ≤ K / 2; None for no turn.
        pairs: as in `rotate`: "adjacent" in Mamba-3's layers with one rank, "halves" in those with more.
        state: what the tokens before left.
        output_final_state: whether to return what these leave.
        scale: factor of every output; None for $K^{-1/2}$.
        form: of `gated_linear_attention`, for whole sequences or, with one rank, for the last query alone.
        backend: where it runs.

    Returns:
        o: [B, T, H, V], or [B, T, H, r, V], with `form="last_query"` [B, 1, H, V]; float32 for half precision inputs.
        state: or None unless `output_final_state`.

    Raises:
        ValueError: as `rotate` and `gated_linear_attention`; or if step, mix and g differ in shape, the ranks do, or
            the state is that of other sizes.

    Source: arXiv 2603.15569; the single call is derived.

    >>> one = torch.ones(1, 2, 1, 2)
    >>> half = torch.full((1, 2, 1), 0.5)
    >>> o, _ = mamba3(one, one, one[..., :1], half.log(), 2 * half, half, 0 * one[..., :1])
    >>> o.flatten().tolist()  # 2 (.5); 2 (.5 · .5 + .5 · .5 + .5)
    [1.0, 2.0]
    """
    many = v.ndim == 5
    q, k, v, g, step, mix, angles = _with_heads_and_ranks(q, k, v, g, step, mix, angles, pairs)
    check_option("form", form, _Form)
    if form == "last_query" and (many or not v.shape[1]):
        raise ValueError(f"form='last_query' came with values {tuple(v.shape)}; it reads one rank of one token or more")
    state = _checked(state, k, v, angles, many)
    call = Mamba3Call(
        q=q[:, -1:] if form == "last_query" else q, k=k, v=v, g=g, own=mix * step, former=(1 - mix) * step,
        phase=cumulative_angles(angles, state.phase), state=state, pairs=pairs,
        scale=k.shape[-1] ** -0.5 if scale is None else scale,
    )  # fmt: skip
    return run_mamba3(call, form, backend, output_final_state)


def run_mamba3(
    call: Mamba3Call, form: str, backend: Backend, output_final_state: bool
) -> tuple[Tensor, Mamba3State | None]:
    """What `mamba3` does after its checks; the lens hears it here."""
    phase = call.phase[:, :, :, None]  # all ranks alike
    if call.q.shape[1] == call.k.shape[1]:
        q, k = turned(phase, call.pairs, call.q, call.k)
    else:
        (q,), (k,) = turned(phase[:, -1:], call.pairs, call.q), turned(phase, call.pairs, call.k)
    options = {"initial_state": call.initial(), "scale": call.scale, "form": form}
    options["output_final_state"] = output_final_state
    o, S = _outputs(q, call.written()[..., None, None] * k, call.v, call.g, backend, options)
    if form != "last_query":  # whose last write is the token's own alone, and may be read at once
        met = call.scale * call.own[..., None, None] * (q @ k.mT)
        # products of one row would take longer than all the rest
        o = o + (met @ call.v if call.many() else met * call.v)
    o = o if call.many() else o[:, :, :, 0]
    if not output_final_state:
        return o, None
    if not o.shape[1]:
        return o, call.state
    last = (x[:, -1] if call.many() else x[:, -1, :, 0] for x in (k, call.v))
    return o, Mamba3State(S, call.phase[:, -1], *last)


def _outputs(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, backend: Backend, options: dict[str, Any]
) -> tuple[Tensor, Any]:
    """What all ranks read of the state before their step's writes, decayed, and the state after all steps.

    The ranks of a step become tokens in a row: first all read, then all write; the last one that reads is the first
    that writes. So nothing is read that would have to be taken off again, such as a later step's.
    """
    # By its name here, not in `dispatch`, where the lens hears it: it would take these calls for the layer's.
    if options["form"] == "last_query":
        call = prepare(q[:, :, :, 0], k[:, :, :, 0], v[:, :, :, 0], g=g, **options)
        o, S = run_call(call, backend, call.initial_state)
        return o[:, :, :, None], S
    T, r = v.shape[1], v.shape[3]
    reading, writing = (0, 0, 0, r - 1), (0, 0, r - 1, 0)
    # [B, T, H, r, C] to [B, T (2 r - 1), H, C]; a room of zeros would copy all there is
    rooms = ((q, reading), (k, writing), (v, writing))
    q, k, v = ((functional.pad(x, room) if r > 1 else x).movedim(3, 2).flatten(1, 2) for x, room in rooms)
    gates = functional.pad(g[..., None], (0, 2 * r - 2)).movedim(3, 2).flatten(1, 2)
    # A read before the token is one before its gate too: only the first of a step has one, which it then lacks.
    q = q * gates.exp()[..., None]
    call = prepare(q, k, v, g=gates, read="before", **options)
    o, S = run_call(call, backend, call.initial_state)
    return o.unflatten(1, (T, 2 * r - 1))[:, :, :r].movedim(2, 3), S


def _checked(state: Mamba3State | None, k: Tensor, v: Tensor, angles: Tensor, many: bool) -> Mamba3State:
    """The state, zeros if there is none; ValueError if its sizes are others."""
    (B, _, H, r, K), V, P = k.shape, v.shape[4], angles.shape[3]
    ranks = (r,) if many else ()
    wanted = ((B, H, K, V), (B, H, P), (B, H, *ranks, K), (B, H, *ranks, V))
    if state is None:
        return Mamba3State(*(k.new_zeros(shape) for shape in wanted))
    for name, x, shape in zip(state._fields, state, wanted, strict=True):
        if tuple(x.shape) != shape:
            raise ValueError(f"state.{name} has shape {tuple(x.shape)}; beside these tokens it must be {shape}")
    return state


def _with_heads_and_ranks(*given: Any) -> list[Tensor]:
    """Queries, keys and values as [B, T, H, r, channels], the others with H heads, all in the dtype of sums."""
    q, k, v, g, step, mix, angles, pairs = given
    named = {"q": q, "k": k, "v": v, "g": g, "step": step, "mix": mix}
    named |= {} if angles is None else {"angles": angles}
    check_kinds(named)
    alike = [(x.ndim, x.shape[:2], x.shape[3:-1]) for x in (q, k, v)]  # no set: sizes of a traced graph have no hash
    if v.ndim not in (4, 5) or any(one != alike[0] for one in alike):
        shapes = ", ".join(f"{name} {tuple(named[name].shape)}" for name in "qkv")
        raise ValueError(f"the shapes are {shapes}; all three are [B, T, h, channels], or all [B, T, h, r, channels]")
    if angles is not None:
        _check(q if q.ndim == 4 else q[:, :, :, 0], angles, pairs)
    for name in ("g", "step", "mix"):
        if named[name].ndim != 3 or named[name].shape[:2] != v.shape[:2]:
            raise ValueError(f"{name} has shape {tuple(named[name].shape)}; it must be [B, T, h], of v's tokens")
    H = max(x.shape[2] for x in named.values())
    for name, x in named.items():
        if H % x.shape[2]:
            raise ValueError(f"{name} has {x.shape[2]} heads and there are {H}; its number of heads must divide that")
    wide = [to_heads(accumulation(x), H) for x in named.values()]
    wide += [wide[3].new_zeros(*wide[3].shape, 0)] if angles is None else []
    return [x if i > 2 or v.ndim == 5 else x[:, :, :, None] for i, x in enumerate(wide)]


def _check(x: Tensor, angles: Tensor, pairs: str) -> None:
    check_option("pairs", pairs, Pairs)
    K = x.shape[-1]
    if K % 2:
        raise ValueError(f"there are {K} key channels; they turn in pairs: give an even number")
    if angles.ndim != 4 or angles.shape[:2] != x.shape[:2] or not 1 <= angles.shape[3] <= K // 2:
        raise ValueError(
            f"angles has shape {tuple(angles.shape)}; beside tokens {tuple(x.shape)} it must be [B, T, h, P], "
            f"with one angle for each of 1 to {K // 2} pairs"
        )


def turned(phase: Tensor, pairs: str, *given: Tensor) -> list[Tensor]:
    """Each of the given [..., K] with its first P pairs turned by a phase [..., P]."""
    if not phase.shape[-1]:
        return [*given]
    c, s = (y.to(accumulation(given[0]).dtype) for y in (phase.cos(), phase.sin()))
    # A product of complex numbers passes memory once, a fifth of the time of pairs taken apart and put together again.
    # Compilers write no code for them, and under a transform no one sees whether memory holds pairs.
    if pairs == "halves" or torch.compiler.is_compiling() or transformed():
        return [_turned_apart(x, c, s, pairs) for x in given]
    turn = torch.complex(c, s)
    return [torch.view_as_real(_first(_complex(x), turn)).flatten(-2).to(x.dtype) for x in given]


def _complex(x: Tensor) -> Tensor:
    """Adjacent channels as complex numbers."""
    x = accumulation(x)
    *steps, last = x.stride()
    if last != 1 or any(n % 2 for n in (x.storage_offset(), *steps)):
        x = x.clone(memory_format=torch.contiguous_format)
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def _first(z: Tensor, turn: Tensor) -> Tensor:
    """The first of z times turn, and the others."""
    P = turn.shape[-1]
    return z * turn if z.shape[-1] == P else torch.cat([z[..., :P] * turn, z[..., P:]], -1)


def _turned_apart(x: Tensor, c: Tensor, s: Tensor, pairs: str) -> Tensor:
    P = c.shape[-1]
    (a, a_still), (b, b_still) = ((y[..., :P], y[..., P:]) for y in split_pairs(x, pairs))
    both = (torch.cat([a * c - b * s, a_still], -1), torch.cat([a * s + b * c, b_still], -1))
    return join_pairs(*both, pairs).to(x.dtype)


def split_pairs(x: Tensor, pairs: str) -> tuple[Tensor, Tensor]:
    """The first and the second channel of every pair, [..., K/2] each."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1) if pairs == "adjacent" else x.chunk(2, -1)
    return first, second


def join_pairs(first: Tensor, second: Tensor, pairs: str) -> Tensor:
    """The inverse of `split_pairs`.

    >>> join_pairs(torch.tensor([1, 2]), torch.tensor([3, 4]), "adjacent").tolist()
    [1, 3, 2, 4]
    """
    return torch.stack([first, second], -1).flatten(-2) if pairs == "adjacent" else torch.cat([first, second], -1)

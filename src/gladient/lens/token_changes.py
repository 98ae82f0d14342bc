"""Ready-made changes of what tokens write, erase and give to queries, for `intervene`."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.lens import weights
from gladient.lens.answer import answer
from gladient.lens.intervening import Change
from gladient.lens.records import Record
from gladient.lens.recurrence import Recurrence, Selection, change_each, resolve

__all__ = ["ablate", "compute", "drop_tokens", "keep_window", "knock_out", "scale_erase", "set_weights"]

_WEIGHTS = 2**24  # that are formed together, 128 MiB: so the memory is not quadratic in the tokens


def knock_out(sources: Selection, targets: Selection = None) -> Change:
    r"""Target queries get nothing of source tokens: the implicit attention $A_{ti}$ becomes 0, exactly, in linear time.

    $$ o_t \to o_t - \sum_{i \in \text{sources}} A_{ti} v_i, \quad t \in \text{targets} $$

    Outputs are linear in the values, the delta rule's too: what the sources' values alone give is taken away. Gates,
    keys, erasing and normaliser stay: a source still erases by its key. So does the skip, a token's path past the
    state.

    Args:
        sources: the tokens, by their positions in the call.
        targets: the queries, likewise. None for all, and those of later calls: then the sources' values are 0, and the
            state lacks them, too.

    Raises:
        ValueError: when the model runs, if a position is not in the call, or the call continues a cache.

    >>> from gladient import lens
    >>> one = torch.ones(1, 3, 1, 1)
    >>> record = lens.record(one, one, torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1))
    >>> record.output().flatten().tolist(), compute(knock_out(0, targets=2), record).flatten().tolist()
    ([1.0, 3.0, 7.0], [1.0, 3.0, 6.0])
    """

    def change(record: Record) -> Recurrence:
        x = _whole(record)
        chosen = _marked(x, sources)
        if targets is None:
            return replace(x, v=_times(x.v, 1 - chosen))
        alone = replace(x, v=_times(x.v, chosen), skip=None, output_gate=None, initial_state=None)
        queries = resolve(targets, x.tokens // x.ranks, "token")
        wanted = torch.isin(x.positions.to(x.k.device) // x.ranks, torch.tensor(queries, device=x.k.device))
        taken = answer(alone, alone).output * wanted[:, None, None]
        return replace(x, skip=-taken if x.skip is None else x.skip - taken)

    return change


def keep_window(width: int) -> Change:
    r"""Each query gets values of its last `width` tokens alone, of its own too: $A_{ti} \to 0$ for $t - i \ge$ width.

    Gates, keys, erasing and normaliser stay, and so do the state and the skip. The time is quadratic in the tokens, the
    memory linear; gradients do not pass.

    Raises:
        ValueError: if the width is below 1; when the model runs, if the call continues a cache, or gradients are asked.

    >>> from gladient import lens
    >>> one = torch.ones(1, 3, 1, 1)
    >>> compute(keep_window(2), lens.record(one, one, one)).flatten().tolist()
    [1.0, 2.0, 2.0]
    """
    if width < 1:
        raise ValueError(f"the window has a width of {width}; 1 is a query's own token, and the least")

    def change(record: Record) -> Recurrence:
        x = _whole(record)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in x.operands()):
            raise ValueError("keep_window has no gradient; run the model under torch.no_grad()")
        taken = torch.cat([_from_afar(part.double(), width) for part in _blocks(x)], 1).to(x.v.dtype)
        return replace(x, skip=-taken if x.skip is None else x.skip - taken)

    return change


def _blocks(x: Recurrence) -> Iterator[Recurrence]:
    size = max(1, _WEIGHTS // (x.q.shape[0] * x.heads * x.tokens))
    return (x.select(None, part.tolist()) for part in x.positions.split(size))


def _from_afar(x: Recurrence, width: int) -> Float[Tensor, "B Q H V"]:
    """What queries get of tokens that lie `width` steps back, or more."""
    step = torch.arange(x.tokens, device=x.k.device) // x.ranks
    far = x.positions[:, None] // x.ranks - step >= width
    return torch.einsum("bhqt,bthv->bqhv", weights.implicit_attention(x) * far, x.v)


def drop_tokens(sources: Selection) -> Change:
    r"""Source tokens write nothing and erase nothing, as if their keys were 0: later calls lack them, too.

    Gates stay, and so do the skip and the queries of the tokens themselves. Where the layer normalises, the tokens do
    not count.

    Args:
        sources: the tokens, by their positions in the call.

    Raises:
        ValueError: as `knock_out`.

    >>> from gladient import lens
    >>> one = torch.ones(1, 3, 1, 1)
    >>> compute(drop_tokens([0]), lens.record(one, one, one)).flatten().tolist()
    [0.0, 1.0, 2.0]
    """

    def change(record: Record) -> Recurrence:
        x = _whole(record)
        keep = 1 - _marked(x, sources)
        if x.log_write is not None:  # its scale does not count them, either
            return replace(x, log_write=x.log_write.masked_fill(keep[:, None] == 0, -torch.inf))
        if x.beta is None:
            return replace(x, k=_times(x.k, keep))
        query = None if x.erase_query is None else _times(x.erase_query, keep)
        return replace(x, beta=x.beta * keep[:, None], erase_query=query)

    return change


def scale_erase(factor: float) -> Change:
    r"""The delta rule erases a factor of what it would, $m_t \to c\, m_t$: 0 is the plain write of linear attention.

    Gates, keys, values and write strengths stay. Erasing more than the layer does may make errors grow.

    Raises:
        ValueError: when the model runs, if a layer follows no delta rule.

    >>> from gladient import lens
    >>> one, strength = torch.ones(1, 3, 1, 1), torch.full((1, 3, 1), 0.5)
    >>> record = lens.record(one, one, one, beta=strength)
    >>> record.output().flatten().tolist(), compute(scale_erase(0.0), record).flatten().tolist()
    ([0.5, 0.75, 0.875], [0.5, 1.0, 1.5])
    """

    def change(record: Record) -> Recurrence:
        x = record.recurrence
        if x.beta is None:
            raise ValueError(f"layer {record.layer} ({record.module}) follows no delta rule: it erases nothing")
        return replace(x, erase_query=factor * x.erasing[0])

    return change


def set_weights(omega: Float[Tensor, "..."]) -> Change:
    r"""Token weights by hand in place of the gates': $o_t = \sum_{i \le t} \omega_{ti}\, (q_t^\top k_i)\, v_i$.

    Queries, keys, values, skip and output gate stay. The state that later calls find is the one of the layer's own
    gates. Time and memory are quadratic in the tokens.

    Args:
        omega: weights of tokens, [T], the same for all queries; [T, T], or [H, T, T], a row for each query. Those of
            later tokens are not read. Gradients pass to it.

    Raises:
        ValueError: when the model runs, if the layer normalises or follows a delta rule, where gates and similarity do
            not separate; if it continues a cache; if the weights are of other sizes.

    >>> from gladient import lens
    >>> one = torch.ones(1, 3, 1, 1)
    >>> compute(set_weights(torch.tensor([1.0, 0.0, 2.0])), lens.record(one, one, one)).flatten().tolist()
    [1.0, 1.0, 3.0]
    """

    def change(record: Record) -> Recurrence:
        x = _whole(record)
        if x.normalise != "none" or x.beta is not None:
            raise ValueError(f"{record.module} normalises or erases: its weights are not gates times similarity")
        shapes = [(x.tokens,), (x.tokens, x.tokens), (x.heads, x.tokens, x.tokens)]
        if tuple(omega.shape) not in shapes:
            raise ValueError(f"omega has shape {tuple(omega.shape)}; for {record.module} it is one of {shapes}")
        rows = omega if omega.ndim == 1 else omega[..., x.positions, :]
        read = torch.einsum("bhqt,bthv->bqhv", weights.similarity(x) * rows.to(x.k), x.v)
        return replace(x, q=torch.zeros_like(x.q), skip=read if x.skip is None else read + x.skip)

    return change


def ablate() -> Change:
    r"""The recurrence gives 0, $o_t \to 0$: its tokens have values of 0, and its state is empty, in later calls too.

    Skip and output gate stay, past which a head is not heard.

    >>> from gladient import lens
    >>> one = torch.ones(1, 3, 1, 1)
    >>> compute(ablate(), lens.record(one, one, one)).flatten().tolist()
    [0.0, 0.0, 0.0]
    """
    return lambda record: replace(record.recurrence, v=torch.zeros_like(record.recurrence.v), initial_state=None)


def compute(change: Change, record: Record) -> Float[Tensor, "B Q H V"]:
    """The output of a record after a change, on the graph, without its model.

    >>> from gladient import lens
    >>> one = torch.ones(1, 2, 1, 1)
    >>> compute(ablate(), lens.record(one, one, one)).flatten().tolist()
    [0.0, 0.0]
    """
    return answer(record.recurrence, change(record)).output


def _whole(record: Record) -> Recurrence:
    """A call from a text's first token on: else positions in it are not those of the text."""
    x = record.recurrence
    if x.initial_state is not None and bool((x.initial_state != 0).any()):
        raise ValueError(
            f"layer {record.layer} ({record.module}) continues a cache, in which the tokens before this call lie: "
            "positions are those of the call; run the whole text in one call, or change the first call alone: "
            "lambda record: change(record) if record.call == 0 else record.recurrence"
        )
    return x


def _marked(x: Recurrence, sources: Selection) -> Float[Tensor, " T"]:
    """1 at the sources; tokens that are written together are one."""
    marked = x.k.new_zeros(x.tokens // x.ranks)
    marked[resolve(sources, len(marked), "token")] = 1.0
    return marked.repeat_interleave(x.ranks)


def _times(x: Float[Tensor, "B T H C"], by: Float[Tensor, " T"]) -> Float[Tensor, "B T H C"]:
    """A number for each token; what all heads share they go on sharing."""
    return change_each(x if x.stride(1) else x.contiguous(), lambda y: y * by[:, None, None])

"""MiniMax's lightning attention: a fixed decay per head, exp(-slope); queries, keys and values are silu(W z).

In float32 the layer's decay tables are powers of that decay, and the record is exact. Tables that were rounded one by
one (a model cast to bfloat16, or cast back from it) are powers of no decay: the record holds the slope that the layer
holds, and its reconstruction error is the rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gladient.lens.adapter import Adapter, Emit, Given
from gladient.lens.answer import Answer
from gladient.lens.recurrence import Recurrence
from gladient.seams import SeamError, on_enter, on_forward
from gladient.seams.architectures import LIGHTNING

__all__ = ["ADAPTER"]


@contextmanager
def _attach(layer: nn.Module, emit: Emit) -> Iterator[None]:
    projection, norm, slope = (getattr(layer, name, None) for name in LIGHTNING.parts)
    if projection is None or norm is None or slope is None:
        *first, last = LIGHTNING.parts
        raise SeamError(f"{type(layer).__name__} lacks {', '.join(first)} or {last}")
    seen: dict[str, Any] = {}

    def enter(call: dict[str, Any]) -> None:
        cache = call["past_key_values"]
        state = None if cache is None else cache.get_linear_cache(layer.layer_idx)
        seen.update(mask=call["attention_mask"], state=state, answer=None)

    def hold(_: Given, result: Tensor) -> Tensor:
        """On the graph, where it may be changed."""
        seen["qkv"] = result
        return result

    def leave(call: Given, result: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The state is returned, and kept, at the end."""
        changed: Answer | None = seen.get("answer")
        seen.clear()  # a graph may hang on it
        if changed is None:
            return result
        state, cache = changed.put(result[1], changed.state, 1), call["past_key_values"]
        if cache is not None:
            cache.set_linear_cache(layer.layer_idx, state)
        return result[0], state

    def normed(call: Given, _: Tensor, answer: Answer) -> Tensor:
        """What is to be changed went into the norm: its forward again, past this hook."""
        seen["answer"] = answer
        return type(norm).forward(norm, answer.outputs.flatten(2).to(call["hidden_states"].dtype))

    def read(call: Given, _: Tensor) -> Recurrence:
        return _read(layer, call["hidden_states"], *(seen[name] for name in ("qkv", "mask", "state")))

    with (
        on_enter(layer, enter),
        on_forward(projection, hold, replace=emit.replace),
        on_forward(norm, emit.listener(read, normed), replace=emit.replace),
        on_forward(layer, leave, replace=emit.replace),
    ):
        yield


def _read(layer: Any, output: Tensor, qkv: Tensor, mask: Tensor | None, state: Tensor | None) -> Recurrence:
    """A head's queries, keys and values lie together; a padded token's are 0."""
    qkv = layer.act_fn(qkv)
    qkv = qkv if mask is None else qkv * mask[:, :, None]
    heads = layer.num_attention_heads
    q, k, v = qkv.unflatten(2, (heads, -1)).float().split(layer.head_dim, 3)
    return Recurrence(
        q=q,
        k=k,
        v=v,
        output=output.unflatten(2, (heads, -1)),
        positions=torch.arange(q.shape[1]),
        log_gates=q.new_ones(()).expand(q.shape[:3]),
        rate=-layer.slope_rate.flatten().float(),
        initial_state=None if state is None else state.float(),
    )


ADAPTER = Adapter(name="minimax", modules=LIGHTNING.layers, attach=_attach)
"""Lightning attention (MiniMax) in models of transformers."""

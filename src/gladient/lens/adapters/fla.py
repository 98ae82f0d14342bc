"""flash-linear-attention's layers GLA, HGRN-2, RetNet and RWKV-6, as they call their kernels; imports none of them.

Rows of a padded batch reach the kernels packed one after the other; the record has them as rows again, aligned right.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gladient.lens._adapter import Adapter, Emit
from gladient.lens._operands import unpacked
from gladient.lens._recurrence import Recurrence
from gladient.lens.seams import SeamError, on_function

__all__ = ["ADAPTER"]

_GLA = ("chunk_gla", "fused_chunk_gla", "fused_recurrent_gla")
_RETENTION = ("chunk_retention", "fused_chunk_retention", "fused_recurrent_retention", "parallel_retention")
_RWKV6 = ("chunk_rwkv6", "fused_recurrent_rwkv6")


@contextmanager
def _attach(layer: nn.Module, emit: Emit) -> Iterator[None]:
    """Some releases lack some of the kernels; a layer that runs another one is noticed."""

    def listen(call: dict[str, Any], result: Any) -> None:
        emit(_read(call, result[0]))

    heard, missing = 0, ""
    with ExitStack() as seams:
        for name in (*_GLA, *_RETENTION, *_RWKV6):
            try:
                seams.enter_context(on_function(layer, name, listen))
                heard += 1
            except SeamError as error:
                missing = str(error)
        if not heard:
            raise SeamError(missing)
        yield


def _read(call: dict[str, Any], output: Tensor) -> Recurrence:
    borders = call.get("cu_seqlens")
    q, k, v = (unpacked(x.float(), borders) for x in (call["r"] if "r" in call else call["q"], call["k"], call["v"]))
    scale, state, bonus = call.get("scale"), call.get("initial_state"), call.get("u")
    log_gates = next((call[name] for name in ("gk", "g", "w") if call.get(name) is not None), None)
    return Recurrence(
        q=q * (q.shape[3] ** -0.5 if scale is None else scale),
        k=k,
        v=v,
        output=unpacked(output, borders),
        positions=torch.arange(q.shape[1]),
        log_gates=q.new_ones(()).expand(q.shape[:3]) if log_gates is None else unpacked(log_gates.float(), borders),
        rate=_retention(q) if log_gates is None else None,
        read="after" if bonus is None else "before",
        bonus=None if bonus is None else bonus.float(),
        initial_state=None if state is None else state.mT.float() if call.get("state_v_first") else state.float(),
    )


def _retention(q: Tensor) -> Tensor:
    """Log decays of RetNet's heads, 1 - 2^(-5-h), which its kernels hold."""
    return torch.log1p(-torch.exp2(-5.0 - torch.arange(q.shape[2], device=q.device, dtype=torch.float32)))


ADAPTER = Adapter(
    name="fla",
    modules=("GatedLinearAttention", "HGRN2Attention", "MultiScaleRetention", "RWKV6Attention"),
    attach=_attach,
    package="fla",
)

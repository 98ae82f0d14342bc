"""What transformers' layers of the delta rule call, by this package's kernels: Gated DeltaNet and KDA."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from gladient._autocast import outside_autocast
from gladient.integrations.norms import unit_heads
from gladient.integrations.sequences import scan, wide

__all__ = ["delta_rule", "kimi_delta_rule"]


@outside_autocast
def delta_rule(
    query: Float[Tensor, "B T h K"],
    key: Float[Tensor, "B T h K"],
    value: Float[Tensor, "B T H V"],
    g: Float[Tensor, "B T H"],
    beta: Float[Tensor, "B T H"],
    *,
    initial_state: Float[Tensor, "n H K V"] | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: Tensor | None = None,
    seq_idx: Int[Tensor, "B T"] | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """`chunk_gated_delta_rule` and `fused_recurrent_gated_delta_rule` of flash-linear-attention."""
    options: Any = {"initial_state": initial_state, "output_final_state": output_final_state, "cu_seqlens": cu_seqlens}
    return _run(query, key, value, beta, use_qk_l2norm_in_kernel, {"g": g}, seq_idx, **options)


@outside_autocast
def kimi_delta_rule(
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B T H K"],
    value: Float[Tensor, "B T H V"],
    g: Float[Tensor, "B T H K"],
    beta: Float[Tensor, "B T H"],
    *,
    initial_state: Float[Tensor, "n H K V"] | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: Tensor | None = None,
    seq_idx: Int[Tensor, "B T"] | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """`chunk_kda` and `fused_recurrent_kda` of flash-linear-attention."""
    options: Any = {"initial_state": initial_state, "output_final_state": output_final_state, "cu_seqlens": cu_seqlens}
    return _run(query, key, value, beta, use_qk_l2norm_in_kernel, {"gk": g}, seq_idx, **options)


def _run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: Tensor,
    normalise: bool,
    gate: dict[str, Tensor],
    seq_idx: Tensor | None,
    *,
    initial_state: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    q = wide(query)
    k, v, beta = (x.to(q.dtype) for x in (key, value, beta))
    if normalise:
        q, k = unit_heads(q), unit_heads(k)
    tensors = {"q": q, "k": k, "v": v, "beta": beta} | {name: g.to(q.dtype) for name, g in gate.items()}
    options["initial_state"] = None if initial_state is None else initial_state.to(q.dtype)
    o, state = scan(tensors, seq_idx, scale=None, **options)
    return o.to(query.dtype), state

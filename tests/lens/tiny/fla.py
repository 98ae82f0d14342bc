"""flash-linear-attention's layers; where there is no GPU, plain torch stands in for their Triton functions.

The layers do not run on a CPU, kernels and norms alike, and their package does not import without Triton: then there
is no model here. What stands in for a kernel is this package's operator, which the operator's own tests hold against
flash-linear-attention's naive functions.
"""

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.utils import ModelOutput

from gladient.ops import gated_linear_attention
from tiny._tiny import Tiny, perturb

__all__ = ["AVAILABLE", "MODELS"]

_WIDTH = 16
_SIZES: dict[str, Any] = {"hidden_size": _WIDTH, "num_heads": 2, "layer_idx": 0}


def _available() -> bool:
    """Whether the layers can be imported; finding out by importing them takes many seconds."""
    spec = importlib.util.find_spec("fla")
    folders = (spec and spec.submodule_search_locations) or ()
    return any(Path(folder, "layers").is_dir() for folder in folders) and importlib.util.find_spec("triton") is not None


class _Cache(dict[int, dict[str, Any]]):
    """The part of their cache that one layer uses."""

    def update(self, *_: Any, layer_idx: int = 0, offset: int = 0, **states: Any) -> None:  # type: ignore[override]
        self[layer_idx] = states | {"seen": self.get_seq_length(layer_idx) + offset}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self[layer_idx]["seen"] if layer_idx in self else 0


class _SideBySide(nn.Module):
    """Layers of the same tokens."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, _WIDTH)
        self.layers = nn.ModuleList(layers)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, caches: Any = None, use_cache: bool = False
    ) -> Any:
        caches = caches or [_Cache() if use_cache else None for _ in self.layers]
        options = {"attention_mask": attention_mask, "use_cache": use_cache}
        tokens = self.embedding(input_ids)
        y = [
            layer(tokens, past_key_values=cache, **options)[0] for layer, cache in zip(self.layers, caches, strict=True)
        ]
        return ModelOutput(y=torch.stack(y), caches=tuple(caches))


def _kernel(
    q: Any = None,
    k: Any = None,
    v: Any = None,
    g: Any = None,
    gk: Any = None,
    r: Any = None,
    w: Any = None,
    u: Any = None,
    scale: float | None = None,
    initial_state: Any = None,
    output_final_state: bool = False,
    state_v_first: bool = False,
    cu_seqlens: Any = None,
) -> tuple[Tensor, Tensor | None]:
    q, gates = (q if r is None else r), next(x for x in (g, gk, w) if x is not None)
    state = initial_state.mT if state_v_first and initial_state is not None else initial_state
    options: dict[str, Any] = {"initial_state": state, "output_final_state": True, "cu_seqlens": cu_seqlens}
    options |= {"read": "after" if u is None else "before", "bonus": u, "backend": "torch"}
    o, last = gated_linear_attention(q, k, v, gk=gates, scale=q.shape[3] ** -0.5 if scale is None else scale, **options)
    return o, last.mT if state_v_first and last is not None else last


def _retention(
    q: Any, k: Any, v: Any, scale: float | None = None, initial_state: Any = None, output_final_state: bool = False,
    cu_seqlens: Any = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    decays = (1 - 2.0 ** (-5 - torch.arange(q.shape[2]))).log().to(q.dtype)
    gates = decays[:, None].expand(*q.shape)
    return _kernel(q, k, v, gates, scale=scale, initial_state=initial_state, cu_seqlens=cu_seqlens)


class _NoRotation(nn.Module):
    def forward(self, q: Tensor, k: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        return q, k


def _norm_then_linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, out_bias: Tensor | None) -> Tensor:
    return functional.linear(functional.rms_norm(x, x.shape[-1:], weight), out, out_bias)


def _shift(x: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
    return functional.pad(x, (0, 0, 1, -1)) - x


def _stand_in(home: ModuleType) -> None:
    others = {"swish": functional.silu, "rms_norm_linear": _norm_then_linear, "token_shift": _shift}
    for name in [name for name in vars(home) if name.startswith(("chunk_", "fused_", "parallel_")) or name in others]:
        stand_in = others.get(name, _retention if name.endswith("retention") else _kernel)
        setattr(home, name, _named_as(getattr(home, name), stand_in))


def _named_as(original: Callable[..., Any], stand_in: Callable[..., Any]) -> Callable[..., Any]:
    """Has the original's signature, which the lens reads arguments by."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return stand_in(*args, **kwargs)

    return call


def _fla(seed: int) -> nn.Module:
    layers = {"gla": "GatedLinearAttention", "hgrn2": "HGRN2Attention", "multiscale_retention": "MultiScaleRetention"}
    layers |= {"rwkv6": "RWKV6Attention"}
    options = {"gla": {"fuse_norm": False}, "hgrn2": {"expand_ratio": 8}, "multiscale_retention": {"fuse_norm": False}}
    found = []
    with warnings.catch_warnings(action="ignore"):  # of their own, on import and on RWKV-6
        for file, name in layers.items():
            home = importlib.import_module(f"fla.layers.{file}")
            torch.manual_seed(seed)
            found.append(getattr(home, name)(**_SIZES, **options.get(file, {})))
            if not torch.cuda.is_available():
                _stand_in(home)
                _without_triton(found[-1])
    return perturb(_SideBySide(*found), "bonus", "gk_proj.1.bias", "f_proj.weight")


def _without_triton(layer: Any) -> None:
    layer.gate_fn = nn.SiLU()
    if hasattr(layer, "rotary"):
        layer.rotary = _NoRotation()
    layer.g_norm = nn.RMSNorm(len(layer.g_norm.weight))
    layer.g_norm.register_parameter("bias", None)


AVAILABLE = _available()
MODELS = {"fla": Tiny(_fla, cache="caches")} if AVAILABLE else {}

"""flash-linear-attention's layers; where there is no GPU, plain torch stands in for their Triton functions.

The layers do not run on a CPU, kernels and norms alike, and their package does not import without Triton: then there
is no model here. What stands in for a kernel is the naive function that flash-linear-attention has for it.
"""

import functools
import importlib
import importlib.util
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.utils import ModelOutput

from tiny._fla_kernels import KERNELS
from tiny._tiny import Tiny, perturb

__all__ = ["AVAILABLE", "MODELS"]

_WIDTH = 16


def _available() -> bool:
    """Whether the layers can be imported; finding out by importing them takes many seconds."""
    spec = importlib.util.find_spec("fla")
    folders = (spec and spec.submodule_search_locations) or ()
    return any(Path(folder, "layers").is_dir() for folder in folders) and importlib.util.find_spec("triton") is not None


class _Cache(dict[int, dict[str, Any]]):
    """The part of their cache that one layer uses."""

    def update(self, *_: Any, layer_idx: int = 0, offset: int = 0, **states: Any) -> None:
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


class _NoRotation(nn.Module):
    def forward(self, *x: Tensor, **_: Any) -> Any:
        return x if len(x) > 1 else x[0]


def _norm_then_linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, out_bias: Tensor | None) -> Tensor:
    return functional.linear(functional.rms_norm(x, x.shape[-1:], weight), out, out_bias)


def _shift(x: Tensor, cu_seqlens: Tensor | None = None, output_cache: bool = False, cache: Tensor | None = None) -> Any:
    first = torch.zeros_like(x[:, :1]) if cache is None else cache[:, None]
    delta = torch.cat([first, x[:, :-1]], 1) - x
    return (delta, x[:, -1]) if output_cache else delta


def _mixed(x: Tensor, delta: Tensor, *shares: Tensor) -> list[Tensor]:
    return [x + delta * share for share in shares]


def _key(k: Tensor, a: Tensor, share: Tensor) -> Tensor:
    return k + k * (a - 1) * share


def _corrected(o: Tensor, r: Tensor, k: Tensor, share: Tensor, v: Tensor, g: Tensor) -> Tensor:
    return (o + ((r * k * share).sum(3, keepdim=True) * v).view(o.shape)) * g


def _stand_in(home: ModuleType) -> None:
    others: dict[str, Any] = {
        "swish": functional.silu,
        "rms_norm_linear": _norm_then_linear,
        "token_shift": _shift,
        "swiglu": _swiglu,
    }
    others |= {"fused_addcmul_rwkv7": _mixed, "fused_k_rwkv7": _key, "gate_output_correction": _corrected}
    for name in {*KERNELS, *others} & vars(home).keys():
        original = getattr(home, name)
        setattr(home, name, others.get(name) or functools.wraps(original)(functools.partial(_call, original, name)))


def _call(original: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
    """By the original's signature, which the lens reads arguments by."""
    bound = inspect.signature(original).bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments | bound.arguments.get("kwargs", {})
    o, last = KERNELS[name](given)
    return o.to(given["v" if "v" in given else "x"].dtype), last


def _swiglu(x: Tensor, y: Tensor) -> Tensor:
    return functional.silu(x) * y


class _Norm(nn.Module):
    """In place of their norms, with a gate or without."""

    def __init__(self, theirs: nn.Module) -> None:
        super().__init__()
        weight, self.bias = getattr(theirs, "weight", None), None
        self.weight = None if weight is None else nn.Parameter(torch.ones(weight.shape))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        y = functional.rms_norm(x, x.shape[-1:], self.weight)
        return y if gate is None else y * functional.silu(gate)


# Each layer's file and options.
_LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "GatedLinearAttention": ("gla", {"num_heads": 2, "fuse_norm": False}),
    "HGRN2Attention": ("hgrn2", {"num_heads": 2, "expand_ratio": 8}),
    "MultiScaleRetention": ("multiscale_retention", {"num_heads": 2, "fuse_norm": False}),
    "RWKV6Attention": ("rwkv6", {"num_heads": 2}),
    "SimpleGatedLinearAttention": ("simple_gla", {"num_heads": 2, "fuse_norm": False, "use_short_conv": False}),
    "YOCOGatedRetention": ("yoco", {"num_heads": 2, "fuse_norm": False}),
    "RodimusAttention": ("rodimus", {"expand_ratio": 4, "use_short_conv": False}),
    "LinearAttention": ("linear_attn", {"num_heads": 2, "feature_map": "elu", "do_feature_map_norm": True}),
    "HGRNAttention": ("hgrn", {}),
    "DeltaNet": ("delta_net", {"num_heads": 2, "use_short_conv": False}),
    "GatedDeltaNet": (
        "gated_deltanet",
        {"num_heads": 2, "num_v_heads": 4, "head_dim": 8, "expand_v": 1, "use_short_conv": False},
    ),
    "GatedDeltaNet2": ("gdn2", {"num_heads": 2, "head_dim": 8, "use_short_conv": False}),
    "Comba": ("comba", {"num_heads": 2, "head_dim": 8, "use_short_conv": False}),
    "RWKV7Attention": ("rwkv7", {"head_dim": 8, "num_hidden_layers": 2}),
    "KimiDeltaAttention": ("kda", {"num_heads": 2, "head_dim": 8, "use_short_conv": False}),
}


def _fla(seed: int) -> nn.Module:
    found = []
    with warnings.catch_warnings(action="ignore"):  # of their own, on import and on RWKV-6
        for name, (file, options) in _LAYERS.items():
            home = importlib.import_module(f"fla.layers.{file}")
            torch.manual_seed(seed)
            found.append(getattr(home, name)(hidden_size=_WIDTH, layer_idx=0, **options))
            if not torch.cuda.is_available():
                _stand_in(home)
                _without_triton(found[-1])
    return perturb(_SideBySide(*found), "bonus", "gk_proj.1.bias", "f_proj.weight", "dt_bias")


def _without_triton(layer: Any) -> None:
    if hasattr(layer, "gate_fn"):
        layer.gate_fn = nn.SiLU()
    if hasattr(layer, "rotary"):
        layer.rotary = _NoRotation()
    for name, part in list(layer.named_children()):
        if "Norm" in type(part).__name__:
            setattr(layer, name, _Norm(part))


AVAILABLE = _available()
MODELS = {"fla": Tiny(_fla, cache="caches")} if AVAILABLE else {}

"""Mamba and the hybrids that share its scan."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import (
    FalconMambaConfig,
    FalconMambaForCausalLM,
    JambaConfig,
    JambaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    ZambaConfig,
    ZambaForCausalLM,
)

from tiny._tiny import Tiny, perturb

_SIZES = {"vocab_size": 64, "hidden_size": 8}
_PLAIN = {"state_size": 4, "time_step_rank": 2, "num_hidden_layers": 2}
_HYBRID = {"mamba_d_state": 4, "mamba_dt_rank": 2, "num_attention_heads": 2, "intermediate_size": 8}
_PERTURBED = (".D", "A_log", "dt_proj.bias", "dt_proj_bias", "x_proj.weight", "x_proj_weight", "in_proj.weight")
_RESTARTS = "the library's scan starts from an empty state, also when it continues a cache by several tokens"


def _builder(model: Any, config: Any, **sizes: Any) -> Callable[[int], nn.Module]:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return perturb(model(config(**_SIZES, **sizes)), *_PERTURBED, "conv1d.bias", "layernorm.weight")

    return build


_mamba = _builder(MambaForCausalLM, MambaConfig, **_PLAIN)
_falcon_mamba = _builder(FalconMambaForCausalLM, FalconMambaConfig, **_PLAIN)
_jamba = _builder(
    JambaForCausalLM,
    JambaConfig,
    **_HYBRID,
    num_hidden_layers=3,
    num_key_value_heads=1,
    num_experts=2,
    num_experts_per_tok=1,
    attn_layer_period=3,
    attn_layer_offset=1,
)
_zamba = _builder(
    ZambaForCausalLM,
    ZambaConfig,
    **_HYBRID,
    num_hidden_layers=3,
    num_key_value_heads=2,
    layers_block_type=["linear_attention", "hybrid", "hybrid"],
)

MODELS = {
    "mamba": Tiny(_mamba, cache="cache_params", note=_RESTARTS),
    "falcon mamba": Tiny(_falcon_mamba, cache="cache_params", note=_RESTARTS),
    "jamba": Tiny(_jamba, note=_RESTARTS),
    "zamba": Tiny(_zamba, note=_RESTARTS),
}

"""Mamba-2 and the hybrids that share its scan."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import (
    BambaConfig,
    BambaForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    GraniteMoeHybridConfig,
    GraniteMoeHybridForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    NemotronHConfig,
    NemotronHForCausalLM,
    Zamba2Config,
    Zamba2ForCausalLM,
)

from tiny._tiny import Tiny, perturb

_SIZES = {"vocab_size": 64, "hidden_size": 16}
_HYBRID = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 16}
_HEADS = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 2, "mamba_d_state": 8, "mamba_chunk_size": 32}
_LIMIT = {"time_step_limit": (0.3, 2.0)}
_PERTURBED = (".D", "A_log", "dt_bias", "in_proj.weight", "conv1d.bias")


def _builder(model: Any, config: Any, **sizes: Any) -> Callable[[int], nn.Module]:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return perturb(model(config(**_SIZES, **sizes)), *_PERTURBED)

    return build


_mamba2 = _builder(
    Mamba2ForCausalLM,
    Mamba2Config,
    num_hidden_layers=2,
    num_heads=4,
    head_dim=8,
    state_size=8,
    n_groups=2,
    chunk_size=32,
    **_LIMIT,
)
_bamba = _builder(
    BambaForCausalLM, BambaConfig, num_hidden_layers=3, attn_layer_indices=[1], **_HYBRID, **_HEADS, **_LIMIT
)
_falcon_h1 = _builder(
    FalconH1ForCausalLM,
    FalconH1Config,
    num_hidden_layers=2,
    mamba_d_ssm=32,
    ssm_multipliers=[0.5, 1.5, 0.8, 1.2, 0.7],
    ssm_in_multiplier=1.3,
    **_HYBRID,
    **_HEADS,
    **_LIMIT,
)
_granite = _builder(
    GraniteMoeHybridForCausalLM,
    GraniteMoeHybridConfig,
    num_hidden_layers=3,
    layer_types=["mamba", "attention", "mamba"],
    num_local_experts=2,
    num_experts_per_tok=1,
    shared_intermediate_size=16,
    **_HYBRID,
    **_HEADS,
    **_LIMIT,
)
_nemotron = _builder(
    NemotronHForCausalLM,
    NemotronHConfig,
    layers_block_type=["mamba", "attention", "moe", "mamba"],
    mamba_num_heads=4,
    mamba_head_dim=8,
    n_groups=2,
    ssm_state_size=8,
    chunk_size=32,
    head_dim=8,
    n_routed_experts=2,
    num_experts_per_tok=1,
    moe_intermediate_size=16,
    moe_shared_expert_intermediate_size=16,
    time_step_min=0.3,
    **_HYBRID,
)
_zamba2 = _builder(
    Zamba2ForCausalLM,
    Zamba2Config,
    num_hidden_layers=3,
    layers_block_type=["mamba", "hybrid", "mamba"],
    num_attention_heads=2,
    num_key_value_heads=2,
    intermediate_size=16,
    n_mamba_heads=4,
    mamba_headdim=8,
    mamba_ngroups=2,
    mamba_d_state=8,
    chunk_size=32,
    num_mem_blocks=1,
    adapter_rank=2,
    time_step_min=0.3,
)

MODELS = {
    "mamba2": Tiny(_mamba2, cache="cache_params"),
    "bamba": Tiny(_bamba),
    "falcon h1": Tiny(_falcon_h1),
    "granite moe hybrid": Tiny(_granite),
    "nemotron h": Tiny(_nemotron),
    "zamba2": Tiny(_zamba2),
}

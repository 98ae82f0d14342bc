"""The gated delta rule: two such layers and one of attention, two value heads to a key head."""

from typing import Any

import torch
from torch import nn
from transformers import (
    OlmoHybridConfig,
    OlmoHybridForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3_5ForCausalLM,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
    Qwen4ExpForCausalLM,
    Qwen4ExpTextConfig,
)

from tiny._tiny import Tiny, perturb

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "pad_token_id": 0,
}


def _tiny(model: type[PreTrainedModel], config: type[PreTrainedConfig], **sizes: Any) -> Tiny:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return perturb(model(config(**SIZES | sizes)), "A_log", "dt_bias")

    return Tiny(build)


MODELS = {
    "qwen3-next": _tiny(Qwen3NextForCausalLM, Qwen3NextConfig),
    "qwen3.5": _tiny(Qwen3_5ForCausalLM, Qwen3_5TextConfig),
    "qwen3.5-moe": _tiny(Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig),
    "qwen4-exp": _tiny(
        Qwen4ExpForCausalLM,
        Qwen4ExpTextConfig,
        layer_types=["linear_attention"] * 2 + ["indexed_attention"],
        hc_lowrank=8,
        indexer_n_heads=2,
        indexer_kv_heads=1,
        indexer_head_dim=8,
        indexer_budget=8,
        indexer_compress_ratio=4,
    ),
    "olmo-hybrid": _tiny(OlmoHybridForCausalLM, OlmoHybridConfig),
}

"""Kimi delta attention: two such layers and one of latent attention."""

from typing import Any

import torch
from torch import nn
from transformers import (
    BailingHybridConfig,
    BailingHybridForCausalLM,
    Glm5NextTextConfig,
    Glm5NextTextModel,
    KimiLinearConfig,
    KimiLinearForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from tiny._tiny import Tiny, perturb

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 16,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "mlp_layer_types": ["dense"] * 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "linear_num_heads": 2,
    "linear_head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _tiny(model: type[PreTrainedModel], config: type[PreTrainedConfig], **sizes: Any) -> Tiny:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return perturb(model(config(**SIZES | sizes)), "A_log", "dt_bias")

    return Tiny(build)


MODELS = {
    "kimi-linear": _tiny(KimiLinearForCausalLM, KimiLinearConfig),
    "bailing-hybrid": _tiny(BailingHybridForCausalLM, BailingHybridConfig, head_dim=8),
    "glm5-next": _tiny(
        Glm5NextTextModel,
        Glm5NextTextConfig,
        layer_types=["linear_attention"] * 2 + ["indexed_attention"],
        q_lora_rank=8,
        index_topk=8,
        index_head_dim=8,
        index_n_heads=2,
        index_kpool=4,
        qk_rope_head_dim=0,
    ),
}

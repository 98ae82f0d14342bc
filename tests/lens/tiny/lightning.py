"""MiniMax's lightning attention."""

from typing import Any

import torch
from torch import nn
from transformers import MiniMaxConfig, MiniMaxForCausalLM

from tiny._tiny import Tiny, perturb

Options = dict[str, Any]


def _minimax(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    sizes: Options = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 16}
    kinds = ["linear_attention", "full_attention", "linear_attention"]
    options: Options = {"layer_types": kinds, "block_size": 32, "num_local_experts": 2}
    config = MiniMaxConfig(vocab_size=64, num_hidden_layers=3, **sizes, **options)
    return perturb(MiniMaxForCausalLM(config), "qkv_proj.weight")


MODELS = {"minimax": Tiny(_minimax)}

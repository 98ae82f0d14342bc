"""RWKV-4."""

import torch
from torch import nn
from transformers import RwkvConfig, RwkvForCausalLM

from tiny._tiny import Tiny, perturb


def _rwkv(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    config = RwkvConfig(vocab_size=64, hidden_size=8, num_hidden_layers=2, intermediate_size=16)
    return perturb(RwkvForCausalLM(config), "time_decay", "time_first", "time_mix_key", "time_mix_value")


MODELS = {"rwkv4": Tiny(_rwkv, cache="state", note="takes an attention mask and does not use it")}

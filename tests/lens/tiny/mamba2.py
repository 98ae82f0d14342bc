"""Mamba-2 and the hybrids that share its scan."""

import torch
from torch import nn
from transformers import Mamba2Config, Mamba2ForCausalLM

from tiny._tiny import Tiny, perturb


def _mamba2(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    sizes = {"num_heads": 4, "head_dim": 8, "hidden_size": 16, "state_size": 8, "n_groups": 2, "chunk_size": 32}
    config = Mamba2Config(vocab_size=64, num_hidden_layers=2, **sizes)
    return perturb(Mamba2ForCausalLM(config), ".D", "A_log", "dt_bias")


MODELS = {"mamba2": Tiny(_mamba2, cache="cache_params")}

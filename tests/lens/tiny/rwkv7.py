"""RWKV-7 of the package rwkv7-hf, where that is installed; it is not among the packages of the tests."""

import importlib
import importlib.util
from typing import Any

import torch
from torch import nn

from tiny._tiny import Tiny, perturb

_SIZES: dict[str, Any] = {"vocab_size": 64, "hidden_size": 16, "head_dim": 8, "num_hidden_layers": 2}
_SIZES |= {"decay_low_rank_dim": 4, "a_low_rank_dim": 4, "gate_low_rank_dim": 4, "v_low_rank_dim": 4}


def _rwkv7(seed: int) -> nn.Module:
    package: Any = importlib.import_module("rwkv7_hf")

    torch.manual_seed(seed)
    return perturb(package.RWKV7ForCausalLM(package.RWKV7Config(**_SIZES)), "k_k", "k_a", "lora.2.bias", ".x_k", ".x_v")


MODELS = {"rwkv7": Tiny(_rwkv7)} if importlib.util.find_spec("rwkv7_hf") else {}

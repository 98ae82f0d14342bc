"""xLSTM."""

import torch
from torch import nn
from transformers import xLSTMConfig, xLSTMForCausalLM

from tiny._tiny import Tiny, perturb


def _xlstm(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    config = xLSTMConfig(vocab_size=64, hidden_size=64, num_hidden_layers=2, num_heads=4, qk_dim_factor=1.0)
    model = perturb(xLSTMForCausalLM(config), "gate_preact.bias")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gate_preact.weight"):
                parameter.add_(torch.randn_like(parameter) / 16)
            if name.endswith("igate_preact.bias"):
                parameter.add_(9.5)  # so that sums and e^-m both are the larger at times
    return model


MODELS = {"xlstm": Tiny(_xlstm, cache="cache_params", padding=False, note="its forward takes no attention mask")}

"""RecurrentGemma."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, RecurrentGemmaConfig, RecurrentGemmaForCausalLM
from transformers.utils import ModelOutput

from tiny._tiny import Tiny, perturb


class _Cached(nn.Module):
    """Hands the cache of attention on, which the model's output does not hold; the RG-LRU keeps its own state."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, input_ids: Tensor, past_key_values: Any = None, use_cache: bool = False, **inputs: Any) -> Any:
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.model.config)
        output = self.model(input_ids, past_key_values=past_key_values, use_cache=use_cache, **inputs)
        return ModelOutput(logits=output.logits, past_key_values=past_key_values)


def _recurrent_gemma(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"hidden_size": 8, "lru_width": 8, "num_attention_heads": 2, "intermediate_size": 16}
    config = RecurrentGemmaConfig(vocab_size=64, num_hidden_layers=3, attention_window_size=64, **sizes)
    names = ("recurrent_param", "gate_bias", "gate_weight")
    return _Cached(perturb(RecurrentGemmaForCausalLM(config), *names))


_NOTE = (
    "the attention mask reaches attention layers only; continued by more than one token, the convolution starts anew"
)
MODELS = {"recurrentgemma": Tiny(_recurrent_gemma, note=_NOTE)}

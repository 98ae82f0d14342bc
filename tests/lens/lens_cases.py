"""What every adapter is held to: ways of running a tiny model, with the lens on and off."""

from collections.abc import Callable
from typing import Any

import torch
from tiny import MODELS, Tiny
from torch import Tensor, nn

from gladient import lens

__all__ = ["CASES", "applies", "run_calls", "run_case"]

Run = Callable[[nn.Module, Tiny], list[dict[str, Any]]]  # the inputs of successive calls


def _tokens(tiny: Tiny, length: int, batch: int = 2) -> Tensor:
    return torch.randint(3, tiny.vocabulary, (batch, length), generator=torch.Generator().manual_seed(length))


def _prefill(tiny: Tiny, length: int, batch: int = 2) -> list[dict[str, Any]]:
    return [{"input_ids": _tokens(tiny, length, batch)}]


def _padded(tiny: Tiny, length: int) -> list[dict[str, Any]]:
    tokens, mask = _tokens(tiny, length), torch.ones(2, length, dtype=torch.long)
    mask[0, : length // 3] = 0
    return [{"input_ids": tokens, "attention_mask": mask}]


def _continued(tiny: Tiny, lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    tokens = _tokens(tiny, sum(lengths))
    return [{"input_ids": part, "use_cache": True} for part in tokens.split(lengths, 1)]


def _padded_decoding(tiny: Tiny) -> list[dict[str, Any]]:
    calls, mask = _continued(tiny, (20, 1, 1)), torch.ones(2, 22, dtype=torch.long)
    mask[0, :7] = 0
    return [{**call, "attention_mask": mask[:, :end]} for call, end in zip(calls, (20, 21, 22), strict=True)]


# Name: what is fed, whether it needs padding, whether it needs a cache, the dtype.
CASES: dict[str, tuple[Callable[[Tiny], list[dict[str, Any]]], bool, bool, torch.dtype]] = {
    "L=70": (lambda tiny: _prefill(tiny, 70), False, False, torch.float32),
    "L=1": (lambda tiny: _prefill(tiny, 1), False, False, torch.float32),
    "L=700": (lambda tiny: _prefill(tiny, 700, batch=1), False, False, torch.float32),
    "left padding": (lambda tiny: _padded(tiny, 24), True, False, torch.float32),
    "continuation": (lambda tiny: _continued(tiny, (20, 13)), False, True, torch.float32),
    "decoding": (lambda tiny: _continued(tiny, (20, 1, 1)), False, True, torch.float32),
    "padded decoding": (_padded_decoding, True, True, torch.float32),
    "bf16": (lambda tiny: _prefill(tiny, 70), False, False, torch.bfloat16),
    "fp16": (lambda tiny: _prefill(tiny, 70), False, False, torch.float16),
    "double": (lambda tiny: _prefill(tiny, 70), False, False, torch.float64),
    "bf16 decoding": (lambda tiny: _continued(tiny, (20, 1, 1)), False, True, torch.bfloat16),
}


# Their experts' grouped product, or fla's naive functions, are not written for float64.
NO_DOUBLE = {"fla", "qwen3-next", "qwen3.5-moe", "qwen4-exp", "minimax", "jamba", "granite moe hybrid", "nemotron h"}


def applies(name: str, case: str) -> bool:
    """Whether a model can run a case."""
    _, padding, cache, dtype = CASES[case]
    tiny = MODELS[name]
    if dtype == torch.float64 and name in NO_DOUBLE:
        return False
    return (tiny.padding or not padding) and (tiny.cache is not None or not cache)


@torch.no_grad()
def run_case(name: str, case: str, *, seed: int = 0) -> tuple[bool, list[lens.Record]]:
    """Whether outputs with and without the lens are bit-identical, and the records of all calls."""
    tiny = MODELS[name]
    make, _, _, dtype = CASES[case]
    model = tiny.build(seed).to(dtype)
    plain = run_calls(model, tiny, make(tiny))
    with lens.capture(model) as trace:
        seen = run_calls(model, tiny, make(tiny))
    same = all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    return same, trace.records


def run_calls(model: nn.Module, tiny: Tiny, calls: list[dict[str, Any]]) -> list[Tensor]:
    outputs, cache = [], dict[str, Any]()
    for inputs in calls:
        output = model(**inputs, **cache)
        outputs.append(output[0])
        if tiny.cache and inputs.get("use_cache"):
            cache = {tiny.cache: getattr(output, tiny.cache)}
    return outputs

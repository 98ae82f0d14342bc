"""Reconstruction is a proof only if it fails when a formula is wrong: every operand of every adapter, bent a little."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from lens_cases import applies, run_case
from tiny import MODELS
from torch import Tensor, nn
from transformers import (
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from gladient import lens

Break = Callable[[Tensor], Tensor | None]


def _scaled(x: Tensor) -> Tensor:
    return x * 1.01


def _late(x: Tensor) -> Tensor:
    return x.roll(1, 1)


def _gone(_: Tensor) -> None:
    return None


BREAKS: dict[str, tuple[str, Break]] = {
    "gates 10% off": ("log_gates", lambda x: x * 1.1),
    "gates a token late": ("log_gates", _late),
    "no gates": ("log_gates", _gone),
    "values 1% off": ("v", _scaled),
    "values a token late": ("v", _late),
    "keys a token late": ("k", _late),
    "queries a token late": ("q", _late),
    "input gate a token late": ("log_write", _late),
    "write strength 1% off": ("beta", _scaled),
    "erasing a token late": ("erase_query", _late),
    "erased a token late": ("erase_key", _late),
    "turned a token late": ("phase", _late),
    "not turned": ("phase", _gone),
    "own writes a token late": ("own", _late),
    "no bonus": ("bonus", _gone),
    "no skip": ("skip", _gone),
    "no output gate": ("output_gate", _gone),
}


ONE: dict[str, Any] = {"num_hidden_layers": 1, "vocab_size": 64, "pad_token_id": 0}
REAL: dict[str, Callable[[], nn.Module]] = {  # the first layer of models of published sizes
    "mamba2": lambda: Mamba2ForCausalLM(
        Mamba2Config(num_heads=24, head_dim=64, hidden_size=768, state_size=128, n_groups=1, **ONE)
    ),
    "mamba": lambda: MambaForCausalLM(MambaConfig(hidden_size=768, **ONE)),
    "qwen3-next": lambda: Qwen3NextForCausalLM(
        Qwen3NextConfig(hidden_size=2048, num_experts=2, num_experts_per_tok=1, **ONE)
    ),
}


@cache
def _records(name: str) -> list[lens.Record]:
    return run_case(name, "L=70")[1]


def _broken(record: lens.Record, field: str, change: Break) -> lens.Record | None:
    """None where breaking it changes nothing: the layer lacks it, or it is the same for all tokens."""
    before = getattr(record.recurrence, field)
    after = None if before is None else change(before)
    if before is None or (after is not None and torch.allclose(after, before, rtol=1e-3)):
        return None
    changed: dict[str, Any] = {field: after}
    return replace(record, recurrence=replace(record.recurrence, **changed))


@pytest.mark.parametrize("name", MODELS)
def test_a_broken_formula_is_caught(name: str) -> None:
    tried = set()
    for record in _records(name):
        for what, (field, change) in BREAKS.items():
            broken = _broken(record, field, change)
            if broken is not None:
                tried.add(what)
                found = broken.reconstruction(heads=None)
                assert not found.passed, f"{record.module}: {what}: {found}"
    assert {"values 1% off", "values a token late"} <= tried


@pytest.mark.parametrize("name", [name for name in MODELS if applies(name, "decoding")])
def test_a_forgotten_initial_state_is_caught(name: str) -> None:
    decoded = [record for record in run_case(name, "decoding")[1] if record.call > 0]
    assert decoded
    for record in decoded:
        lost = replace(record.recurrence, initial_state=None, initial_normaliser=None)
        assert not replace(record, recurrence=lost).reconstruction_error.passed


LATE = [BREAKS[what] for what in ("no gates", "values a token late", "no skip")]


@pytest.mark.parametrize("name", MODELS)
def test_under_autocast_what_is_right_passes_and_what_is_broken_does_not(name: str) -> None:
    """Matrix products round to bfloat16 there, in Mamba-2 beside an output in float32."""
    case = "decoding" if applies(name, "decoding") else "L=70"
    with torch.autocast("cpu", torch.bfloat16):
        same, records = run_case(name, case)
    assert same
    for record in records:
        assert record.reconstruction_error.passed, f"{record}: {record.reconstruction_error}"
        if record.call:  # of a single token
            continue
        found = [_broken(record, field, change) for field, change in LATE]
        seen = [not broken.reconstruction_error.passed for broken in found if broken is not None]
        assert any(seen)  # beside a large skip, what half precision hides may be all that the state adds
        if record.architecture == "mamba2":
            assert all(seen)
            strict = replace(record, recurrence=replace(record.recurrence, products=None))
            assert not strict.reconstruction_error.passed  # the same rounding is no excuse where autocast is off


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_broken_formula_is_caught_at_real_size(name: str) -> None:
    torch.manual_seed(0)
    model = REAL[name]().eval()
    with torch.no_grad(), lens.capture(model) as trace:
        model(input_ids=torch.randint(64, (1, 1000)), use_cache=False)
    (record,) = trace.records
    some = replace(record, recurrence=record.recurrence.select(slice(0, 64)))
    assert some.reconstruction_error.passed
    for what, (field, change) in BREAKS.items():
        broken = _broken(some, field, change)
        assert broken is None or not broken.reconstruction_error.passed, what

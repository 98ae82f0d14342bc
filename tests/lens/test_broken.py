"""Reconstruction is a proof only if it fails when a formula is wrong: every operand of every adapter, bent a little."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from lens_cases import applies, run_case
from tiny import MODELS
from torch import Tensor

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
    "no bonus": ("bonus", _gone),
    "no skip": ("skip", _gone),
    "no output gate": ("output_gate", _gone),
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
    return replace(record, recurrence=replace(record.recurrence, **{field: after}))


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

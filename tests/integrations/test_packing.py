"""Packed rows: ways of telling of them, what contradicts, what is refused; non-finite tokens stay where they are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_replaced_functions import DELTA, KIMI, MAMBA2, OPTIONS, normal
from tiny import MODELS
from torch import Tensor

from gladient.integrations.convolution import convolution
from gladient.integrations.delta import delta_rule, kimi_delta_rule
from gladient.integrations.selective import mamba2_scan
from gladient.integrations.transformers import accelerated

NUMBERS = torch.tensor([[0] * 12 + [1] * 18])
BORDERS = torch.tensor([0, 12, 30])
PLACES = torch.cat([torch.arange(12), torch.arange(18)])[None]
TOKENS = torch.randint(3, 60, (1, 30), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_rows_of_a_batch_are_packed_each_in_its_way() -> None:
    model = MODELS["bamba"].build(0)
    rows = torch.cat([TOKENS, TOKENS.flip(1)])
    numbers = torch.cat([NUMBERS, torch.tensor([[5] * 3 + [2] * 20 + [5] * 7])])  # 5 comes back as another sequence
    with accelerated(model):
        packed = model(rows, seq_idx=numbers).logits
        for row, stops in ((0, [(0, 12), (12, 30)]), (1, [(0, 3), (3, 23), (23, 30)])):
            for start, stop in stops:
                alone = model(rows[row : row + 1, start:stop]).logits
                torch.testing.assert_close(packed[row : row + 1, start:stop], alone, rtol=0, atol=2e-5)


@torch.no_grad()
def test_positions_that_go_on_and_padded_ones_are_no_packing() -> None:
    model = MODELS["bamba"].build(0)
    mask = torch.ones(1, 30, dtype=torch.long)
    mask[:, :5] = 0
    padded = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    for options in ({"position_ids": torch.arange(3, 33)[None]}, padded):
        plain = model(TOKENS, **options)
        with accelerated(model):
            ours = model(TOKENS, **options)
        torch.testing.assert_close(ours.logits, plain.logits, rtol=0, atol=2e-5)
        assert ours.past_key_values is not None  # the cache of the config's default


def continued(model: Any) -> Any:
    return model(TOKENS[:, :10], use_cache=True).past_key_values


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "one number for each token": ("(1, 30); got torch.int64 of shape (1, 20)", {"seq_idx": NUMBERS[:, :20]}),
    "whole numbers": ("got torch.float32 of shape (1, 30)", {"seq_idx": NUMBERS.float()}),
    "a tensor": ("got a list", {"seq_idx": NUMBERS.tolist()}),
    "borders that end early": ("does not run from 0 to 30", {"cu_seq_lens_q": BORDERS[:2]}),
    "borders that fall": ("without falling", {"cu_seq_lens_q": torch.tensor([0, 12, 5, 30])}),
    "borders of floats": ("got torch.float32 of shape (3,)", {"cu_seq_lens_q": BORDERS.float()}),
    "borders that differ": (
        "cu_seq_lens_q and cu_seq_lens_k do not begin sequences at the same tokens",
        {"cu_seq_lens_q": BORDERS, "cu_seq_lens_k": torch.tensor([0, 13, 30])},
    ),
    "numbers and borders": ("do not begin", {"seq_idx": NUMBERS, "cu_seq_lens_q": torch.tensor([0, 11, 30])}),
    "positions that go on": ("do not begin", {"seq_idx": NUMBERS, "position_ids": torch.arange(30)[None]}),
    "positions in images": (
        "not positions of its text",
        {"seq_idx": NUMBERS, "position_ids": PLACES.expand(3, 1, 30)},
    ),
    "a mask": ("with an attention_mask", {"seq_idx": NUMBERS, "attention_mask": torch.ones(1, 30)}),
    "a mask and positions": ("with an attention_mask", {"position_ids": PLACES, "attention_mask": torch.ones(1, 30)}),
    "a new cache": ("with a cache", {"seq_idx": NUMBERS, "use_cache": True}),
    "an old cache": ("with a cache", {"seq_idx": NUMBERS, "past_key_values": continued}),
    "positions and a cache": ("with a cache", {"position_ids": PLACES, "past_key_values": continued}),
}


@torch.no_grad()
@pytest.mark.parametrize("case", WRONG)
def test_what_contradicts_is_refused_in_a_sentence(case: str) -> None:
    model = MODELS["bamba"].build(0)
    sentence, given = WRONG[case]
    with accelerated(model):
        given = {name: x(model) if callable(x) else x for name, x in given.items()}
        with pytest.raises(ValueError) as error:
            model(TOKENS, **given)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_borders_tell_of_one_row() -> None:
    model = MODELS["bamba"].build(0)
    with accelerated(model), pytest.raises(ValueError, match=r"the borders of all sequences of one row; .* for 2 rows"):
        model(TOKENS.expand(2, -1), cu_seq_lens_q=BORDERS)


@torch.no_grad()
def test_other_models_of_the_architecture_and_copies_are_looked_at_too() -> None:
    one, other = MODELS["mamba"].build(0), MODELS["mamba"].build(1)
    with accelerated(one), pytest.raises(ValueError, match="transformers does not tell Mamba's scan"):
        other(TOKENS, position_ids=PLACES)
    other(TOKENS, position_ids=PLACES)


@torch.no_grad()
def test_ngrams_across_sequences_are_refused() -> None:
    model = MODELS["qwen4-exp"].build(0)
    model.config.ple_layer_ids = [1]  # type: ignore[union-attr]
    with accelerated(model), pytest.raises(ValueError, match="n-gram"):
        model(TOKENS, seq_idx=NUMBERS)


def test_packed_rows_train_where_the_library_has_one_kernel_for_all() -> None:
    """In training transformers asks a fused kernel first, whose stand-in refuses packed rows on a CPU."""
    model: Any = MODELS["mamba2"].build(0).train().backbone

    def gradients(*calls: dict[str, Any]) -> list[Tensor]:
        model.zero_grad()
        torch.cat([model(**call)[0] for call in calls], 1).square().mean().backward()
        return [p.grad.clone() for p in model.parameters()]

    with accelerated(model):
        packed = gradients({"input_ids": TOKENS, "seq_idx": NUMBERS})
        apart = gradients({"input_ids": TOKENS[:, :12]}, {"input_ids": TOKENS[:, 12:]})
    for mine, expected in zip(packed, apart, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


def spoilt(function: Callable[..., Any], inputs: dict[str, Tensor], poison: float, **options: Any) -> Tensor:
    """What a function says of two sequences of nine tokens, all that it is told of token 4 times a number."""
    factor = torch.ones(18).double()
    factor[4] = poison
    given = {name: x[:1, :18] if x.ndim > 2 else x for name, x in inputs.items() if "initial" not in name}
    given |= {name: x * factor.view(18, *[1] * (x.ndim - 2)) for name, x in given.items() if x.ndim > 2}
    found = function(**given, seq_idx=torch.arange(18)[None] // 9, **options)
    return found[0] if isinstance(found, tuple) else found


def convolve(x: Tensor, **options: Any) -> Tensor:
    return convolution(x.mT, normal(3, 4, seed=1), **options).mT


SPREADS: dict[str, tuple[Callable[..., Any], dict[str, Tensor], dict[str, Any]]] = {
    "convolution": (convolve, {"x": normal(2, 18, 3)}, {}),
    "Mamba-2": (mamba2_scan, MAMBA2, {"dt_softplus": True}),
    "delta rule": (delta_rule, DELTA, OPTIONS),
    "Kimi": (kimi_delta_rule, KIMI, OPTIONS),
}


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", SPREADS)
def test_what_is_not_finite_stays_in_its_sequence(name: str, poison: float) -> None:
    function, inputs, options = SPREADS[name]
    clean, found = (spoilt(function, inputs, factor, **options) for factor in (1.0, poison))
    assert not found[:, :9].isfinite().all()
    assert torch.equal(found[:, 9:], clean[:, 9:])

"""Packed rows: all that may tell of them, read as one; every layer is told, or the row is refused."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

__all__ = ["packed", "reads_rows"]

_Given = Mapping[str, Any]
_LENGTHS = ("cu_seq_lens_q", "cu_seq_lens_k", "cu_seqlens")
_CACHES = ("past_key_values", "cache_params")
_ALONE = "give each sequence a row of its own"
_SCAN = f"transformers does not tell Mamba's scan where sequences begin: {_ALONE}"
_MIXING = {
    "mamba": _SCAN,
    "falcon_mamba": _SCAN,
    "jamba": _SCAN,
    "zamba": _SCAN,
    "granitemoehybrid": f"transformers does not tell its attention where sequences begin: {_ALONE}",
    "glm5_next": f"its indexed attention sees the whole row: {_ALONE}",
}
_NGRAMS = f"its n-gram embeddings (ple_layer_ids) read across sequences: {_ALONE}"
_DROPPING = ("MambaForCausalLM", "FalconMambaForCausalLM", "Mamba2ForCausalLM")
_DROPPED = "it does not pass them on to its layers: call its `backbone`, and `lm_head` on what that returns"


def reads_rows(model: type) -> bool:
    """Whether a class of transformers hands tokens to layers itself, or would keep from them how a row is packed."""
    names = inspect.signature(model.forward).parameters if "forward" in vars(model) else ()  # type: ignore[attr-defined]
    whole = "input_ids" in names and "pixel_values" not in names  # what also sees images hands its text on
    return whole and (model.__name__.endswith("Model") or model.__name__ in _DROPPING)


def packed(model: Any) -> Callable[..., Any]:
    """What stands in for the forward of a class of transformers: it tells all layers of packed rows, or refuses them.

    Sequences are known by `seq_idx`, by `cu_seq_lens_q` and `_k`, or by `position_ids` that restart. Layers want
    different ones of them: scans the first, attention the last, where there is neither a mask nor a cache.
    """
    names = tuple(inspect.signature(model.forward).parameters)[1:]
    folder = model.__module__.rpartition("modeling_")[2]
    mixes = _MIXING.get(folder, _DROPPED if model.__name__ in _DROPPING else "")
    attends = "position_ids" in names

    def run(forward: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        first = _first_tokens(given)
        if first is None:
            return forward(self, *args, **kwargs)
        ngrams = _NGRAMS if getattr(self.config, "ple_layer_ids", None) else ""
        _refuse(given, type(self).__name__, mixes or ngrams, attends=attends)
        return forward(self, **given | _told(given, first, attends=attends))

    return run


def _first_tokens(given: _Given) -> Bool[Tensor, "B T"] | None:
    """The first tokens of all sequences of a row but its first; None where nothing tells of packing."""
    tokens = _tokens(given)
    if tokens is None or tokens.device.type != "cpu":
        return None
    B, T = tokens.shape[:2]
    found = {name: _by_lengths(name, given[name], B, T) for name in _LENGTHS if given.get(name) is not None}
    if given.get("seq_idx") is not None:
        found["seq_idx"] = _by_numbers(given["seq_idx"], B, T)
    steps = _steps(given)
    if not found:
        return None if steps is None or T == 1 else _by_positions(steps)
    if steps is not None:
        found["position_ids"] = steps != 1
    (name, first), *others = found.items()
    for other, borders in others:
        _demand((first == borders).all(), f"{name} and {other} do not begin sequences at the same tokens")
    return first


def _by_numbers(seq_idx: Any, B: int, T: int) -> Bool[Tensor, "B T"]:
    whole = isinstance(seq_idx, Tensor) and not (seq_idx.is_floating_point() or seq_idx.dtype == torch.bool)
    if not whole or seq_idx.shape != (B, T):
        raise ValueError(f"seq_idx is a tensor of whole numbers, one for each token, {(B, T)}; got {_what(seq_idx)}")
    return functional.pad(seq_idx.diff(dim=1) != 0, (1, 0))


def _by_lengths(name: str, borders: Any, B: int, T: int) -> Bool[Tensor, "B T"]:
    whole = isinstance(borders, Tensor) and not (borders.is_floating_point() or borders.dtype == torch.bool)
    if not whole or borders.ndim != 1 or len(borders) < 2 or B != 1:
        raise ValueError(
            f"{name} is a tensor of whole numbers, the borders of all sequences of one row; "
            f"got {_what(borders)} for {B} row{'s' * (B != 1)}"
        )
    covers = (borders[0] == 0) & (borders[-1] == T) & (borders.diff() >= 0).all()
    _demand(covers, f"{name} does not run from 0 to {T}, the tokens of the row, without falling")
    places = torch.arange(T)
    return (torch.isin(places, borders) & (places > 0))[None]


def _tokens(given: _Given) -> Tensor | None:
    tokens = given.get("input_ids")
    return given.get("inputs_embeds") if tokens is None else tokens


def _steps(given: _Given) -> Int[Tensor, "B T"] | None:
    """From position to position, 1 before the row and at padding; None if they are not given, or are an image's."""
    tokens, positions, mask = _tokens(given), given.get("position_ids"), given.get("attention_mask")
    if tokens is None or positions is None or isinstance(mask, dict):
        return None
    if positions.ndim == 3 and len(positions) in (1, 4):
        positions = positions[0]  # the text's; the others are places in images
    B, T = tokens.shape[:2]
    if positions.ndim != 2 or positions.shape[1] != T:
        return None
    if isinstance(mask, Tensor) and mask.ndim != 2 and _cached(given):
        return None  # the mask alone says who sees whom
    steps = functional.pad(positions.expand(B, -1).diff(dim=1), (1, 0), value=1)
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return steps
    real = mask[:, -T:].bool()
    return steps.masked_fill(~(real & functional.pad(real[:, :-1], (1, 0))), 1)


def _by_positions(steps: Int[Tensor, "B T"]) -> Bool[Tensor, "B T"] | None:
    """Borders where positions do not go on, as transformers' masks have it, if they restart anywhere."""
    restart = (steps <= 0).any()
    if torch.compiler.is_compiling():
        _demand(~restart, "position_ids restart: compiled models have to be told of packed rows by seq_idx too")
        return None
    return steps != 1 if restart else None


def _refuse(given: _Given, name: str, mixes: str, *, attends: bool) -> None:
    start = f"{name} got packed rows, and cannot keep their sequences apart"
    if mixes:
        raise ValueError(f"{start}: {mixes}")
    if _cached(given):
        raise ValueError(f"{start} with a cache, which holds one sequence a row: leave it out, with use_cache=False")
    mask, positions = given.get("attention_mask"), given.get("position_ids")
    if attends and isinstance(mask, Tensor) and mask.ndim == 2:
        raise ValueError(f"{start} with an attention_mask, beside which its attention ignores packing: leave it out")
    if attends and positions is not None and _steps(given) is None:
        raise ValueError(f"{start}: position_ids {_what(positions)} are not positions of its text")


def _told(given: _Given, first: Bool[Tensor, "B T"], *, attends: bool) -> dict[str, Any]:
    told: dict[str, Any] = {name: None for name in _LENGTHS if name in given}  # one way of saying it, and every layer's
    told |= {"seq_idx": first.cumsum(1, dtype=torch.int32), "use_cache": False}
    if attends and given.get("position_ids") is None:
        places = torch.arange(first.shape[1]).expand(first.shape)
        told["position_ids"] = places - (places * first).cummax(1).values
    return told


def _cached(given: _Given) -> bool:
    return bool(given.get("use_cache")) or any(given.get(name) is not None for name in _CACHES)


def _demand(holds: Tensor, sentence: str) -> None:
    if torch.compiler.is_compiling():
        torch._assert_async(holds, sentence)
    elif not holds:
        raise ValueError(f"packed rows: {sentence}")


def _what(x: Any) -> str:
    return f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"

"""Transformers' CPU path of Mamba, Mamba-2 and the delta rule on this package's kernels, undone without a trace."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from threading import Lock
from types import ModuleType
from typing import Any, TypeVar

from torch import Tensor, nn

from gladient._optional import require
from gladient.integrations._convolution import INSTALL, convolution
from gladient.integrations._delta import delta_rule, kimi_delta_rule
from gladient.integrations._selective import mamba2_scan, mamba2_step, mamba_scan, mamba_step

__all__ = ["Acceleration", "SUPPORTED", "accelerate", "accelerated"]

Model = TypeVar("Model", bound=nn.Module)

SUPPORTED: dict[str, tuple[str, ...]] = {
    "Mamba": ("mamba", "falcon_mamba", "jamba", "zamba"),
    "Mamba-2": ("mamba2", "bamba", "falcon_h1", "granitemoehybrid", "nemotron_h", "zamba2"),
    "gated delta rule": ("qwen3_next", "qwen3_5", "qwen3_5_moe", "qwen4_exp", "olmo_hybrid"),
    "Kimi delta attention": ("kimi_linear", "glm5_next", "bailing_hybrid"),
}
"""The model types of transformers that are accelerated, by family."""
_OURS: Mapping[str, Callable[..., Any]] = {
    "mamba_selective_scan": mamba_scan,
    "mamba_selective_state_update": mamba_step,
    "mamba2_chunk_scan": mamba2_scan,
    "mamba2_selective_state_update": mamba2_step,
    "torch_chunk_gated_delta_rule": delta_rule,
    "torch_recurrent_gated_delta_rule": delta_rule,
    "chunk_kimi_delta_attention": kimi_delta_rule,
    "recurrent_kimi_delta_attention": kimi_delta_rule,
    "causal_conv1d_fn": convolution,
}


@dataclass
class _Swap:
    """One function of a module of transformers, and how many models have it replaced."""

    original: Callable[..., Any]
    ours: Callable[..., Any] | None = None
    users: int = 0


_swaps: dict[tuple[str, str], _Swap] = {}
_lock = Lock()


class Acceleration:
    """What `accelerate` did, to be undone.

    Args:
        places: modules and the names of their functions that are replaced.
    """

    def __init__(self, places: Sequence[tuple[ModuleType, str]]) -> None:
        self._places = tuple(places)
        with _lock:
            for module, name in self._places:
                _replace(module, name)

    @property
    def functions(self) -> tuple[str, ...]:
        """The replaced functions by their full names; none after `remove`."""
        return tuple(f"{module.__name__}.{name}" for module, name in self._places)

    def remove(self) -> None:
        """Gives transformers its functions back, unless another accelerated model needs ours; twice is once."""
        with _lock:
            for module, name in self._places:
                _restore(module, name)
            self._places = ()


def accelerate(model: nn.Module) -> Acceleration:
    """Runs a model's scans, delta rules and short convolutions on this package's kernels, on a CPU.

    In transformers these are functions of the model's Python module; ours take their place, for all models of that
    architecture in the process, until `remove`. They serve training and generation, and packed sequences (`seq_idx`,
    `cu_seq_lens_q`), which transformers refuses on a CPU. Tensors on another device go to transformers' own functions.
    Parameters, outputs and caches keep their shapes and dtypes.

    Args:
        model: a model of transformers, or a module that holds one.

    Returns:
        A handle whose `remove()` undoes it, as torch's hooks have one.

    Raises:
        ImportError: if transformers is absent.
        ValueError: if no layer of the model is of an architecture in `SUPPORTED`.

    >>> import torch
    >>> from transformers import Mamba2Config, Mamba2ForCausalLM
    >>> sizes = {"vocab_size": 8, "hidden_size": 16, "num_heads": 4, "head_dim": 8, "state_size": 8, "n_groups": 1}
    >>> model = Mamba2ForCausalLM(Mamba2Config(**sizes, num_hidden_layers=1)).eval()
    >>> tokens = torch.arange(8)[None]
    >>> plain = model(tokens).logits
    >>> handle = accelerate(model)
    >>> torch.testing.assert_close(model(tokens).logits, plain)
    >>> handle.remove()
    """
    require("transformers", needed_for="gladient.integrations.transformers", install=INSTALL)
    homes = {type(part).__module__ for part in model.modules()}
    wanted = {f"transformers.models.{name}.modeling_{name}" for names in SUPPORTED.values() for name in names}
    modules = [sys.modules[home] for home in sorted(homes & wanted)]
    if not modules:
        known = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in SUPPORTED.items())
        raise ValueError(f"{type(model).__name__} has no layer that runs on these kernels; supported are {known}")
    return Acceleration([(module, name) for module in modules for name in _OURS if hasattr(module, name)])


@contextmanager
def accelerated(model: Model) -> Iterator[Model]:
    """`accelerate` for the length of a `with` block, undone however the block ends.

    >>> import torch
    >>> from transformers import MambaConfig, MambaForCausalLM
    >>> model = MambaForCausalLM(MambaConfig(vocab_size=8, hidden_size=8, state_size=4, num_hidden_layers=1)).eval()
    >>> tokens = torch.arange(8)[None]
    >>> with accelerated(model):
    ...     ours = model(tokens).logits
    >>> torch.testing.assert_close(ours, model(tokens).logits)
    """
    handle = accelerate(model)
    try:
        yield model
    finally:
        handle.remove()


def _replace(module: ModuleType, name: str) -> None:
    swap = _swaps.setdefault((module.__name__, name), _Swap(getattr(module, name)))
    swap.users += 1
    if swap.ours is None:
        swap.ours = _ours_on_cpu(_OURS[name], swap)
        setattr(module, name, swap.ours)


def _restore(module: ModuleType, name: str) -> None:
    swap = _swaps[module.__name__, name]
    swap.users -= 1
    if swap.users == 0:
        del _swaps[module.__name__, name]
        if getattr(module, name) is swap.ours:
            setattr(module, name, swap.original)


def _ours_on_cpu(ours: Callable[..., Any], swap: _Swap) -> Callable[..., Any]:
    """Ours on a CPU and as long as it has users: whoever wrapped it meanwhile calls the original afterwards."""

    @wraps(swap.original)
    def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (ours if swap.users and x.device.type == "cpu" else swap.original)(x, *args, **kwargs)

    return run

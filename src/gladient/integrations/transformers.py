"""Transformers' CPU path of Mamba, Mamba-2 and the delta rule on this package's kernels, undone without a trace."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

from torch import Tensor, nn

from gladient._optional import require
from gladient.integrations.convolution import INSTALL, convolution, convolution_step
from gladient.integrations.delta import delta_rule, kimi_delta_rule
from gladient.integrations.norms import gated_norm, is_gated_norm
from gladient.integrations.packing import packed, reads_rows
from gladient.integrations.selective import mamba2_scan, mamba2_step, mamba_scan, mamba_step
from gladient.seams import original, stand_in
from gladient.seams.architectures import CONVOLUTION, CONVOLUTION_STEP, DELTA, KIMI, MAMBA, MAMBA2, TESTED

__all__ = ["Acceleration", "SUPPORTED", "accelerate", "accelerated"]

Model = TypeVar("Model", bound=nn.Module)

_FAMILIES = {"Mamba": MAMBA, "Mamba-2": MAMBA2, "gated delta rule": DELTA, "Kimi delta attention": KIMI}
_HOMES = {home: family for family in _FAMILIES.values() for home in family.homes}
SUPPORTED: dict[str, tuple[str, ...]] = {kind: family.models for kind, family in _FAMILIES.items()}
"""The model types of transformers that are accelerated, by family."""


def _nothing(*_: Any, **__: Any) -> None:
    """What the library's whole layers in one kernel return on a CPU: nothing, and the layer goes on by itself."""


_OURS: Mapping[str, Callable[..., Any]] = {
    MAMBA.scan: mamba_scan,
    MAMBA.step: mamba_step,
    MAMBA.whole: _nothing,
    MAMBA2.scan: mamba2_scan,
    MAMBA2.step: mamba2_step,
    MAMBA2.whole: _nothing,
    DELTA.scan: delta_rule,
    DELTA.step: delta_rule,
    KIMI.scan: kimi_delta_rule,
    KIMI.step: kimi_delta_rule,
    CONVOLUTION: convolution,
    CONVOLUTION_STEP: convolution_step,
}
_Place = tuple[ModuleType | type, str]


class Acceleration:
    """What `accelerate` did, to be undone.

    Args:
        places: modules and classes, and the names of their functions that are replaced.
    """

    def __init__(self, places: Sequence[_Place]) -> None:
        with ExitStack() as entered:
            for home, name in places:
                entered.enter_context(stand_in(home, name, _ours(home, name)))
            self._places, self._entered = tuple(places), [entered.pop_all()]

    @property
    def functions(self) -> tuple[str, ...]:
        """The replaced functions by their full names; none after `remove`."""
        return tuple(
            f"{home.__module__}.{home.__name__}.{name}" if isinstance(home, type) else f"{home.__name__}.{name}"
            for home, name in self._places
        )

    def remove(self) -> None:
        """Gives transformers its functions back, unless another accelerated model needs ours; twice is once."""
        self._places = ()
        with suppress(IndexError):  # removed before, maybe by another thread
            self._entered.pop().close()


def accelerate(model: nn.Module) -> Acceleration:
    """Runs a model's scans, delta rules and short convolutions on this package's kernels, on a CPU.

    In transformers these are functions of the model's Python module; ours take their place, for all models of that
    architecture in the process, until `remove`. They serve training and generation, also under autocast, where states
    stay exact. Packed rows (`seq_idx`, `cu_seq_lens_q`, `position_ids` that restart) are kept apart in all layers, or
    refused with the reason. Tensors on another device go to transformers' own functions. Parameters, outputs and caches
    keep their shapes and dtypes.

    Args:
        model: a model of transformers, or a module that holds one: wrapped by PEFT or DDP, compiled, quantised.

    Returns:
        A handle whose `remove()` undoes it, as torch's hooks have one.

    Raises:
        ImportError: if transformers is absent, or is a version whose layers call other functions than these.
        TypeError: if what comes is no model.
        ValueError: if no layer of the model is of an architecture in `SUPPORTED`, or one holds its function itself.

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
    if not isinstance(model, nn.Module):
        got = repr(model) if isinstance(model, str | type | None) else f"a {type(model).__name__}"
        load = "load it first, as by AutoModelForCausalLM.from_pretrained"
        raise TypeError(f"accelerate takes a model of transformers, a torch.nn.Module, not {got}: {load}")
    homes = {each.__module__ for part in model.modules() for each in type(part).__mro__}
    modules = [sys.modules[home] for home in sorted(homes & _HOMES.keys())]
    if not modules:
        known = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in SUPPORTED.items())
        raise ValueError(f"{type(model).__name__} has no layer that runs on these kernels; supported are {known}")
    for module in modules:
        _refuse_unreached(model, module)
    return Acceleration([place for module in modules for place in _places(module)])


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


def _refuse_unreached(model: nn.Module, module: ModuleType) -> None:
    """A scan that the model computes elsewhere would stay as slow as it is, and as it is for packed rows."""
    family = _HOMES[module.__name__]
    theirs = {name: original(module, name) for name in (family.scan, family.step, CONVOLUTION)}
    if absent := [name for name, function in theirs.items() if not callable(function)]:
        version, oldest = sys.modules["transformers"].__version__, ".".join(map(str, TESTED[0]))
        raise ImportError(
            f"{module.__name__} of transformers {version} has no {' and no '.join(absent)} to replace; "
            f"layers call them from version {oldest} on: pip install --upgrade 'transformers>={oldest}'"
        )
    for name, part in model.named_modules():
        held = [key for key, value in vars(part).items() if any(value is each for each in theirs.values())]
        if held:
            raise ValueError(
                f"layer {name!r} holds its function itself, as {held[0]!r}, which no replacement reaches: "
                f"delete this attribute, and let the layer call the function of {module.__name__}"
            )


def _places(module: ModuleType) -> Iterator[_Place]:
    """The functions of a module, and the forwards of its gated norms, and of its models that know what a row holds."""
    yield from ((module, name) for name in _OURS if hasattr(module, name))
    known = sys.modules["transformers"].PreTrainedModel
    for kind in list(vars(module).values()):
        here = isinstance(kind, type) and kind.__module__ == module.__name__
        if here and (is_gated_norm(kind) or (issubclass(kind, known) and reads_rows(kind))):
            yield kind, "forward"


def _ours(home: ModuleType | type, name: str) -> Callable[..., Any]:
    """What stands in for a function, or for the forward of a norm or of a model."""
    if not isinstance(home, type):
        return partial(_on_cpu, _OURS[name])
    return gated_norm if is_gated_norm(home) else packed(home)


def _on_cpu(ours: Callable[..., Any], theirs: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
    return (ours if x.device.type == "cpu" else theirs)(x, *args, **kwargs)

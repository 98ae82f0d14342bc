"""How native kernels become PyTorch operators: definition, derivative, vmap, and what is handed to a kernel.

Every tensor leads with the batch, so that vmap is a larger batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gladient.ops.function import BatchFunction, Filled, Given, Pullback, mapped
from gladient.ops.watched import followed, recorded, transformed, unfollowed, unwatched

__all__ = ["arguments", "define", "differentiable", "fake_gradients", "fields", "keeps", "named", "over_heads"]

_library = torch.library.Library("gladient", "DEF")
_kernels: dict[Any, Callable[..., Any]] = {}  # what each operator runs
_ROWS = ("A", "bonus")  # tensors of a head, with a row for each row of the batch or one for all
# those whose heads may be fewer
_HEADED = ("q", "k", "v", "g", "gk", "gv", "G", "A", "dt", "m", "beta", "erase", "a", "b")


def arguments(names: Sequence[str]) -> str:
    """Their part of a schema; what is not q, k or v may be absent.

    >>> arguments("qg")
    'Tensor q, Tensor? g'
    """
    return ", ".join(f"Tensor{'' if name in 'qkv' else '?'} {name}" for name in names)


def define(
    name: str, schema: str, kernel: Callable[..., Any], fake: Callable[..., Any], *, mappable: bool = True
) -> Any:
    """The operator gladient::name."""
    _library.define(name + schema)
    _library.impl(name, kernel, "CPU")
    torch.library.register_fake(f"gladient::{name}", fake, lib=_library)
    operator = getattr(torch.ops.gladient, name).default
    _kernels[operator] = kernel
    if mappable:
        torch.library.register_vmap(
            f"gladient::{name}", lambda info, in_dims, *x: mapped(operator, info, in_dims, x), lib=_library
        )
    return operator


def differentiable(
    operator: Any,
    backward: Any,
    plain: Callable[..., Any],
    tensors: int,
    options: int,
    upstream: int = 1,
    kept: Sequence[int] = (),
) -> Callable[..., Any]:
    """The operator under every transform, with its derivative; higher ones and tangents are those of plain PyTorch.

    Args:
        operator: the forward operator.
        backward: takes gradients of outputs, outputs kept, the tensors, options, and of which tensors the gradients are
            needed, which it returns.
        plain: takes the tensors and options and returns the outputs that have gradients, by differentiable functions.
        tensors: how many of the forward operator's arguments are tensors; they come first.
        options: how many of those behind them the backward operator takes too.
        upstream: how many outputs have gradients; they come first.
        kept: which outputs the backward operator takes.
    """

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.options = inputs[tensors : tensors + options]
        ctx.save_for_backward(*inputs[:tensors], *(output[i] for i in kept))
        ctx.set_materialize_grads(upstream == 1)  # operators with several outputs take None where one has no gradient

    def derive(ctx: Any, *d: Tensor | None) -> tuple[Tensor | None, ...]:
        held = ctx.saved_tensors  # once: under checkpointing a second look is an error
        given, saved = held[:tensors], held[tensors:]
        needed = [x is not None and need for x, need in zip(given, ctx.needs_input_grad, strict=False)]
        # The operator `backward` has no derivative. Where one may follow, a function that has takes its place.
        given = (*d[:upstream], *saved, *given, *ctx.options, needed)
        found = iter(_Backward.apply(*given) if _derived_again() else _run(backward, given))
        rest = [None] * (len(ctx.needs_input_grad) - tensors)
        return (*(next(found) if need else None for need in needed), *rest)

    class _Forward(BatchFunction):
        """Inside the transforms of torch.func, where an operator's own derivative cannot be mapped by vmap.

        Where nothing but a gradient follows, too: PyTorch's dispatcher would take longer than a small kernel.
        """

        @staticmethod
        def forward(*given: Any) -> Any:
            return _run(operator, given)

        @staticmethod
        def plain(*given: Any) -> tuple[Tensor | None, ...]:
            return (*plain(*given[: tensors + options]), *[None] * len(kept))

        @classmethod
        def setup_context(cls, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            if followed():
                super().setup_context(ctx, inputs, output)
            keep(ctx, inputs, output)

        backward = staticmethod(derive)

    class _Backward(BatchFunction):
        """Its derivative, likewise."""

        @staticmethod
        def forward(*given: Any) -> tuple[Tensor, ...]:
            return tuple(_run(backward, given))

        @staticmethod
        def plain(*given: Any) -> tuple[Tensor | None, ...]:
            d, inputs, needed = given[:upstream], given[upstream + len(kept) : -1], given[-1]
            run = Filled(plain, (*[None] * tensors, *map(Given, inputs[tensors:])))
            found = Pullback(run, upstream)(*d, *inputs[:tensors])
            return tuple(x for x, need in zip(found, needed, strict=True) if need)

    torch.library.register_autograd(operator.name(), derive, setup_context=keep, lib=_library)

    def run(*given: Any) -> Any:
        inputs = given[:tensors]
        if transformed() or (recorded(*inputs) and unfollowed(*inputs)):
            return _Forward.apply(*given)
        return _run(operator, given)

    return run


def _run(operator: Any, given: tuple[Any, ...]) -> Any:
    """An operator, past PyTorch's dispatcher where nobody looks."""
    return (_kernels[operator] if unwatched(*(x for x in given if isinstance(x, Tensor))) else operator)(*given)


def _derived_again() -> bool:
    """Whether a gradient may have a derivative of its own: one is being recorded, and no compiler looks."""
    return transformed() or (torch.is_grad_enabled() and not torch.compiler.is_compiling())


def keeps() -> bool:
    """Whether results are kept for a backward pass: a number of the length, which an exported program leaves open."""
    return not torch.compiler.is_exporting()


def named(inputs: Sequence[Tensor | None], names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors that are there as the kernels read them: contiguous, in one dtype; a shared row once."""
    dtype = torch.float64 if inputs[0].dtype == torch.float64 else torch.float32  # type: ignore[union-attr]
    found = {}
    for name, x in zip(names, inputs, strict=True):
        if x is None:
            continue
        if name in _ROWS and len(x) > 0 and x.stride(0) == 0:
            x = x[:1]
        found[name] = x if x.dtype is dtype and x.is_contiguous() else x.to(dtype).contiguous()
    return found


def fields(tensors: dict[str, Tensor], heads: int, **written: Tensor) -> dict[str, int]:
    """Sizes and addresses for a kernel, of what it reads and what it writes."""
    found = {"H": heads, "K": tensors["k"].shape[3], "V": tensors["v"].shape[3], "threads": torch.get_num_threads()}
    for name, x in tensors.items():
        if name in _ROWS and len(x) > 1:
            found[f"{name}_step"] = x[0].numel()
        if name in _HEADED:
            found[f"h{name}"] = x.shape[1 if name == "A" else 2]
    return found | {name: x.data_ptr() for name, x in (tensors | written).items()}


def over_heads(gradient: Tensor, x: Tensor, dim: int) -> Tensor:
    """A gradient of every head, in x's dtype, summed over those that share one of x."""
    if gradient.shape[dim] != x.shape[dim]:
        gradient = gradient.unflatten(dim, (x.shape[dim], -1)).sum(dim + 1)
    return gradient.to(x.dtype)


def fake_gradients(inputs: Sequence[Tensor | None], needed: Sequence[bool]) -> list[Tensor]:
    """As empty as the inputs that need one."""
    pairs = zip(inputs, needed, strict=True)
    return [x.new_empty(x.shape) for x, need in pairs if need and x is not None]

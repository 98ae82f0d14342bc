"""What the package's autograd functions share: vmap by a larger batch, derivatives of any order, no autocast."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from gladient._autocast import unrounded

__all__ = ["BatchFunction", "Pullback", "mapped", "recomputed", "row_blocks"]

# Elements of the largest temporary, per thread: 1 MiB in float32, what an L2 cache holds. A sixteenth of it takes 1.7
# times as long, for the calls; 64 times as much gains nothing and takes that much memory.
_BLOCK = 262_144


class BatchFunction(torch.autograd.Function):
    """An autograd function whose tensors all lead with the batch dimension, so that vmap is a larger batch.

    A subclass has `plain`, which is its `forward` in plain differentiable PyTorch: what computes derivatives that it
    does not bring itself, of any order and in either mode.
    """

    plain: Callable[..., tuple[Tensor | None, ...]]

    def __init_subclass__(cls) -> None:
        cls.forward.__signature__ = inspect.signature(cls.forward)  # type: ignore[attr-defined]  # torch asks each call

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        """Folds the mapped dimension into the batch and unfolds the outputs."""
        return mapped(cls.apply, info, in_dims, arguments)

    @classmethod
    def setup_context(cls, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keeps the inputs alone."""
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        ctx.run = Filled(cls.plain, tuple(None if isinstance(x, Tensor) else Given(x) for x in inputs))
        outputs = (output,) if isinstance(output, Tensor) else output
        ctx.outputs = [None if x is None else (x.shape, x.dtype) for x in outputs]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        """Gradients by computing the function again."""
        found = iter(_Recomputed.apply(Pullback(ctx.run, len(upstream)), *upstream, *ctx.saved_tensors))
        return tuple(next(found) if x is None else None for x in ctx.run.given)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Tangents of the outputs: the gradient, by the upstream ones, of a gradient, which is linear in those."""
        # The gradient Jᵀu of the outputs is linear in u, and its own gradient in the direction t, by u, is J t: the
        # tangent, at any u. u = 0 (`still`) is the cheapest.
        moving = [x for x, given in zip(tangents, ctx.run.given, strict=True) if given is None]
        held, n = ctx.saved_tensors[: len(moving)], len(ctx.outputs)
        moving = [torch.zeros_like(x) if t is None else t for x, t in zip(held, moving, strict=True)]
        still = [None if x is None else held[0].new_zeros(x[0], dtype=x[1]) for x in ctx.outputs]
        found = _Recomputed.apply(Pullback(Pullback(ctx.run, n), len(held)), *moving, *still, *held)[:n]
        return found[0] if n == 1 else tuple(found)


@dataclass(frozen=True)
class Given:
    """An argument that is no tensor."""

    value: Any


@dataclass(frozen=True)
class Filled:
    """A function of those arguments that are tensors."""

    function: Callable[..., Any]
    given: tuple[Given | None, ...]

    def arguments(self, tensors: Sequence[Tensor | None]) -> list[Any]:
        """All of them, in order."""
        left = iter(tensors)
        return [next(left) if x is None else x.value for x in self.given]

    def __call__(self, *tensors: Tensor | None) -> Any:
        """The function of all its arguments."""
        return self.function(*self.arguments(tensors))


@dataclass(frozen=True)
class Pullback:
    """The gradient of a function of tensors as a function of tensors: of those of its outputs, and of its inputs."""

    run: Callable[..., Any]
    outputs: int

    def __call__(self, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of all inputs; they can be derived again where gradients are being recorded."""
        upstream, inputs, onward = given[: self.outputs], given[self.outputs :], torch.is_grad_enabled()
        with torch.enable_grad():
            # A view leads on to the caller's graph, where gradients are derived again; else the graph ends here.
            leaves = [None if x is None else (x.view_as(x) if onward else x.detach()) for x in inputs]
            present = [x.requires_grad_() for x in leaves if x is not None]
            outputs = self.run(*leaves)
        pairs = [(x, d) for x, d in zip(outputs, upstream, strict=True) if x is not None and d is not None]
        pairs = [(x, d) for x, d in pairs if x.requires_grad]
        followed, d = [x for x, _ in pairs], [d for _, d in pairs]
        found = iter(torch.autograd.grad(followed, present, d, create_graph=onward, materialize_grads=True))
        return tuple(None if x is None else next(found) for x in inputs)


class _Recomputed(BatchFunction):
    """Forgets every intermediate of a function of tensors and computes it again where a derivative is taken.

    Neither is in the autocast region of the user, who may close it before the backward pass or after it.
    """

    @staticmethod
    def forward(run: Callable[..., Any], *inputs: Tensor | None) -> tuple[Tensor | None, ...]:
        device = next(x.device for x in inputs if x is not None)
        with unrounded(device.type):
            return run(*inputs)

    @staticmethod
    def plain(run: Callable[..., Any], *inputs: Tensor | None) -> tuple[Tensor | None, ...]:
        """The function itself."""
        return run(*inputs)


def recomputed(run: Callable[..., Any], *inputs: Tensor | None) -> Any:
    """The function, of which only the inputs are kept for derivatives."""
    if not torch.compiler.is_compiling():
        return _Recomputed.apply(run, *inputs)
    absent = [x is None for x in inputs]

    def present(*given: Tensor) -> Any:
        left = iter(given)
        return run(*(None if none else next(left) for none in absent))

    return _Traced.apply(present, *(x for x in inputs if x is not None))


class _Traced(torch.autograd.Function):
    """`_Recomputed` as torch.compile can follow it: with gradients alone, and by torch.func's."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Any], *inputs: Tensor) -> Any:
        ctx.run = run
        ctx.save_for_backward(*inputs)
        with torch.autocast(inputs[0].device.type, enabled=False):
            return run(*inputs)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        with torch.autocast(upstream[0].device.type, enabled=False):
            pull = torch.func.vjp(ctx.run, *ctx.saved_tensors)[1]
            return None, *pull(upstream)


def mapped(
    function: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]
) -> tuple[Any, Any]:
    """A function under vmap: the mapped dimension of every tensor becomes part of the batch that it leads with."""
    n, folded = info.batch_size, []
    for x, dim in zip(arguments, in_dims, strict=True):
        if isinstance(x, Tensor):
            x = (x.expand(n, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
        folded.append(x)
    found = function(*folded)
    unfolded = pytree.tree_map(lambda x: None if x is None else x.unflatten(0, (n, x.shape[0] // n)), found)
    return unfolded, pytree.tree_map(lambda x: None if x is None else 0, found)


def row_blocks(rows: int, elements: int) -> Iterator[slice]:
    """Slices of the batch such that `elements` per row stay in cache.

    >>> list(row_blocks(3, 10**9))
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    size = max(1, _BLOCK * torch.get_num_threads() // max(elements, 1))
    return (slice(i, min(i + size, rows)) for i in range(0, rows, size))

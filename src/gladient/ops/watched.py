"""Who looks at what is computed: tracers, transforms of torch.func, derivatives; there are few public questions."""

import torch
from torch import Tensor, nn
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters, retrieve_current_functorch_interpreter
from torch.autograd import forward_ad

__all__ = ["TENSORS", "followed", "plain", "recorded", "transformed", "unfollowed", "unwatched", "visible"]

TENSORS = frozenset({Tensor, nn.Parameter})
"""Kinds of tensors that hide nothing."""


def transformed() -> bool:
    """Whether one of torch.func's transforms that map or derive looks; there is no public question."""
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return False
    return retrieve_current_functorch_interpreter().key() != torch._C._functorch.TransformType.Functionalize


def visible(x: Tensor) -> bool:
    """Whether the values of x can be looked at: no tracer and no vmap is in the way, no device has to be waited for."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if torch._C._len_torch_dispatch_stack():  # fake tensors, tracers of torch.fx
        return False
    if not torch._C._are_functorch_transforms_active():
        return True
    kinds = [interpreter.key() for interpreter in retrieve_all_functorch_interpreters()]
    return torch._C._functorch.TransformType.Vmap not in kinds


def followed() -> bool:
    """Whether a tracer, a transform, a forward derivative or a profiler looks at what is computed."""
    return bool(
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._is_tracing()
        or forward_ad._current_level >= 0
        or torch.autograd._profiler_enabled()  # operators have names there
    )


def unfollowed(*tensors: Tensor | None) -> bool:
    """Whether nothing but a gradient may follow what is computed of plain tensors in memory."""
    return not followed() and all(x is None or (type(x) in TENSORS and x.is_cpu and not x.is_neg()) for x in tensors)


def recorded(*tensors: Tensor | None) -> bool:
    """Whether a gradient is recorded of what is computed of these tensors."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def unwatched(*tensors: Tensor | None) -> bool:
    """Whether kernels may run past PyTorch's dispatcher: nobody follows, and no gradient is recorded."""
    return unfollowed(*tensors) and not recorded(*tensors)


def plain(x: Tensor, recording: bool) -> bool:
    """Whether the kernel can read it as it lies, and no gradient is asked of it."""
    return x.is_cpu and x.is_contiguous() and not x.is_neg() and not (recording and x.requires_grad)

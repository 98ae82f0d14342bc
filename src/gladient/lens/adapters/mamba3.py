"""Mamba-3: a gate per head, keys that turn, two writes per token; by the functions of mamba_ssm that layers call."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gladient.lens.adapter import Adapter, Emit, Given
from gladient.lens.answer import Answer
from gladient.lens.operands import packed, unpacked
from gladient.lens.recurrence import Recurrence
from gladient.lens.turning import mamba3_recurrence
from gladient.ops.rotation import Mamba3Call, Mamba3State, cumulative_angles
from gladient.seams import WRITTEN, SeamError, on_function, on_method

__all__ = ["ADAPTER", "FLA"]


@contextmanager
def _attach(layer: Any, emit: Emit) -> Iterator[None]:
    """A step is two functions: one turns queries and keys, the next writes, reads and changes the state in place."""
    if layer.is_mimo:
        raise SeamError(
            f"{type(layer).__module__}.{type(layer).__name__} has {layer.mimo_rank} ranks, which its kernels add up "
            "before anything is heard; the lens reads layers with is_mimo=False, and all ranks of gladient.ops.mamba3"
        )
    turn: list[tuple[Given, Any]] = []

    def hold(call: Given, result: Any) -> Any:
        turn.append((call, result))
        return result

    def read_step(call: Given, _: Any) -> Recurrence:
        return _read_step(call, *turn.pop())

    heard, stepped = emit.listener(_read, _write), emit.listener(read_step, _write_step)
    with ExitStack() as seams:
        # Hears nothing: who calls `step` past the layer's forward calls the layer, too.
        seams.enter_context(on_method(layer, "step", lambda call, result: None))
        seams.enter_context(on_function(layer, "mamba3_siso_combined", heard, replace=emit.replace))
        with suppress(SeamError):  # kernels of their own, which few machines have; without them no layer decodes
            seams.enter_context(on_function(layer, "mamba3_step_fn", stepped, changes=("state",), replace=emit.replace))
            seams.enter_context(on_function(layer, "apply_rotary_qk_inference_fwd", hold, replace=emit.replace))
        yield


def _write(call: Given, result: Any, answer: Answer) -> Any:
    """What the last token wrote is kept, too, for the next one to add to."""
    output, *states = result if isinstance(result, tuple) else (result,)
    output = answer.put(output, packed(answer.output, call["cu_seqlens"]), 2)
    if not states:
        return output
    phase, state, key, value = states
    given, made = answer.given, answer.made
    key = key if made.k is given.k else made.turned.k[:, -1].to(key.dtype)
    value = value if made.v is given.v else _last_value(call, made.v, value)
    return output, phase, answer.put(state, answer.state.mT, 1), key, value


def _last_value(call: Given, v: Tensor, like: Tensor) -> Tensor:
    """The last token weighs λ Δ in the state that it leaves."""
    weight = (call["Trap"].float().sigmoid() * call["DT"].float())[:, :, -1, None]
    return torch.where(weight == 0, 0.0, v[:, -1] / weight).to(like.dtype)


def _write_step(call: Given, result: None, answer: Answer) -> None:
    """All of it in place; None is what their function returns."""
    answer.overwrite(call[WRITTEN]["state"], answer.state.mT, 1)
    out = call["out"] if call["outproj"] is not None else call["out"][:, 0]
    answer.overwrite(out, answer.output[:, 0], 1)


def _read(call: Given, result: Any) -> Recurrence:
    """A whole text; rows of a padded batch come packed one after the other."""
    borders, H = call["cu_seqlens"], call["V"].shape[2]
    pairs = ((call["Q"], call["Q_bias"]), (call["K"], call["K_bias"]))
    q, k = (unpacked(x.float().repeat_interleave(H // x.shape[2], 2) + bias, borders) for x, bias in pairs)
    v, angles = (unpacked(call[name].float(), borders) for name in ("V", "Angles"))
    g, step, mix = (unpacked(call[name].float().mT, borders) for name in ("ADT", "DT", "Trap"))
    turns = math.pi * angles.tanh() * step[..., None]
    given = call["Input_States"]
    state = None if given is None else Mamba3State(given[1].mT.float(), given[0], given[2].float(), given[3].float())
    phase = cumulative_angles(turns, None if state is None else state.phase)
    output = unpacked(result[0] if isinstance(result, tuple) else result, borders)
    z = None if call["Z"] is None else unpacked(call["Z"].float(), borders)
    found = _recurrence(call, q, k, v, (g, step, mix.sigmoid()), phase, state, output, z)
    return replace(found, products=torch.bfloat16)  # whatever came, the kernel rounds queries, keys and values to it


def _read_step(call: Given, turn: Given, turned: Any) -> Recurrence:
    """One token; `turn` has queries and keys before they turn, `turned` the phase that they turn by."""
    q, k = ((turn[name] + turn[f"bias_{name}"])[:, 0, None].float() for name in ("q", "k"))
    step = call["dt"][:, None].float()
    state = Mamba3State(call["state"].mT.float(), turned[2], call["Bstate"][:, 0].float(), call["Xstate"].float())
    output = call["out"] if call["outproj"] is not None else call["out"][:, 0]
    gates = (call["A"][:, None] * step, step, call["trap"][:, None].float())
    z = None if call["z"] is None else call["z"][:, None].float()
    return _recurrence(
        call, q, k, call["x"][:, None].float(), gates, turned[2][:, None].double(), state, output[:, None].clone(), z
    )


def _recurrence(
    call: Given,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: tuple[Tensor, Tensor, Tensor],
    phase: Tensor,
    state: Mamba3State | None,
    output: Tensor,
    z: Tensor | None,
) -> Recurrence:
    g, step, mix = gates
    if state is None:
        S, none = (q[:, 0, :, :, None] * v[:, 0, :, None]).zero_(), torch.zeros_like
        state = Mamba3State(S, none(phase[:, 0]), none(k[:, 0]), none(v[:, 0]))
    read = Mamba3Call(
        q=q[:, :, :, None], k=k[:, :, :, None], v=v[:, :, :, None], g=g, own=mix * step, former=(1 - mix) * step,
        phase=phase, state=state, pairs="adjacent", scale=1.0,
    )  # fmt: skip
    return mamba3_recurrence(
        read,
        output,
        skip=None if call["D"] is None else call["D"].float()[:, None] * v,
        output_gate=None if z is None else functional.silu(z),
    )


ADAPTER = Adapter(name="mamba3", modules=("Mamba3",), attach=_attach, package="mamba_ssm")
"""The layer of mamba_ssm."""
FLA = Adapter(name="mamba3 (fla)", modules=("Mamba3",), attach=_attach, package="fla")
"""flash-linear-attention's, which calls the same functions."""

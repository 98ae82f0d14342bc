"""RWKV-7 and Mamba-3 of packages that are not installed: functions of their signatures that are plain loops."""

import ast
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import pi
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gladient import _optional, lens

B, T, H, K, V = 2, 9, 2, 4, 3


def rwkv7_recurrent(
    receptance: Tensor, decay: Tensor, key: Tensor, value: Tensor, a: Tensor, b: Tensor, initial_state: Tensor,
    attention_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    S, outputs = initial_state, []
    for t in range(key.shape[1]):
        read = torch.einsum("bhk,bhkv->bhv", a[:, t], S)
        written = b[:, t, :, :, None] * read[:, :, None] + key[:, t, :, :, None] * value[:, t, :, None]
        seen = torch.ones(len(key)).bool() if attention_mask is None else attention_mask[:, t]
        S = torch.where(seen[:, None, None, None], decay[:, t, :, :, None] * S + written, S)
        outputs.append(torch.einsum("bhk,bhkv->bhv", receptance[:, t], S) * seen[:, None, None])
    return torch.stack(outputs, 1), S


def caught(layer: nn.Module, **given: Any) -> lens.Record:
    with lens.capture(layer) as trace:
        layer(**given)
    (record,) = trace.records
    return record


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
def test_rwkv7_of_a_file_beside_a_model_is_read(
    dtype: torch.dtype, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    home: Any = ModuleType("transformers_modules.some_model.modeling_rwkv7")
    home.rwkv7_recurrent = rwkv7_recurrent
    monkeypatch.setitem(sys.modules, home.__name__, home)

    def forward(self: nn.Module, **given: Any) -> Tensor:
        return home.rwkv7_recurrent(**given)[0]

    layer = type("RWKV7TimeMix", (nn.Module,), {"__module__": home.__name__, "forward": forward})()
    torch.manual_seed(0)
    given = {name: torch.randn(B, T, H, K, dtype=dtype) for name in ("receptance", "key")}
    given |= {"value": torch.randn(B, T, H, V, dtype=dtype), "initial_state": torch.randn(B, H, K, V, dtype=dtype)}
    erased, rate = (
        functional.normalize(torch.randn(B, T, H, K, dtype=dtype), dim=3),
        torch.rand(B, T, H, K, dtype=dtype),
    )
    given |= {"a": -erased, "b": erased * rate, "decay": (-0.6 * torch.rand(B, T, H, K, dtype=dtype)).exp()}
    if padded:
        given["attention_mask"] = torch.arange(T)[None] >= torch.tensor([[0], [3]])
    record = caught(layer, **given)
    assert record.architecture == "rwkv7"
    assert record.family == "key"
    assert record.reconstruction_error.passed
    for name in ("erase_query", "erase_key", "log_gates"):
        late: dict[str, Any] = {name: getattr(record.recurrence, name).roll(1, 1)}
        assert not replace(record, recurrence=replace(record.recurrence, **late)).reconstruction_error.passed
    if padded:
        assert not record.implicit_attention()[1, ..., :3].any()


def _turn(x: Tensor, phase: Tensor) -> Tensor:
    """Neighbouring channels as complex numbers."""
    z = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    factor = torch.polar(torch.ones_like(phase), phase)
    return torch.view_as_real(torch.cat([z[..., : phase.shape[-1]] * factor, z[..., phase.shape[-1] :]], -1)).flatten(
        -2
    )


def _write(state: Tensor, held: Tensor, key: Tensor, value: Tensor, gates: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """A state [B, H, V, K] after one token; `held` is value · key of the token before."""
    A, dt, mix = (x[..., None, None] for x in gates)
    decay = (A * dt).exp()
    return decay * state + (1 - mix) * dt * decay * held + mix * dt * value[..., None] * key[..., None, :]


def mamba3_siso_combined(
    Q: Tensor, K: Tensor, V: Tensor, ADT: Tensor, DT: Tensor, Trap: Tensor, Q_bias: Tensor, K_bias: Tensor,
    Angles: Tensor, D: Tensor | None = None, Z: Tensor | None = None, Input_States: Any = None, chunk_size: int = 64,
    return_final_states: bool = False, cu_seqlens: Tensor | None = None,
) -> Any:  # fmt: skip
    if cu_seqlens is not None:
        parts = []
        for start, stop in pairwise(cu_seqlens.tolist()):
            q, k, v, angles = (x[:, start:stop] for x in (Q, K, V, Angles))
            g, dt, trap = (x[:, :, start:stop] for x in (ADT, DT, Trap))
            z = None if Z is None else Z[:, start:stop]
            parts.append(mamba3_siso_combined(q, k, v, g, dt, trap, Q_bias, K_bias, angles, D, z))
        return torch.cat(parts, 1)
    heads = V.shape[2]
    q, k = (x.repeat_interleave(heads // x.shape[2], 2) + bias for x, bias in ((Q, Q_bias), (K, K_bias)))
    phase, state, key, value = Input_States or (
        torch.zeros_like(Angles[:, 0]), V[:, 0, ..., None] * k[:, 0, :, None] * 0, k[:, 0] * 0, V[:, 0] * 0,
    )  # fmt: skip
    outputs = []
    for t in range(V.shape[1]):
        phase = (phase + pi * Angles[:, t].tanh() * DT[:, :, t, None]) % (2 * pi)
        held, key, value = value[..., None] * key[..., None, :], _turn(k[:, t], phase), V[:, t]
        gates = (ADT[:, :, t] / DT[:, :, t], DT[:, :, t], Trap[:, :, t].sigmoid())
        state = _write(state, held, key, value, gates)
        outputs.append(torch.einsum("bhvk,bhk->bhv", state, _turn(q[:, t], phase)))
    o = torch.stack(outputs, 1) + (0 if D is None else D[:, None] * V)
    o = o if Z is None else o * functional.silu(Z)
    o = o.to(V.dtype)
    return (o, phase, state, key, value) if return_final_states else o


def apply_rotary_qk_inference_fwd(
    q: Tensor, k: Tensor, angle_state: Tensor, angle_proj: Tensor, dt: Tensor, bias_q: Tensor, bias_k: Tensor,
    inplace: bool = False, conjugate: bool = False, rotate_pairwise: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    phase = (angle_state + pi * angle_proj.tanh() * dt[..., None]) % (2 * pi)
    return _turn(q + bias_q, phase[:, None]), _turn(k + bias_k, phase[:, None]), phase


def mamba3_step_fn(
    state: Tensor, Bstate: Tensor, Xstate: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, x: Tensor, dt: Tensor,
    trap: Tensor, xproj: Tensor, outproj: Any = None, state_out: Any = None, out: Any = None, z: Any = None,
    zproj: Any = None, tile_D: int = 64, num_warps: int = 2,
) -> None:  # fmt: skip
    held = Xstate[..., None] * Bstate[:, 0, :, None]
    state.copy_(_write(state, held, B[:, 0], x, (A, dt, trap)))
    o = torch.einsum("bhvk,bhk->bhv", state, C[:, 0]) + D[:, None] * x
    o = o if z is None else o * functional.silu(z)
    out.copy_(o if outproj is not None else o[:, None])


FUNCTIONS: list[Callable[..., Any]] = [mamba3_siso_combined, apply_rotary_qk_inference_fwd, mamba3_step_fn]


class _Norm(nn.Module):
    """In place of their norm, with a gate or without."""

    def __init__(self, size: int, eps: float = 1e-5, group_size: int | None = None, **_: Any) -> None:
        super().__init__()
        self.group = group_size or size

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        y = functional.rms_norm(x.unflatten(-1, (-1, self.group)), (self.group,)).flatten(-2)
        return y if z is None else y * functional.silu(z)


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The file of their layer; what it imports of their package, which needs Triton, is replaced."""
    if importlib.util.find_spec("einops") is None:
        pytest.skip("the layer needs einops: pip install einops")
    where = {"needed_for": "this test", "install": "pip install flash-linear-attention"}
    file = _optional.find_file("fla", "layers/mamba3.py", **where)
    tree = ast.parse(Path(file).read_text("utf-8"))
    kept = [part for part in tree.body if not (isinstance(part, ast.ImportFrom) and "fla" in str(part.module))]
    home: Any = ModuleType("fla.layers.mamba3")
    monkeypatch.setitem(sys.modules, home.__name__, home)
    home.RMSNormGated = _Norm
    exec(
        compile(ast.Module(kept, []), str(file), "exec"),
        vars(home),
    )
    for function in FUNCTIONS:
        setattr(home, function.__name__, function)
    home.mamba3_mimo_combined = None
    return home


def layer_of(home: Any, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """Their layer without the question for a GPU."""

    class Mamba3(home.Mamba3):
        def forward(self, x: Tensor, state: Any = None, cu_seqlens: Any = None) -> Any:
            state = state and {"recurrent_state": state}
            return self.cuda_kernels_forward(x, state, use_cache=cu_seqlens is None, cu_seqlens=cu_seqlens)

    Mamba3.__module__ = home.__name__
    torch.manual_seed(0)
    layer = Mamba3(hidden_size=8, state_size=8, head_dim=4, dt_min=0.1, dt_max=1.0, **options)
    for parameter in layer.parameters():
        parameter.data.add_(torch.randn_like(parameter) / 3)
    for part in (layer.in_proj, layer.out_proj):  # the others stay in float32, as in their layers
        part.to(dtype)
    return layer


@pytest.mark.parametrize("options", [{}, {"rope_fraction": 1.0, "n_groups": 2}, {"is_outproj_norm": True}])
def test_mamba3_is_read_whole_and_in_steps(options: dict[str, Any], theirs: ModuleType) -> None:
    layer, tokens = layer_of(theirs, **options), torch.randn(B, T, 8)
    wanted = layer(tokens)[0]
    with torch.no_grad(), lens.capture(layer) as trace:
        o, state = layer(tokens[:, : T - 2])
        steps = [layer(tokens[:, t, None], state)[0] for t in (T - 2, T - 1)]
    torch.testing.assert_close(torch.cat([o, *steps], 1), wanted)
    assert [record.architecture for record in trace.records] == ["mamba3 (fla)"] * 3
    for record in trace.records:
        found, x = record.reconstruction_error, record.recurrence
        assert found.passed
        assert found.error < 1e-6
        assert x.phase is not None
        assert (x.phase.shape[3], x.q.shape[3]) == (layer.num_rope_angles, 8)
        value = 1.01 * x.v if record.call else x.v.roll(1, 1)  # over whole texts their kernels round to bfloat16
        broken: dict[str, Any] = {"v": value, "phase": x.phase + torch.arange(x.tokens)[:, None, None] + 1}
        broken |= {"initial_state": None} if record.call else {"own": x.own.roll(1, 1)}  # type: ignore[union-attr]
        for name, wrong in broken.items():
            assert not replace(record, recurrence=replace(x, **{name: wrong})).reconstruction_error.passed, name


@torch.no_grad()
def test_changed_mamba3_goes_on_in_steps(theirs: ModuleType) -> None:
    """Computed anew it is itself; a change of the gates is the same whole and in steps, and packed."""
    layer, tokens = layer_of(theirs), torch.randn(B, T, 8)
    wanted = layer(tokens)[0]

    def in_steps() -> Tensor:
        o, state = layer(tokens[:, : T - 2])
        return torch.cat([o, *(layer(tokens[:, t, None], state)[0] for t in (T - 2, T - 1))], 1)

    with lens.intervene(layer, lambda record: replace(record.recurrence)):
        torch.testing.assert_close(in_steps(), wanted)
    with lens.intervene(layer, lens.scale_gates(2.0)), lens.capture(layer) as trace:
        whole = layer(tokens)[0]
        torch.testing.assert_close(in_steps(), whole)
        row = layer(tokens.flatten(0, 1)[None], cu_seqlens=torch.tensor([0, T, 2 * T]))[0]
    torch.testing.assert_close(row.view(whole.shape), whole)
    assert trace.passed
    assert not torch.allclose(whole, wanted)


def test_packed_rows_of_mamba3_are_rows_again(theirs: ModuleType) -> None:
    layer, x = layer_of(theirs), torch.randn(1, T, 8)
    record = caught(layer, x=x, cu_seqlens=torch.tensor([0, 3, T]))
    assert record.shape == (2, T - 3, layer.num_heads, T - 3)
    assert record.reconstruction_error.passed
    alone = caught(layer, x=x[:, 3:])
    torch.testing.assert_close(record.implicit_attention()[1], alone.implicit_attention()[0])
    assert not record.implicit_attention()[0, :, 3:, :3].any()


def test_half_precision_of_mamba3_is_within_its_bound(theirs: ModuleType) -> None:
    layer, x = layer_of(theirs, torch.bfloat16), torch.randn(B, 70, 8).bfloat16()
    record = caught(layer, x=x)
    assert record.reconstruction_error.passed
    late = replace(record.recurrence, v=record.recurrence.v.roll(1, 1))
    assert not replace(record, recurrence=late).reconstruction_error.passed


def test_ranks_that_are_added_up_in_a_kernel_are_refused(theirs: ModuleType) -> None:
    layer = layer_of(theirs, is_mimo=True)
    with pytest.raises(lens.SeamError, match="has 4 ranks, which its kernels add up"), lens.capture(layer):
        pass


def test_a_layer_whose_kernels_are_missing_says_so(theirs: Any) -> None:
    theirs.mamba3_siso_combined = None
    with pytest.raises(lens.SeamError, match="no function 'mamba3_siso_combined'"), lens.capture(layer_of(theirs)):
        pass

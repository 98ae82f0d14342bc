"""ggml's loops over tokens as a peer, called through its C interface: forward only.

GATED_LINEAR_ATTN takes decays per key, RWKV_WKV6 reads before the write and adds the bonus, SSM_SCAN is Mamba-1 and
Mamba-2 and multiplies the step sizes into rates and writes itself, GATED_DELTA_NET is the gated delta rule, RWKV_WKV7
the generalised one. The libraries come from `libggml-python`.
"""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.operators.cases import Case
from gladient import _optional

__all__ = ["Graph", "Scan", "scans", "INSTALL"]

INSTALL = "pip install libggml-python==0.20.2.post1"
"""What brings ggml, for errors that say so."""
_F32, _I32 = 0, 26  # of enum ggml_type
_VECTOR = 8  # its loops over square heads take whole vectors of float32
_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


class _InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", _POINTER), ("no_alloc", ctypes.c_bool)]


class _Plan(ctypes.Structure):
    _fields_ = [("work_size", ctypes.c_size_t), ("work_data", _POINTER), ("n_threads", _INT)]
    _fields_ += [("threadpool", _POINTER), ("abort", _POINTER), ("abort_data", _POINTER), ("use_ref", ctypes.c_bool)]


class _PoolParams(ctypes.Structure):
    _fields_ = [("cpumask", ctypes.c_bool * 512), ("n_threads", _INT), ("prio", _INT), ("poll", ctypes.c_uint32)]
    _fields_ += [("strict_cpu", ctypes.c_bool), ("paused", ctypes.c_bool)]


_SIGNATURES: dict[str, tuple[type | None, list[type]]] = {
    "ggml_init": (_POINTER, [_InitParams]),
    "ggml_free": (None, [_POINTER]),
    "ggml_tensor_overhead": (ctypes.c_size_t, []),
    "ggml_graph_overhead": (ctypes.c_size_t, []),
    "ggml_new_tensor": (_POINTER, [_POINTER, _INT, _INT, ctypes.POINTER(_LONG)]),
    "ggml_nelements": (_LONG, [_POINTER]),
    "ggml_get_data": (_POINTER, [_POINTER]),
    "ggml_gated_linear_attn": (_POINTER, [_POINTER] * 6 + [ctypes.c_float]),
    "ggml_rwkv_wkv6": (_POINTER, [_POINTER] * 7),
    "ggml_rwkv_wkv7": (_POINTER, [_POINTER] * 8),
    "ggml_ssm_scan": (_POINTER, [_POINTER] * 8 + [_LONG]),
    "ggml_gated_delta_net": (_POINTER, [_POINTER] * 7 + [_LONG]),
    "ggml_new_graph": (_POINTER, [_POINTER]),
    "ggml_build_forward_expand": (None, [_POINTER, _POINTER]),
    "ggml_threadpool_params_default": (_PoolParams, [_INT]),
    "ggml_threadpool_new": (_POINTER, [ctypes.POINTER(_PoolParams)]),
    "ggml_threadpool_pause": (None, [_POINTER]),
    "ggml_threadpool_free": (None, [_POINTER]),
    "ggml_graph_plan": (_Plan, [_POINTER, _INT, _POINTER]),
    "ggml_graph_compute": (_INT, [_POINTER, ctypes.POINTER(_Plan)]),
}


@cache
def _library() -> ctypes.CDLL:
    """The CPU library, which brings ggml's core with it."""
    folder = Path(_optional.require("libggml", needed_for="the peer ggml", install=INSTALL).__path__[0])
    found = sorted(folder.glob("lib*/libggml-cpu.*"))
    if not found:
        raise ImportError(f"no libggml-cpu in {folder}; install it again with: {INSTALL}")
    library = ctypes.CDLL(str(found[0]))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Graph:
    """One operator of ggml on inputs that are copied once; `compute` is what is timed.

    Its threads poll for work for a while after each computation; `rest` sends them to sleep.
    """

    def __init__(
        self, operator: str, inputs: Sequence[Tensor], numbers: Sequence[int | float], entries: int, threads: int
    ):
        self._ggml = ggml = _library()
        size = sum(x.nbytes for x in inputs) + 4 * entries
        size += (len(inputs) + 1) * (ggml.ggml_tensor_overhead() + 64) + ggml.ggml_graph_overhead()
        self._context = ggml.ggml_init(_InitParams(size, None, False))
        made = [self._copy(x) for x in inputs]
        self._result = getattr(ggml, operator)(self._context, *made, *numbers)
        if ggml.ggml_nelements(self._result) != entries:
            raise RuntimeError(f"{operator} of this ggml returns something else; {INSTALL}")
        self._graph = ggml.ggml_new_graph(self._context)
        ggml.ggml_build_forward_expand(self._graph, self._result)
        self._pool = ggml.ggml_threadpool_new(ctypes.byref(ggml.ggml_threadpool_params_default(threads)))
        self._plan = ggml.ggml_graph_plan(self._graph, threads, self._pool)
        self._work = ctypes.create_string_buffer(max(self._plan.work_size, 1))
        self._plan.work_data = ctypes.addressof(self._work)

    def compute(self) -> None:
        """The operator once; the outputs and the final state overwrite those before."""
        if self._ggml.ggml_graph_compute(self._graph, ctypes.byref(self._plan)):
            raise RuntimeError("ggml gave up")

    def rest(self) -> None:
        """Stops the polling of the threads until the next `compute`."""
        self._ggml.ggml_threadpool_pause(self._pool)

    def result(self) -> Tensor:
        """A copy of all that the operator wrote, flat: the outputs, then the final states."""
        entries = self._ggml.ggml_nelements(self._result)
        data = (ctypes.c_float * entries).from_address(self._ggml.ggml_get_data(self._result))
        return torch.frombuffer(data, dtype=torch.float32).clone()

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            self._ggml.ggml_threadpool_free(self._pool)
        if hasattr(self, "_context"):
            self._ggml.ggml_free(self._context)

    def _copy(self, x: Tensor) -> int:
        """The tensor in ggml, whose dimensions count from the last."""
        x = x.detach().contiguous()
        sizes = (_LONG * x.ndim)(*reversed(x.shape))
        made: int = self._ggml.ggml_new_tensor(self._context, _F32 if x.is_floating_point() else _I32, x.ndim, sizes)
        ctypes.memmove(self._ggml.ggml_get_data(made), x.data_ptr(), x.nbytes)
        return made


@dataclass(frozen=True)
class Scan:
    """A graph and how its results lie: states as [B, H, V, K] where `value_first`."""

    graph: Graph
    case: Case
    value_first: bool

    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs, [B, T, H, V], and after a step the state, [B, H, K, V], as ours are."""
        case = self.case
        o, states = self.graph.result().split([case.B * case.T * case.H * case.V, case.B * case.H * case.K * case.V])
        o = o.view(case.B, case.T, case.H, case.V)
        if not case.step:
            return (o,)
        if self.value_first:
            return o, states.view(case.B, case.H, case.V, case.K).transpose(2, 3)
        return o, states.view(case.B, case.H, case.K, case.V)


def scans(case: Case, inputs: Mapping[str, Tensor], threads: int) -> dict[str, Scan]:
    """By name, those of ggml's operators that compute this case; none where it is not installed."""
    if not _optional.have("libggml") or case.last or case.turns != "none":
        return {}
    found = {}
    square = case.K == case.V and case.K % _VECTOR == 0
    if case.general:
        return {"ggml RWKV_WKV7": Scan(_moves(case, inputs, threads), case, value_first=True)} if square else {}
    if case.delta:
        return {"ggml GATED_DELTA_NET": Scan(_delta(case, inputs, threads), case, value_first=True)} if square else {}
    if case.family in ("scalar", "key") and square:
        name, graph = _by_key(case, inputs, threads)
        found[name] = Scan(graph, case, value_first=False)
    if case.family != "key" and case.read == "after":
        found["ggml SSM_SCAN"] = Scan(_state_space(case, inputs, threads), case, value_first=True)
    return found


def _by_key(case: Case, x: Mapping[str, Tensor], threads: int) -> tuple[str, Graph]:
    """GATED_LINEAR_ATTN or RWKV_WKV6: decays of every key channel, all tokens in one row."""
    shape = (case.B, case.T, case.H, case.K)
    q, k, v = (x[name].expand(shape).flatten(0, 1) for name in ("q", "k", "v"))
    decays = (x["gk"] if case.family == "key" else x["g"][..., None]).exp().expand(shape).flatten(0, 1)
    state, entries = _state(case, x).flatten(1), (case.B * case.T + case.B * case.K) * case.H * case.V
    if case.read == "before":
        u = x["bonus"] if case.bonus else torch.zeros(case.H, case.K)
        return "ggml RWKV_WKV6", Graph("ggml_rwkv_wkv6", (k, v, q, u, decays, state), (), entries, threads)
    return "ggml GATED_LINEAR_ATTN", Graph("ggml_gated_linear_attn", (k, v, q, decays, state), (1.0,), entries, threads)


def _delta(case: Case, x: Mapping[str, Tensor], threads: int) -> Graph:
    """GATED_DELTA_NET; it scales queries by K^-1/2, takes log gates, and keeps one final state."""
    q, gates = x["q"] * case.K**0.5, x["gk"] if case.family == "key" else x["g"][..., None]
    inputs = (q, x["k"], x["v"], gates, x["beta"][..., None], _state(case, x).transpose(2, 3))
    return Graph("ggml_gated_delta_net", inputs, (1,), (case.B * case.T + case.B * case.K) * case.H * case.V, threads)


def _moves(case: Case, x: Mapping[str, Tensor], threads: int) -> Graph:
    """RWKV_WKV7, which takes decays of every key channel, all tokens in one row."""
    x = {**x, "gk": x["gk"].exp()}
    inputs = [x[name].flatten(0, 1) for name in ("q", "gk", "k", "v", "a", "b")]
    inputs.append(_state(case, x).transpose(2, 3).flatten(1))
    return Graph("ggml_rwkv_wkv7", inputs, (), (case.B * case.T + case.B * case.K) * case.H * case.V, threads)


def _state_space(case: Case, x: Mapping[str, Tensor], threads: int) -> Graph:
    """SSM_SCAN. In Mamba-2 each head has one rate; in Mamba-1 each value channel counts as a head.

    It takes softplus of the step sizes, as log(1 + exp(x)) in float32, and multiplies the values by it, so it gets what
    leads to our gates and values; step sizes around 10 keep the digits that this formula loses near 0.
    """
    (B, T, H, K, V), v = (case.B, case.T, case.H, case.K, case.V), x["v"]
    if case.family == "scalar":
        rates, steps = -torch.ones(H, 1), -x["g"]
    else:
        rates, steps = (x["A"], x["dt"]) if case.family == "rates" else (x["G"][0, 0], torch.ones(B, T, H, V))
        rates, steps, v = rates.transpose(1, 2).flatten(0, 1), steps.flatten(2), v.reshape(B, T, H * V, 1)
    unit = 10 / steps.max().clamp_min(1e-12)
    before_softplus = (unit * steps).double().clamp_min(1e-6).expm1().log().float()
    values = v / (1 + before_softplus.exp()).log()[..., None]
    state = _state(case, x).transpose(2, 3).reshape(B, values.shape[2], values.shape[3], K)
    ids = torch.arange(B, dtype=torch.int32)  # of the states, one per sequence
    inputs = (state, values, before_softplus, rates / unit, x["k"], x["q"], ids)
    return Graph("ggml_ssm_scan", inputs, (1,), B * H * V * (T + K), threads)


def _state(case: Case, x: Mapping[str, Tensor]) -> Tensor:
    return x["initial_state"] if case.step else torch.zeros(case.B, case.H, case.K, case.V)

"""flash-linear-attention's kernels by its own naive functions, which run without Triton."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gladient import _optional

__all__ = ["KERNELS"]

Given = dict[str, Any]


@cache
def naive(file: str, name: str) -> Callable[..., Any]:
    module = _optional.require_file("fla", f"ops/{file}", needed_for="this test", install="pip install fla-core")
    return getattr(module, name)


def _by_sequence(run: Callable[[Given], tuple[Tensor, Any]]) -> Callable[[Given], tuple[Tensor, Any]]:
    """Packed sequences one after the other, each from its own state."""

    def each(given: Given) -> tuple[Tensor, Any]:
        borders, state = given.get("cu_seqlens"), given.get("initial_state")
        if borders is None:
            return run(given)
        tensors = {name: x for name, x in given.items() if isinstance(x, Tensor) and x.shape[:2] == (1, borders[-1])}
        outputs, states = [], []
        for row, (start, stop) in enumerate(pairwise(borders.tolist())):
            part = {name: x[:, start:stop] for name, x in tensors.items()}
            o, last = run(given | part | {"initial_state": None if state is None else state[row : row + 1]})
            outputs.append(o)
            states.append(last)
        return torch.cat(outputs, 1), torch.cat(states) if isinstance(states[0], Tensor) else None

    return each


def _with_state(run: Callable[[Given, Tensor | None], tuple[Tensor, Tensor]]) -> Callable[[Given], tuple[Tensor, Any]]:
    """States come and go as [V, K] where the caller says so."""

    def turned(given: Given) -> tuple[Tensor, Tensor]:
        v_first, state = given.get("state_v_first"), given.get("initial_state")
        o, last = run(given, state.mT if v_first and state is not None else state)
        return o, last.mT.contiguous() if v_first else last

    return _by_sequence(turned)


def _scale(given: Given, q: Tensor) -> float:
    return q.shape[3] ** -0.5 if given.get("scale") is None else given["scale"]


def _gla(given: Given, state: Tensor | None) -> tuple[Tensor, Tensor]:
    q, gates = given["q"], given["g"] if given.get("gk") is None else given["gk"]
    function = naive("gla/naive.py", "naive_recurrent_gla")  # it scales by 1 / √K itself
    q = q * _scale(given, q) * q.shape[3] ** 0.5
    return function(q, given["k"], given["v"], gates, initial_state=state, output_final_state=True)


def _simple_gla(given: Given, state: Tensor | None) -> tuple[Tensor, Tensor]:
    function = naive("simple_gla/naive.py", "naive_recurrent_simple_gla")
    operands = (given[name] for name in ("q", "k", "v", "g"))
    return function(*operands, scale=given.get("scale"), initial_state=state, output_final_state=True)


def _retention(given: Given, state: Tensor | None) -> tuple[Tensor, Tensor]:
    q = given["q"]
    decays = (1 - 2.0 ** (-5 - torch.arange(q.shape[2]).double())).log().float()
    return _simple_gla(given | {"g": decays.expand(q.shape[:3])}, state)


def _rwkv6(given: Given, state: Tensor | None) -> tuple[Tensor, Tensor]:
    function = naive("rwkv6/recurrent_naive.py", "naive_recurrent_rwkv6")
    r, k, v, w = (given[name].transpose(1, 2) for name in ("r", "k", "v", "w"))
    options = {"scale": given.get("scale"), "initial_state": state, "output_final_state": True}
    o, last = function(r, k, v, w, given["u"], **options)
    return o.transpose(1, 2), last


def _linear(given: Given) -> tuple[Tensor, Any]:
    function = naive("linear_attn/naive.py", "naive_recurrent_linear_attn")
    names = ("q", "k", "v", "scale", "initial_state", "normalize")
    return function(**{name: given.get(name) for name in names}, output_final_state=True)


def _hgrn(given: Given) -> tuple[Tensor, Any]:
    function = naive("hgrn/naive.py", "naive_recurrent_hgrn")
    return function(given["x"], given["g"], given.get("initial_state"), True)


def _delta(given: Given, state: Tensor | None) -> tuple[Tensor, Tensor]:
    q, k, v, beta, g = (given.get(name) for name in ("q", "k", "v", "beta", "g"))
    assert q is not None
    assert k is not None
    assert v is not None
    assert beta is not None
    if given.get("use_qk_l2norm_in_kernel"):
        q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    if given.get("use_beta_sigmoid_in_kernel"):
        beta = torch.sigmoid(beta) * (2.0 if given.get("allow_neg_eigval") else 1.0)
    if given.get("use_gate_in_kernel"):
        g = _gate(given)
    q, k = (x.repeat_interleave(v.shape[2] // x.shape[2], 2) for x in (q, k))
    g = torch.zeros(v.shape[:3]) if g is None else g
    options = {"scale": given.get("scale"), "initial_state": state, "output_final_state": True}
    if g.ndim == 4:
        return naive("kda/naive.py", "naive_recurrent_kda")(q, k, v, g, beta, **options)
    return naive("gated_delta_rule/naive.py", "naive_recurrent_gated_delta_rule")(q, k, v, beta, g, **options)


def _gdn2(given: Given, state: Tensor | None) -> tuple[Tensor, Tensor]:
    q, k = given["q"], given["k"]
    if given.get("use_qk_l2norm_in_kernel"):
        q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    operands = (given[name] for name in ("v", "g", "b", "w"))
    options = {"scale": given.get("scale"), "initial_state": state, "output_final_state": True}
    return naive("gdn2/naive.py", "naive_recurrent_gdn2")(q, k, *operands, **options)


def _comba(given: Given, state: Tensor | None) -> tuple[Tensor, Tensor]:
    each = (given["q"], given["k"], given["k"] if given["p"] is None else given["p"])
    unit = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in each)
    q, k, p = (x.repeat_interleave(given["v"].shape[2] // x.shape[2], 2) for x in unit)
    options = {"scale": given.get("scale"), "initial_state": state, "output_final_state": True}
    function = naive("comba/naive.py", "naive_recurrent_comba")
    return function(q, k, given["v"], p, given["beta"], given["g"], **options)


def _rwkv7(given: Given, state: Tensor | None) -> tuple[Tensor, Tensor]:
    function = naive("generalized_delta_rule/dplr/naive.py", "dplr_recurrence")  # it scales by 1 / √K
    a, b = (-given["kk"], given["kk"] * given["a"]) if "kk" in given else (given["a"], given["b"])
    r = given["r"] * given["r"].shape[3] ** 0.5
    o, last = function(*(x.transpose(1, 2) for x in (r, given["k"], given["v"], a, b, given["w"])), state)
    return o.transpose(1, 2), last


def _gate(given: Given) -> Tensor:
    """As the docstrings of their gates have it."""
    g, A, bound = given["g"], given["A_log"].exp(), given.get("lower_bound")
    g = g + given["dt_bias"].view(g.shape[2:])
    A = A[:, None] if g.ndim == 4 else A
    return -A * functional.softplus(g) if bound is None else bound * torch.sigmoid(A * g)


_FAMILIES: dict[str, tuple[str, Callable[[Given], tuple[Tensor, Any]]]] = {
    "gla": ("chunk fused_chunk fused_recurrent", _with_state(_gla)),
    "simple_gla": ("chunk fused_recurrent", _with_state(_simple_gla)),
    "retention": ("chunk fused_chunk fused_recurrent parallel", _with_state(_retention)),
    "rwkv6": ("chunk fused_recurrent", _with_state(_rwkv6)),
    "linear_attn": ("chunk fused_chunk fused_recurrent", _by_sequence(_linear)),
    "hgrn": ("chunk fused_recurrent", _by_sequence(_hgrn)),
    "delta_rule": ("chunk fused_recurrent", _with_state(_delta)),
    "gated_delta_rule": ("chunk fused_recurrent", _with_state(_delta)),
    "kda": ("chunk fused_recurrent", _with_state(_delta)),
    "comba": ("chunk fused_recurrent", _with_state(_comba)),
    "gdn2": ("chunk fused_recurrent", _with_state(_gdn2)),
    "rwkv7": ("chunk fused_mul_recurrent", _with_state(_rwkv7)),
}
KERNELS = {f"{form}_{name}": run for name, (forms, run) in _FAMILIES.items() for form in forms.split()}

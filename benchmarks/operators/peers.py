"""Everybody's operator on our inputs by name: ours, installed peers, and plain chunks, eager and compiled."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from benchmarks.operators import ggml, plain
from benchmarks.operators.cases import Case, inputs, operator, options
from gladient import _optional
from gladient.ops import Decoder, gated_delta_rule

__all__ = ["KINDS", "Contender", "Kind", "contenders", "missing"]

Kind = Literal["ours", "installed", "compiled", "ggml", "eager"]
"""Where a contender comes from: this package, a package that can be installed, compiled or plain PyTorch, or ggml."""
KINDS: tuple[Kind, ...] = get_args(Kind)
Operator = Callable[..., tuple[Tensor, ...]]
Function = Callable[..., Tensor]
_FLA = "pip install fla-core==0.6.0"
_TRANSFORMERS = "pip install transformers==5.23.0"
_RWKV7 = "pip install --no-deps rwkv7-hf==0.9.0"
_CURES = {"fla": _FLA, "transformers": _TRANSFORMERS, "libggml": ggml.INSTALL, "rwkv7_hf": _RWKV7}
_LONGEST = {"fla naive recurrent": 2048, "fla naive parallel": 2048}  # tokens, beyond which they need over 20 GB
_LONGEST_DELTA = 256  # tokens, beyond which loops over tokens of the delta rule take half a minute
_LONGEST_COMPILED = 4096  # tokens, beyond which the loop over chunks takes minutes to compile,
_LONGEST_COMPILED_DELTA = 512  # with a triangular system for each


@dataclass(frozen=True)
class Contender:
    """An operator that takes the case's tensors by name and returns the outputs, and after a step the state.

    `eager` are plain functions for comparison that no one would install; ratios leave them out. One that has tensors
    of its own is given for a yardstick: it computes something else on the same sizes.
    """

    kind: Kind
    operator: Operator
    given: dict[str, Tensor] | None = None


def missing(case: Case) -> list[str]:
    """The peers that are left out of a case, and why or with what to install."""
    needless = "transformers" if case.general else "rwkv7_hf"
    cures = {name: cure for name, cure in _CURES.items() if name != needless and case.turns == "none"}
    found = [f"{name} (install it with: {cure})" for name, cure in cures.items() if not _optional.have(name)]
    if _compiled(case) and not _few_chunks(case):
        found.append(f"plain chunks, compiled (at most {_longest_compiled(case)} tokens, in whole chunks)")
    return found


def contenders(case: Case) -> dict[str, Contender]:
    """Ours first, then every peer at hand for this case that PyTorch can run."""
    given = options(case)
    ours = partial(_ours, operator(case), **given)
    found = {"gladient": Contender("ours", ours)}
    if case.turns == "rotate":
        return found | {
            "plain torch": Contender("eager", _alone(plain.rotate)),
            "plain torch, compiled": Contender("compiled", _alone(_compile(plain.rotate))),
        }
    found["gladient, backend='eager'"] = Contender("ours", partial(ours, backend="eager"))
    if case.turns == "mamba3":
        return found | {"gladient, the scan alone": _yardstick(replace(case, turns="none"))}
    if case.step:
        found["gladient, inplace=True"] = Contender("ours", partial(ours, inplace=True))
        found["gladient, Decoder"] = Contender("ours", _decoding(case))
        return found
    if case.general and not case.last:
        found["gladient, two tokens of gated_delta_rule"] = Contender("ours", _alone(_packed))
        same = replace(case, delta=True, general=False)
        found["gladient, gated_delta_rule of the same sizes"] = _yardstick(same)
    for module, peers in (("fla", _fla), ("transformers", _transformers), ("rwkv7_hf", _rwkv7)):
        if _optional.have(module):
            for name, function in peers(case).items():
                if _LONGEST.get(name, case.T) >= case.T:
                    found[name] = Contender("installed", _alone(_last(function) if case.last else function))
    for name, function in _compiled(case).items() if _few_chunks(case) else ():
        found[name] = Contender("compiled", _alone(_compile(function)))
    if case.family == "key" and case.read == "after" and not case.delta and not case.general:
        function = _last(plain.safe_chunk) if case.last else plain.safe_chunk
        found["a plain safe chunk of 16, eager"] = Contender("eager", _alone(function))
    return found


def _ours(function: Callable[..., tuple[Tensor, Tensor | None]], **given: Any) -> tuple[Tensor, ...]:
    o, state = function(**given)
    return (o,) if state is None else (o, state)


def _decoding(case: Case) -> Operator:
    decoders: list[Decoder] = []

    def decode(initial_state: Tensor, **token: Tensor) -> tuple[Tensor, ...]:
        if not decoders:
            decoders.append(Decoder(initial_state, read=case.read))
        return decoders[0](**token), decoders[0].state

    return decode


def _alone(function: Function) -> Operator:
    return lambda **x: (function(**x),)


def _last(function: Function) -> Function:
    def last(*, q: Tensor, k: Tensor, **x: Tensor) -> Tensor:
        earlier = q.new_zeros(q.shape[0], k.shape[1] - 1, *q.shape[2:])  # peers want a query for every token
        return function(q=torch.cat([earlier, q], 1), k=k, **x)[:, -1:]

    return last


def _compile(function: Function) -> Function:
    """Compiled for these shapes alone, again in every process.

    PyTorch's cache of compiled graphs does not tell AVX2 from AVX-512: under ATEN_CPU_CAPABILITY it hands out code of
    the other width, which computes NaN or writes past its buffers.
    """
    torch.compiler.reset()  # the shapes of earlier cases count towards the limit of recompilations
    options: dict[str, Any] = {"fx_graph_cache": False}
    compiled: Function = torch.compile(function, dynamic=False, fullgraph=True, options=options)
    return compiled


def _compiled(case: Case) -> dict[str, Function]:
    if case.read == "before" or case.step or case.general or case.turns != "none":
        return {}
    if case.delta:
        scalar = case.family == "scalar" and not case.last
        return {"a plain chunk of 64, compiled": plain.delta_chunk} if scalar else {}
    if case.family == "scalar" and case.last:
        return {"a plain last query, compiled": plain.last_query}
    if case.family == "scalar":
        return {"a plain chunk of 64, compiled": plain.scalar_chunk}
    return {"a plain chunk of 32, compiled": plain.key_chunk} if case.family == "key" and not case.last else {}


def _few_chunks(case: Case) -> bool:
    """Whether the loop over chunks compiles in about a minute and needs no padding."""
    return _longest_compiled(case) >= case.T and (case.T % 64 == 0 or (case.family == "scalar" and case.T < 64))


def _longest_compiled(case: Case) -> int:
    return _LONGEST_COMPILED_DELTA if case.delta else _LONGEST_COMPILED


def _fla(case: Case) -> dict[str, Function]:
    # by file: fla's own imports want Triton, 1 GB that these functions do not use
    def load(file: str) -> Any:
        return _optional.require_file("fla", f"ops/{file}", needed_for="the peers", install=_FLA)

    if case.general:
        module = load("generalized_delta_rule/dplr/naive.py")

        def dplr(function: Any, q: Tensor, k: Tensor, v: Tensor, gk: Tensor, a: Tensor, b: Tensor) -> Tensor:
            given = (q * q.shape[3] ** 0.5, k, v, a, b, gk)  # its scale is fixed at K^-1/2
            return function(*(x.transpose(1, 2) for x in given))[0].transpose(1, 2)

        functions = {"recurrent": module.dplr_recurrence, "chunk": module.dplr_chunkwise}
        return {f"fla naive {kind}": partial(dplr, function) for kind, function in functions.items()}
    if case.delta:
        family = {"scalar": "gated_delta_rule", "key": "kda"}[case.family]
        module = load(f"{family}/naive.py")
        names = {kind: f"naive_{kind}_{family}" for kind in _delta_kinds(case)}
        return {f"fla naive {kind}": _delta(getattr(module, name), "q", "k", "v") for kind, name in names.items()}
    if case.family == "scalar":
        simple = load("simple_gla/naive.py")
        functions = {kind: getattr(simple, f"naive_{kind}_simple_gla") for kind in ("recurrent", "chunk", "parallel")}

        def by_head(q: Tensor, k: Tensor, v: Tensor, g: Tensor, function: Any) -> Tensor:
            q, k = (x.repeat_interleave(case.H // x.shape[2], 2) for x in (q, k))
            return function(q, k, v, g, scale=1.0)[0]

        return {f"fla naive {kind}": partial(by_head, function=function) for kind, function in functions.items()}
    if case.family == "key" and case.read == "before":
        rwkv6 = load("rwkv6/recurrent_naive.py").naive_recurrent_rwkv6

        def heads_first(q: Tensor, k: Tensor, v: Tensor, gk: Tensor, bonus: Tensor) -> Tensor:
            q, k, v, gk = (x.transpose(1, 2) for x in (q, k, v, gk))
            return rwkv6(q, k, v, gk, bonus, scale=1.0)[0].transpose(1, 2)

        return {"fla naive recurrent": heads_first} if case.bonus else {}
    if case.family == "key":  # its scale is fixed at K^-1/2
        gla = load("gla/naive.py").naive_recurrent_gla
        return {"fla naive recurrent": lambda q, k, v, gk: gla(q * q.shape[3] ** 0.5, k, v, gk)[0]}
    return {}


def _delta_kinds(case: Case) -> tuple[str, ...]:
    return ("chunk", "recurrent") if case.T <= _LONGEST_DELTA else ("chunk",)


def _delta(function: Any, *names: str) -> Function:
    """A function of the delta rule that calls its tensors query, key and value unless named; it scales by K^-1/2."""

    def operate(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, **gates: Tensor) -> Tensor:
        (g,), inputs = gates.values(), (q * q.shape[3] ** 0.5, k, v)
        tensors = dict(zip(names or ("query", "key", "value"), inputs, strict=True))
        options = {} if names else {"initial_state": None, "output_final_state": False}
        return function(**tensors, g=g, beta=beta, **options)[0]

    return operate


def _packed(q: Tensor, k: Tensor, v: Tensor, gk: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The generalised delta rule in two tokens: the first erases, the second writes. It divides by gates."""
    zero, none = torch.zeros_like(q), gk.new_zeros(gk.shape[:3])
    rows = [(zero, q), (b, k), (torch.zeros_like(v), v), (none, none + 1), (zero + 1, zero), (-a / gk.exp(), zero)]
    q, k, v, beta, erase, erase_keys, gk = (torch.stack(x, 2).flatten(1, 2) for x in (*rows, (gk, zero)))
    return gated_delta_rule(q, k, v, beta, erase=erase, erase_keys=erase_keys, gk=gk)[0][:, 1::2]


def _yardstick(case: Case) -> Contender:
    return Contender("ours", partial(_ours, operator(case), **options(case)), inputs(case))


def _rwkv7(case: Case) -> dict[str, Function]:
    if not case.general:
        return {}
    module = _optional.require_file("rwkv7_hf", "ops_rwkv7.py", needed_for="the peers", install=_RWKV7)

    def loop(q: Tensor, k: Tensor, v: Tensor, gk: Tensor, a: Tensor, b: Tensor) -> Tensor:
        state = v.new_zeros(v.shape[0], v.shape[2], k.shape[3], v.shape[3])
        return module.rwkv7_recurrent(q, gk.exp(), k, v, a, b, state)[0]

    return {"rwkv7-hf": loop}


def _transformers(case: Case) -> dict[str, Function]:
    def load(model: str) -> Any:
        module = f"transformers.models.{model}.modeling_{model}"
        return _optional.require(module, needed_for="the peers", install=_TRANSFORMERS)

    def mamba2(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        ones = torch.ones(g.shape)  # its decay is A·dt and its write dt·v: with dt = 1, A is our log gate
        return scan(v, ones, g, k, q, chunk_size=min(64, q.shape[1]))

    def mamba(q: Tensor, k: Tensor, v: Tensor, **gates: Tensor) -> Tensor:
        q, k, v = (x[:, :, 0].transpose(1, 2) for x in (q, k, v))  # decays exp(A·dt) for A [V, K], dt [B, V, T]
        if case.family == "full":
            A, dt = gates["G"][0, 0, 0].T, torch.ones(v.shape)
        else:
            A, dt = gates["A"][0].T, gates["dt"][:, :, 0].transpose(1, 2)
            v = v / dt  # which it multiplies by dt
        return scan(v, dt, A, k, q).transpose(1, 2)[:, :, None]

    if case.general:
        return {}
    if case.delta:
        model, name = {
            "scalar": ("qwen3_next", "torch_{}_gated_delta_rule"),
            "key": ("kimi_linear", "{}_kimi_delta_attention"),
        }[case.family]
        functions = {kind: getattr(load(model), name.format(kind)) for kind in _delta_kinds(case)}
        return {f"transformers {model}, {kind}": _delta(function) for kind, function in functions.items()}
    if case.family == "scalar":
        scan = load("mamba2").mamba2_chunk_scan
        return {"transformers Mamba-2, chunk 64": mamba2}
    if case.family in ("full", "rates") and case.H == 1:
        scan = load("mamba").mamba_selective_scan
        return {"transformers Mamba": mamba}
    return {}

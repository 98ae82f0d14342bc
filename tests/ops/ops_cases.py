"""Random inputs of every gate family, and ours beside the oracle."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gladient.ops import Backend, Form, gated_delta_rule, gated_linear_attention, generalized_delta_rule
from gladient.ops.native.build import why_unavailable
from oracles import gla, gla_gradients
from tolerances import TOLERANCES

FAMILIES = ("none", "fixed", "scalar", "key", "value", "key×value", "full", "rates")
DELTA: tuple[str, ...] = (
    "delta",
    "delta+fixed",
    "delta+scalar",
    "delta+key+erase",
    "delta+key+channels",
    "delta+scalar+keys",
    "delta+scalar+general",
    "delta+key+general",
)
BACKENDS: tuple[Backend, ...] = ("eager", "native") if why_unavailable() is None else ("eager",)
FORMS: list[tuple[Form, Backend, int | None]] = [("recurrent", "eager", None), ("parallel", "eager", None)]
FORMS += [("chunked", "eager", 1), ("chunked", "eager", 16), ("chunked", "eager", 64)]
FORMS += [("chunked", "native", None)] if "native" in BACKENDS else []
FORMS += [("last_query", backend, None) for backend in BACKENDS]


def holds(form: str, backend: str, family: str) -> bool:
    """The parallel form holds neither full gates nor delta rules."""
    if "delta" in family:
        return form != "parallel"
    return form != "parallel" or family not in ("full", "rates", "all")


LAWS = [(*form, family) for form in FORMS for family in (*FAMILIES, *DELTA) if holds(*form[:2], family)]


def spread(laws: Sequence[tuple[Any, ...]], others: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Every third pair: each law meets some of the others, and each of the others some families of every form."""
    return [(*law, other) for i, law in enumerate(laws) for j, other in enumerate(others) if (i + j) % 3 == 0]


BRIEF = [law for law in LAWS if law[2] in (None, 16)]  # where the size of a chunk can change nothing more


def inputs(
    family: str,
    T: int,
    *,
    B: int = 2,
    H: int = 2,
    K: int = 3,
    V: int = 2,
    heads: int | None = None,
    q_heads: int | None = None,
    rows: bool = False,
    state: bool = True,
    bonus: bool = False,
    zeros: bool = False,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """q, k, v, the log gates of the family, the delta rule's strengths, and the state before them, in float64.

    With `rows`, rates and bonus differ from row to row. The delta rule has keys of length 1 and no bonus.
    """
    rng = np.random.default_rng([seed, T, len(family)])
    h = heads or H

    def log_gates(*shape: int) -> np.ndarray:
        x = -rng.exponential(0.3, shape)
        if zeros:
            x[rng.random(shape) < 0.15] = -np.inf
            x[rng.random(shape) < 0.15] = 0.0
        return x

    every = {"g": (), "gk": (K,), "gv": (V,), "G": (K, V)}
    present = {"none": "", "fixed": "g", "scalar": "g", "key": "gk", "value": "gv", "key×value": "gk gv", "full": "G"}
    present["rates"] = "A dt"
    gates = family.split("+")[1 if "+" in family else 0].replace("delta", "none")
    names = ("g gk gv G A dt" if gates == "all" else present.get(gates, gates)).split()
    heads_of = {"q": q_heads or H, "k": h, "v": h}
    made = {name: rng.standard_normal((B, T, heads_of[name], V if name == "v" else K)) for name in heads_of}
    made |= {name: log_gates(B, T, h, *rest) for name, rest in every.items() if name in names}
    if "A" in names:
        made["A"] = -rng.exponential(1.0, (B, h, K, V) if rows else (h, K, V))
        made["dt"] = -log_gates(B, T, h, V)
        made["dt"][np.isinf(made["dt"])] = 1e4  # 0 · inf is not a gate
    if gates == "fixed":
        made["g"][:] = log_gates(h)
    if "delta" in family:
        made["k"] /= np.linalg.norm(made["k"], axis=-1, keepdims=True)
        if family.endswith("general"):  # RWKV-7's: a key of length 1 read, and erased along itself times rates
            made["a"] = -made["k"] / np.linalg.norm(made["k"], axis=-1, keepdims=True)
            made["b"] = -made["a"] * rng.uniform(0, 1, made["a"].shape)
            made["k"] = rng.standard_normal(made["k"].shape)
        else:
            made |= _strengths(rng, (B, T, h), K, V, family, zeros)
        if family.endswith("keys"):  # near the keys, as others let errors grow
            made["erase_keys"] = 0.7 * made["k"] + 0.1 * rng.standard_normal(made["k"].shape)
    if state:
        made["state"] = rng.standard_normal((B, H, K, V))
    if bonus and "delta" not in family:
        made["bonus"] = rng.standard_normal((B, H, K) if rows else (H, K))
    return made


def _strengths(
    rng: np.random.Generator, shape: tuple[int, ...], K: int, V: int, family: str, extreme: bool
) -> dict[str, np.ndarray]:
    """The delta rule's beta and erase, some exactly 0, 1 and 2 if extreme."""
    channels = family.endswith("channels")
    made = {"beta": rng.uniform(0, 2, (*shape, V) if channels else shape)}
    if channels or family.endswith("erase"):
        made["erase"] = rng.uniform(0, 1, (*shape, K) if channels else shape)
    if extreme:
        for x in made.values():
            chosen = rng.random(x.shape) < 0.4
            x[chosen] = rng.integers(0, 3, int(chosen.sum()))
    return made


def tensors(made: dict[str, np.ndarray], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {name: torch.tensor(x, dtype=dtype, requires_grad=True) for name, x in made.items()}


def run(given: dict[str, Tensor], *, cut: int | None = None, **options: Any) -> tuple[Tensor, Tensor]:
    """Ours; with `cut`, the tokens before it, then the others from the state that the first left."""
    if cut is not None:
        first, second = (tokens(given, part) for part in (slice(0, cut), slice(cut, None)))
        o, between = run(first, **options)
        rest, final = run({**second, "state": between}, **options)
        return (rest if options.get("form") == "last_query" else torch.cat([o, rest], 1)), final
    arguments: dict[str, Any] = {{"state": "initial_state"}.get(name, name): x for name, x in given.items()}
    function: Any = gated_delta_rule if "beta" in given else gated_linear_attention
    function = generalized_delta_rule if "a" in given else function
    o, state = function(**arguments, **options, output_final_state=True)
    assert state is not None
    return o, state


def tokens(given: dict[str, Tensor], part: slice) -> dict[str, Tensor]:
    return {name: x if name in ("state", "bonus", "A") else x[:, part] for name, x in given.items()}


def assert_law(made: dict[str, np.ndarray], form: str, backend: str, chunk: int | None, **options: Any) -> None:
    """Outputs, final state and all gradients of one form equal the oracle's."""
    given = tensors(made)
    o, final = run(given, form=form, backend=backend, chunk_size=chunk, **options)
    options.pop("cut", None)
    o_oracle, final_oracle = gla(made, **options)
    rng = np.random.default_rng(7)
    d_o, d_final = rng.standard_normal(o_oracle.shape), rng.standard_normal(final_oracle.shape)
    if form == "last_query":
        d_o[:, :-1] = 0
        o_oracle = o_oracle[:, -1:]
    tolerance = TOLERANCES[torch.float64]
    np.testing.assert_allclose(o.detach(), o_oracle, **tolerance)
    np.testing.assert_allclose(final.detach(), final_oracle, **tolerance)
    upstream = torch.tensor(d_o[:, -1:] if form == "last_query" else d_o)
    loss = (o * upstream).sum() + (final * torch.tensor(d_final)).sum()
    if not loss.requires_grad:
        return
    found = torch.autograd.grad(loss, list(given.values()), allow_unused=True)
    expected = gla_gradients(made, d_o, d_final, **options)
    for name, gradient in zip(given, found, strict=True):
        value = np.zeros(made[name].shape) if gradient is None else gradient.numpy()
        np.testing.assert_allclose(value, expected[name], **tolerance, err_msg=f"gradient of {name}")

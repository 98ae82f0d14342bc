"""Gated linear attention, the delta rule and their gradients as plain float64 loops: independent of the package."""

from typing import Any

import numpy as np

Array = np.ndarray


def gla(inputs: dict[str, Array], *, scale: float = 1.0, read: str = "after") -> tuple[Array, Array]:
    """Outputs [B, T, H, V] and final state [B, H, K, V] of q, k, v and what else is given.

    That is any of g, gk, gv, G, A and dt, state, bonus; with beta, and erase and erase_keys if given, the delta rule;
    with a and b the generalised one.
    """
    B, T, H, K, V = _sizes(inputs)
    o, final = np.zeros((B, T, H, V)), np.zeros((B, H, K, V))
    for b in range(B):
        for h in range(H):
            one = _head(inputs, b, h, H)
            states = _states(one, T, K, V)
            for t in range(T):
                o[b, t, h] = scale * _read_state(one, states, t, read).T @ one["q"][t]
            final[b, h] = states[T]
    return o, final


def gla_gradients(
    inputs: dict[str, Array], d_o: Array, d_final: Array, *, scale: float = 1.0, read: str = "after"
) -> dict[str, Array]:
    """Gradients of Σ o·d_o + Σ final·d_final with respect to every input, by the adjoint recurrence."""
    B, T, H, K, V = _sizes(inputs)
    d = {name: np.zeros(x.shape) for name, x in inputs.items()}
    for b in range(B):
        for h in range(H):
            one, to = _head(inputs, b, h, H), _head(d, b, h, H)
            states, dS = _states(one, T, K, V), d_final[b, h].copy()
            for t in reversed(range(T)):
                q, k, v, upstream = one["q"][t], one["k"][t], one["v"][t], scale * d_o[b, t, h]
                to["q"][t] += _read_state(one, states, t, read) @ upstream
                read_gradient = np.outer(q, upstream)
                if read == "after":
                    dS = dS + read_gradient
                elif "bonus" in one:
                    to["bonus"][...] += (read_gradient @ v) * k
                    to["k"][t] += (read_gradient @ v) * one["bonus"]
                    to["v"][t] += read_gradient.T @ (one["bonus"] * k)
                gate = _gate(one, t, K, V)
                written, d_written = _written(one, t, gate * states[t]), dS.T @ k
                to["k"][t] += dS @ written
                if "beta" in one:
                    dS = dS + _correct(one, to, t, gate * states[t], d_written)
                else:
                    to["v"][t] += d_written
                upstream_state, dS = dS, dS * gate
                _add_log_gate(one, to, t, dS * states[t])
                if "a" in one:  # S_t = … + b (S_{t-1}ᵀ a)ᵀ
                    to["b"][t] += upstream_state @ (states[t].T @ one["a"][t])
                    to["a"][t] += states[t] @ (upstream_state.T @ one["b"][t])
                    dS = dS + np.outer(one["a"][t], upstream_state.T @ one["b"][t])
                if read == "before":
                    dS = dS + read_gradient
            if "state" in to:
                to["state"][...] = dS
    return d


def _sizes(inputs: dict[str, Array]) -> tuple[int, int, int, int, int]:
    """B, T, the most heads H, K, V."""
    B, T = inputs["k"].shape[:2]
    H = max(x.shape[2] for name, x in inputs.items() if name not in ("A", "state", "bonus"))
    return B, T, H, inputs["k"].shape[3], inputs["v"].shape[3]


def _head(inputs: dict[str, Array], b: int, h: int, H: int) -> dict[str, Array]:
    """Views of what head h of sequence b uses; fewer heads are shared by runs of neighbours."""
    one: dict[str, Any] = {}
    for name, x in inputs.items():
        if name == "state":
            one[name] = x[b, h]
        elif name in ("A", "bonus"):  # of all sequences, or with a row for each
            rows = x if x.ndim == (3 if name == "A" else 2) else x[b]
            one[name] = rows[h // (H // len(rows))]
        else:
            one[name] = x[b, :, h // (H // x.shape[2])]
    return one


def _gate(one: dict[str, Array], t: int, K: int, V: int) -> Array:
    gate = np.ones((K, V))
    for i in range(K):
        for j in range(V):
            log_gate = 0.0
            log_gate += one["g"][t] if "g" in one else 0.0
            log_gate += one["gk"][t, i] if "gk" in one else 0.0
            log_gate += one["gv"][t, j] if "gv" in one else 0.0
            log_gate += one["G"][t, i, j] if "G" in one else 0.0
            log_gate += one["A"][i, j] * one["dt"][t, j] if "A" in one else 0.0
            gate[i, j] = np.exp(log_gate)
    return gate


def _add_log_gate(one: dict[str, Array], to: dict[str, Array], t: int, gradient: Array) -> None:
    if "g" in to:
        to["g"][t] += gradient.sum()
    if "gk" in to:
        to["gk"][t] += gradient.sum(1)
    if "gv" in to:
        to["gv"][t] += gradient.sum(0)
    if "G" in to:
        to["G"][t] += gradient
    if "A" in to:
        to["A"][...] += gradient * one["dt"][t]
        to["dt"][t] += (gradient * one["A"]).sum(0)


def _states(one: dict[str, Array], T: int, K: int, V: int) -> list[Array]:
    """The state before the first token and after every token."""
    states = [one["state"].copy() if "state" in one else np.zeros((K, V))]
    for t in range(T):
        decayed = _gate(one, t, K, V) * states[-1]
        moved = np.outer(one["b"][t], states[-1].T @ one["a"][t]) if "a" in one else 0.0
        states.append(decayed + np.outer(one["k"][t], _written(one, t, decayed)) + moved)
    return states


def _written(one: dict[str, Array], t: int, decayed: Array) -> Array:
    """What the token adds to the state along its key: v, or with beta the error against the decayed state."""
    if "beta" not in one:
        return one["v"][t]
    erased = one.get("erase", one["beta"])[t] * one.get("erase_keys", one["k"])[t]
    return one["beta"][t] * one["v"][t] - decayed.T @ erased


def _correct(one: dict[str, Array], to: dict[str, Array], t: int, decayed: Array, d_written: Array) -> Array:
    """Adds the gradients of the error's parts; returns what reaches the decayed state through its prediction."""
    name, key = "erase" if "erase" in one else "beta", "erase_keys" if "erase_keys" in one else "k"
    beta, v, m = one["beta"][t], one["v"][t], one[key][t]
    erase, d_error_key = one[name][t], -decayed @ d_written
    to["v"][t] += beta * d_written
    to[key][t] += erase * d_error_key
    for strength, gradient in (("beta", v * d_written), (name, m * d_error_key)):
        to[strength][t] += gradient if one[strength][t].ndim else gradient.sum()
    return -np.outer(erase * m, d_written)


def _read_state(one: dict[str, Array], states: list[Array], t: int, read: str) -> Array:
    if read == "after":
        return states[t + 1]
    return states[t] + (np.outer(one["bonus"] * one["k"][t], one["v"][t]) if "bonus" in one else 0.0)

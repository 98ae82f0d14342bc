"""Token weights: from fixed numbers, from gates, from tasks."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gladient._autocast import outside_autocast
from gladient.prompts import PromptLayout

__all__ = ["TaskWeights", "fixed_weights", "gate_weights"]


def fixed_weights(omega: Float[Tensor, " T"]) -> Float[Tensor, "1 T T 1"]:
    r"""Token j weighs $\omega_j$ at its own output and at every later one.

    >>> fixed_weights(torch.tensor([3.0, 2.0, 1.0]))[0, :, :, 0].tolist()
    [[3.0, 0.0, 0.0], [3.0, 2.0, 0.0], [3.0, 2.0, 1.0]]
    """
    return omega.expand(len(omega), -1).tril()[None, :, :, None]


def gate_weights(log_g: Float[Tensor, "B T m"]) -> Float[Tensor, "B T T m"]:
    r"""The weights that gates induce, $\Gamma_{j\to i} = g_{j+1} \odot \dots \odot g_i$ for j ≤ i, and 0 for j > i.

    Args:
        log_g: log gates ≤ 0 of each token, one for each of m directions (m = 1: shared); -inf makes weights exactly 0.

    Convention: a token's own gate does not touch its own write, so that $\Gamma_{i\to i} = 1$.
    Source: arXiv 2504.04308, Theorem 1.

    >>> gate_weights(torch.tensor([[[0.5], [0.5], [0.0], [0.5]]]).log())[0, :, :, 0].tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.5, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.5, 1.0]]
    """
    T = log_g.shape[1]
    causal = torch.ones(T, T, dtype=torch.bool, device=log_g.device).tril()
    passed = causal.tril(-1)[..., None]  # gate i is passed between token j and output i only if j < i
    # A sum of its own for each j, T² numbers: differences of one running sum would be -inf - (-inf) after a gate of 0.
    sums = torch.where(passed, log_g[:, :, None], 0.0).cumsum(1)
    return torch.where(causal[..., None], sums.exp(), 0.0)


@dataclass(frozen=True, eq=False)
class TaskWeights:
    r"""Weights that are constant within a task: those that gates on the delimiters of a prompt induce.

    At the query an example of task k weighs $\omega_k$, and the query itself 1. At an output inside task m ≥ k it
    weighs $\omega_k/\omega_m$ with scalar and key gates, $g_k = \omega_k/\omega_{k+1}$, and
    $1 + \omega_k - \omega_m$ with value gates: row a forgets at delimiter a alone and is read with
    $\omega_{a+1} - \omega_a$, where $\omega_0 = 0$ and $\omega_{K+1} = 1$.

    Args:
        omega: weight of each task at the query, [K]; [K, m] for key gates, a column for each of m directions.
        layout: where examples and delimiters stand.
        gate: what makes the weights: none (they are 1), scalar, key, or value.

    Raises:
        ValueError: if the gate is unknown, the layout has no delimiters, ω has another shape or is not finite, or the
            gates cannot make it. Scalar and key gates lie in [0, 1], so they make
            $0 \le \omega_1 \le \dots \le \omega_K \le 1$ and no other.

    Source: arXiv 2504.04308, section 5; the weights inside the prompt and the rows are derived.

    >>> layout = PromptLayout(n=(1, 1), d=2)  # example, delimiter, example, delimiter, query
    >>> TaskWeights(torch.tensor([0.25, 0.5]), layout).matrix()[0, 2:, [0, 2, 4], 0].tolist()  # of examples and query
    [[0.5, 1.0, 0.0], [0.25, 0.5, 0.0], [0.25, 0.5, 1.0]]
    """

    omega: Float[Tensor, "K *m"]
    layout: PromptLayout
    gate: str = "scalar"

    def __post_init__(self) -> None:
        if self.gate not in ("none", "scalar", "key", "value"):
            raise ValueError(f"gate is {self.gate!r}; choose one of none, scalar, key, value")
        if not self.layout.delimiters:
            raise ValueError("the layout has no delimiters, whose gates make weights by task: use delimiters=True")
        K, wanted = len(self.layout.n), 2 if self.gate == "key" else 1
        if self.omega.ndim != wanted or len(self.omega) != K:
            shape = f"[{K}, m]" if wanted == 2 else f"[{K}]"
            raise ValueError(f"omega has shape {list(self.omega.shape)}; for gate={self.gate!r} it must be {shape}")
        if not self.omega.isfinite().all():
            raise ValueError(f"omega is {self.omega.tolist()}; every weight must be finite")
        if self.gate == "none" and (self.omega != 1).any():
            raise ValueError(f"omega is {self.omega.tolist()}; without gates every weight is 1: put the scale in P")
        if self.gate in ("scalar", "key"):
            _check_order(self.omega, self.gate)

    @property
    def delimiter_gates(self) -> Float[Tensor, "K C"]:
        """The gate of each delimiter: C = 1 (none, scalar), m (key), or K + 1 rows (value)."""
        K = len(self.omega)
        if self.gate == "value":
            return 1.0 - torch.eye(K + 1, dtype=self.omega.dtype, device=self.omega.device)[1:]
        omega = self.omega.reshape(K, -1)
        later = torch.cat([omega[1:], torch.ones_like(omega[:1])])
        # 0/0 is 1: both weights are 0, and so is what a later gate leaves. The clamp keeps NaN out of the gradient,
        # too.
        return torch.where(later > 0, omega / later.clamp(min=torch.finfo(omega.dtype).tiny), 1.0)

    @property
    def rows(self) -> Float[Tensor, " C"]:
        """What each row of value gates is read with; [1.] for the other families."""
        one = self.omega.new_ones(1)
        return torch.cat([0 * one, self.omega, one]).diff() if self.gate == "value" else one

    @outside_autocast
    def matrix(self) -> Float[Tensor, "1 T T m"]:
        """Weight of token j (second T) at output i (first T)."""
        gates = self.delimiter_gates
        log_g = gates.new_zeros(1, self.layout.length, gates.shape[1])
        log_g[0, list(self.layout.delimiter_places)] = gates.log()
        Gamma = gate_weights(log_g)
        return (Gamma @ self.rows)[..., None] if self.gate == "value" else Gamma


def _check_order(omega: Tensor, gate: str) -> None:
    K = len(omega)
    columns = omega.reshape(K, -1)
    bounded = torch.cat([torch.zeros_like(columns[:1]), columns, torch.ones_like(columns[:1])])
    for k, j in (bounded.diff(dim=0) < 0).nonzero().tolist():
        names = ["0", *(f"omega[{i}]{f'[{j}]' if omega.ndim == 2 else ''}" for i in range(K)), "1"]
        low, high = bounded[k, j].item(), bounded[k + 1, j].item()
        raise ValueError(
            f"{gate} gates cannot make omega = {omega.tolist()}: {names[k]} = {low:g} is above {names[k + 1]} = "
            f"{high:g}, and they make 0 ≤ omega[0] ≤ … ≤ omega[{K - 1}] ≤ 1 alone; put scale and sign in P "
            "(Step.scaled), or take gate='value', which makes any order"
        )

"""One causal step of WPGD, and L of them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gladient._autocast import outside_autocast
from gladient.prompts import PromptLayout
from gladient.wpgd.weights import TaskWeights

__all__ = ["WPGD", "Estimates", "Step"]


@dataclass(frozen=True, eq=False)
class Step:
    r"""One causal step: every token i moves its own estimate along its prefix's weighted residuals.

    $$ b_i \leftarrow b_i + P_q \sum_{j \le i} (P_k^\top x_j \odot \Omega_{ij})\,(y_j - x_j^\top b_j) $$

    Args:
        P_k: what weighs a feature in a key, [d, m].
        P_q: what turns the sum into a step, [d, m]; the preconditioner is $P = P_q P_k^\top$ where weights are shared.
        weights: Ω, weight of token j at output i, [B or 1, T, T, m or 1], or `TaskWeights`.

    Raises:
        ValueError: if P_k and P_q differ in shape, or the weights do not fit them.

    Source: arXiv 2504.04308, Theorem 1 and the multi-layer theorem; the exact form is derived.
    """

    P_k: Float[Tensor, "d m"]
    P_q: Float[Tensor, "d m"]
    weights: Tensor | TaskWeights

    def __post_init__(self) -> None:
        if self.P_k.shape != self.P_q.shape:
            shapes = f"{tuple(self.P_k.shape)} and P_q {tuple(self.P_q.shape)}"
            raise ValueError(f"P_k has shape {shapes}; both must be [d, m]")
        Omega, m = self.matrix, self.P_k.shape[1]
        if Omega.ndim != 4 or Omega.shape[1] != Omega.shape[2] or Omega.shape[3] not in (1, m):
            raise ValueError(f"weights have shape {tuple(Omega.shape)}; with P_k [d, {m}] give [B, T, T, 1 or {m}]")

    @classmethod
    def scaled(
        cls,
        P_k: Float[Tensor, "d m"],
        P_q: Float[Tensor, "d m"],
        omega: Float[Tensor, "K *m"],
        layout: PromptLayout,
        gate: str = "scalar",
    ) -> "Step":
        r"""The step of any scale and sign of ω: $(P, \omega)$ and $(cP, \omega/c)$ move b = 0 alike, and c is chosen.

        The largest |ω_k| (in each column of key gates) becomes a weight of 1, and P_q takes its value.

        >>> eye = torch.eye(2)
        >>> step = Step.scaled(eye, eye, torch.tensor([-1.0, -4.0]), PromptLayout(n=(1, 1), d=2))
        >>> step.weights.omega.tolist(), step.P_q.tolist()
        ([0.25, 1.0], [[-4.0, -0.0], [-0.0, -4.0]])
        """
        c = omega.gather(0, omega.abs().argmax(0, keepdim=True))
        c = torch.where(c == 0, 1.0, c)  # all weights 0: any scale does
        return cls(P_k, P_q * c, TaskWeights(omega / c, layout, gate))

    @property
    def matrix(self) -> Tensor:
        """Ω as a tensor, [B or 1, T, T, m or 1]."""
        return self.weights.matrix() if isinstance(self.weights, TaskWeights) else self.weights

    @outside_autocast
    def move(self, x: Float[Tensor, "B T d"], residual: Float[Tensor, "B T"]) -> Float[Tensor, "B T d"]:
        """What the step adds to every token's estimate."""
        written = (x @ self.P_k) * residual[..., None]
        return torch.einsum("bijm,bjm->bim", self.matrix, written) @ self.P_q.T


@dataclass(frozen=True, eq=False)
class Estimates:
    """What L steps leave behind.

    Attributes:
        x: the features, [B, T, d].
        b: estimate of every token after each step, [L, B, T, d].
    """

    x: Float[Tensor, "B T d"]
    b: Float[Tensor, "L B T d"]

    @property
    def predictions(self) -> Float[Tensor, "L B T"]:
        """Every token's prediction after each step, xᵀb."""
        return (self.x * self.b).sum(3)

    @property
    def prediction(self) -> Float[Tensor, " B"]:
        """The query's prediction after the last step."""
        return self.predictions[-1, :, -1]


@dataclass(frozen=True, eq=False)
class WPGD:
    r"""L causal steps of weighted preconditioned gradient descent, from b = 0: what L residual layers compute.

    Every token keeps the estimate of its own prefix. The query is the last token, with y = 0: its own term in the
    sum, $-P_q(P_k^\top x \odot \Omega_{ii})\,x^\top b$, is a weight decay.

    Args:
        steps: the steps, in order; at least one.

    Raises:
        ValueError: if there is no step, or the prompt does not fit the steps.

    Source: arXiv 2504.04308, multi-layer theorem (causal masks, weight decay); the exact form is derived.

    >>> half = torch.eye(1) / 2
    >>> step = Step(half, half, torch.ones(3, 3).tril()[None, :, :, None])
    >>> run = WPGD((step, step))(torch.ones(1, 3, 1), torch.tensor([[1.0, 1.0, 0.0]]))
    >>> run.predictions.tolist()  # one row per step; the query is last
    [[[0.25, 0.5, 0.5]], [[0.4375, 0.8125, 0.6875]]]
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("steps is empty; the algorithm takes at least one")

    @outside_autocast
    def __call__(self, x: Float[Tensor, "B T d"], y: Float[Tensor, "B T"]) -> Estimates:
        """Run on prompts: features, and labels with 0 for the query (both 0 for delimiters)."""
        for step in self.steps:
            if step.P_k.shape[0] != x.shape[2] or step.matrix.shape[1] != x.shape[1]:
                wanted = f"[B, {step.matrix.shape[1]}, {step.P_k.shape[0]}]"
                raise ValueError(f"x has shape {tuple(x.shape)}; the steps are made for {wanted}")
        b, after = torch.zeros_like(x), []
        for step in self.steps:
            b = b + step.move(x, y - (x * b).sum(2))
            after.append(b)
        return Estimates(x, torch.stack(after))

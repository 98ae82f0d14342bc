"""The delta rule by itself: every example is erased from the state as it stands, then written with its label."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gladient._autocast import outside_autocast
from gladient._types import ArrayLike
from gladient.prompts import PromptLayout
from gladient.wpgd.steps import Estimates

__all__ = ["DeltaRule"]

_KEYS = ("gaussian", "unit", "nlms")


@dataclass(frozen=True, eq=False)
class DeltaRule:
    r"""One pass of the delta rule over a prompt: what a layer whose state erases as well as writes computes.

    $$ s_t = p_t\, s_{t-1} - q_t\, k_t (k_t^\top s_{t-1}) + w_t\, v_t k_t, \quad s_0 = 0, \qquad b_t = P_q s_t $$

    with a number p, q and w for each token. Where p = 1 and q = w = β this is online gradient descent: a step of size β
    down the slope of $\tfrac12 (v_t - k_t^\top s)^2$. Where q = 0 it is one `Step` of WPGD with gates p. Where the
    state turns, token t's key is turned by the sum of all angles up to it, and so is what it reads.

    Args:
        P_k: what makes a feature a key, [d, m].
        P_q: what turns the state into an estimate, [d, m]; the prediction is $x_t^\top P_q s_t$.
        keep: p of each token, [T] or [B, T].
        erase: q of each token, [T] or [B, T].
        write: w of each token, [T] or [B, T].
        keys: "gaussian": k = P_kᵀx, v = y; "unit": k is divided by its norm; "nlms": k and v are both divided by it. A
            key of 0, such as a delimiter's, stays 0.
        angles: by what each token turns the state's first P pairs of channels, (2i, 2i + 1), [T, P] or [B, T, P]; None
            if nothing turns.

    Raises:
        ValueError: if P_k and P_q differ in shape, or keep, erase, write and angles in tokens; if there are more angles
            than pairs; if the keys are unknown; if the prompt does not fit the rule.

    Convention: Gated DeltaNet decays first and erases from the decayed state: p = α, q = αβ, w = β; DeltaNet: α = 1.
    Source: arXiv 2102.11174 and 2412.06464, with erase and write apart as in 2605.22791.

    >>> ones = torch.ones(3)
    >>> rule = DeltaRule(torch.eye(1), torch.eye(1), keep=ones, erase=ones / 2, write=ones / 2)
    >>> rule(torch.ones(1, 3, 1), torch.tensor([[1.0, 1.0, 0.0]])).predictions.tolist()  # the query erases too
    [[[0.5, 0.75, 0.375]]]
    """

    P_k: Float[Tensor, "d m"]
    P_q: Float[Tensor, "d m"]
    keep: Float[Tensor, "..."]
    erase: Float[Tensor, "..."]
    write: Float[Tensor, "..."]
    keys: str = "gaussian"
    angles: Float[Tensor, "..."] | None = None

    def __post_init__(self) -> None:
        if self.P_k.shape != self.P_q.shape:
            both = f"{tuple(self.P_k.shape)} and P_q {tuple(self.P_q.shape)}"
            raise ValueError(f"P_k has shape {both}; both must be [d, m]")
        shapes = {name: list(getattr(self, name).shape) for name in ("keep", "erase", "write")}
        if any(len(shape) not in (1, 2) or shape[-1] != shapes["keep"][-1] for shape in shapes.values()):
            raise ValueError(f"the shapes are {shapes}; give each [T] or [B, T], with the same number of tokens T")
        if self.angles is not None:
            shape, T, pairs = list(self.angles.shape), shapes["keep"][-1], self.P_k.shape[1] // 2
            if len(shape) not in (2, 3) or shape[-2] != T or shape[-1] > pairs or self.P_k.shape[1] % 2:
                wanted = f"[{T}, P] or [B, {T}, P] with P at most {pairs}, for an even number of key channels"
                raise ValueError(f"angles has shape {shape} beside P_k {list(self.P_k.shape)}; give {wanted}")
        if self.keys not in _KEYS:
            raise ValueError(f"keys is {self.keys!r}; choose one of {', '.join(_KEYS)}")

    @classmethod
    def by_task(
        cls,
        layout: PromptLayout,
        steps: ArrayLike | Tensor,
        *,
        decays: ArrayLike | Tensor = 1.0,
        erase: ArrayLike | Tensor | None = None,
        query: float = 0.0,
        gain: float = 1.0,
        keys: str = "gaussian",
    ) -> "DeltaRule":
        r"""The isotropic rule, $P_k = I$ and $P_q = gI$ in float64, with steps and decays by task.

        Args:
            layout: where examples and delimiters stand.
            steps: β, what an example writes: one number, one for each task [K], or one for each example [Σ n].
            decays: δ, what the delimiter after each task leaves of the state: one number or [K].
            erase: what an example erases, as steps; equal to them if not given.
            query: the query's own step. Its value is 0, so it only erases; 0 masks it.
            gain: g.
            keys: see the class.

        Raises:
            ValueError: if there are other numbers of steps, erases or decays, one is not finite, or there are decays
                and no delimiters.

        >>> layout = PromptLayout(n=(1, 1), d=2)  # example, delimiter, example, delimiter, query
        >>> rule = DeltaRule.by_task(layout, [0.25, 0.5], decays=[0.75, 1.0])
        >>> rule.keep.tolist(), rule.erase.tolist()
        ([1.0, 0.75, 1.0, 1.0, 1.0], [0.25, 0.0, 0.5, 0.0, 0.0])
        """
        keep = torch.ones(layout.length, dtype=torch.float64)
        decay = _numbers("decays", decays, (len(layout.n),))
        if layout.delimiters:
            keep[list(layout.delimiter_places)] = decay
        elif (decay != 1.0).any():
            raise ValueError(f"decays is {decay.tolist()}; without delimiters there are none: give DeltaRule keep")
        write = _by_token("steps", steps, layout, query)
        erased = write if erase is None else _by_token("erase", erase, layout, query)
        eye = torch.eye(layout.d, dtype=torch.float64)
        return cls(eye, gain * eye, keep, erased, write, keys)

    @outside_autocast
    def __call__(self, x: Float[Tensor, "B T d"], y: Float[Tensor, "B T"]) -> Estimates:
        """Run on prompts: features, and labels with 0 for the query (both 0 for delimiters)."""
        k, per_label = self._keys(x)
        s, after = torch.zeros_like(k[:, 0]), []
        # keep · s - erase · k (kᵀs): the erase is of the state before the decay, so Gated DeltaNet's is αβ
        for t in range(x.shape[1]):
            seen = (k[:, t] * s).sum(1)
            moved = per_label[:, t] * y[:, t] - self.erase[..., t] * seen
            s = self.keep[..., t, None] * s + moved[:, None] * k[:, t]
            after.append(s)
        return Estimates(x, (self._turned(torch.stack(after, 1), -1.0) @ self.P_q.T)[None])

    @outside_autocast
    def label_weights(self, x: Float[Tensor, "B T d"]) -> Float[Tensor, "B T"]:
        """What each label counts in the query's prediction: the pass backwards, from what the query reads."""
        k, per_label = self._keys(x)
        read, weights = self._turned(x @ self.P_q)[:, -1], []
        for t in reversed(range(x.shape[1])):
            seen = (k[:, t] * read).sum(1)
            weights.append(per_label[:, t] * seen)
            read = self.keep[..., t, None] * read - (self.erase[..., t] * seen)[:, None] * k[:, t]
        return torch.stack(weights[::-1], 1)

    def _keys(self, x: Float[Tensor, "B T d"]) -> tuple[Float[Tensor, "B T m"], Float[Tensor, "B T"]]:
        """Keys, and what a label of 1 writes along them."""
        d, T = self.P_k.shape[0], self.keep.shape[-1]
        if x.shape[1:] != (T, d):
            raise ValueError(f"x has shape {tuple(x.shape)}; the rule is made for [B, {T}, {d}]")
        k = self._turned(x @ self.P_k)
        norm = torch.ones_like(k[..., 0]) if self.keys == "gaussian" else k.norm(dim=2)
        over = 1.0 / torch.where(norm > 0, norm, torch.inf)  # 0 for a key of 0: no NaN, in gradients neither
        return k * over[..., None], self.write * (over if self.keys == "nlms" else torch.ones_like(over))

    def _turned(self, z: Float[Tensor, "B T m"], sign: float = 1.0) -> Float[Tensor, "B T m"]:
        """Each token's channels turned by the sum of all angles up to it, or back."""
        if self.angles is None:
            return z
        phase = sign * self.angles.cumsum(-2)
        pairs, P = torch.view_as_complex(z.unflatten(-1, (-1, 2)).contiguous()), phase.shape[-1]
        first = pairs[..., :P] * torch.polar(torch.ones_like(phase), phase)
        return torch.view_as_real(torch.cat([first, pairs[..., P:]], -1)).flatten(-2)


def _by_token(name: str, values: ArrayLike | Tensor, layout: PromptLayout, query: float) -> Float[Tensor, " T"]:
    """The values on examples, 0 on delimiters, and the query's own."""
    given = _numbers(name, values, (len(layout.n), sum(layout.n)))
    if given.ndim and len(given) == len(layout.n):
        given = given.repeat_interleave(torch.tensor(layout.n))
    spread = torch.zeros(layout.length, dtype=torch.float64)
    spread[[t for block in layout.blocks for t in range(block.start, block.stop)]] = given
    spread[-1] = query
    return spread


def _numbers(name: str, values: ArrayLike | Tensor, sizes: tuple[int, ...]) -> Tensor:
    given = torch.as_tensor(values, dtype=torch.float64)
    if given.ndim > 1 or (given.ndim == 1 and len(given) not in sizes):
        wanted = " or ".join(f"[{size}]" for size in dict.fromkeys(sizes))
        raise ValueError(f"{name} has shape {list(given.shape)}; give one number or {wanted}")
    if not given.isfinite().all():
        raise ValueError(f"{name} is {given.tolist()}; every number must be finite")
    return given

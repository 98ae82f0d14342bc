"""Decoding token after token, with a state that is updated in place."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.ops import check
from gladient.ops.call import Backend, Read
from gladient.ops.dispatch import heard_by_none, known_step, run
from gladient.ops.native.steps import Step
from gladient.ops.watched import TENSORS, followed

__all__ = ["Decoder"]

_TOKEN = frozenset({"g", "gk", "gv", "G", "dt", "beta", "erase", "erase_keys", "a", "b"})


class Decoder:
    r"""One token at a time through any of the operators, into one state.

    A token's tensors say which operator it is: with `beta` it is `gated_delta_rule`, with `a` and `b`
    `generalized_delta_rule`, else `gated_linear_attention`. What the operators check, it checks at the first token; one
    that is laid out like a token before goes straight to the kernel, one that is not is checked anew. So tokens may
    change their batch with the state, and are never taken for what they are not.

    Args:
        state: [B, H, K, V], which every token overwrites; the attribute `state` may be set between tokens, as to
            `decoder.state[rows]` after a beam search.
        A: rates of `dt`, [H, K, V].
        bonus: u of `read="before"`, [H, K].
        scale: factor of every output; None for $K^{-1/2}$.
        read: whether outputs read the state "after" or "before" the token's own decay and write.
        backend: as for the operators.

    Raises:
        ValueError, TypeError: at a token, as the operator of its name; if a tensor requires gradients while they are
            recorded, which a state that is overwritten has not.

    Source: derived; the operators with `form="step"` and `inplace=True` compute the same.

    >>> import torch
    >>> decoder = Decoder(torch.zeros(1, 1, 2, 1))
    >>> q, half = torch.ones(1, 1, 1, 2), torch.full((1, 1, 1), 0.5).log()
    >>> [decoder(q, q, q[..., :1], g=half).item() for _ in range(3)], decoder.state.flatten().tolist()
    ([2.0, 3.0, 3.5], [1.75, 1.75])
    """

    def __init__(
        self,
        state: Float[Tensor, "B H K V"],
        *,
        A: Tensor | None = None,
        bonus: Tensor | None = None,
        scale: float | None = 1.0,
        read: Read = "after",
        backend: Backend = "auto",
    ) -> None:
        if not isinstance(state, Tensor):
            raise TypeError(f"state is {type(state).__name__}; it must be a torch.Tensor, [B, H, K, V]")
        check.check_option("read", read, Read)
        check.check_option("backend", backend, Backend)
        self._backend = backend
        self._fixed: dict[str, Any] = {
            "A": A,
            "bonus": bonus,
            "scale": scale,
            "read": read,
            "form": "step",
            "inplace": True,
        }
        self.state = state

    @property
    def state(self) -> Float[Tensor, "B H K V"]:
        """What the tokens so far have left: the tensor that the next one overwrites."""
        return self._fixed["initial_state"]

    @state.setter
    def state(self, state: Float[Tensor, "B H K V"]) -> None:
        self._fixed = self._fixed | {"initial_state": state}
        self._step: Step | None = None

    def __call__(
        self,
        q: Float[Tensor, "B 1 Hq K"],
        k: Float[Tensor, "B 1 Hk K"],
        v: Float[Tensor, "B 1 Hv V"],
        **token: Tensor | None,
    ) -> Float[Tensor, "B 1 H V"]:
        """The output of one token, after which the state holds it, too.

        Args:
            q: queries, [B, 1, Hq, K]; as the operators', heads of each may be fewer than H, which they share.
            k: keys, [B, 1, Hk, K].
            v: values, [B, 1, Hv, V].
            token: `g`, `gk`, `gv`, `G`, `dt`, `beta`, `erase`, `erase_keys`, `a` and `b`, as the operators take them.

        Returns:
            [B, 1, H, V], in v's dtype.
        """
        given = {"q": q, "k": k, "v": v, **token, **self._fixed}
        step = self._step
        if step is None or token.keys() != self._names or (addresses := self._addresses(step, given)) is None:
            return self._checked(given, token)
        return step.run(addresses, given["initial_state"])[0]

    def _addresses(self, step: Step, given: dict[str, Any]) -> list[int] | None:
        """Those of tensors that are laid out like the checked ones, in one pass: all else here is slower than it."""
        if self._threads != torch.get_num_threads() or followed() or not heard_by_none():
            return None
        recording, found = torch.is_grad_enabled(), [0] * step.kernel.length
        for name, place, shape, dtype in step.layout:
            x: Any = given.get(name)
            if type(x) not in TENSORS or x.shape != shape or x.dtype is not dtype:
                return None
            if not (x.is_cpu and x.is_contiguous()) or x.is_neg() or (recording and x.requires_grad):  # as `plain`
                return None
            found[place] = x.data_ptr()
        return found

    def _checked(self, given: dict[str, Any], token: dict[str, Any]) -> Tensor:
        if not token.keys() <= _TOKEN:
            raise TypeError(
                f"a token came with {', '.join(sorted(token.keys() - _TOKEN))}; beside q, k and v it may have "
                f"{', '.join(sorted(_TOKEN))}: what is the same for all tokens is given to Decoder itself"
            )
        o = run(given, self._backend, known_layout=True)[0]
        self._step, self._threads = known_step(given, self._backend), torch.get_num_threads()
        self._names = {name for name, x in token.items() if x is not None}  # with None one goes on to be checked
        return o

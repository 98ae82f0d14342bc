"""From what a delta-rule layer gives its operator to the delta rules that it runs, and what they leave unexplained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gladient._autocast import outside_autocast
from gladient.equivalence.extraction import unexplained
from gladient.ops.rotation import Pairs, join_pairs, split_pairs
from gladient.prompts import PromptLayout
from gladient.wpgd import DeltaRule

__all__ = ["DeltaExtraction", "extract_delta"]


@dataclass(frozen=True, eq=False)
class DeltaExtraction:
    r"""A layer's delta rules on a batch of prompts, one for each head, and how much of the layer they are.

    A prediction is the sum over heads. The shares are of the variance of the layer's predictions;
    `explained + moving_gates + cross_blocks` is 1.

    Attributes:
        rules: each head's rule with keep, erase, write and angles averaged over the prompts, so that they depend on no
            x and y.
        isotropic: the same with $P_k = I$ and the best $P_q = gI$, what `landscape` knows. With gaussian keys erase and
            write are multiplied by $c^2 = \mathrm{tr}(P_k P_k^\top)/d$. Where the state turns, a feature's key is the
            first channel of a pair, all pairs turn alike, and queries read $g$ of the first and $g'$ of the second.
        explained: share that the rules explain.
        moving_gates: further share that they explain with each prompt's own keep, erase, write and angles.
        cross_blocks: the rest: keys, queries and values that read other columns or are not linear in the token.
        explained_isotropic: share that the isotropic rules explain.
    """

    rules: tuple[DeltaRule, ...]
    isotropic: tuple[DeltaRule, ...]
    explained: float
    moving_gates: float
    cross_blocks: float
    explained_isotropic: float


@outside_autocast
def extract_delta(
    q: Float[Tensor, "B T H m"],
    k: Float[Tensor, "B T H m"],
    v: Float[Tensor, "B T H V"],
    beta: Float[Tensor, "..."],
    *,
    readout: Float[Tensor, "H V"],
    prediction: Float[Tensor, " B"],
    tokens: Float[Tensor, "B T D"],
    layout: PromptLayout,
    g: Float[Tensor, "..."] | None = None,
    erase: Float[Tensor, "..."] | None = None,
    scale: float = 1.0,
    keys: str = "gaussian",
    angles: Float[Tensor, "..."] | None = None,
    pairs: Pairs = "adjacent",
) -> DeltaExtraction:
    r"""The delta rules in one layer, from the tensors that it gave `ops.gated_delta_rule` on a batch of prompts.

    The maps from tokens to q, k and v are found by least squares: the layer's weights where it is linear. A rule keeps
    the blocks that it has: keys and queries from features, values from the label. With the label's row of values,
    $a = W_v[y]\,h$,

    $$ P_k = W_k[x], \quad P_q = s\,a\,W_q[x], \quad \text{keep} = e^{g}, \quad \text{erase} = e^{g} \cdot \text{erase},
       \quad \text{write} = \beta. $$

    Args:
        q: queries, before they turn.
        k: keys, before they turn and are divided by their norm.
        v: values.
        beta: write strength, [B, T, H].
        readout: h of each head; the layer's prediction is $\sum h^\top o_T$.
        prediction: the layer's predictions.
        tokens: the prompts [x; y; …]; at least two. Their contextual features may be others than the layout's.
        layout: where the prompts' examples stand.
        g: log gates, [B, T, H]; gates are 1 if not given.
        erase: erase strength, [B, T, H]; β if not given.
        scale: s, what the operator multiplies outputs by.
        keys: as in `DeltaRule`: "unit" if the layer divides keys by their norm.
        angles: what each token turns by, as in `ops.rotate`, [B, T, H, P]; nothing turns if not given. Those of a layer
            of ours are `layer.turns(tokens)`.
        pairs: which channels turn together. Those of the rules are adjacent.

    Raises:
        ValueError: if the tokens do not fit the layout; if β, g or erase is not one number for each token and head, or
            the angles are not some for each.

    Convention: outputs are read after the write. Where a layer reads before it, give 0 for g and erase at the query.
    Source: derived.

    >>> layout = PromptLayout(n=(5,), d=2, contextual=False)  # tokens [x; y], the delimiter [0; 0], the query [x; 0]
    >>> tokens = torch.randn(100, 7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> tokens[:, 5], tokens[:, 6, 2] = 0, 0
    >>> rule = DeltaRule.by_task(layout, 0.25, query=0.25)
    >>> x, y = tokens[..., :2], tokens[..., 2]
    >>> q = k = x[:, :, None]
    >>> beta, prediction = rule.write.expand(100, 7)[..., None], rule(x, y).prediction
    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> told = {"readout": one, "prediction": prediction, "tokens": tokens, "layout": layout}
    >>> found = extract_delta(q, k, y[..., None, None], beta, **told)
    >>> round(found.explained, 6), found.rules[0].erase.tolist() == rule.erase.tolist()
    (1.0, True)
    """
    _check(tokens, layout, {"beta": beta, "g": g, "erase": erase}, angles, k.shape[2])
    if angles is not None:
        q, k = (join_pairs(*split_pairs(z, pairs), "adjacent") for z in (q, k))
    x, y = tokens[..., : layout.d], tokens[..., layout.d]
    keep = torch.ones_like(beta) if g is None else g.exp()
    erased = keep * (beta if erase is None else erase)
    P_k, P_q = _blocks(q, k, scale * torch.einsum("bthv,hv->bth", v, readout), tokens, layout.d)
    turned = [None if angles is None else angles[:, :, h] for h in range(len(P_k))]
    own = tuple(
        DeltaRule(P_k[h], P_q[h], keep[..., h], erased[..., h], beta[..., h], keys, turned[h]) for h in range(len(P_k))
    )
    rules = tuple(_mean(rule) for rule in own)
    isotropic = _isotropic(rules, x, y, prediction)
    with_own, with_mean, with_isotropic = (
        unexplained(prediction, _predictions(each, x, y).sum(1)) for each in (own, rules, isotropic)
    )
    return DeltaExtraction(rules, isotropic, 1.0 - with_mean, with_mean - with_own, with_own, 1.0 - with_isotropic)


def _blocks(q: Tensor, k: Tensor, v: Tensor, tokens: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """P_k and P_q of each head, [H, d, m], by least squares over all tokens."""
    # All columns of the token at once, so that features and label get no share of what contextual columns explain. The
    # pseudo-inverse, since columns may depend on one another.
    inverse = torch.linalg.pinv(tokens.flatten(0, 1))
    from_features = [torch.tensordot(inverse[:d], z.flatten(0, 1), 1).movedim(1, 0) for z in (k, q)]
    from_label = inverse[d] @ v.flatten(0, 1)
    return from_features[0], from_label[:, None, None] * from_features[1]


def _mean(rule: DeltaRule) -> DeltaRule:
    """The rule with what the prompts do on average."""
    angles = None if rule.angles is None else rule.angles.mean(0)
    return replace(rule, keep=rule.keep.mean(0), erase=rule.erase.mean(0), write=rule.write.mean(0), angles=angles)


def _predictions(rules: Sequence[DeltaRule], x: Tensor, y: Tensor) -> Float[Tensor, "B H"]:
    return torch.stack([rule(x, y).prediction for rule in rules], 1)


def _isotropic(rules: tuple[DeltaRule, ...], x: Tensor, y: Tensor, prediction: Tensor) -> tuple[DeltaRule, ...]:
    eye = torch.eye(x.shape[2], dtype=x.dtype, device=x.device)
    first, second = (join_pairs(*both, "adjacent") for both in ((eye, 0 * eye), (0 * eye, eye)))
    plain: list[DeltaRule] = []  # a rule of each head for each direction in which its queries may read
    for rule in rules:
        # Keys c x erase c² times as much and write c times; a state c times as large, which P_q takes back, writes c².
        # Keys of length 1 have no c.
        c2 = rule.P_k.square().sum() / x.shape[2] if rule.keys == "gaussian" else 1.0
        erase, write = c2 * rule.erase, c2 * rule.write
        if rule.angles is None:
            plain.append(replace(rule, P_k=eye, P_q=eye, erase=erase, write=write))
            continue
        angles = rule.angles.mean(1, keepdim=True).expand(-1, len(eye))
        alike = replace(rule, P_k=first, P_q=first, erase=erase, write=write, angles=angles)
        plain += [alike, replace(alike, P_q=second)]
    gains = torch.linalg.pinv(_predictions(plain, x, y)) @ prediction
    read = [gain * rule.P_q for gain, rule in zip(gains, plain, strict=True)]
    of_head = len(plain) // len(rules)
    return tuple(
        replace(plain[i], P_q=torch.stack(read[i : i + of_head]).sum(0)) for i in range(0, len(plain), of_head)
    )


def _check(
    tokens: Tensor, layout: PromptLayout, numbers: dict[str, Tensor | None], angles: Tensor | None, heads: int
) -> None:
    if tokens.shape[1] != layout.length or tokens.shape[2] <= layout.d or len(tokens) < 2:
        wanted = f"[B, {layout.length}, D] with D > d = {layout.d}"
        raise ValueError(f"tokens have shape {list(tokens.shape)}; the layout makes {wanted}, and B must be at least 2")
    for name, value in numbers.items():
        if value is not None and value.shape != (*tokens.shape[:2], heads):
            wanted = f"one number for each token and head, {[*tokens.shape[:2], heads]}"
            raise ValueError(f"{name} has shape {list(value.shape)}; a DeltaRule has {wanted}")
    if angles is not None and (angles.ndim != 4 or angles.shape[:3] != (*tokens.shape[:2], heads)):
        wanted = f"some for each token and head, {[*tokens.shape[:2], heads, 'P']}"
        raise ValueError(f"angles has shape {list(angles.shape)}; a DeltaRule has {wanted}")

"""From delta rules to the one-layer network that runs them."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from gladient._autocast import outside_autocast
from gladient._types import Array
from gladient.equivalence.construction import SHUT
from gladient.nn import LayerConfig, ResidualModel
from gladient.wpgd import DeltaRule

__all__ = ["construct_delta"]

# Layers divide a key by sqrt(|k|² + 1e-6). In keys 2^20 times as long the 1e-6 is below 1e-16 of the square down to
# |P_k x| = 0.1, and a power of two rounds nothing. The query is not divided and stays as it is.
_LONG = 2.0**20


@outside_autocast
def construct_delta(rules: Sequence[DeltaRule], template: Tensor | Float[Array, "T D"]) -> ResidualModel:
    r"""The one-layer network that runs the delta rules, one for each head, with no training.

    With the token $z = [x; y; c]$: $W_k = [P_k; 0]$, $W_q = [-P_q; 0]$, values read y and outputs are added to y. Gates
    and steps read the contextual features, $\mathrm{sigmoid}(W_g^\top c_t + b_g) = p_t$ and
    $b\,\mathrm{sigmoid}(W_b^\top c_t + b_b) = w_t$. A head's label is then $y_t - x_t^\top P_q s_t$, and the prediction
    is minus the query's.

    Args:
        rules: rules of one shape, kind of keys and dtype, with one number of each kind for each token, [T]. A layer
            erases what it writes, so $q_t = p_t w_t$. The sum of their predictions is the network's.
        template: the prompt's tokens with x = 0 and y = 0, [T, D], such as `PromptLayout.template`: columns d + 1 … D
            are the contextual features. Where keep or write differ from token to token, these must tell them apart.

    Returns:
        A model of one member in the dtype of the rules.

    Raises:
        ValueError: if the rules differ in shape, dtype or keys, are made for each prompt, turn, or divide labels by
            lengths ("nlms"); if a keep is outside [0, 1], a write outside [0, 2] or an erase is not keep · write; or if
            the features cannot tell tokens apart that the rules do.

    Convention: numbers of 0, and of 1 or the largest step, are sigmoids of ∓40, which differ from them by 4e-18.
    Source: derived, for the layers of arXiv 2406.06484 and 2412.06464.

    >>> from gladient.prompts import PromptLayout
    >>> layout = PromptLayout(n=(2, 2), d=3)
    >>> rule = DeltaRule.by_task(layout, 0.2, decays=[0.5, 1.0], query=0.2)
    >>> model = construct_delta([rule], layout.template)
    >>> model.layers[0].config.write, model.layers[0].config.gate
    ('delta', 'scalar')
    """
    first = _check(rules)
    tokens = torch.as_tensor(template).to(first.P_k)
    if tokens.shape[0] != len(first.keep) or tokens.shape[1] <= len(first.P_k):
        wanted = f"[{len(first.keep)}, D] with D > d = {len(first.P_k)}"
        raise ValueError(f"template has shape {list(tokens.shape)}; the rules are made for {wanted}")
    keep, write = (torch.stack([getattr(rule, name) for rule in rules], 1).to(tokens) for name in ("keep", "write"))
    config = LayerConfig(
        heads=len(rules),
        key_dim=first.P_k.shape[1],
        value_dim=1,
        gate="scalar" if (keep != 1).any() else "none",
        gate_bias=True,
        write="delta",
        step_bound=2.0 if (write > 1).any() else 1.0,
        normalise="keys" if first.keys == "unit" else "none",
    )
    model = ResidualModel(tokens.shape[1], [config]).to(tokens)
    with torch.no_grad():
        _fill(model, rules, tokens, keep, write)
    return model


def _fill(model: ResidualModel, rules: Sequence[DeltaRule], tokens: Tensor, keep: Tensor, write: Tensor) -> None:
    for parameter in model.parameters():
        parameter.zero_()
    layer, d = model.layers[0], len(rules[0].P_k)
    attention, scale = layer.attention, _LONG if rules[0].keys == "unit" else 1.0
    attention.W_q[0, :d] = -torch.cat([rule.P_q for rule in rules], 1)
    W_k, attention.W_v[0, d] = cast(Tensor, attention.W_k), 1.0
    W_k[0, :d] = scale * torch.cat([rule.P_k for rule in rules], 1)
    layer.W_o[0, :, d], model.readout[0, d] = 1.0, -1.0
    features = tokens[:, d + 1 :]
    numbers = (attention.gate, "keep", keep, 1.0), (attention.step, "write", write, attention.config.step_bound)
    for module, name, values, most in numbers:
        if module is not None:
            weight, bias = _solve(features, name, values, most)
            module.weight[0, d + 1 :], cast(Tensor, module.bias)[0] = weight, bias


def _solve(
    features: Float[Tensor, "T p"], name: str, values: Float[Tensor, "T H"], most: float
) -> tuple[Float[Tensor, "p H"], Float[Tensor, " H"]]:
    """W and b such that most · sigmoid(Wᵀ c_t + b) are the values."""
    affine = torch.cat([features, features.new_ones(len(features), 1)], 1)
    solved = torch.linalg.pinv(affine) @ (values / most).logit().clamp(-SHUT, SHUT)
    made = most * (affine @ solved).sigmoid()
    errors = (made - values).abs().amax(1)
    worst = int(errors.argmax())
    if errors[worst] > _rounding(values):
        raise ValueError(
            f"the contextual features cannot make {name}: token {worst} needs {values[worst].tolist()} and gets "
            f"{made[worst].tolist()}; give tokens whose {name} differs linearly independent features"
        )
    return solved[:-1], solved[-1]


def _rounding(values: Tensor) -> float:
    """What rounding may take: a logit of 40 is off by 40 eps, and by more where features are far from orthogonal."""
    return 1e3 * torch.finfo(values.dtype).eps


def _check(rules: Sequence[DeltaRule]) -> DeltaRule:
    if not rules:
        raise ValueError("rules is empty; the network has one head for each rule, at least one")
    first = rules[0]
    kinds = {(tuple(rule.P_k.shape), rule.keep.shape[-1], rule.keys, rule.P_k.dtype) for rule in rules}
    if len(kinds) > 1:
        found = sorted(map(str, kinds))
        raise ValueError(f"the rules differ in shape of P_k, tokens, keys or dtype: {found}; heads are of one kind")
    if first.keys == "nlms":
        raise ValueError("keys is 'nlms', which divides labels by the length of x; layers have 'gaussian' or 'unit'")
    for number, rule in enumerate(rules):
        if rule.angles is not None:
            raise ValueError(f"rule {number} has angles; no layer is made of one but by `construct_rotating_delta`")
        _check_numbers(number, rule)
    return first


def _check_numbers(number: int, rule: DeltaRule) -> None:
    numbers = {"keep": rule.keep, "erase": rule.erase, "write": rule.write}
    for name, value in numbers.items():
        if value.ndim != 1:
            raise ValueError(f"rule {number}: {name} has shape {list(value.shape)}; a network is made from [T]")
    for name, most in (("keep", 1), ("write", 2)):
        low, high = numbers[name].min().item(), numbers[name].max().item()
        if not 0 <= low <= high <= most:
            cure = "" if name == "keep" else ": multiply P_k and P_q by c, and divide erase and write by c²"
            raise ValueError(f"rule {number}: {name} goes from {low:g} to {high:g}; layers make 0 to {most}{cure}")
    wrong = (rule.erase - rule.keep * rule.write).abs()
    t = int(wrong.argmax())
    if wrong[t] > _rounding(rule.write):
        made = f"{rule.keep[t].item():g} · {rule.write[t].item():g}"
        raise ValueError(
            f"rule {number}: erase of token {t} is {rule.erase[t].item():g} and keep · write is {made}; a layer erases "
            "what it writes: scale write, which P_q can take back"
        )

"""This package's own layers: the presets, what they leave out, stacks of members, and the last query alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.utils import ModelOutput

from gladient.nn import GatedLinearAttention, InContextRegressor, LayerConfig, ResidualModel, presets
from gladient.ops import cumulative_angles, gated_delta_rule, generalized_delta_rule, mamba3, rotate
from tiny._tiny import Tiny, perturb

_WIDTH = 8
_MOVED = ("gate.bias", "gate.weight", "log_A", ".u", "readout")


class _SideBySide(nn.Module):
    """Several models of the same tokens, in groups; the cache is the list of their states."""

    def __init__(self, *models: ResidualModel, groups: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, groups * _WIDTH)
        self.models: Any = nn.ModuleList(models)

    def forward(self, input_ids: Tensor, states: Sequence[Any] | None = None, use_cache: bool = False) -> Any:
        tokens = self.embedding(input_ids).unflatten(2, (-1, _WIDTH)).movedim(2, 0)
        before = states or [None] * len(self.models)
        z, after = zip(*(m.decode(tokens, state) for m, state in zip(self.models, before, strict=True)), strict=True)
        return ModelOutput(z=torch.stack(z), states=after)


class _LastQuery(nn.Module):
    """Regressors of several families, whose layers run without their forward."""

    def __init__(self, *regressors: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, _WIDTH)
        self.regressors = nn.ModuleList(regressors)

    def forward(self, input_ids: Tensor) -> Any:
        tokens = self.embedding(input_ids)[None]
        return ModelOutput(y=torch.stack([regressor(tokens) for regressor in self.regressors]))


class _KeyTimesValue(GatedLinearAttention):
    """All four families of gates at once, which the operator takes and no layer of ours has."""

    def _families(self, tokens: Tensor, log_gates: Tensor) -> dict[str, Any]:
        gk = torch.cat([log_gates, log_gates[..., :1]], 3)
        return {"g": log_gates[..., 0], "gk": gk, "gv": log_gates, "G": -gk[..., None] * log_gates[..., None, :]}


class _Mixer(nn.Module):
    """A layer that calls one of the operators; its state is the operator's."""

    sizes: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(_WIDTH, sum(self.sizes.values()))

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        parts = self.project(tokens).split(list(self.sizes.values()), 2)
        given = {name: x.unflatten(2, (2, -1)) for name, x in zip(self.sizes, parts, strict=True)}
        o, state = self.mix(state, **given)
        return o.flatten(2).to(tokens.dtype), state

    def mix(self, state: Any, **given: Any) -> tuple[Tensor, Any]:
        raise NotImplementedError


class _Mamba3(_Mixer):
    sizes: ClassVar = {"q": 16, "k": 16, "v": 8, "g": 2, "step": 2, "mix": 2, "angles": 4}

    def mix(self, state: Any, **given: Any) -> tuple[Tensor, Any]:
        g, step, mix = (given.pop(name)[..., 0] for name in ("g", "step", "mix"))
        step, mix = functional.softplus(step), mix.sigmoid()
        return mamba3(**given, g=-step * g.exp(), step=step, mix=mix, state=state, output_final_state=True)


class _RotatingDelta(_Mixer):
    sizes: ClassVar = {"q": 8, "k": 8, "v": 8, "beta": 2, "g": 2, "angles": 2}

    def mix(self, state: Any, **given: Any) -> tuple[Tensor, Any]:
        S, phase = state or (None, None)
        angles = given["angles"]
        q, k = (rotate(functional.normalize(given[name], dim=3), angles, initial=phase) for name in ("q", "k"))
        beta, g = given["beta"][..., 0].sigmoid(), functional.logsigmoid(given["g"][..., 0])
        o, S = gated_delta_rule(q, k, given["v"], beta, g=g, initial_state=S, output_final_state=True)
        return o, (S, cumulative_angles(angles, phase)[:, -1])


class _RWKV7(_Mixer):
    sizes: ClassVar = {"r": 8, "w": 8, "k": 8, "v": 8, "kappa": 8, "rate": 8}

    def mix(self, state: Any, **given: Any) -> tuple[Tensor, Any]:
        kappa, rate = functional.normalize(given["kappa"], dim=3), given["rate"].sigmoid()
        gates = {"gk": -0.6 * given["w"].sigmoid(), "initial_state": state}
        return generalized_delta_rule(
            given["r"], given["k"], given["v"], -kappa, rate * kappa, **gates, output_final_state=True
        )


class _Comba(_Mixer):
    sizes: ClassVar = {"q": 8, "k": 8, "v": 8, "p": 8, "beta": 2, "g": 2}

    def mix(self, state: Any, **given: Any) -> tuple[Tensor, Any]:
        k, p = (functional.normalize(given[name], dim=3) for name in ("k", "p"))
        beta, g = given["beta"][..., 0].sigmoid(), functional.logsigmoid(given["g"][..., 0])
        options: dict[str, Any] = {"g": g, "erase_keys": p, "initial_state": state, "output_final_state": True}
        return gated_delta_rule(given["q"], k, given["v"], beta, **options)


class _Modern(nn.Module):
    """Mixers of the same tokens; the cache is the list of their states."""

    def __init__(self, *mixers: _Mixer) -> None:
        super().__init__()
        self.embedding, self.mixers = nn.Embedding(64, _WIDTH), nn.ModuleList(mixers)

    def forward(self, input_ids: Tensor, states: Sequence[Any] | None = None, use_cache: bool = False) -> Any:
        tokens, before = self.embedding(input_ids), states or [None] * len(self.mixers)
        z, after = zip(*(mix(tokens, state) for mix, state in zip(self.mixers, before, strict=True)), strict=True)
        return ModelOutput(z=torch.stack(z), states=after)


def _modern(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return perturb(_Modern(_Mamba3(), _RotatingDelta(), _RWKV7(), _Comba()), "project.bias")


def _presets(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = [replace(make(_WIDTH, heads=2), scale=0.25) for make in presets.PRESETS.values()]
    return perturb(_SideBySide(*(ResidualModel(_WIDTH, [layer]) for layer in layers)), *_MOVED)


def _stacked(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = [LayerConfig(gate="value", key_dim=3, value_dim=4, heads=2, norm=True), presets.rwkv6(_WIDTH, heads=2)]
    return perturb(_SideBySide(ResidualModel(_WIDTH, layers, seeds=range(4)), groups=2), *_MOVED)


def _last_query(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    options: list[dict[str, Any]] = [{"gate": gate} for gate in ("scalar", "key", "value", "full")]
    options += [{"gate": "fixed", "decays": (0.9,)}]
    options += [{"gate": "key", "bonus": True}, {"gate": "scalar", "heads": 2}, {"gate": "full", "write": "step"}, {}]
    regressors = [
        InContextRegressor(_WIDTH, LayerConfig(key_dim=4, value_dim=3, scale=0.25, **each)) for each in options
    ]
    regressors[-1].layer = _KeyTimesValue(_WIDTH, LayerConfig(key_dim=4, value_dim=3, gate="full"))
    return perturb(_LastQuery(*regressors), *_MOVED)


_NOTE = "layers take no attention mask"
MODELS = {
    "gladient": Tiny(_presets, cache="states", padding=False, note=_NOTE),
    "gladient, modern": Tiny(_modern, cache="states", padding=False, note=_NOTE),
    "gladient, stacked": Tiny(_stacked, cache="states", padding=False, note=_NOTE),
    "gladient, last": Tiny(_last_query, cache=None, padding=False, note=f"{_NOTE}; the last query alone has no cache"),
}

"""The residual model: L layers of gated linear attention that read and rewrite the tokens."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gladient._autocast import outside_autocast
from gladient._tensors import load_tensors, save_tensors
from gladient.nn.config import LayerConfig
from gladient.nn.layer import GatedLinearAttention, State
from gladient.nn.stack import by_member, check_last, contract, member_normal, project, rounded

__all__ = ["ResidualLayer", "ResidualModel"]

# Options that files written before them lack, and what they then are.
_LATER = (
    "erase_key",
    "read_correction",
    "key_bias",
    "rotation",
    "turned_pairs",
    "shared_angle",
    "angles",
    "token_rate",
)
_SINCE = {name: value for name, value in asdict(LayerConfig()).items() if name in _LATER}


class ResidualLayer(nn.Module):
    r"""$z_t \leftarrow z_t + W_o^\top(\mathrm{norm}(o_t) \odot \mathrm{silu}(W_r^\top z_t))$; norm and gate optional.

    Args:
        width: numbers in a token, D.
        config: the layer.
        seeds: one seed for each member of the stack.

    >>> layer = ResidualLayer(5, LayerConfig(heads=2, key_dim=3, value_dim=2, norm=True, output_gate=True))
    >>> z, state = layer(torch.zeros(1, 4, 7, 5))
    >>> tuple(z.shape), tuple(state.shape)
    ((1, 4, 7, 5), (4, 2, 3, 2))
    """

    def __init__(self, width: int, config: LayerConfig, *, seeds: Sequence[int] = (0,)) -> None:
        super().__init__()
        self.config = config
        self.attention = GatedLinearAttention(width, replace(config, norm=False, output_gate=False), seeds=seeds)
        columns = self.attention.W_v.shape[2]
        self.W_o = nn.Parameter(member_normal(seeds, (columns, width), stream="output") / columns**0.5)
        gate = member_normal(seeds, (width, columns), stream="output gate") / width**0.5
        self.W_r = nn.Parameter(gate) if config.output_gate else None

    @outside_autocast
    def forward(
        self, tokens: Float[Tensor, "*G B T D"], state: State | None = None
    ) -> tuple[Float[Tensor, "E B T D"], State]:
        """The tokens after the layer, and the state to go on from."""
        tokens = by_member(tokens, self.attention.members)
        o, state = self.attention.scan(tokens, state)
        if self.config.norm:
            o = o.unflatten(3, (self.config.heads, -1))
            o = functional.rms_norm(o, o.shape[4:]).flatten(3)
        if self.W_r is not None:
            o = o * functional.silu(contract("ebtd,edv->ebtv", tokens, self.W_r))
        return rounded(tokens + project(o, self.W_o)[:, :, :, 0], tokens, self.W_o), state

    @outside_autocast
    def rewrite(self, tokens: Float[Tensor, "*G B T D"]) -> Float[Tensor, "E B T D"]:
        """The tokens after the layer alone: `forward` with fewer products where it has no norm and no output gate."""
        if self.config.norm or self.W_r is not None:
            return self(tokens)[0]
        return by_member(tokens, self.attention.members) + self.attention.written(tokens, self.W_o)

    @outside_autocast
    def read_last(self, tokens: Float[Tensor, "*G B T D"], readout: Float[Tensor, "E D"]) -> Float[Tensor, "E B"]:
        """The read-out of the last token after the layer; see `GatedLinearAttention.read_last`."""
        check_last(tokens)
        if self.config.norm or self.W_r is not None:
            return contract("ebd,ed->eb", self(tokens)[0][:, :, -1], readout)
        # hᵀ (z_T + W_oᵀ o_T) = hᵀ z_T + (W_o h)ᵀ o_T: one vector goes through W_o, not T tokens.
        own = contract("ebd,ed->eb", by_member(tokens, self.attention.members)[:, :, -1], readout)
        return own + self.attention.read_last(tokens, torch.einsum("evd,ed->ev", self.W_o, readout))


class ResidualModel(nn.Module):
    r"""L residual layers, then a read-out of the last token: $\hat y = h^\top z_T$; E members side by side.

    With plain layers whose keys and queries read features and whose values read and write labels, this is L causal
    steps of WPGD, and the prediction is minus the query's label: h = -e_label (`equivalence.construct`). Autocast and
    half precision are as in `GatedLinearAttention`; tokens between layers have the parameters' dtype.

    Args:
        width: numbers in a token, D.
        layers: one config per layer, at least one.
        spare: channels beyond the token's, 0 at first, that layers write and read: room for skips.
        seeds: one seed for each member of the stack.

    Raises:
        ValueError: if there is no layer, or spare is below 0.

    Source: the residual layers of the multi-layer theorem of arXiv 2504.04308.

    >>> model = ResidualModel(5, [LayerConfig(), LayerConfig(gate="key")])
    >>> tuple(model(torch.zeros(1, 4, 7, 5)).shape)
    (1, 4)
    """

    layers: Sequence[ResidualLayer]

    def __init__(
        self, width: int, layers: Sequence[LayerConfig], *, spare: int = 0, seeds: Sequence[int] = (0,)
    ) -> None:
        super().__init__()
        if not layers:
            raise ValueError("layers is empty; a model needs at least one LayerConfig")
        if spare < 0:
            raise ValueError(f"spare is {spare}; a token has 0 or more channels to spare")
        self.configs, self.spare = tuple(layers), spare
        apart = 2**32  # beyond the seeds that people choose, so that no layer starts like the first of another member
        self.layers = nn.ModuleList(  # type: ignore[assignment]  # typed as what it holds
            ResidualLayer(width + spare, config, seeds=[seed + apart * depth for seed in seeds])
            for depth, config in enumerate(layers)
        )
        self.readout = nn.Parameter(torch.zeros(len(seeds), width + spare))

    def forward(self, tokens: Float[Tensor, "*G B T D"]) -> Float[Tensor, "E B"]:
        """Predictions of every member for the prompts of its group."""
        *first, last = self.layers
        tokens = self._with_spare(tokens)
        for layer in first:
            tokens = layer.rewrite(tokens)
        return last.read_last(tokens, self.readout)

    @outside_autocast
    def read(self, z: Float[Tensor, "E B T D"]) -> Float[Tensor, "E B T"]:
        """The read-out of every token after the last layer."""
        return contract("ebtd,ed->ebt", z, self.readout)

    def hidden(self, tokens: Float[Tensor, "*G B T D"]) -> list[Float[Tensor, "E B T W"]]:
        """The tokens of every member before the first layer and after each, with the spare channels."""
        z = [by_member(self._with_spare(tokens), len(self.readout))]
        for layer in self.layers:
            z.append(layer(z[-1])[0])
        return z

    def decode(
        self, tokens: Float[Tensor, "*G B T D"], states: Sequence[State] | None = None
    ) -> tuple[Float[Tensor, "E B T W"], list[State]]:
        """The last layer's tokens for further tokens, however many, and every layer's state to go on from.

        >>> model, tokens = ResidualModel(3, [LayerConfig(), LayerConfig()]), torch.ones(1, 1, 2, 3)
        >>> first, states = model.decode(tokens[:, :, :1])
        >>> second, _ = model.decode(tokens[:, :, 1:], states)
        >>> torch.testing.assert_close(torch.cat([first, second], 2), model.hidden(tokens)[-1])
        """
        if states is not None and len(states) != len(self.layers):
            raise ValueError(f"{len(states)} states came for {len(self.layers)} layers; pass what decode returned")
        z, after = self._with_spare(tokens), []
        for depth, layer in enumerate(self.layers):
            z, state = layer(z, None if states is None else states[depth])
            after.append(state)
        return z, after

    def member(self, index: int) -> "ResidualModel":
        """One member as a model of its own, with a copy of its parameters.

        >>> model = ResidualModel(3, [LayerConfig()], seeds=[4, 5])
        >>> torch.equal(model.member(1).readout[0], model.readout[1])
        True
        """
        E, width = self.readout.shape
        if not 0 <= index < E:
            raise ValueError(f"index is {index}; the stack holds members 0 to {E - 1}")
        alone = ResidualModel(width - self.spare, self.configs, spare=self.spare).to(self.readout)
        alone.load_state_dict({name: x[index : index + 1] for name, x in self.state_dict().items()})
        return alone

    def gate_parameters(self) -> list[nn.Parameter]:
        """The parameters of the gates, which training may move faster than the rest."""
        return [parameter for layer in self.layers for parameter in layer.attention.gate_parameters()]

    def save(self, path: Path) -> None:
        """Write the parameters and what they belong to as one safetensors file."""
        save_tensors(path, self.state_dict(), run=self._description())

    def load(self, path: Path) -> None:
        """Take over the parameters of a file that `save` wrote.

        Raises:
            CheckpointError: if the file is damaged or holds a model of another config.
        """
        tensors, _ = load_tensors(path, run=self._description())
        self.load_state_dict(tensors)

    def _description(self) -> dict[str, Any]:
        members, width = self.readout.shape
        layers = [asdict(config) for config in self.configs]
        for layer in layers:
            del layer["form"]  # how a layer is computed is none of its parameters' business
            for name, value in _SINCE.items():
                if layer[name] == value:
                    del layer[name]
        spare = {"spare": self.spare} if self.spare else {}  # files of models without are as they always were
        return {"width": width - self.spare, "members": members, "layers": layers} | spare

    def _with_spare(self, tokens: Tensor) -> Tensor:
        return functional.pad(tokens, (0, self.spare)) if self.spare else tokens

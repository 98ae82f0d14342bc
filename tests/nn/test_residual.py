"""The residual model: presets equal to plain loops, decoding to the forward, files that name their config."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from gladient._tensors import CheckpointError
from gladient.nn import InContextRegressor, LayerConfig, ResidualModel, presets
from gladient.nn.stack import project

WIDTH, T = 6, 9
CONFIGS: dict[str, LayerConfig] = {
    **{name: preset(WIDTH, heads=2) for name, preset in presets.PRESETS.items() if name != "mamba3"},
    # keys and queries of √K and more: three such layers in a row would magnify the rounding of the first
    "mamba3": replace(presets.mamba3(WIDTH, heads=3), scale=0.1),
    "mamba, one head": presets.mamba(WIDTH, state=3),
    "value gates": LayerConfig(gate="value", value_dim=3, key_dim=4, heads=2, scale=0.3),
    "unit keys alone": LayerConfig(gate="scalar", normalise="keys", heads=2, key_dim=4),
    "one head of unit keys": LayerConfig(gate="scalar", normalise="both", key_dim=8),
    "one delta head": LayerConfig(gate="scalar", write="delta", key_dim=8, value_dim=8, scale=0.3),
    "fixed delta": LayerConfig(gate="fixed", decays=(0.5, 1.0), heads=2, write="delta", step_bound=2.0),
    "mamba-3, softplus": replace(presets.mamba3(WIDTH, token_rate="softplus"), scale=0.1),
    "two taps alone": LayerConfig(gate="scalar", write="trapezoid", learn_rate=True, heads=2, key_dim=3),
    "turning": LayerConfig(gate="scalar", rotation="token", shared_angle=True, heads=2, key_dim=4, scale=0.3),
    "turning as RoPE": LayerConfig(gate="none", rotation="fixed", turned_pairs=2, key_dim=6, scale=0.3),
    "turning with value gates": LayerConfig(gate="value", rotation="fixed", angles=(0.5, 2.0), key_dim=4),
    "turning steps": LayerConfig(gate="scalar", write="step", rotation="token", turned_pairs=1, key_dim=4, scale=0.3),
    "turning delta": LayerConfig(gate="scalar", write="delta", rotation="token", heads=2, key_dim=4, value_dim=2),
    "turning rates": LayerConfig(
        gate="fixed", decays=(0.9,), write="delta", erase_key="rates", rotation="token", scale=0.3
    ),
    "rates without gates": LayerConfig(gate="none", write="delta", erase_key="rates", step_bound=0.5, normalise="keys"),
    "own erasing keys": LayerConfig(
        gate="key", write="delta", erase_key="own", normalise="keys", read_correction=True, key_dim=4, heads=2
    ),
    "corrected reads": LayerConfig(gate="none", write="delta", normalise="both", read_correction=True, key_bias=True),
    "forgets at once": LayerConfig(gate="fixed", decays=(0.0, 1.0), heads=2, key_dim=4),
}


def randomised(model: torch.nn.Module, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.double().parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def tokens(groups: int = 1, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(groups, batch, T, WIDTH, generator=generator, dtype=torch.float64)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.sqrt(x @ x + 1e-6))


def turn(state: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Pairs of rows (2i, 2i + 1), turned."""
    state = state.copy()
    for i, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        state[2 * i : 2 * i + 2] = np.array([[c, -s], [s, c]]) @ state[2 * i : 2 * i + 2]
    return state


def queries_and_keys(config: LayerConfig, w: dict[str, np.ndarray], z: np.ndarray, h: int) -> list[np.ndarray]:
    """Query, key and erasing key of a head, as they are read off the token."""
    K = config.key_dim or WIDTH
    found = [z @ w[name][:, h * K : (h + 1) * K] if name in w else np.zeros(K) for name in ("W_q", "W_k", "W_e")]
    for i, x in enumerate(found):
        if config.normalise == "rms":
            found[i] = x / np.sqrt((x**2).mean() + 1e-5)
        elif config.normalise == "both" or (config.normalise == "keys" and i > 0):
            found[i] = unit(x)
    q, k, e = found
    if config.key_bias:
        q, k = q + w["q_bias"][h], k + w["k_bias"][h]
    if config.erase_key == "scaled":
        e = sigmoid(w["erase_logit"][h]) * k
    e = k if config.erase_key == "write" else e
    return [q - w["correction"][h] * e if config.read_correction else q, k, e]


def gate_of(config: LayerConfig, w: dict[str, np.ndarray], z: np.ndarray, h: int) -> tuple[Any, np.ndarray]:
    """The gate of a head and Δ = -log of what it is before its rate."""
    if config.gate in ("none", "fixed"):
        return np.array(1.0 if config.gate == "none" else config.decays[h]), np.zeros(1)
    logits = (z @ w["gate.weight"] + w.get("gate.bias", 0.0)).reshape(config.heads, -1)[h]
    links = {"sigmoid": lambda x: np.log1p(np.exp(-x)), "exp": lambda x: np.exp(-x), "bounded": lambda x: sigmoid(-x)}
    step = links[config.link](logits)
    A = np.exp(w["log_A"][h]) if "log_A" in w else 1.0
    if config.token_rate != "none":
        u = (z @ w["rate.weight"] + w["rate.bias"])[h]
        heavy = 1 + u if u >= 0 else 1 / (1 - u)
        A = max(heavy if config.token_rate == "heavy_tail" else np.log1p(np.exp(u)), 1e-4)
    gate = np.exp(-config.rate * A * step)
    return gate[:, None] if config.gate == "key" else gate, step


def by_loops(config: LayerConfig, weights: dict[str, np.ndarray], z: np.ndarray) -> np.ndarray:
    """One residual layer on one prompt, from the equations of the docstrings, token by token and head by head."""
    w = {name.removeprefix("attention."): x for name, x in weights.items()}
    H, K, V = config.heads, config.key_dim or WIDTH, config.value_dim or WIDTH
    S, former = np.zeros((H, K, V)), np.zeros((H, K, V))
    pairs = 0 if config.rotation == "none" else config.turned_pairs or K // 2
    out = z.copy()
    for t in range(len(z)):
        o = np.zeros((H, V))
        for h in range(H):
            q, k, e = queries_and_keys(config, w, z[t], h)
            v = z[t] @ w["W_v"][:, h * V : (h + 1) * V]
            gate, step = gate_of(config, w, z[t], h)
            G = gate * np.ones((K, V))
            k = 1 - np.exp(-step) if config.write == "complement" else k
            v = step * v if config.write == "step" else v
            if pairs:
                angles = w["angles"] if config.rotation == "fixed" else np.pi * np.tanh(z[t] @ w["angle.weight"])
                angles = np.broadcast_to(angles, pairs) * (step if config.write == "trapezoid" else 1.0)
                S[h], former[h] = turn(S[h], -angles), turn(former[h], -angles)
            before, S[h] = S[h].copy(), G * S[h]
            if config.write == "trapezoid":
                own = sigmoid(z[t] @ w["mix.weight"] + w["mix.bias"])[h]
                S[h] += (1 - own) * step * G * former[h]
                former[h] = np.outer(k, v)
                v = own * step * v
            if config.write == "delta":
                bs = config.step_bound * sigmoid(z[t] @ w["step.weight"] + w["step.bias"]).reshape(H, -1)[h]
                if config.erase_key == "rates":
                    e = unit(k * w["erase_scale"][h])
                    S[h] -= np.outer(bs * e, e @ before)
                    k = k * (1 + (bs - 1) * w["write_mix"][h])
                else:
                    v = bs * (v - e @ S[h])
            S[h] += np.outer(k, v)
            read = before + np.outer(w["u"][h] * k, v) if config.bonus else S[h]
            o[h] = config.scale * q @ read
            if config.norm:
                o[h] /= np.sqrt((o[h] ** 2).mean() + np.finfo(float).eps)
        row = o.reshape(-1)
        if config.output_gate:
            logits = z[t] @ w["W_r"]
            row = row * logits * sigmoid(logits)
        out[t] += row @ w["W_o"]
    return out


@pytest.mark.parametrize("name", CONFIGS)
def test_layer_is_its_equations(name: str) -> None:
    model = randomised(ResidualModel(WIDTH, [CONFIGS[name]], seeds=[0, 1]))
    after = model.hidden(tokens())[-1].detach().numpy()
    for member in range(2):
        weights = {key: value[member].detach().numpy() for key, value in model.layers[0].named_parameters()}
        for i, z in enumerate(tokens()[0].numpy()):
            expected = by_loops(CONFIGS[name], weights, z)
            np.testing.assert_allclose(after[member, i], expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("cuts", [[1] * T, [4, 5], [1, 7, 1]])
def test_decoding_is_the_forward(name: str, cuts: list[int]) -> None:
    model = randomised(ResidualModel(WIDTH, [CONFIGS[name], LayerConfig(), CONFIGS[name]], seeds=[0, 1, 2, 3]))
    states, parts = None, []
    for part in tokens(groups=2).split(cuts, 2):
        z, states = model.decode(part, states)
        parts.append(z)
    torch.testing.assert_close(torch.cat(parts, 2), model.hidden(tokens(groups=2))[-1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_member_of_a_stack_is_the_model_of_its_seed(name: str) -> None:
    stack = ResidualModel(WIDTH, [CONFIGS[name]] * 2, seeds=[5, 6, 5, 7]).double()
    for member, (seed, group) in enumerate([(5, 0), (6, 0), (5, 1), (7, 1)]):
        alone = ResidualModel(WIDTH, [CONFIGS[name]] * 2, seeds=[seed]).double()
        got, expected = stack.hidden(tokens(2))[-1][member], alone.hidden(tokens(2)[group : group + 1])[-1][0]
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_learns(name: str) -> None:
    model = randomised(ResidualModel(WIDTH, [CONFIGS[name]]))
    model(tokens()).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", CONFIGS)
def test_one_layer_of_each_regresses(name: str) -> None:
    """`read_last` of layers that do not absorb their keys."""
    config = replace(CONFIGS[name], norm=False, output_gate=False)
    model = randomised(InContextRegressor(WIDTH, config, seeds=[0, 1]))
    plain = torch.einsum("ebv,ev->eb", model.layer(tokens())[:, :, -1], model.readout)
    torch.testing.assert_close(model(tokens()), plain, rtol=1e-10, atol=1e-12)


SHORT: dict[str, LayerConfig] = {
    **CONFIGS,
    "no gates": LayerConfig(gate="none", scale=0.3),
    "one head": LayerConfig(gate="scalar", gate_bias=True, learn_rate=True, write="step", rate=0.5, key_dim=8),
    "one fixed head": LayerConfig(gate="fixed", decays=(0.5,), value_dim=8),
    "narrow values": LayerConfig(gate="scalar", value_dim=3),
    "bonus": LayerConfig(gate="none", bonus=True),
}


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_predictions_are_read_from_hidden_tokens(name: str, groups: int) -> None:
    """The forward forms fewer products than `hidden`, to the same values and gradients."""
    model = randomised(ResidualModel(WIDTH, [SHORT[name]] * 3, seeds=[0, 1, 2, 3]))
    prompts, parameters = 0.3 * tokens(groups, batch=3), list(model.parameters())
    short, plain = model(prompts), model.read(model.hidden(prompts)[-1])[:, :, -1]
    torch.testing.assert_close(short, plain, rtol=1e-9, atol=1e-12)
    upstream = torch.randn(short.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for one, other in zip(*(torch.autograd.grad(y, parameters, upstream) for y in (short, plain)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10 * float(other.abs().max()))


@pytest.mark.parametrize(("batch", "width", "columns"), [(8, 9, 9), (8, 9, 1), (3, 5, 4), (4, 20, 17), (0, 9, 9)])
def test_projection_is_a_product_for_every_member(batch: int, width: int, columns: int) -> None:
    """However many tokens stand in a row of the product."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, batch, 6, width, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, width, columns, generator=generator, dtype=torch.float64, requires_grad=True)
    got, expected = project(z, weight), torch.einsum("gbtd,gpdc->gbtpc", z, weight.unflatten(0, (2, 3)))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(got.shape, generator=generator, dtype=torch.float64)
    for one, other in zip(*(torch.autograd.grad(y, [z, weight], upstream) for y in (got, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_prompt_that_is_not_finite_spoils_no_other() -> None:
    model, prompts = randomised(ResidualModel(WIDTH, [LayerConfig()] * 2)), tokens(batch=4)
    with torch.no_grad():
        expected = model(prompts)
        prompts[0, 1, 0] = float("nan")
        got = model(prompts)
    assert got.isnan().tolist() == [[False, True, False, False]]
    torch.testing.assert_close(got[:, [0, 2, 3]], expected[:, [0, 2, 3]])


def test_layers_start_apart() -> None:
    first, second = ResidualModel(WIDTH, [LayerConfig()] * 2, seeds=[3]).layers
    assert not torch.equal(first.attention.W_q, second.attention.W_q)


def test_weights_come_back_and_name_their_config(tmp_path: Path) -> None:
    model = randomised(ResidualModel(WIDTH, list(CONFIGS.values())))
    model.save(tmp_path / "model.safetensors")
    other = ResidualModel(WIDTH, list(CONFIGS.values()), seeds=[9]).double()
    other.load(tmp_path / "model.safetensors")
    for key, parameter in model.state_dict().items():
        assert torch.equal(parameter, other.state_dict()[key]), key
    with pytest.raises(CheckpointError, match=r"differs in layers"):
        ResidualModel(WIDTH, [LayerConfig()]).load(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"differs in width"):
        ResidualModel(WIDTH + 2, list(CONFIGS.values())).load(tmp_path / "model.safetensors")
    (tmp_path / "broken").write_bytes((tmp_path / "model.safetensors").read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not a whole gladient checkpoint"):
        model.load(tmp_path / "broken")


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="width 6 does not divide into 4 heads"):
        presets.gla(WIDTH, heads=4)
    with pytest.raises(ValueError, match="layers is empty"):
        ResidualModel(WIDTH, [])
    with pytest.raises(ValueError, match="0 states came for 1 layers"):
        ResidualModel(WIDTH, [LayerConfig()]).decode(tokens().float(), [])


BAD: dict[str, dict[str, Any]] = {
    "gate is 'rwkv'": {"gate": "rwkv"},
    "link is 'tanh'": {"gate": "none", "link": "tanh"},
    "write is 'hebb'": {"write": "hebb"},
    "it goes with none or fixed or scalar or key": {"gate": "value", "write": "delta"},
    "bonus came with write='delta'": {"gate": "key", "write": "delta", "bonus": True},
    "rotation='token'; it belongs to reads before a plain write": {"rotation": "token", "bonus": True},
    "it goes with scalar$": {"gate": "value", "write": "trapezoid"},
    "the two channels of a pair must share their gate": {"gate": "key", "rotation": "fixed"},
    "rotation is 'rope'": {"rotation": "rope"},
    "turned_pairs is 0": {"rotation": "token", "turned_pairs": 0},
    "turned_pairs is 2, shared_angle False": {"turned_pairs": 2},
    "they are where fixed ones start": {"rotation": "token", "angles": (0.5,)},
    "erase_key='own' came with write='plain'": {"erase_key": "own"},
    "read_correction came with write='delta' and erase_key='rates'": {
        "write": "delta",
        "erase_key": "rates",
        "read_correction": True,
    },
    "in place of learned ones": {"token_rate": "softplus", "learn_rate": True},
    "normalise is 'values'": {"normalise": "values"},
    "step_bound is 2.5": {"step_bound": 2.5},
    "it goes with scalar or full": {"gate": "key", "write": "step"},
    "learn_rate came with gate='value'": {"gate": "value", "learn_rate": True},
    r"decays is \[1.5\]": {"gate": "fixed", "decays": (1.5,)},
    "fixed gates need one": {"gate": "fixed", "heads": 2},
    "others none": {"decays": (0.5,)},
    "heads is 0; it must be at least 1": {"heads": 0},
    "key_dim is 0": {"key_dim": 0},
}


@pytest.mark.parametrize("message", BAD)
def test_a_config_checks_its_options(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As users meet it: the tests' own check of types, which would come first, is off."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        LayerConfig(**BAD[message])


@pytest.mark.parametrize("name", CONFIGS)
def test_gate_parameters_are_those_of_every_layers_gates(name: str) -> None:
    """Learned rates A and the delta rule's steps too: what a gate's step size is for."""
    model = ResidualModel(WIDTH, [CONFIGS[name]] * 2)
    moved = (".gate.", ".step.", ".rate.", ".mix.", ".angle", "log_A")
    wanted = [value for key, value in model.named_parameters() if any(part in key for part in moved)]
    assert {id(x) for x in model.gate_parameters()} == {id(x) for x in wanted}
    assert len(model.gate_parameters()) == len(wanted)


@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_no_tokens_passes_the_states_through(name: str) -> None:
    model = randomised(ResidualModel(WIDTH, [CONFIGS[name]] * 2, seeds=[0, 1]))
    _, states = model.decode(tokens())
    z, same = model.decode(tokens()[:, :, :0], states)
    assert z.shape == (2, 2, 0, WIDTH)
    _, zeros = model.decode(tokens()[:, :, :0])
    for before, after, zero in zip(*map(tree_leaves, (states, same, zeros)), strict=True):
        assert torch.equal(before, after)
        assert zero.shape == before.shape
        assert not zero.any()


def test_a_backend_that_cannot_run_a_preset_says_why() -> None:
    model = ResidualModel(WIDTH, [replace(presets.mamba(WIDTH), backend="fla")])
    with pytest.raises((ImportError, ValueError), match=r"flash-linear-attention|fla"):
        model(tokens().float())

"""Layers of one's own: modules that call the operators, tensors at hand, adapters that are registered."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gladient.ops
from gladient import lens, ops, seams
from gladient.lens import layers
from gladient.ops import gated_delta_rule, gated_linear_attention, generalized_delta_rule
from gladient.ops import gated_linear_attention as attend
from oracles import gla

B, T, H, K, V = 2, 9, 4, 3, 2
SHAPES = {
    "g": (T, H),
    "gk": (T, H, K),
    "gv": (T, H, V),
    "G": (T, H, K, V),
    "dt": (T, H, V),
    "beta": (T, H),
    "erase": (T, H),
    "erase_keys": (T, H, K),
    "a": (T, H, K),
    "b": (T, H, K),
}
SHAPES |= {"written": (T, H, V), "erased": (T, H, K)}  # beta and erase of channels


def operands(*names: str, heads: int = H, seed: int = 0, **more: tuple[int, ...]) -> dict[str, Any]:
    """Queries, keys, values and what is named, in float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"q": (T, heads, K), "k": (T, heads, K), "v": (T, heads, V)} | {name: SHAPES[name] for name in names}
    made = {name: torch.randn(B, *shape, generator=generator).double() for name, shape in shapes.items()}
    made |= {name: functional.logsigmoid(made[name]) for name in ("g", "gk", "gv", "G") if name in made}
    made |= {name: made[name].sigmoid() for name in ("dt", "beta", "erase", "written", "erased") if name in made}
    return made | {name: torch.randn(*shape, generator=generator).double() for name, shape in more.items()}


def by_definition(given: dict[str, Tensor], **options: Any) -> Tensor:
    renamed = {"state" if name == "initial_state" else name: x.numpy() for name, x in given.items()}
    return torch.tensor(gla(renamed, **options)[0])


FAMILIES: dict[str, dict[str, Any]] = {
    "none": {},
    "scalar": {"names": ("g",)},
    "key": {"names": ("gk",)},
    "value": {"names": ("gv",)},
    "all": {"names": ("g", "gk", "gv", "G")},
    "rates": {"names": ("dt",), "A": (H, K, V)},
    "delta": {"names": ("beta",)},
    "gated delta": {"names": ("beta", "g")},
    "KDA": {"names": ("beta", "gk")},
    "erase": {"names": ("beta", "gk", "erase")},
    "Comba": {"names": ("beta", "g", "erase_keys")},
    "generalised delta": {"names": ("g", "gk", "a", "b")},
    "Gated DeltaNet-2": {"names": ("written", "gk", "erased")},
}


def made(family: str, **more: Any) -> dict[str, Any]:
    options = dict(FAMILIES[family])
    given = operands(*options.pop("names", ()), **options, **more)
    given = {{"written": "beta", "erased": "erase"}.get(name, name): x for name, x in given.items()}
    return given | ({"A": -given["A"].abs()} if "A" in given else {})


@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_records_of_tensors_rebuild_the_definition(family: str, state: bool) -> None:
    given = made(family, **({"initial_state": (B, H, K, V)} if state else {}))
    output = by_definition(given, scale=0.7)
    record = lens.record(**given, scale=0.7, output=output)
    assert record.reconstruction_error.passed
    assert lens.record(**given, scale=0.7).reconstruction_error.passed
    assert not lens.record(**given, output=output).reconstruction_error.passed  # without the scale


def test_the_generalised_delta_rule_reads_what_a_gate_of_zero_forgets() -> None:
    given = made("generalised delta")
    given["g"] = given["g"].clone()
    given["g"][:, 4] = -torch.inf
    given["gk"][:, 6, :, 1] = -1e3
    record = lens.record(**given, output=by_definition(given))
    assert record.reconstruction_error.passed
    assert record.implicit_attention(queries=4)[..., :4].any()  # read before it is forgotten, and written again


@pytest.mark.parametrize("bonus", [(H, K), (B, H, K)])
def test_reads_before_the_write_with_a_bonus(bonus: tuple[int, ...]) -> None:
    given = operands("gk", bonus=bonus, initial_state=(B, H, K, V))
    record = lens.record(**given, read="before", output=by_definition(given, read="before"))
    assert record.reconstruction_error.passed


def test_fewer_heads_a_last_query_and_packed_sequences() -> None:
    given = operands("g", heads=2)
    output = by_definition(given)
    assert lens.record(**given, output=output).shape == (B, T, H, T)
    last = lens.record(given.pop("q")[:, -1:], **given, output=output[:, -1:])
    assert last.shape == (B, 1, H, T)
    assert last.reconstruction_error.passed
    packed = {name: x[:1] for name, x in operands("g", "beta").items()}
    rows = lens.record(**packed, cu_seqlens=(0, 2, 2, T))
    assert rows.shape == (3, T - 2, H, T - 2)
    assert rows.reconstruction_error.passed
    alone = {name: x[:, 2:] for name, x in packed.items()}
    torch.testing.assert_close(rows.implicit_attention()[2], lens.record(**alone).implicit_attention()[0])


@pytest.mark.parametrize("family", ["delta", "KDA", "Gated DeltaNet-2"])
def test_a_delta_rule_that_reads_before_the_write(family: str) -> None:
    given = made(family, initial_state=(B, H, K, V))
    record = lens.record(**given, read="before", output=by_definition(given, read="before"))
    assert record.reconstruction_error.passed
    assert not record.implicit_attention().diagonal(dim1=2, dim2=3).any()
    after = lens.record(**given, output=by_definition(given))
    moved = {name: x.roll(1, 1) if name == "q" else x for name, x in given.items()}
    shifted = lens.record(**moved, read="before").implicit_attention(queries=slice(1, None))
    torch.testing.assert_close(shifted, after.implicit_attention(queries=slice(0, T - 1)))


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("family", ["scalar", "gated delta"])
def test_last_queries_of_packed_sequences(family: str, single: bool) -> None:
    class Mixer(nn.Module):
        def forward(self, **given: Any) -> Tensor:
            operator: Any = gated_delta_rule if "beta" in given else gated_linear_attention
            operator = generalized_delta_rule if "a" in given else operator
            return operator(**given, form="last_query", cu_seqlens=(0, 2, 2, T))[0]

    given = {name: x[:1] for name, x in made(family).items()}
    given |= {"q": given["q"][:, -1:]} if single else {}
    mixer = Mixer()
    with lens.capture(mixer) as trace:
        mixer(**given)
    (record,) = trace.records
    assert record.shape == (3, 1, H, T - 2)
    assert record.reconstruction_error.passed
    alone = {name: x if x.shape[1] == 1 else x[:, 2:] for name, x in given.items()}
    wanted = lens.record(**alone).implicit_attention(queries=-1)
    torch.testing.assert_close(record.implicit_attention()[2:], wanted)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (
            {"output": torch.ones(B, T, H, K)},
            ValueError,
            "output has shape .*; of these operands it is",
        ),
        ({"g": torch.ones(B, T + 1, H).double()}, ValueError, "g"),
        ({"gates": torch.ones(B, T, H)}, TypeError, "gates"),
    ],
)
def test_records_that_cannot_be(wrong: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        lens.record(**operands() | wrong)


def _helper(*operands: Tensor, **gates: Any) -> Tensor:
    return gated_linear_attention(*operands, **gates)[0]


class _ByName(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return gated_linear_attention(q, k, v, g=g)[0]


class _ByAlias(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return attend(q, k, v, g=g)[0]


class _ByModule(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return ops.gated_linear_attention(q, k, v, g=g)[0]


class _ByPackage(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return gladient.ops.gated_linear_attention(q, k, v, g=g)[0]


class _ByHelper(nn.Module):
    def forward(self, *operands: Tensor, **gates: Any) -> Tensor:
        return _helper(*operands, **gates)


class _Inherited(_ByHelper):
    pass


class _ByLambda(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return (lambda: gated_linear_attention(q, k, v, g=g)[0])()


class _Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = functools.partial(gated_linear_attention, form="recurrent")

    def forward(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return self.kernel(q, k, v, g=g)[0]


class _Delta(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return gated_delta_rule(q, functional.normalize(k, dim=3), v, g.exp(), g=g)[0]


class _Both(nn.Module):
    """Reads a text from either side."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        back = _helper(q.flip(1), k.flip(1), v.flip(1), g=g.flip(1)).flip(1)
        return _helper(q, k, v, g=g) + back


def _closure() -> nn.Module:
    def inside(*operands: Tensor, **gates: Any) -> Tensor:
        return gated_linear_attention(*operands, **gates)[0]

    class Local(nn.Module):
        def forward(self, *operands: Tensor, **gates: Any) -> Tensor:
            return inside(*operands, **gates)

    return Local()


WAYS: list[Callable[[], nn.Module]] = [_ByName, _ByAlias, _ByModule, _ByPackage, _ByHelper, _Inherited, _ByLambda]
WAYS += [_Held, _Delta, _closure]


@pytest.mark.parametrize("make", WAYS)
def test_modules_that_call_the_operators_are_read(make: Callable[[], nn.Module]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(V, V), make()])

        def forward(self, **given: Tensor) -> Tensor:
            first, second = self.blocks
            return first(second(**given))

    model, given = Model().double(), operands("g")
    if make in (_ByHelper, _Inherited, _closure):
        model.blocks[1].forward = functools.partial(model.blocks[1].forward, *(given.pop(name) for name in "qkv"))
    plain = model(**given)
    with lens.capture(model) as trace:
        assert torch.equal(model(**given), plain)
    (record,) = trace.records
    assert (record.module, record.layer, record.architecture) == ("blocks.1", 1, "gladient.ops")
    assert record.reconstruction_error.passed


def test_every_call_of_a_module_is_a_record() -> None:
    with lens.capture(_Both()) as trace:
        _Both()(**operands("g"))  # another module of the same class
        assert not trace.records
    model = _Both()
    with lens.capture(model) as trace:
        model(**operands("g"))
    assert [record.call for record in trace.records] == [0, 1]
    assert trace.passed


def test_steps_in_place_are_read_with_the_state_before_them() -> None:
    class Decoder(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, state: Tensor) -> Tensor:
            return gated_linear_attention(q, k, v, initial_state=state, output_final_state=True, inplace=True)[0]

    model, given = Decoder(), operands()
    first = {name: x[:, :1].contiguous() for name, x in given.items()}
    state = torch.randn(B, H, K, V).double()
    before = state.clone()
    with lens.capture(model) as trace:
        model(**first, state=state)
    assert not torch.equal(state, before)
    (record,) = trace.records
    assert record.recurrence.initial_state is not None
    assert torch.equal(record.recurrence.initial_state, before)
    assert record.reconstruction_error.passed


def test_modules_that_do_not_call_them_are_not_read() -> None:
    class Other(nn.Module):
        gated_linear_attention = None

        def forward(self, x: Tensor) -> Tensor:
            return np.multiply(x, 2) if self.gated_linear_attention else x

    with pytest.raises(ValueError, match=r"modules that call gladient\.ops; for others see lens\.register"):
        lens.gated_layers(nn.Sequential(Other(), nn.Linear(2, 2)))


class Mean(nn.Module):
    """The running mean of its tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, torch.arange(1.0, x.shape[1] + 1))

    def mix(self, x: Tensor, count: Tensor) -> Tensor:
        return x.cumsum(1) / count[:, None]


def _attach(mean: nn.Module, emit: Any) -> Any:
    def listen(call: dict[str, Any], output: Tensor) -> None:
        x, count = call["x"][:, :, None], call["count"][None, :, None]
        ones = torch.ones_like(x[..., :1])
        kept = ((count - 1) / count).log().expand(x.shape[:3])
        emit(lens.record(ones, ones / count[..., None], x, g=kept, output=output[:, :, None]).recurrence)

    return seams.on_method(mean, "mix", listen)


@pytest.fixture
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_registered", [])


@pytest.mark.usefixtures("_forgotten")
def test_a_registered_layer_is_read_as_the_others_are() -> None:
    adapter, model = lens.Adapter("running mean", ("Mean",), _attach), nn.Sequential(nn.Linear(3, 3), Mean())
    with pytest.raises(ValueError, match="no gated layer"):
        lens.gated_layers(model)
    lens.register(adapter)
    lens.register(adapter)
    assert lens.supported()["running mean"] == ("Mean",)
    with torch.no_grad(), lens.capture(model) as trace:
        model(torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0)))
    (record,) = trace.records
    assert record.reconstruction_error.passed
    weights = record.implicit_attention()[0, 0]
    torch.testing.assert_close(weights[6], torch.full((7,), 1 / 7).double(), rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("_forgotten")
def test_a_registered_adapter_goes_before_the_known_ones() -> None:
    lens.register(lens.Adapter("mine", ("_ByName",), lambda layer, emit: seams.on_forward(layer, lambda *_: None)))
    (found,) = lens.gated_layers(_ByName())
    assert found[3].name == "mine"
    model = _ByName()
    with pytest.raises(lens.SeamError, match="ran without calling"), lens.capture(model):
        model(**operands("g"))


@pytest.mark.usefixtures("_forgotten")
@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (lens.Adapter("mean", (), _attach), "names no class"),
        (lens.Adapter("mamba2", ("Mean",), _attach), "another adapter 'mamba2'"),
    ],
)
def test_adapters_that_cannot_be(adapter: lens.Adapter, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        lens.register(adapter)


@pytest.mark.parametrize("name", ["g", "gk", "gv", "G"])
def test_gates_in_place_of_their_logs_are_refused(name: str) -> None:
    q = torch.randn(1, 5, 2, 3)
    gates = torch.rand(1, 5, 2, *{"g": (), "gk": (3,), "gv": (3,), "G": (3, 3)}[name])
    given: dict[str, Any] = {name: gates.log()}
    assert lens.record(q, q, q, **given).reconstruction_error.passed
    given[name] = gates
    with pytest.raises(
        ValueError, match=rf"{name} holds 0\.\d+, a log gate above 0; .* pass their logarithms, {name}\.log"
    ):
        lens.record(q, q, q, **given)

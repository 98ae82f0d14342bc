import contextlib
import functools
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny import MODELS
from torch import Tensor, nn

from gladient import lens
from gladient.nn import GatedLinearAttention, LayerConfig, ResidualModel

TOKENS = torch.randint(3, 64, (2, 12), generator=torch.Generator().manual_seed(0))
SCANS = {"mamba": "mamba_selective_scan", "zamba": "mamba_selective_scan", "mamba2": "mamba2_chunk_scan"}


def _home(model: nn.Module) -> ModuleType:
    return sys.modules[type(model).__module__]


def _run(model: nn.Module, tokens: Tensor = TOKENS) -> Tensor:
    with torch.no_grad():
        return model(input_ids=tokens)[0]


def _hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.fixture(params=SCANS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(name: str) -> nn.Module:
    return MODELS[name].build(0)


class StopError(Exception):
    pass


def _stop(*_: Any, **__: Any) -> None:
    raise StopError


def test_nothing_stays_patched_after_an_exception(name: str, model: nn.Module) -> None:
    before, hooks = vars(_home(model))[SCANS[name]], _hooks(model)
    with contextlib.suppress(StopError), lens.capture(model):
        _run(model)
        assert vars(_home(model))[SCANS[name]] is not before
        raise StopError
    assert vars(_home(model))[SCANS[name]] is before
    assert _hooks(model) == hooks


def test_a_capture_goes_on_after_a_forward_that_failed(name: str, model: nn.Module) -> None:
    last: Any = lens.gated_layers(model)[-1][2]
    with lens.capture(model) as trace:
        failing = last.out_proj.register_forward_pre_hook(_stop)
        with pytest.raises(StopError):
            _run(model)
        failing.remove()
        trace.records.clear()
        _run(model)
    assert all(record.reconstruction_error.passed for record in trace.records)
    assert len(trace.records) == len(lens.gated_layers(model))


def test_a_scan_that_fails_half_way_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["zamba"].build(0)
    original, calls = _home(model).mamba_selective_scan, []

    @functools.wraps(original)
    def second_fails(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise StopError
        return original(*args, **kwargs)

    monkeypatch.setattr(_home(model), "mamba_selective_scan", second_fails)
    with lens.capture(model) as trace:
        with pytest.raises(StopError):
            _run(model)
        _run(model)
    assert len(trace.records) == len(trace.layers) == 3
    assert all(record.reconstruction_error.passed for record in trace.records)


def test_nested_and_repeated_captures(name: str, model: nn.Module) -> None:
    before = vars(_home(model))[SCANS[name]]
    with lens.capture(model) as outer:
        with lens.capture(model, layers=0) as inner:
            _run(model)
        _run(model)
    with lens.capture(model) as again:
        _run(model)
    layers = len(lens.gated_layers(model))
    assert (len(outer.records), len(inner.records), len(again.records)) == (2 * layers, 1, layers)
    assert [record.call for record in outer.records] == [0] * layers + [1] * layers
    assert torch.equal(outer.layer(0).output(), again.layer(0).output())
    assert vars(_home(model))[SCANS[name]] is before


def test_chosen_layers_and_positions(name: str, model: nn.Module) -> None:
    with lens.capture(model) as everything:
        _run(model)
    with lens.capture(model, layers=[0], positions=[3, -1]) as trace:
        _run(model)
    record, full = trace.layer(0), everything.layer(0)
    assert trace.layers == [0]
    assert record.shape == (2, 2, full.shape[2], 12)
    torch.testing.assert_close(record.implicit_attention(), full.implicit_attention(queries=[3, 11]))
    torch.testing.assert_close(record.gate_weights(queries=11), full.gate_weights(queries=11))
    assert record.reconstruction_error.passed
    with pytest.raises(ValueError, match="position 5 was not captured"):
        record.gate_weights(queries=5)
    with pytest.raises(ValueError, match="layer 1 has no record of call 0; captured layers"):
        trace.layer(1)


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"layers": 9}, "layer 9 is not a gated layer"), ({"positions": 99}, "there is no position 99")],
)
def test_what_does_not_exist_is_refused(asked: dict[str, Any], message: str, model: nn.Module) -> None:
    with pytest.raises(ValueError, match=message), lens.capture(model, **asked):
        _run(model)


def test_only_the_captured_model_is_recorded(name: str, model: nn.Module) -> None:
    other = MODELS[name].build(1)
    with lens.capture(model) as trace:
        _run(other)
        assert not trace.records
        with lens.capture(other) as others:
            _run(model)
    assert trace.records
    assert not others.records


def _in_threads(*works: Callable[[], object]) -> None:
    """Runs them at the same time; the first exception, if any, is raised here."""
    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(work) for work in works]:
            done.result()


def test_a_capture_hears_its_own_thread_alone(name: str, model: nn.Module) -> None:
    """Captures open and close while other threads are inside the same layers, and inside another model's."""
    other, begin = MODELS[name].build(1), threading.Barrier(4)
    layers = [number for _, number, _, _ in lens.gated_layers(model)]

    def look(each: nn.Module, length: int) -> None:
        begin.wait()
        for _ in range(4):
            with lens.capture(each) as outer, lens.capture(each, layers=0) as inner:
                _run(each, TOKENS[:, :length])
            for trace, wanted in ((outer, layers), (inner, [0])):
                assert [(record.layer, record.call, record.shape[3]) for record in trace.records] == [
                    (layer, 0, length) for layer in wanted
                ]
            assert torch.equal(outer.layer(0).output(), inner.layer(0).output())
            assert outer.passed

    _in_threads(*(partial(look, *each) for each in [(model, 5), (model, 8), (model, 12), (other, 5)]))
    assert _hooks(model) == _hooks(other) == 0


@pytest.mark.parametrize("name", ["mamba2", "minimax", "xlstm", "recurrentgemma"])
def test_a_capture_may_open_while_another_thread_is_inside(name: str) -> None:
    """The other thread's forward leaves hooks that it did not enter, and its next capture is right."""
    model = MODELS[name].build(0)
    layers = lens.gated_layers(model)
    inside, opened, theirs = threading.Event(), threading.Event(), list[lens.Record]()

    def wait(*_: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            opened.wait(10)

    def run() -> None:
        _run(model)
        with lens.capture(model) as trace:
            _run(model, TOKENS[:, :7])
        theirs.extend(trace.records)

    layers[0][2].register_forward_pre_hook(wait)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        inside.wait(10)
        with lens.capture(model) as trace:
            opened.set()
            _run(model)
            running.result()
    assert [record.shape[3] for record in trace.records] == [12] * len(layers)
    assert [record.shape[3] for record in theirs] == [7] * len(layers)


class Apart(nn.Module):
    """Its second layer runs in a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GatedLinearAttention(4, LayerConfig()) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.layers[1], self.layers[0](x)).result()


def test_layers_that_only_other_threads_ran_are_warned_about(model: nn.Module) -> None:
    with pytest.warns(UserWarning, match="ran in another thread and was not captured"), lens.capture(model) as trace:
        _in_threads(lambda: _run(model))
    assert trace.records == []
    apart = Apart()
    with pytest.warns(UserWarning, match=r"layers\.1 ran in another .* \(1 such"), lens.capture(apart) as trace:
        apart(torch.randn(1, 5, 4))
    assert trace.layers == [0]


def test_too_much_memory_is_refused(name: str, model: nn.Module) -> None:
    before = vars(_home(model))[SCANS[name]]
    message = r"capturing \d layers keeps about .* MiB, more than max_bytes"
    with pytest.raises(ValueError, match=message), lens.capture(model, max_bytes=1000):
        _run(model)
    assert vars(_home(model))[SCANS[name]] is before
    with lens.capture(model) as trace:
        _run(model)
    record = trace.layer(0)
    small = lens.Record(record.module, 0, record.architecture, 0, record.recurrence, max_bytes=100)
    with pytest.raises(ValueError, match="ask for fewer heads or queries"):
        small.gate_weights()


def test_layers_that_run_past_their_forward_are_recorded() -> None:
    """A residual model of plain layers reads the last query alone of its last layer; the others write every token."""
    model = ResidualModel(8, [LayerConfig(scale=0.25)] * 3)
    with torch.no_grad(), lens.capture(model) as trace:
        model(torch.randn(1, 2, 12, 8, generator=torch.Generator().manual_seed(0)))
    assert [(record.layer, record.output().shape[1]) for record in trace.records] == [(0, 12), (1, 12), (2, 1)]
    assert all(record.reconstruction_error.passed for record in trace.records)


def test_what_is_not_supported_lists_what_is() -> None:
    with pytest.raises(ValueError, match=r"Linear has no gated layer .* supported: .*mamba, mamba2"):
        lens.gated_layers(nn.Linear(2, 2))


def test_a_function_that_is_gone_names_the_layer(name: str, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_home(model), SCANS[name])
    where = lens.gated_layers(model)[0][0]
    with pytest.raises(lens.SeamError, match=rf"{where}: .* has no function '{SCANS[name]}'"), lens.capture(model):
        pass


def test_a_function_that_is_no_longer_called_names_the_layer(
    name: str, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, _, layer, _ = lens.gated_layers(model)[0]
    monkeypatch.setattr(layer, "forward", lambda hidden_states, *_, **__: hidden_states)
    with pytest.raises(lens.SeamError, match=f"{where} ran without calling"), lens.capture(model):
        _run(model)
    _run(model)


@pytest.mark.parametrize("version", ["4.57.1", "5.14.0"])
def test_an_old_transformers_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["transformers"], "__version__", version)
    message = rf"transformers {version} has its scans elsewhere; the lens was tested with transformers 5.15 to"
    with pytest.raises(lens.SeamError, match=message), lens.capture(MODELS["mamba"].build(0)):
        pass


def test_a_new_transformers_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["mamba"].build(0)
    monkeypatch.setattr(sys.modules["transformers"], "__version__", "6.0.0.dev0")
    with pytest.warns(UserWarning, match=r"transformers 6\.0\.0\.dev0 is newer"), lens.capture(model):
        pass
    monkeypatch.undo()
    with warnings.catch_warnings(), lens.capture(model):
        warnings.simplefilter("error")

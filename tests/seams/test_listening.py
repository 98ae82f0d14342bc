"""Listeners: what they hear, in which thread, and the results that they change, with gradients and checkpoints."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gladient.seams import WRITTEN, Listener, SeamError, in_this_thread, on_enter, on_forward, on_function, on_method

DEEP = 70  # backward passes nested more than 60 deep run in threads of autograd's


def mix(x: Tensor, *, by: Tensor) -> Tensor:
    return x * by


def advance(state: Tensor, x: Tensor) -> Tensor:
    return state.add_(x) * 2


class Layer(nn.Module):
    """Its one function can be heard in three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.mixed(x)

    def mixed(self, x: Tensor) -> Tensor:
        return mix(x, by=self.weight)


WAYS: dict[str, Callable[..., AbstractContextManager[None]]] = {
    "function": lambda layer, listener, **options: on_function(layer, "mix", listener, **options),
    "method": lambda layer, listener, **options: on_method(layer, "mixed", listener, **options),
    "forward": on_forward,
}
X = torch.tensor([1.0, -1.0])


@pytest.fixture(params=WAYS)
def listening(request: pytest.FixtureRequest) -> Callable[..., AbstractContextManager[None]]:
    return WAYS[request.param]


Way = Callable[..., AbstractContextManager[None]]


def gradients(layer: Layer, run: Callable[[Tensor], Tensor]) -> list[Tensor]:
    x = X.clone().requires_grad_()
    layer.zero_grad()
    y = run(x)
    y.square().sum().backward()
    assert layer.weight.grad is not None
    assert x.grad is not None
    return [y.detach(), layer.weight.grad.clone(), x.grad]


def test_listeners_hear_detached_work_and_change_nothing(listening: Way) -> None:
    layer, heard = Layer(), list[Tensor]()

    def listen(call: dict[str, Any], result: Tensor) -> str:
        heard.append(result * 1)
        mix(result, by=result)  # no call of the layer
        return "ignored"

    plain = gradients(layer, layer)
    with listening(layer, listen):
        seen = gradients(layer, layer)
    assert all(map(torch.equal, plain, seen))
    assert [x.requires_grad for x in heard] == [False]


def test_a_replaced_result_is_on_the_graph(listening: Way) -> None:
    layer, factor = Layer(), torch.tensor(5.0, requires_grad=True)
    with listening(layer, lambda call, result: factor * result + call["x"], replace=True):
        found = gradients(layer, layer)
    assert factor.grad is not None
    wanted = gradients(layer, lambda x: 5 * mix(x, by=layer.weight) + x)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other)
    assert torch.equal(layer(X), mix(X, by=layer.weight))


def test_the_same_object_keeps_the_bits(listening: Way) -> None:
    layer, results = Layer(), list[Tensor]()

    def same(call: dict[str, Any], result: Tensor) -> Tensor:
        results.append(result)
        return result

    with listening(layer, same, replace=True):
        y = layer(X)
    assert y is results[-1]


def test_nested_listeners_are_told_in_the_order_of_entering(listening: Way) -> None:
    layer, outside, inside = Layer(), list[Tensor](), list[Tensor]()
    plain = layer(X)
    with (
        listening(layer, lambda call, result: outside.append(result)),
        listening(layer, lambda call, result: result + 1, replace=True),
        listening(layer, lambda call, result: 10 * result, replace=True),
        listening(layer, lambda call, result: inside.append(result)),
    ):
        y = layer(X)
    assert torch.equal(y, 10 * (plain + 1))
    assert torch.equal(inside[0], y)
    assert torch.equal(outside[0], plain)


def test_another_layer_is_not_changed(listening: Way) -> None:
    layer, other = Layer(), Layer()
    with listening(layer, lambda call, result: 0 * result, replace=True):
        assert torch.equal(other(X), mix(X, by=other.weight))
        assert not layer(X).any()


def test_a_forgotten_return_is_noticed(listening: Way) -> None:
    layer = Layer()

    def forgetful(call: dict[str, Any], result: Tensor) -> None:
        result + 1

    with (
        pytest.raises(TypeError, match=r"listener .*forgetful has replace=True and returned None; for no change"),
        listening(layer, forgetful, replace=True),
    ):
        layer(X)


def nested(function: Callable[[Tensor], Tensor], x: Tensor, depth: int) -> Tensor:
    if depth == 0:
        return function(x)
    result: Tensor = checkpoint(lambda y: nested(function, y, depth - 1), x, use_reentrant=True)
    return result


CHECKPOINTS: dict[str, Callable[[Layer, Tensor], Tensor]] = {
    "reentrant": lambda layer, x: checkpoint(layer, x, use_reentrant=True),
    "not reentrant": lambda layer, x: checkpoint(layer, x, use_reentrant=False),
    "in autograd's threads": lambda layer, x: nested(layer, x, DEEP),
}


@pytest.mark.parametrize("way", CHECKPOINTS)
def test_recomputation_is_replaced_again_and_not_heard_again(way: str, listening: Way) -> None:
    layer, heard, threads = Layer(), list[Tensor](), set[int]()

    def change(call: dict[str, Any], result: Tensor) -> Tensor:
        threads.add(threading.get_ident())
        return (result * call["x"]).sin()

    with listening(layer, change, replace=True), listening(layer, lambda call, result: heard.append(result)):
        found = gradients(layer, lambda x: CHECKPOINTS[way](layer, x))
    wanted = gradients(layer, lambda x: (mix(x, by=layer.weight) * x).sin())
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other)
    assert len(heard) == 1
    assert len(threads) == 1 + (way == "in autograd's threads")


def test_threads_hear_and_change_their_own_calls_alone(listening: Way) -> None:
    layer, begin = Layer(), threading.Barrier(3)
    plain = layer(X).detach()

    def work(factor: float) -> None:
        heard = list[Tensor]()
        begin.wait()
        for _ in range(20):
            with (
                listening(layer, lambda call, result: factor * result, replace=True),
                listening(layer, lambda call, result: heard.append(result)),
            ):
                y = nested(layer, X.clone().requires_grad_(), 2)
                y.sum().backward()
            assert torch.equal(y.detach(), factor * plain)
        assert len(heard) == 20
        assert all(torch.equal(x, factor * plain) for x in heard)

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work, factor) for factor in (2.0, 4.0, 8.0)]:
            done.result()
    assert torch.equal(layer(X), plain)


class Decoder(nn.Module):
    def forward(self, state: Tensor, x: Tensor) -> Tensor:
        return advance(state, x)


def test_what_a_function_writes_is_heard_as_it_was_and_may_be_changed() -> None:
    layer, state, heard = Decoder(), torch.zeros(2), list[list[float]]()

    def change(call: dict[str, Any], result: Tensor) -> Tensor:
        heard.append(call["state"].tolist())
        call[WRITTEN]["state"].copy_(call["state"] - call["x"])
        return -result

    options: dict[str, Any] = {"changes": ("state",)}
    with (
        on_function(layer, "advance", change, replace=True, **options),
        on_function(layer, "advance", lambda call, _: heard.append(call["state"].tolist()), **options),
    ):
        y = layer(state, X)
    assert heard == [[0.0, 0.0], [0.0, 0.0]]
    assert state.tolist() == (-X).tolist()
    assert y.tolist() == (-2 * X).tolist()


def test_the_state_before_is_on_the_graph_of_what_replaces() -> None:
    given = torch.ones(2, requires_grad=True)
    listener: Listener = lambda call, result: call["state"] * 3  # noqa: E731
    with on_function(layer := Decoder(), "advance", listener, changes=("state",), replace=True):
        layer(given * 1, X).sum().backward()
    assert given.grad is not None
    assert given.grad.tolist() == [3.0, 3.0]


def test_enter_is_heard_before_the_forward() -> None:
    layer, heard = Decoder(), list[Tensor]()
    with on_enter(layer, lambda call: heard.append(call["state"].clone())):
        layer(torch.zeros(2), x=X)
    assert not heard[0].any()


def test_hooks_of_another_thread_are_silent() -> None:
    hook = in_this_thread(lambda x: x + 1)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(hook, 1).result() is None
    assert hook(1) == 2


def test_what_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(SeamError, match=r"test_listening has no function 'nothing'"):
        on_function(Layer(), "nothing", print).__enter__()
    with pytest.raises(SeamError, match="Layer has no method 'nothing'"):
        on_method(Layer(), "nothing", print).__enter__()

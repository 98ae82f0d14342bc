"""Functions that are replaced for a while: any users, in any order of entering and leaving; nothing stays."""

import itertools
import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from gladient.seams import on_forward, on_function, on_method, original, stand_in


def double(x: float) -> float:
    return 2 * x


@pytest.fixture
def home() -> Any:
    made = ModuleType("home")
    vars(made)["double"] = double
    return made


class Layer(nn.Module):
    def __init__(self, home: Any) -> None:
        super().__init__()
        self.home = home

    def forward(self, x: float) -> float:
        return self.home.double(x)


def ten_times(function: Callable[..., float], x: float) -> float:
    return 10 * function(x)


def test_every_order_of_entering_and_leaving(home: Any) -> None:
    """A stand-in, a listener and a listener that replaces: whoever is there counts, whenever it came."""
    layer, heard = Layer(home), list[float]()
    users: dict[str, Callable[[], AbstractContextManager[Any, Any]]] = {
        "ours": lambda: stand_in(home, "double", ten_times),
        "heard": lambda: on_function(layer, "double", lambda call, result: heard.append(result), home=home),
        "changed": lambda: on_function(layer, "double", lambda call, result: result + 1, home=home, replace=True),
    }
    for entered, left in itertools.product(itertools.permutations(users), repeat=2):
        inside = dict[str, ExitStack]()
        for name in entered:
            inside[name] = ExitStack()
            inside[name].enter_context(users[name]())
            check(layer, inside, heard)
        for name in left:
            inside.pop(name).close()
            check(layer, inside, heard)
        assert home.double is double


def check(layer: Layer, inside: dict[str, Any], heard: list[float]) -> None:
    changed, plain = "changed" in inside, 60.0 if "ours" in inside else 6.0
    heard.clear()
    assert layer(3.0) == plain + changed
    order = list(inside)
    after = changed and "heard" in inside and order.index("changed") < order.index("heard")
    assert heard == ([plain + after] if "heard" in inside else [])


@pytest.mark.parametrize("first", [0, 1])
def test_two_users_of_one_stand_in(first: int, home: Any) -> None:
    users = [ExitStack(), ExitStack()]
    for user in users:
        user.enter_context(stand_in(home, "double", ten_times))
    users[first].close()
    assert home.double(3.0) == 60.0
    users[1 - first].close()
    assert home.double is double


def test_the_last_stand_in_runs_and_gets_the_function_itself(home: Any) -> None:
    with stand_in(home, "double", ten_times), stand_in(home, "double", lambda function, x: function(x) + 1):
        assert home.double(3.0) == 7.0
        assert original(home, "double") is double
    assert original(home, "double") is home.double is double
    assert original(home, "nothing") is None


@pytest.mark.parametrize("how", ["stand-in", "listener"])
def test_a_wrapper_of_somebody_else_stays_and_calls_the_function_afterwards(how: str, home: Any) -> None:
    layer, heard = Layer(home), list[float]()
    listener = on_function(layer, "double", lambda call, result: heard.append(result), home=home)
    with stand_in(home, "double", ten_times) if how == "stand-in" else listener:
        ours = home.double
        home.double = theirs = lambda x: ours(x) + 1
        assert layer(3.0) == (61.0 if how == "stand-in" else 7.0)
    assert home.double is theirs
    assert layer(3.0) == 7.0
    with stand_in(home, "double", ten_times):
        assert home.double(3.0) == 70.0  # of theirs
    assert home.double is theirs
    assert len(heard) == (how == "listener")


@pytest.mark.parametrize("replace", [False, True])
def test_nothing_stays_whatever_is_raised(replace: bool, home: Any) -> None:
    layer = Layer(home)

    def fail(*_: Any) -> None:
        raise RuntimeError("stop")

    opened: list[Callable[[], AbstractContextManager[Any, Any]]] = [
        lambda: on_function(layer, "double", fail, home=home, replace=replace),
        lambda: on_method(layer, "forward", fail, replace=replace),
        lambda: on_forward(layer, fail, replace=replace),
        lambda: stand_in(home, "double", fail),
    ]
    before = dict(vars(Layer))
    for seam in opened:
        with pytest.raises(RuntimeError, match="stop"), seam():
            layer(3.0)
        assert home.double is double
        assert dict(vars(Layer)) == before
        assert not layer._forward_hooks
        assert not layer._forward_pre_hooks
        assert layer(3.0) == 6.0


def test_what_cannot_be_replaced_leaves_nothing_open() -> None:
    for _ in range(2):
        with pytest.raises(TypeError, match="immutable"), stand_in(int, "bit_length", ten_times):
            pass
    with pytest.raises(KeyError, match="nothing"), stand_in(math, "nothing", ten_times):
        pass


class Doubling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return twice(x)


def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@pytest.mark.slow
def test_a_compiled_model_goes_back_to_the_function() -> None:
    home, x = sys.modules[__name__], torch.tensor([1.0])
    run = torch.compile(Doubling(), backend="eager", fullgraph=True)
    for _ in range(2):
        assert run(x).tolist() == [2.0]
        with stand_in(home, "twice", ten_times):
            assert run(x).tolist() == [20.0]

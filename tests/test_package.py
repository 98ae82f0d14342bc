"""The package's front: rooms that are imported when they are asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import gladient

SOURCE = Path(gladient.__file__).parent


def test_rooms_are_there_after_import_and_torch_stays_out() -> None:
    script = (
        "import sys, gladient; assert not {x for x in sys.modules if x.startswith('gladient.')}; "
        "gladient.landscape.optimum; gladient.data.estimate_setting; assert 'torch' not in sys.modules; "
        "gladient.ops.gated_linear_attention; assert 'torch' in sys.modules; "
        "gladient.nn.InContextRegressor; assert 'torch._dynamo' not in sys.modules"  # it takes longer than torch
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_rooms_are_there_where_ndarray_is_no_class() -> None:
    """As numpy 2.5 has it on Python 3.12 and later: jaxtyping, once imported, takes classes alone."""
    script = (
        "import numpy.typing, typing_extensions as t; S = t.TypeVar('S'); "
        "numpy.typing.NDArray = t.TypeAliasType('NDArray', numpy.ndarray[tuple, numpy.dtype[S]], type_params=(S,)); "
        "import jaxtyping, importlib, gladient; "
        "rooms = [importlib.import_module(f'gladient.{name}') for name in gladient.__all__]; "
        "[getattr(room, name) for room in rooms for name in getattr(room, '__all__', [])]"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_it_is_a_command_too() -> None:
    done = subprocess.run([sys.executable, "-m", "gladient", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"gladient {gladient.__version__}\n"


def test_every_room_is_listed() -> None:
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")} - {"cli"}  # a command, not a room
    assert set(gladient.__all__) == set(dir(gladient)) == rooms
    for room in rooms:
        assert getattr(gladient, room) is importlib.import_module(f"gladient.{room}")


@pytest.mark.parametrize("stub", sorted(SOURCE.rglob("*.pyi")), ids=lambda path: path.parent.name)
def test_stubs_list_what_is_there(stub: Path) -> None:
    module = importlib.import_module(".".join(stub.parent.relative_to(SOURCE.parent).parts))
    (names,) = [ast.literal_eval(x.value) for x in ast.parse(stub.read_text()).body if isinstance(x, ast.Assign)]
    assert sorted(names) == sorted(module.__all__)
    for name in module.__all__:
        getattr(module, name)
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = module.nothing_of_this_name

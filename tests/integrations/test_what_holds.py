"""The table of docs/transformers.md says what is found by trying it, for every accelerated architecture."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import what_holds
from what_holds import CHECKS, MODEL

from gladient.integrations.transformers import SUPPORTED

PAGE = (Path(__file__).parents[2] / "docs" / "transformers.md").read_text(encoding="utf-8")
HEADER, _, *ROWS = ([cell.strip() for cell in row.split("|")] for row in re.findall(r"^\|(.*)\|$", PAGE, re.MULTILINE))
TABLE = {name.strip("`"): dict(zip(CHECKS, cells, strict=True)) for name, *cells in ROWS}


def test_the_table_has_every_architecture() -> None:
    assert HEADER[1:] == list(CHECKS)
    assert list(TABLE) == [name for names in SUPPORTED.values() for name in names]
    assert TABLE.keys() == MODEL.keys()
    assert {cell for row in TABLE.values() for cell in row.values()} == {"yes", "by backbone", "refused", "as there"}


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")  # 5.15 has no other
@pytest.mark.parametrize("column", [name for name in CHECKS if name != "compile"])
@pytest.mark.parametrize("name", MODEL)
def test_the_table_says_what_is_found(name: str, column: str) -> None:
    assert CHECKS[column](MODEL[name]) == TABLE[name][column]


@pytest.mark.slow
def test_compiled_models_are_as_the_table_says() -> None:
    """In a process of its own: the shape checks of this one are nothing that dynamo traces."""
    command = [sys.executable, what_holds.__file__, "compile"]
    found = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.splitlines()[2:]
    assert found == [f"| `{name}` | {row['compile']} |" for name, row in TABLE.items()]

"""The matrix of docs/operators.md says what is found by trying it."""

import subprocess
import sys

import matrix
import pytest

LINES = [line for line in matrix.PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
TABLE = LINES[LINES.index("| inside | " + " | ".join(matrix.SUBJECTS) + " |") :][: 1 + len(matrix.ROWS)]
TRACED = [row for row in matrix.ROWS if "compile" in row or "fullgraph" in row or "export" in row]


def test_the_matrix_has_every_row() -> None:
    assert [line.split(" | ")[0] for line in TABLE[1:]] == [f"| {row}" for row in matrix.ROWS]
    assert not any("wrong" in line or "fails" in line for line in TABLE)


@pytest.mark.parametrize("row", [row for row in matrix.ROWS if row not in TRACED])
def test_the_matrix_says_what_is_found(row: str) -> None:
    assert matrix.table([row])[2] in TABLE


@pytest.mark.slow
def test_traced_functions_are_as_the_matrix_says() -> None:
    """In a process of its own: the shape checks of this one are nothing that dynamo traces."""
    command = [sys.executable, matrix.__file__, *TRACED]
    found = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.splitlines()[2:]
    assert found == [line for line in TABLE if line.split(" | ")[0][2:] in TRACED]

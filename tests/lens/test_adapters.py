import math

import pytest
from lens_cases import CASES, applies, run_case
from tiny import MODELS

RUNS = [  # fast: each model runs in some ways, and in each way some models
    pytest.param(name, case, marks=[] if (i + j) % 3 == 0 else pytest.mark.slow)
    for i, name in enumerate(MODELS)
    for j, case in enumerate(CASES)
    if applies(name, case)
]


@pytest.mark.parametrize(("name", "case"), RUNS)
def test_every_layer_is_rebuilt_and_nothing_changes(name: str, case: str) -> None:
    same, records = run_case(name, case)
    assert same
    assert records
    for record in records:
        found = record.reconstruction_error
        assert math.isfinite(found.error)
        assert found.passed, f"{record.module} call {record.call}: {found}"

"""The table of reconstruction errors: python tests/lens/lens_table.py [--anew] [architecture …].

With --anew, the table shows how far outputs move when every layer is recomputed without a change.
"""

import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from lens_cases import CASES, applies, run_calls, run_case
from tiny import MODELS

from gladient import lens


def main(names: list[str], cell: Callable[[str, str], str]) -> None:
    """Prints the largest error over layers and calls of every case; ≠ where outputs changed, ! beyond the tolerance."""
    print("architecture".ljust(20) + "".join(case.rjust(17) for case in CASES))
    for name in names or list(MODELS):
        row = (cell(name, case) if applies(name, case) else "-" for case in CASES)
        print(name.ljust(20) + "".join(each.rjust(17) for each in row), flush=True)


def rebuilt(name: str, case: str) -> str:
    same, records = run_case(name, case)
    found = [record.reconstruction_error for record in records]
    worst = max(found, key=lambda each: (not each.passed, each.error))
    return f"{worst.error:.1e}" + ("" if same else "≠") + ("" if worst.passed else "!")


@torch.no_grad()
def moved(name: str, case: str) -> str:
    tiny, (make, _, _, dtype) = MODELS[name], CASES[case]
    model = tiny.build(0).to(dtype)
    plain = run_calls(model, tiny, make(tiny))
    with lens.intervene(model, lambda record: replace(record.recurrence)), lens.capture(model) as trace:
        found = run_calls(model, tiny, make(tiny))
    same = all(map(torch.equal, run_calls(model, tiny, make(tiny)), plain))
    pairs = [(a.double(), b.double()) for a, b in zip(found, plain, strict=True)]
    most = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    return f"{most:.1e}" + ("" if same else "≠") + ("" if trace.passed else "!")


if __name__ == "__main__":
    arguments = [each for each in sys.argv[1:] if each != "--anew"]
    main(arguments, moved if "--anew" in sys.argv else rebuilt)

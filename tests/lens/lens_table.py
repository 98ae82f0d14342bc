"""The table of reconstruction errors: python tests/lens/lens_table.py [architecture …]."""

import sys

from lens_cases import CASES, applies, run_case
from tiny import MODELS


def main(names: list[str]) -> None:
    """Prints the largest error over layers and calls of every case; ≠ where outputs changed, ! beyond the tolerance."""
    print("architecture".ljust(20) + "".join(case.rjust(17) for case in CASES))
    for name in names or list(MODELS):
        print(name.ljust(20) + "".join(_cell(name, case).rjust(17) for case in CASES), flush=True)


def _cell(name: str, case: str) -> str:
    if not applies(name, case):
        return "-"
    same, records = run_case(name, case)
    found = [record.reconstruction_error for record in records]
    worst = max(found, key=lambda each: (not each.passed, each.error))
    return f"{worst.error:.1e}" + ("" if same else "≠") + ("" if worst.passed else "!")


if __name__ == "__main__":
    main(sys.argv[1:])

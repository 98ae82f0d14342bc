"""Every case of `gladient bench`, ours and the peers', in one run: `python -m benchmarks.ops` (about half an hour).

`pip install 'gladient[peers]'` brings the peers; without them only ours and plain chunks run.
"""

from gladient.bench import CASES
from gladient.cli.bench import Bench

__all__: list[str] = []

if __name__ == "__main__":
    Bench(cases=tuple(CASES)).run()

"""Every case of `gladient bench`, ours and the peers', in one run: `python -m benchmarks.ops` (about half an hour).

`pip install fla-core==0.6.0 transformers==5.23.0` brings the peers; without them only ours run.
"""

from gladient.cli.bench import CASES, Bench

__all__: list[str] = []

if __name__ == "__main__":
    Bench(cases=tuple(CASES)).run()

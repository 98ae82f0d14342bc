"""What the lens costs beside TransformerLens: token weights of one Mamba-2 layer.

    python -m benchmarks.lens [--peer PYTHON] [--length 1000] [--rounds 5]

PYTHON is the interpreter of an environment of its own with `transformer-lens==4.3.0` and `transformers<5.15`: with
later ones its hooks are gone, with earlier ones the lens'. Each way of looking runs in a process of its own, with the
same random model (24 heads of 64 channels, state 128) and tokens; processes alternate. Medians over rounds of the time
that capture adds to a forward, and of the time and the peak memory of forming the weights from what was captured.
First, both must give the same implicit attention.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import tyro

from benchmarks.operators import clock

# Runs with either interpreter, so it imports nothing of gladient unless it is asked for the lens.
WORKER = """
import json, runpy, sys, warnings
warnings.simplefilter("ignore")
import torch
from transformers import Mamba2Config, Mamba2ForCausalLM
from transformers.utils import logging
logging.set_verbosity_error()

way, length, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(2)
torch.manual_seed(0)
model = Mamba2ForCausalLM(Mamba2Config(
    num_heads=24, head_dim=64, hidden_size=768, state_size=128, n_groups=1, num_hidden_layers=2, vocab_size=256,
)).eval()
tokens = torch.randint(256, (1, length))

if way == "transformer_lens":
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    bridge = build_bridge_from_module(model, architecture="Mamba2ForCausalLM", hf_config=model.config)
    plain = lambda: bridge(tokens)
    capture = lambda: bridge.run_with_cache(tokens, names_filter=lambda name: name.startswith("blocks.0."))[1]
    weights = lambda cache: cache.compute_ssm_effective_attention(layer=0)
else:
    from gladient import lens
    plain = lambda: model(tokens, use_cache=False)
    def capture():
        with lens.capture(model, layers=0) as trace:
            model(tokens, use_cache=False)
        return trace.layer(0)
    weights = lambda record: record.gate_weights() if way == "gate weights" else record.implicit_attention()

clock = runpy.run_path(sys.argv[4])  # gladient's timer and its reader of peak memory, for both

with torch.no_grad():
    plain()
    captured = capture()
    made = []
    peak = clock["peak"](lambda: made.append(weights(captured))) * 2**20
    found = made.pop()
    if out:
        import numpy
        numpy.save(out, found.double().numpy())
    del found
    times = [[clock['seconds'](action) for action in (plain, capture, lambda: weights(captured))] for _ in range(5)]
alone, hooked, formed = (sorted(column)[2] for column in zip(*times))
print(json.dumps({"capture": hooked - alone, "weights": formed, "bytes": peak}))
"""


@dataclass(frozen=True)
class Options:
    """Time and memory of the token weights of one layer, ours and TransformerLens'."""

    peer: Path | None = None
    """Python of an environment with transformer-lens 4.3.0 and transformers before 5.15; left out if not given."""
    length: int = 1000
    """Tokens."""
    rounds: int = 5
    """Processes of each."""
    json: bool = False
    """Print JSON."""


def measure(python: str, way: str, length: int, out: str = "") -> dict[str, float]:
    command = [python, "-c", WORKER, way, str(length), out, clock.__file__]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(options: Options) -> None:
    ways = {"gate weights": sys.executable, "implicit attention": sys.executable}
    if options.peer:
        ways["transformer_lens"] = str(options.peer)
        check_equal(options)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, python in ways.items():
            found[way].append(measure(python, way, options.length))
    table = {way: {key: median(run[key] for run in runs) for key in runs[0]} for way, runs in found.items()}
    if options.json:
        print(json.dumps(table))
        return
    title = f"Mamba-2, 24 heads, {options.length} tokens"
    print(f"{title:32}{'capture ms':>12}{'weights ms':>12}{'peak MiB':>10}{'peer ÷ ours':>14}")
    for way, values in table.items():
        print(
            f"{way:32}{values['capture'] * 1e3:12.1f}{values['weights'] * 1e3:12.1f}{values['bytes'] / 2**20:10.0f}"
            f"{ratio(table.get('transformer_lens'), values):>14}"
        )


def ratio(peer: dict[str, float] | None, ours: dict[str, float]) -> str:
    """Time, then memory."""
    if peer is None:
        return ""
    time = [values["capture"] + values["weights"] for values in (peer, ours)]
    return f"{time[0] / time[1]:.1f}× {peer['bytes'] / ours['bytes']:.1f}×"


def check_equal(options: Options) -> None:
    """Both must find the same weights of the values dt·x."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{way}.npy") for way in ("ours", "peer")]
        measure(sys.executable, "implicit attention", 200, paths[0])
        measure(str(options.peer), "transformer_lens", 200, paths[1])
        ours, peers = (np.load(path) for path in paths)
        error = np.linalg.norm(ours - peers) / np.linalg.norm(peers)
        if not error < 1e-5:
            raise SystemExit(f"implicit attention differs from TransformerLens' by {error:.2g}; nothing is timed")


if __name__ == "__main__":
    main(tyro.cli(Options))

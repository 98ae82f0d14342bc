"""Random command lines and setting files for `benchmarks.fuzz`: valid, nearly valid, and garbage."""

import json
import math
import random
import string
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Case", "make"]

GARBAGE = [
    *(
        "",
        "-",
        "--",
        "-1",
        "0",
        "-0.0",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e308",
        "5e-324",
        "9" * 400,
        "0x10",
        "1_0",
        "1e",
    ),
    *("9223372036854775807", "9007199254740993", "1e15", "1e-308", "25,,25", ",", "[1]", "{}", "None", "true", "null"),
    *("--n", "--help", "-h", "--json", "--=", "--n=", "--r=", "--d=1e308", "--tyro", "@file", "risk"),
    *("٣", "𝟙", "é", "\u0000", "\ud800", "a\nb", "\x1b[31m", "😀" * 50),
]
VALUES: list[Any] = [
    *(0, -1, 1, 2.5, 1e-308, 5e-324, 1e308, -1e308, math.nan, math.inf, 1e-9, 1 - 1e-16, 1 + 1e-9, -0.0),
    *(10**12, 10**12 + 1, 2**53, 2**53 + 1, 2**63 - 1, 2**64, 10**30, 10**299),
    *(True, None, "1", "x", "", "é\ud800", [], [[]], [1], {}, {"a": 1}),
]


@dataclass
class Case:
    """A command line, the files it reads, and the setting if it is known."""

    arguments: list[str]
    files: dict[str, bytes] = field(default_factory=dict)
    setting: dict[str, Any] | None = None
    must_work: bool = False


def plain(rng: random.Random, tasks: int | None = None) -> dict[str, Any]:
    """A setting that must be accepted, with whole correlation and covariance matrices beside what is typed."""
    K = tasks or rng.randint(1, 4)
    width = K + rng.randint(0, 2)
    directions = [_unit([rng.gauss(0, 1) for _ in range(width)]) for _ in range(K + 1)]
    joint = [[1.0 if a is b else _dot(a, b) for b in directions] for a in directions]
    sizes = [lambda: rng.randint(1, 60), lambda: rng.randint(1, 10 ** rng.randint(1, 12)), lambda: 10**12]
    n = [rng.choices(sizes, (8, 4, 1))[0]() for _ in range(K)]
    scale = 10 ** rng.uniform(-240, 240) if rng.random() < 0.1 else 1.0
    d = rng.randint(1, 8)
    spectrum = [scale * 10 ** rng.uniform(-3, 1) for _ in range(d)]
    sigma2 = rng.choice([0.0, 0.1, 1.0, 10 ** rng.uniform(-12, 12)]) * scale
    rho = [joint[k][j] for k in range(K) for j in range(k + 1, K)]
    found: dict[str, Any] = {"n": n, "r": [row[K] for row in joint[:K]], "sigma2": sigma2}
    found |= {"rho": rho} if rng.random() < 0.8 else {"R": [row[:K] for row in joint[:K]]}
    return found | ({"d": d} if rng.random() < 0.4 else {"spectrum": spectrum})


def _dot(a: list[float], b: list[float]) -> float:
    return max(-1.0, min(math.fsum(x * y for x, y in zip(a, b, strict=True)), 1.0))


def _unit(a: list[float]) -> list[float]:
    size = math.hypot(*a)
    return [x / size for x in a]


def rotated(rng: random.Random, setting: dict[str, Any]) -> dict[str, Any]:
    """The same with Σ as a matrix that is not diagonal: (I - 2 u uᵀ) diag(s) (I - 2 u uᵀ)."""
    s = setting["spectrum"]
    u, d = _unit([rng.gauss(0, 1) for _ in s]), range(len(s))
    Q = [[float(i == j) - 2 * u[i] * u[j] for j in d] for i in d]
    Sigma = [[math.fsum(Q[i][k] * s[k] * Q[j][k] for k in d) for j in d] for i in d]
    return {name: value for name, value in setting.items() if name != "spectrum"} | {"Sigma": Sigma}


def broken(rng: random.Random, setting: dict[str, Any]) -> dict[str, Any]:
    """The same with values that are extreme or of another kind, keys missing or unknown."""
    setting = dict(setting)
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(list(setting) or ["n"])
        what, value = rng.random(), setting.get(name)
        if what < 0.15:
            setting.pop(name, None)
        elif what < 0.25:
            setting[rng.choice(["Sigma", "R", "d", "rho", "N", "é", "spectrum"])] = rng.choice(VALUES)
        elif isinstance(value, list) and value and what < 0.85:
            setting[name] = [rng.choice(VALUES) if rng.random() < 0.5 else entry for entry in value]
        else:
            setting[name] = rng.choice(VALUES)
    return setting


def typed(rng: random.Random, setting: dict[str, Any]) -> list[str]:
    """The setting as options; lists with spaces or commas."""
    words: list[str] = []
    for name, value in rng.sample(list(setting.items()), len(setting)):
        texts = [_text(entry) for entry in value] if isinstance(value, list) else [_text(value)]
        way = rng.random()
        if way < 0.2 and len(texts) > 1 and isinstance(value, list):
            words.append(f"--{name}={','.join(texts)}")
        elif way < 0.4 and len(texts) == 1:
            words.append(f"--{name}={texts[0]}")
        elif texts:
            words += [f"--{name}", *texts]
    return words


def _text(value: Any) -> str:
    if isinstance(value, int) and value > 10**6 and value % 10**6 == 0:
        return f"{value:.15e}" if float(f"{value:.15e}") == value else str(value)
    return value if isinstance(value, str) else repr(value)


def file_of(rng: random.Random, setting: dict[str, Any]) -> tuple[str, bytes]:
    """The setting as JSON or YAML."""
    text = json.dumps(setting, ensure_ascii=rng.random() < 0.5)
    way = rng.random()
    if way < 0.5:
        return "s.json", text.encode("utf-8", "surrogatepass")
    if way < 0.75:
        text = "\n".join(f"{name}: {json.dumps(value)}" for name, value in setting.items())
    return rng.choice(["s.yaml", "s.yml"]), text.encode("utf-8", "surrogatepass")


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes cut, changed, repeated, or wrapped in what readers dislike."""
    at = rng.randrange(len(data) + 1)
    depth = rng.choice([3, 50, 2000, 200_000])
    return rng.choice(
        [
            data[:at],
            data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
            data[:at] + rng.choice(GARBAGE).encode("utf-8", "surrogatepass") + data[at:],
            data[:at] + data,
            b"[" * depth + data + b"]" * depth,
            b'{"n":' * depth,
            data[:-1] + b', "d": 3, "d": 4}',
            b"n: &a [1]\nr: *a\nd: 2",
            b"a: &a [1,1]\nb: &b [*a,*a]\nc: [*b,*b]",
            b"n: !!int ''\nr: !!python/object:os.system [1]\nd: 2",
            b"n: [5]\nr: [0.1]\nd: 2\n---\nn: [6]",
            b"? [1]\n: 2",
            b"<<: {n: [5]}\nr: [.1]\nd: 1",
            b"\xef\xbb\xbf" + data,
            b"",
        ]
    )


def garbled(rng: random.Random, words: list[str]) -> list[str]:
    """Words taken out, doubled, moved, or replaced by garbage."""
    words = list(words)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(words) + 1)
        rng.choice(
            [
                lambda at=at: words.pop(at - 1) if words else None,
                lambda at=at: words.insert(at, rng.choice(GARBAGE)),
                lambda at=at: words.insert(at, "".join(rng.choices(string.printable + "éΣ−¹", k=rng.randint(1, 12)))),
                lambda at=at: words.insert(at, rng.choice(words)) if words else None,
                lambda at=at: words.__setitem__(at - 1, rng.choice(GARBAGE)) if words else None,
            ]
        )()
    return words


def make(rng: random.Random) -> Case:
    """One random case."""
    kind = rng.random()
    if kind < 0.08:
        return other(rng)
    if kind < 0.2:
        return of_map(rng)
    if kind < 0.3:
        return training(rng)
    command = rng.choice(["risk", "risk", "certify"])
    valid = plain(rng)
    fault = rng.choice(["none", "none", "values", "text"])
    setting = broken(rng, valid) if fault == "values" else valid
    ending = ["--json"] if rng.random() < 0.9 else []
    if command == "risk" and rng.random() < 0.1:
        small = sum(min(n, 8) for n in valid["n"]) <= 32
        ending += ["--bayes", str(rng.choice([2, 20]) if small and fault == "none" else rng.choice([-1, 1, 10**13]))]
    whole = "R" in setting or "Sigma" in setting or rng.random() < 0.5
    if not whole:
        words = [command, *typed(rng, setting), *ending]
        case = Case(garbled(rng, words) if fault == "text" else words)
    else:
        shown = rotated(rng, setting) if fault == "none" and "spectrum" in setting and rng.random() < 0.3 else setting
        name, data = file_of(rng, shown)
        case = Case([command, "--setting", name, *ending], {name: damaged(rng, data) if fault == "text" else data})
    if fault != "text":
        case.setting, case.must_work = setting, fault == "none" and not {"-1", "1", str(10**13)} & set(ending)
    return case


def of_map(rng: random.Random) -> Case:
    """A small map: drawn when all is well, else refused."""
    valid = plain(rng, tasks=2) | {"rho": [rng.choice([0.0, 0.3, -0.9])]}
    for name in ("R", "r"):
        valid.pop(name, None)
    if rng.random() < 0.3:
        valid["d"] = 10 ** rng.randint(3, 12)
        valid.pop("spectrum", None)
    ends = sorted(round(rng.uniform(-0.5, 0.5), 3) for _ in range(2))
    valid |= {"points": rng.randint(2, 4), "r1": f"{ends[0]}:{ends[1] + 0.01:.3f}", "r2": "0:0.4", "out": "map"}
    fault = rng.choice(["none", "values", "values", "text", "text"])
    setting = broken(rng, valid) if fault == "values" else valid
    if isinstance(setting.get("points"), int | float) and not 2 <= setting["points"] <= 10:
        setting["points"] = rng.choice([0, -1, 10**12])
    words = ["map", *typed(rng, setting)]
    case = Case(garbled(rng, words) if fault == "text" else words)
    if fault == "none":
        case.setting, case.must_work = setting, True
    return case


def training(rng: random.Random) -> Case:
    """A training or a sweep, valid or not, without workers: read to the end, and refused before any work."""
    valid = plain(rng)
    setting = broken(rng, valid) if rng.random() < 0.7 else valid
    options = ["--workers", "0", "--out", "out"]
    if rng.random() < 0.5:
        words = ["train", "--model", rng.choice(["gla", "scalar_gate", *GARBAGE]), *typed(rng, setting)]
        return Case([*(garbled(rng, words) if rng.random() < 0.3 else words), *options])
    grid = {
        name: [value] if rng.random() < 0.5 else value for name, value in setting.items() if name not in ("R", "Sigma")
    }
    for name in ("models", "seeds", "training", "test_prompts", rng.choice(GARBAGE)):
        if rng.random() < 0.3:
            grid[name] = rng.choice([*VALUES, {"steps": rng.choice(VALUES)}, ["gla"], ["gla", 3]])
    name, data = file_of(rng, grid)
    return Case(["sweep", name, *options], {name: damaged(rng, data) if rng.random() < 0.3 else data})


def other(rng: random.Random) -> Case:
    """Commands that would start work, with at least one thing that stops them before."""
    stopped = [
        ["reproduce", "--figure", "multitask"],
        ["reproduce", "--workers", "0"],
        ["bench", "--cases", "nonsense"],
        ["lens", "nowhere", "--text", "a", "--file", "b"],
        ["lens", "nowhere", "--heads", "0"],
        ["lens"],
        ["--version"],
        ["--help"],
        [],
    ]
    words = rng.choice(stopped)
    extra = [word for word in (rng.choice(GARBAGE) for _ in range(rng.randint(0, 2))) if "help" not in word]
    return Case([*words, *extra, *(["--seeds", "x"] if words[:1] == ["reproduce"] else [])])

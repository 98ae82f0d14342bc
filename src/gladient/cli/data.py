"""`gladient data`: would gating help on the data of a table?"""

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gladient._text import json_text, printable
from gladient.cli.numbers import Whole, html_file
from gladient.cli.progress import progress
from gladient.cli.table import TableOptions, preview

if TYPE_CHECKING:
    from gladient.data import Baseline, Compared, CrossFit, Estimated, Table

__all__ = ["Data"]


@dataclass(frozen=True, kw_only=True)
class Data(TableOptions):
    """What each gate family is predicted to gain on a table's prompts, beside what is measured on held-out clusters.

    A panel: gladient data FILE.csv --target y --features x1 x2 --group country --time year. A table of prompts, one row
    per example: gladient data FILE.csv --target y --features x1 x2 --task day --role source --cluster week
    """

    intercept: bool = False
    """Each task has a level of its own."""
    folds: Whole = 5
    """Contiguous blocks of clusters, each held out once."""
    gap: Whole | None = None
    """Clusters beside a held-out block that are left out too, where neighbours share examples; 0 if not given, or what
    the clusters of a panel need."""
    json: bool = False
    """Print one JSON object instead of a table."""
    out: Path | None = None
    """The report to write; data.html if not given, none with --json."""

    def run(self) -> None:
        """Print the comparison, write the report."""
        out = html_file(self.out, None if self.json else "data.html")
        with progress(printable(self.file.name), self.folds + 4) as done:
            table, frame = self.load()
            done()
            found = None if self.show_prompts else self._compared(table, done)
        for sentence in table.said:  # only now: an error is one line
            print(f"gladient: {printable(sentence)}", file=sys.stderr)
        if found is None:
            print(preview(table, frame, self.used(frame)))
            return
        from gladient.data import baselines

        beside = baselines(found)
        print(json_text(_as_json(found, beside, table.roles)) if self.json else _text(found, beside, table.roles))
        if out is not None:
            from gladient.data.report import write_report

            write_report(out, found, beside, roles=table.roles, command=f"gladient data {shlex.join(self._options())}")
            print(f"report: {printable(out)}", file=sys.stderr if self.json else sys.stdout)

    def _compared(self, table: "Table", done: Callable[[], None]) -> "CrossFit":
        from gladient.data import held_out

        for k, (role, source) in enumerate(zip(table.roles, table.prompts.sources, strict=True), start=1):
            least, most = int(source.n.argmin()), int(source.n.argmax())
            if table.n is None and source.n[least] < source.n[most]:
                raise ValueError(
                    f"source {k} has from {source.n[least]} to {source.n[most]} examples; say with n how many of each "
                    f"source a prompt shows: of {role!r} {table.names[least]} has {source.n[least]}"
                )
        found = held_out(
            table.prompts,
            clusters=table.clusters,
            n=table.n,
            folds=self.folds,
            gap=table.gap if self.gap is None else self.gap,
            intercept=self.intercept,
            names=table.names,
            done=done,
        )
        compared = found.compare()
        done()
        _ = found.warnings  # asked for now, as they take as long
        done()
        return compared

    def _options(self) -> list[str]:
        """The options that decide the numbers, as they are typed."""
        given = [*self.typed(), "--folds", str(self.folds)]
        given += ["--gap", str(self.gap)] if self.gap is not None else []
        return [*given, "--intercept"] if self.intercept else given


def _as_json(found: "CrossFit", beside: "Mapping[str, Baseline]", roles: tuple[str, ...]) -> dict[str, Any]:
    from gladient.answers import verdict
    from gladient.data import judge

    estimated, judged = found.estimated, judge(found)
    return {
        "verdict": {"kind": judged.kind, "text": judged.text, "gate": judged.gate},
        "roles": list(roles),
        "setting": estimated.setting.to_dict(),
        "standard_errors": {name: error.tolist() for name, error in estimated.standard_errors.items()},
        "gates": {
            name: {
                "risk": {**asdict(found.risks[name]), "z": found.risks[name].z},
                "gain": {**asdict(found.gains[name]), "z": found.gains[name].z},
                **({"verdict": judged.gates[name].to_json()} if name in judged.gates else {}),
                "certificate": asdict(gate.rung.certificate),
                **(
                    {"omega": gate.omega.tolist(), "omega_error": gate.omega_error.tolist()}
                    if name != "key_gate"
                    else {}
                ),
            }
            for name, gate in found.gates.items()
        },
        "baselines": {name: each.to_json() for name, each in beside.items()},
        **verdict(estimated.reduced()).to_json(),
        "warnings": [asdict(caution) for caution in found.warnings],
    }


def _text(found: "CrossFit", beside: "Mapping[str, Baseline]", roles: tuple[str, ...]) -> str:
    from gladient.data import judge
    from gladient.data.ungated import lower_risk

    setting, errors = found.estimated.setting, found.estimated.standard_errors
    judged, lower = judge(found), lower_risk(found, beside)
    lines = [f"would gating help on these data? {judged.text}", *([f"without gates, {lower}"] if lower else []), ""]
    lines += [
        f"{'gate':17}{'risk':>15}{'measured':>17}{'z':>6}{'gain':>18}{'measured':>17}{'z':>6}  weight of one example"
    ]
    for name, gate in found.gates.items():
        cells = f"{_compared(found.risks[name])} {_compared(found.gains[name])}"
        lines.append(f"{name:17}{cells}  {_weights(gate.omega, gate.omega_error)}")
    lines += [f"{name:17}{'':16}{each.text}" for name, each in beside.items()]
    for name, verdict in judged.gates.items():
        lines.append(f"{name}: {verdict.kind}: {verdict.text}")
    blamed = [culprit for verdict in judged.gates.values() for culprit in verdict.culprits]
    by_kind = {culprit.kind: culprit for culprit in reversed(blamed)}  # the first of each kind
    lines += [f"likely culprit: {each}" for each in reversed(by_kind.values())]
    r = "  ".join(f"{role} {_pair(*pair)}" for role, *pair in zip(roles, setting.r, errors["r"], strict=True))
    lines.append(f"correlation with the query's task: {r}")
    lines.append(_proved(found.estimated))
    lines.append("risk: of 1, the mean square that one fit to all examples leaves; gain: over linear attention")
    return "\n".join(map(printable, [*lines, *found.warnings]))  # roles are the table's own text


def _proved(estimated: "Estimated") -> str:
    """What the theory proves of the best weights at the estimate, with the features' own moments."""
    from gladient.landscape import advantage, uniqueness

    reduced = estimated.reduced()
    verdict, gating = uniqueness(reduced).verdict, advantage(reduced)
    optimum = {"unique": "the only stationary point", "several": "the best of several stationary points"}
    scalar = "reaches them" if gating.scalar_attains else f"stays {gating.scalar_gap:.4f} above them"
    return f"best weights at this estimate: {optimum.get(verdict, 'no better ones exist')}; a scalar gate {scalar}"


def _compared(each: "Compared") -> str:
    predicted, measured = _pair(each.predicted, each.predicted_error), _pair(each.measured, each.measured_error)
    return f"{predicted:>15} {measured:>16}{round(each.z, 1) + 0.0:6.1f}"  # + 0.0 makes -0.0 a 0.0


def _pair(value: float, error: float) -> str:
    return f"{value:.4f} ± {error:.4f}"


def _weights(omega: Any, error: Any) -> str:
    if omega.ndim == 2:
        return "one for each direction"
    return "  ".join(f"{weight:.2f} ± {spread:.2f}" for weight, spread in zip(omega, error, strict=True))

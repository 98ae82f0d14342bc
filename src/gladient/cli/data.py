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
from gladient.cli.told import told

if TYPE_CHECKING:
    from gladient.data import Answer, Baseline, CrossFit, Table, Verdicts

__all__ = ["Data"]


@dataclass(frozen=True, kw_only=True)
class Data(TableOptions):
    """What each gate family is predicted to gain on a table's prompts, beside what is measured on held-out clusters.

    A panel: gladient data FILE.csv --target y --features x1 x2 --group country --time year. A table of prompts, one row
    per example: gladient data FILE.csv --target y --features x1 x2 --task day --role source --cluster week
    """

    intercept: bool = False
    """Each task has a level of its own."""
    folds: Whole | None = None
    """Blocks of clusters, each held out once; 5 if not given."""
    gap: Whole | None = None
    """Clusters left out beside a held-out block, where neighbours share examples; if not given what a panel needs, else
    0."""
    json: bool = False
    """Print one JSON object instead of a table."""
    out: Path | None = None
    """The report to write; data.html if not given, none with --json."""

    def run(self) -> None:
        """Print the comparison, write the report."""
        out = html_file(self.out, None if self.json else "data.html")
        with progress(printable(self.file.name), (self.folds or 5) + 4) as done:
            table, frame = self.load()
            done()
            answer = None if self.show_prompts else self._answer(table, done)
        for sentence in table.said:  # only now: an error is one line
            print(f"gladient: {printable(sentence)}", file=sys.stderr)
        if answer is None:
            print(preview(table, frame, self.used(frame)))
            return
        from gladient.data import baselines

        beside = baselines(answer.split) if answer.split else {}
        print(json_text(_as_json(answer, beside, table.roles)) if self.json else told(answer, beside, table.roles))
        if out is not None:
            from gladient.data.report import write_report

            write_report(out, answer, beside, roles=table.roles, command=f"gladient data {shlex.join(self._options())}")
            print(f"report: {printable(out)}", file=sys.stderr if self.json else sys.stdout)

    def _answer(self, table: "Table", done: Callable[[], None]) -> "Answer":
        from gladient.data import ask

        for k, (role, source) in enumerate(zip(table.roles, table.prompts.sources, strict=True), start=1):
            least, most = int(source.n.argmin()), int(source.n.argmax())
            if table.n is None and source.n[least] < source.n[most]:
                raise ValueError(
                    f"source {k} has from {source.n[least]} to {source.n[most]} examples; say with n how many of each "
                    f"source a prompt shows: of {role!r} {table.names[least]} has {source.n[least]}"
                )
        answer = ask(
            table.prompts,
            clusters=table.clusters,
            n=table.n,
            folds=self.folds,
            gap=table.gap if self.gap is None else self.gap,
            intercept=self.intercept,
            names=table.names,
            done=done,
        )
        done()
        _ = answer.found and answer.found.warnings  # asked for now, as they take as long
        done()
        return answer

    def _options(self) -> list[str]:
        """The options that decide the numbers, as they are typed."""
        given = [*self.typed(), *(["--folds", str(self.folds)] if self.folds is not None else [])]
        given += ["--gap", str(self.gap)] if self.gap is not None else []
        return [*given, "--intercept"] if self.intercept else given


def _as_json(answer: "Answer", beside: "Mapping[str, Baseline]", roles: tuple[str, ...]) -> dict[str, Any]:
    judged = answer.verdicts
    return {
        "verdict": {
            "kind": judged.kind,
            "text": judged.text,
            "gate": judged.gate,
            "culprits": [asdict(each) for each in judged.culprits],
        },
        "roles": list(roles),
        **(_measured(answer.found, judged) if answer.found else {}),
        "baselines": {name: each.to_json() for name, each in beside.items()},
    }


def _measured(found: "CrossFit", judged: "Verdicts") -> dict[str, Any]:
    from gladient.answers import verdict

    estimated = found.estimated
    return {
        "setting": estimated.setting.to_dict(),
        "standard_errors": {name: error.tolist() for name, error in estimated.standard_errors.items()},
        "gates": {
            name: {
                "risk": {**asdict(found.risks[name]), "z": found.risks[name].z},
                "gain": {
                    **asdict(found.gains[name]),
                    "z": found.gains[name].z,
                    "predicted_low": gate.gain_low,
                    "predicted_high": gate.gain_high,
                },
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
        **verdict(estimated.reduced()).to_json(),
        "warnings": [asdict(caution) for caution in found.warnings],
    }

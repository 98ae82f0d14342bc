"""One answer for both faces: what it says is what the theory says, and what both print."""

import json
import shlex

import numpy as np
import pytest

from gladient import landscape
from gladient.answers import Answer, around, delta_rules, floors, gates, plane_through, rotations, verdict
from gladient.cli import main
from gladient.explore import Fields, tables
from gladient.prompts import MultitaskSetting

THREE = Fields(n="25 10 30", r="0.5 0.2 -0.3", rho="0.1 0.2 0.3", spectrum="1 0.5 0.25", sigma2="0.1")
SETTINGS = [Fields(), THREE, Fields(r="0.5 0.5"), Fields(r="0 0"), Fields(n="5", r="-0.3", d="2")]


def all_rows(ladder: landscape.Ladder) -> list[Answer]:
    return [*gates(ladder), *rotations(ladder), *delta_rules(ladder), *floors(ladder)]


def test_rows_are_the_ladder() -> None:
    ladder = landscape.ladder(THREE.setting())
    rows = {row.name: row for row in all_rows(ladder)}
    assert {name: rows[name].risk for name in ladder.risks} == ladder.risks
    for name in ("delta_rule", "fixed_rotation", "rotating_gate", "filter_floor", "any_key_floor"):
        assert rows[name].risk == getattr(ladder, name).risk
    assert rows["value_gate"].gain == pytest.approx(1 - ladder.value_gate.risk / ladder.linear_attention.risk)
    weights = rows["scalar_gate"].weights
    assert weights is not None
    np.testing.assert_array_equal(weights, ladder.scalar_gate.omega)


@pytest.mark.parametrize("fields", SETTINGS)
def test_both_faces_print_the_same_rungs(fields: Fields, capsys: pytest.CaptureFixture[str]) -> None:
    ladder = landscape.ladder(fields.setting())
    page = tables.ladder(all_rows(ladder), fields.setting())
    cells = [row.split("</td><td>") for row in page.split("<tr><td>")[1:]]
    shown = {title: (risk, share, gain) for title, _, risk, share, gain, _ in cells}
    assert main(shlex.split(fields.command())[1:]) == 0
    printed = [line.split()[:4] for line in capsys.readouterr().out.splitlines()[1 : 1 + len(shown)]]
    titles = {row.name: row.title for row in all_rows(ladder)}
    assert {titles[name]: tuple(numbers) for name, *numbers in printed} == shown


@pytest.mark.parametrize("fields", SETTINGS)
def test_both_faces_print_the_same_verdict(fields: Fields, capsys: pytest.CaptureFixture[str]) -> None:
    command, found = shlex.split(fields.command())[2:], verdict(fields.setting())
    assert main(["certify", *command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.to_json()))
    assert main(["certify", *command]) == 0
    printed, page = capsys.readouterr().out.splitlines(), tables.stationary(found.stationary)
    for line in printed[1:-3]:
        gamma, risk, slope, kind = line.split()
        assert f"<tr><td>{kind}</td><td>{risk}</td><td>{gamma}</td><td>{slope}</td>" in page
    assert printed[-3:-1] == found.lines
    assert ("gains nothing" in printed[-2]) == ("Gates gain nothing" in found.sentences)
    assert (found.binding in printed[-2]) == (found.binding in found.sentences)


@pytest.mark.parametrize("tasks", [(0, 1), (0, 2), (1, 2)])
def test_the_plane_goes_through_the_setting(tasks: tuple[int, int]) -> None:
    setting = THREE.setting()
    found = plane_through(setting, tasks, points=21)
    column, row = (np.abs(found.r1 - setting.r[task]).argmin() for task in tasks)
    exact = landscape.advantage(setting).gain / landscape.linear_attention(setting).risk
    assert found.grid(found.gain)[row, column] == pytest.approx(exact)


def test_the_circle_holds_every_pair_of_weights() -> None:
    """Its least risk is the optimum's, where the optimum's weights are; equal weights have linear attention's risk."""
    setting = MultitaskSetting.isotropic(n=[10, 400], r=[0.6, 0.5], d=10)
    circle, best = around(setting, points=1801), landscape.optimum(setting)
    assert circle.risks.min() == pytest.approx(best.risk, rel=1e-4)
    assert circle.angles[circle.risks.argmin()] == pytest.approx(circle.angle(best.omega), abs=0.2)
    at = np.abs(circle.angles - circle.equal).argmin()
    assert circle.risks[at] == pytest.approx(landscape.linear_attention(setting).risk, rel=1e-2)


def test_features_that_are_not_gaussian_have_a_verdict_without_the_papers_margin() -> None:
    setting = MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10)
    signs = landscape.reduce(setting, F=setting.M * np.eye(10))
    found = verdict(signs)
    assert "margin" not in found.lines[0]
    assert found.lines[0].startswith("optimum: unique (by: slope; slope at most")
    gain = landscape.linear_attention(signs).risk - landscape.optimum(signs).risk
    assert f"lower linear attention's risk by {gain:.4g} (gain " in found.sentences
    json.dumps(found.to_json())

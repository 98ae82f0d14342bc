"""From a panel to prompts: the past alone is shown, whatever the order of the rows, and what is left out is named."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gladient.data import estimate_setting, prompts_from_panel, table_prompts
from gladient.data.folds import folds_of

USUAL: dict[str, Any] = {"target": "y", "features": ["x"], "group": "who", "time": "year"}


def panel(groups: int = 12, years: int = 12, *, lost: float = 0.0, each: int = 1, seed: int = 0) -> pd.DataFrame:
    """Some rows of each group and year in random order, of which a share is lost."""
    rng = np.random.default_rng(seed)
    rows = [(f"g{g}", 2000 + t) for g in range(groups) for t in range(years) for _ in range(each)]
    frame = pd.DataFrame(rows, columns=["who", "year"])
    frame["x"], frame["y"] = rng.normal(size=(2, len(frame)))
    return frame[rng.random(len(frame)) >= lost].sample(frac=1, random_state=seed).reset_index(drop=True)


CUTS: dict[str, dict[str, Any]] = {
    "nothing said": {},
    "lags": {"lags": 2},
    "windows": {"windows": "3y", "lags": 2},
    "long windows": {"windows": "4"},
    "bins": {"bins": ["2004", "2007"]},
    "so many bins": {"bins": ["4"]},
    "shown alike": {"windows": "3", "lags": 1, "n": [2]},
}


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("name", CUTS)
def test_no_row_is_later_than_those_after_it(name: str, each: int) -> None:
    frame = panel(lost=0.15, each=each)
    table = prompts_from_panel(frame, **USUAL, **CUTS[name])
    years, who = frame.year.to_numpy(), frame.who.to_numpy()
    assert len(table.names) == len(table.prompts) == len(table.clusters)
    for i, title in enumerate(table.names):
        rows = [
            places[role.starts[i] : role.starts[i] + role.n[i]]
            for role, places in zip(table.prompts.roles, table.rows, strict=True)
        ]
        assert len({who[row] for part in rows for row in part}) == 1
        assert title.startswith(f"who {table.clusters[i]}, ")
        for before, after in pairwise(rows):
            assert years[before].max() < years[after].min()
        for part, (X, y), n in zip(rows, table.prompts[i].sources, table.n or (), strict=False):
            np.testing.assert_array_equal(frame.x.to_numpy()[part], X[:, 0])
            np.testing.assert_array_equal(frame.y.to_numpy()[part], y)
            assert (np.diff(years[part[:n]]) >= 0).all()  # the latest are shown, in order
            assert len(part) == n or years[part[n:]].max() <= years[part[:n]].min()


@pytest.mark.parametrize("name", CUTS)
def test_the_order_of_rows_does_not_matter(name: str) -> None:
    frame = panel(lost=0.1)
    one = prompts_from_panel(frame, **USUAL, **CUTS[name])
    other = prompts_from_panel(frame.sample(frac=1, random_state=7), **USUAL, **CUTS[name])
    assert one.roles == other.roles
    assert one.n == other.n
    assert sorted(one.names) == sorted(other.names)
    for i, title in enumerate(one.names):
        for (X, y), (Z, w) in zip(one.prompts[i].tasks, other.prompts[other.names.index(title)].tasks, strict=True):
            np.testing.assert_array_equal(X, Z)
            np.testing.assert_array_equal(y, w)


def test_windows_by_plain_loops() -> None:
    frame, found = panel(lost=0.2, each=2), {}
    table = prompts_from_panel(frame, **USUAL, windows="3y", lags=2, n=[1])
    for who in sorted(set(frame.who)):
        own = frame[frame.who == who]
        for last in (2011, 2008):
            parts = [own[(own.year > end - 3) & (own.year <= end)] for end in (last - 6, last - 3, last)]
            if all(len(part) for part in parts):
                found[f"who {who}, {last - 2}–{last}"] = [sorted(part.y) for part in parts]
    assert set(found) == set(table.names)
    for i, name in enumerate(table.names):
        assert [sorted(y) for _, y in table.prompts[i].tasks] == found[name]


def test_roles_are_named_by_time() -> None:
    frame = panel()
    assert prompts_from_panel(frame, **USUAL).roles == ("2000–2002", "2003–2005", "2006–2008")
    assert prompts_from_panel(frame, **USUAL, bins=["2004", "2010"]).roles == ("2000–2004", "2005–2010")
    assert prompts_from_panel(frame, **USUAL, windows="2y").roles == ("lag 3", "lag 2", "lag 1")
    assert prompts_from_panel(panel(each=3), **USUAL, lags=1).roles == ("lag 1",)


def test_what_is_decided_is_said() -> None:
    frame = panel()
    frame = frame[(frame.who != "g3") | (frame.year < 2009)]  # without the last period
    frame = frame[(frame.who != "g5") | (frame.year != 2003)]  # one row less
    table = prompts_from_panel(frame, **USUAL, n=[3])
    assert table.said == (
        "one row of each time: 3 times together are a period (--windows sets their length)",
        "left out 1 of 11 prompts as too short: who g5, 2009–2011 has 2 of 3 examples in 2003–2005",
        "2 of 12 groups give no prompt: " + ", ".join(sorted(("g3", "g5"), key=list(dict.fromkeys(frame.who)).index)),
    )
    assert len(table.prompts) == 10
    said = prompts_from_panel(frame, **USUAL).said
    assert "a prompt shows 3, 3, 3 examples of its sources (--n sets another number)" in said


@pytest.mark.parametrize(
    ("windows", "period"),
    [("1mo", "M"), ("1y", "Y"), ("1d", "D"), ("1w", "7D"), ("12h", "12h")],
)
def test_windows_of_dates(windows: str, period: str) -> None:
    """Each window is a calendar month or day, or a length counted back from the last month, day or hour."""
    step = {"1mo": "5D", "1y": "60D", "1d": "6h", "1w": "1D", "12h": "3h"}[windows]
    times = pd.date_range("2019-01-03", periods=160, freq=step)
    frame = pd.DataFrame({"when": times, "x": np.arange(160.0), "y": np.arange(160.0) ** 2 % 7})
    table = prompts_from_panel(frame, target="y", features=["x"], time="when", windows=windows, lags=2, n=[1])
    if period == "Y":
        months = times.year * 12 + times.month
        expected = ((months[-1] - months) // 12).astype(str)
    elif period in "MD":
        expected = times.to_period(period).astype(str)
    else:
        length, unit = (7, "D") if windows == "1w" else (12, "h")
        ticks = times.floor(unit)
        expected = ((ticks[-1] - ticks) // pd.Timedelta(length, unit)).astype(str)
    for i in range(len(table.prompts)):
        for role, places in zip(table.prompts.roles, table.rows, strict=True):
            rows = places[role.starts[i] : role.starts[i] + role.n[i]]
            assert len(set(expected[rows])) == 1
            assert len(rows) == (expected == expected[rows[0]]).sum()


def test_dates_in_any_spelling_make_one_panel() -> None:
    frame = panel().assign(month=lambda f: 1 + f.index % 12)
    days = pd.to_datetime(frame[["year", "month"]].assign(day=15))
    made = [
        prompts_from_panel(frame.assign(year=times), **USUAL, windows="3y", n=[1])
        for times in (
            days,
            days.dt.strftime("%d/%m/%Y"),
            days.dt.strftime("%Y%m%d").astype(int),
            days.dt.strftime("%Y-%m"),
        )
    ]
    for table in made[1:]:
        assert len(table.prompts) == len(made[0].prompts)
        np.testing.assert_array_equal(table.prompts.query.y, made[0].prompts.query.y)
    quarters = frame.year.astype(str) + "Q" + frame.month.map(lambda m: (m + 2) // 3).astype(str)
    assert len(prompts_from_panel(frame.assign(year=quarters), **USUAL, windows="3y", n=[1]).prompts) > 0


@pytest.mark.parametrize(
    ("groups", "cluster", "gap"), [(1, None, 1), (3, None, 1), (7, None, 0), (7, "run", 2), (1, "run", 2)]
)
def test_folds_share_no_row(groups: int, cluster: str | None, gap: int) -> None:
    """With too few groups to hold any out, clusters are runs of times; whatever they are, the gap is wide enough."""
    frame = panel(groups=groups, years=200).assign(run=lambda f: (f.year - 2000) // 4)
    options = {**USUAL, "group": "who" if groups > 1 else None}
    table = prompts_from_panel(frame, **options, windows="4", lags=2, cluster=cluster)
    assert table.gap == gap
    for fitted, held_out in folds_of(table.clusters, 5, table.gap):
        fit, held = (
            {
                row
                for role, rows in zip(part.roles, table.rows, strict=True)
                for row in rows[role.rows(np.array(chosen))]
            }
            for part, chosen in ((table.prompts, fitted), (table.prompts, held_out))
        )
        assert not fit & held
        assert fit
    assert groups > 3 or len(prompts_from_panel(frame, **options).prompts) > 30  # nothing said: windows short enough


def test_tasks_that_drift_are_found() -> None:
    """r = 0.64 and 0.8 of tasks two and one periods before."""
    rng, rows = np.random.default_rng(0), []
    for who in range(400):
        beta = rng.normal(size=2)
        for year in range(12):
            if year % 4 == 0:
                beta = 0.8 * beta + 0.6 * rng.normal(size=2)
            x = rng.normal(size=2)
            rows.append((who, year, *x, x @ beta + 0.5 * rng.normal()))
    frame = pd.DataFrame(rows, columns=["who", "year", "x1", "x2", "y"])
    table = prompts_from_panel(frame, target="y", features=["x1", "x2"], group="who", time="year", lags=2)
    found = estimate_setting(table.prompts, clusters=table.clusters, n=table.n)
    assert (np.abs(found.setting.r - [0.64, 0.8]) < 4 * found.standard_errors["r"]).all()
    assert found.standard_errors["r"].max() < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": "3y", "bins": ["3"]}, "windows and bins are both given"),
        ({"lags": 2, "bins": ["3"]}, "lags and bins are both given; a prompt shows all bins but the last"),
        ({"lags": 0}, "lags is 0; a prompt shows at least 1 period"),
        ({"windows": "soon"}, "windows is 'soon'; give a length such as 10y, 6mo, 2w"),
        ({"windows": "2w"}, "windows is '2w' and the times are numbers; give a length in their units, as 10"),
        (
            {"windows": "20y"},
            "there are 1 periods .2000–2011. and a prompt takes 2 of them; take shorter windows or fewer",
        ),
        ({"windows": "3y", "lags": 4}, "there are 4 periods .* and a prompt takes 5 of them"),
        ({"lags": 8}, "one row of each time, and 12 times are too few for 8 periods of two rows"),
        ({"bins": ["1"]}, "bins is 1; one number is how many bins the 12 times make, from 2 on"),
        ({"bins": ["2005"]}, "bins is 2005; one number is how many bins"),
        ({"bins": ["2020", "2030"]}, "bins 2020 2030 put all times, 2000–2011, into one"),
        ({"bins": ["2006", "2003"]}, "they are last times of bins, within 2000–2011 and in order"),
        ({"n": [9]}, "0 prompt comes of this panel .left out 12 of 12 prompts as too short: who g"),
        ({"n": [3, 3]}, "n lists 2 counts and prompts have 3 sources; give one for all or one each"),
        ({"time": "yaer"}, "there is no column 'yaer'; the table has who, year, x, y; perhaps 'year'"),
        ({"time": "who"}, "column 'who' holds 'g.*which is not a number"),
        ({"cluster": "x"}, "lies in the clusters"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompts_from_panel(panel(), **{**USUAL, **options})


def test_missing_times_are_counted() -> None:
    frame = panel()
    frame["year"] = frame.year.where(frame.index != 4)
    with pytest.raises(ValueError, match="column 'year' misses 1 of 144 values"):
        prompts_from_panel(frame, **USUAL)
    assert (
        "left out 1 of 144 rows with missing values (year 1)"
        in prompts_from_panel(frame, **USUAL, drop_missing=True).said
    )


def test_a_time_that_is_none_is_named() -> None:
    frame = panel()
    days = (frame.year.astype(str) + "-06-30").where(frame.index != 5, "NA")
    with pytest.raises(ValueError, match=r"column 'year' misses 1 of 144 values.*: row 5 is the first"):
        prompts_from_panel(frame.assign(year=days), **USUAL)
    assert len(prompts_from_panel(frame.assign(year=days), **USUAL, drop_missing=True).prompts) > 0
    with pytest.raises(
        ValueError, match="column 'year' holds 'soon' in row 9, which is no date; write it as 2010-01-31"
    ):
        prompts_from_panel(frame.assign(year=days.where(frame.index != 9, "soon")), **USUAL)


ROLES = pd.DataFrame(
    {"task": np.repeat(range(30), 12), "role": ([2] * 5 + [10] * 5 + [0] * 2) * 30, "x": np.arange(360.0) % 7, "y": 1.0}
)


def test_roles_that_are_numbers_stand_in_their_order() -> None:
    columns: dict[str, Any] = {"target": "y", "features": ["x"], "task": "task", "role": "role", "query": "0"}
    table = table_prompts(ROLES.sample(frac=1, random_state=0), **columns)
    assert table.roles == ("2", "10")
    assert table.said == ("sources in the order of their size: 2, 10 (--role-order sets another)",)
    words = table_prompts(ROLES.replace({"role": {2: "z", 10: "a", 0: "query"}}), **{**columns, "query": "query"})
    assert words.said == ("sources in the order in which they first appear: z, a (--role-order sets another)",)
    given = table_prompts(ROLES, **columns, roles=["10.0", "2"])
    assert given.roles == ("10", "2")
    assert given.said == ()
    with pytest.raises(ValueError, match="the roles are given as 2, 2, 10; name each of them once"):
        table_prompts(ROLES, **columns, roles=["2", "2", "10"])


def test_n_is_drawn_and_not_the_first_of_a_sorted_table() -> None:
    columns: dict[str, Any] = {"target": "y", "features": ["x"], "task": "task", "role": "role", "query": "0"}
    frame = ROLES.sort_values(["x"])
    drawn = [table_prompts(frame, **columns, n=[2], seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].said[-1] == "where a source has more than n examples, those shown are drawn with seed 0 (--seed)"
    shown = [table.prompts.roles[0].first(2)[0][..., 0] for table in drawn]
    np.testing.assert_array_equal(shown[0], shown[1])
    assert (shown[0] != shown[2]).any()
    whole = table_prompts(frame, **columns).prompts.roles[0]
    assert whole.first(2)[0].mean() < whole.X.mean() - 0.8  # the first of each are the smallest
    assert abs(shown[0].mean() - whole.X.mean()) < 0.6
    assert sorted(drawn[0].prompts.roles[0].X[:5, 0]) == sorted(whole.X[:5, 0])  # the others are still there
    assert (np.diff(shown[0], axis=1) >= 0).all()  # in the table's order


def test_tasks_without_a_role_are_left_out_if_asked() -> None:
    columns: dict[str, Any] = {"target": "y", "features": ["x"], "task": "task", "role": "role", "query": "0"}
    frame = ROLES[(ROLES.task != 3) | (ROLES.role != 10)]
    with pytest.raises(
        ValueError, match=r"task 3 has no row of role '10'; each prompt needs every role.*--drop-missing"
    ):
        table_prompts(frame, **columns)
    table = table_prompts(frame, **columns, drop_missing=True)
    assert len(table.prompts) == 29
    assert table.said[-1] == "left out 1 of 30 tasks that lack a role: task 3"


def test_changes_since_the_row_before() -> None:
    """Against a loop, in rows of any order; features of a panel that trends are fresh then."""
    frame = panel(years=13)
    table = prompts_from_panel(frame, **USUAL, windows="3", changes=True)
    assert "changes since the row before: 12 first rows have none" in table.said
    for i in range(len(table.prompts)):
        for (X, y), role, places in zip(table.prompts[i].tasks, table.prompts.roles, table.rows, strict=True):
            for x, label, row in zip(X[:, 0], y, places[role.starts[i] : role.starts[i] + role.n[i]], strict=True):
                now = frame.iloc[row]
                before = frame[(frame.who == now.who) & (frame.year == now.year - 1)].iloc[0]
                assert (x, label) == (now.x - before.x, now.y - before.y)


def test_changes_want_one_row_of_each_time() -> None:
    with pytest.raises(ValueError, match=r"a group has two rows of one time, 2000 .*is the second\); name the column"):
        prompts_from_panel(panel(each=2), **USUAL, changes=True)


def test_quarters() -> None:
    frame = panel().assign(year=lambda f: [f"Q{t % 4 + 1} {2000 + (t - 2000) // 4}" for t in f.year])
    assert prompts_from_panel(frame, **USUAL, windows="1y", lags=1).names[0] == "who g0, 2001-01-01–2001-10-01"

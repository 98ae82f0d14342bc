"""Prompts from a tidy table, one row per example, whose columns say which prompt and role a row belongs to."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gladient.data.columns import Names
from gladient.data.prompt import Prompts, RoleExamples
from gladient.data.shaping import Blocks, Rows, Table, clusters_of, listed, read_rows, shown_first

__all__ = ["counts_of", "table_prompts"]

Part = tuple[RoleExamples, np.ndarray]  # of one role, and which rows they are


def table_prompts(
    frame: Any,
    *,
    target: str,
    features: Sequence[str],
    task: str,
    role: str,
    cluster: str | None = None,
    query: str = "query",
    roles: Sequence[str] = (),
    n: Sequence[int] = (),
    seed: int = 0,
    elapsed: Sequence[str] = (),
    drop_missing: bool = False,
) -> Table:
    """The prompts of a tidy table.

    Args:
        frame: one row per example.
        target: the column of labels.
        features: the columns of features; categories become one column for each level but the commonest.
        task: the column that names the task asked about: rows of one value are one prompt.
        role: the column that says which source a row belongs to, or that it is a query.
        cluster: the column of clusters, one value for each prompt; each prompt is its own if not given.
        query: what the role column says of queries.
        roles: the sources' roles in the order of the prompt; if not given that of first appearance, or of their size
            where they are numbers.
        n: examples of each source that a prompt shows, one number for all or one each; of a source with more the shown
            ones are drawn, and the others serve the estimate. All of them if not given.
        seed: of that draw.
        elapsed: features that are dates, to be taken as days since the earliest.
        drop_missing: whether rows with a missing value are left out, and then tasks that lack a role.

    Raises:
        ValueError: if a column is absent, holds no numbers or has missing values, a task lacks a role or has others, or
            lies in several clusters.
    """
    named = [task, role, *([cluster] if cluster is not None else [])]
    rows = read_rows(frame, target=target, wanted=features, named=named, elapsed=elapsed, drop_missing=drop_missing)
    tasks, found, said = rows.columns[task], rows.columns[role], list(rows.said)
    query = found.find(query)
    order = _order(found, roles, role, query, said)
    place = {name: k for k, name in enumerate((*order, query))}
    codes = np.array([place.get(name, -1) for name in found.texts])[found.codes]
    blocks = Blocks(tasks.codes * len(place) + codes, rows)
    present = np.array(list(dict.fromkeys(tasks.codes.tolist())))
    at = np.stack([blocks.find(present * len(place) + k) for k in range(len(place))])
    titles = [f"{task} {tasks.texts[i]}" for i in present.tolist()]
    whole = _whole(at, titles, (*order, query), drop_missing, said)
    titles = [titles[i] for i in whole.tolist()]
    if len(titles) < 2:
        few = "one value" if titles else "no value with every role"
        raise ValueError(f"column {task!r} has {few}, so each role has one task; give many tasks")
    parts = [blocks.take(each[whole]) for each in at]
    counts = counts_of(n, order)
    if counts is not None:
        parts = [*_drawn(parts[:-1], counts, order, titles, seed, said), parts[-1]]
    return Table(
        prompts=Prompts(tuple(examples for examples, _ in parts)),
        clusters=_clusters(rows, cluster, parts, titles) if cluster is not None else titles,
        roles=order,
        names=tuple(titles),
        features=rows.features.names,
        rows=tuple(rows.places[chosen] for _, chosen in parts),
        n=counts,
        said=tuple(said),
    )


def counts_of(n: Sequence[int], roles: Sequence[str]) -> tuple[int, ...] | None:
    """Examples of each role from one number for all or one each; None if nothing is said.

    Raises:
        ValueError: if there are other than one or as many as roles.
    """
    counts = tuple(n) * len(roles) if len(n) == 1 else tuple(n)
    if counts and len(counts) != len(roles):
        raise ValueError(f"n lists {len(n)} counts and prompts have {len(roles)} sources; give one for all or one each")
    if any(count < 1 for count in counts):
        raise ValueError(f"n lists {min(counts)}; a prompt shows at least one example of each source")
    return counts or None


def _order(found: Names, roles: Sequence[str], column: str, query: str, said: list[str]) -> tuple[str, ...]:
    """The sources' roles in the order of the prompt."""
    have = [found.texts[code] for code in dict.fromkeys(found.codes.tolist())]
    order = tuple(found.find(name) for name in roles) or tuple(name for name in have if name != query)
    if len(set(order)) < len(order):
        raise ValueError(f"the roles are given as {', '.join(order)}; name each of them once")
    if query not in have:
        raise ValueError(f"column {column!r} holds {', '.join(sorted(have)[:9])}; some rows must be {query!r}: --query")
    if not order:
        raise ValueError(
            f"every row of column {column!r} is {query!r}; a prompt needs sources, in at least one other role"
        )
    if set(have) - {query} != set(order):
        raise ValueError(f"the roles are given as {', '.join(order)} and the table has {', '.join(sorted(have))}")
    if roles or len(order) == 1:
        return order
    if found.numeric:
        order = tuple(sorted(order, key=float))
    how = "of their size" if found.numeric else "in which they first appear"
    said.append(f"sources in the order {how}: {', '.join(order)} (--role-order sets another)")
    return order


def _whole(
    at: np.ndarray, titles: Sequence[str], roles: Sequence[str], drop_missing: bool, said: list[str]
) -> np.ndarray:
    """The tasks that have every role."""
    lacking = (at < 0).any(0)
    if lacking.any():
        i = int(np.argmax(lacking))
        if not drop_missing:
            lost = roles[int(np.argmax(at[:, i] < 0))]
            raise ValueError(
                f"{titles[i]} has no row of role {lost!r}; each prompt needs every role: leave the task out "
                "(--drop-missing)"
            )
        short = [titles[i] for i in np.flatnonzero(lacking).tolist()]
        said.append(f"left out {len(short)} of {len(titles)} tasks that lack a role: {listed(short)}")
    return np.flatnonzero(~lacking)


def _drawn(
    parts: Sequence[Part], n: Sequence[int], roles: Sequence[str], titles: Sequence[str], seed: int, said: list[str]
) -> list[Part]:
    """The examples of each source with n drawn ones first."""
    rng, drawn = np.random.default_rng(seed), []
    for (examples, chosen), count, role in zip(parts, n, roles, strict=True):
        if (examples.n < count).any():
            i = int(np.argmin(examples.n))
            raise ValueError(
                f"n asks for {count} examples of {role!r} and {titles[i]} has {examples.n[i]}; take at most "
                f"{examples.n[i]}, or leave that task out"
            )
        # Rows may stand in an order that tells: by price, by date. The first ones would be another kind of prompt.
        drawn.append(shown_first(examples, chosen, rng.random(len(chosen)), count))
    if any((examples.n > count).any() for (examples, _), count in zip(parts, n, strict=True)):
        said.append(f"where a source has more than n examples, those shown are drawn with seed {seed} (--seed)")
    return drawn


def _clusters(rows: Rows, cluster: str, parts: Sequence[Part], titles: Sequence[str]) -> list[Any]:
    together = np.stack([clusters_of(rows, cluster, *part, titles) for part in parts])
    differ = (together != together[0]).any(0)
    if differ.any():
        i = int(np.argmax(differ))
        several = listed(sorted(set(together[:, i].tolist())))
        raise ValueError(f"{titles[i]} lies in the clusters {several}; a prompt belongs to one")
    return together[0].tolist()

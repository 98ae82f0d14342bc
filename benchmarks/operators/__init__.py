"""Ours and the peers' operators on this machine: cases, peers, clock and table, which other benchmarks share.

Nothing is imported here: `--level` has to be set before torch reads its own variables.
"""

__all__: list[str] = []

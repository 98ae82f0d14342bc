"""Heat maps of a gain over two correlations, with the line at which something changes."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from gladient._types import Array, Bool, Float

__all__ = ["heat_map", "name_sides"]


def heat_map(
    axes: Axes,
    across: Float[Array, " C"],
    up: Float[Array, " S"],
    gain: Float[Array, "S C"],
    border: Float[Array, "S C"],
    *,
    label: str,
    line: str = "white",
    fraction: float = 0.15,
    **colours: Any,
) -> bool:
    """Draw gains as colours with a bar beside them; whether there is a line, where `border` changes its sign.

    Args:
        axes: where.
        across: of each column.
        up: of each row.
        gain: NaN stays blank.
        border: NaN where nothing is known.
        label: what the colours mean.
        line: colour of the line.
        fraction: width of the bar, of the axes'.
        colours: cmap, norm, vmin … of `pcolormesh`.
    """
    gain, border = np.ma.masked_invalid(gain), np.ma.masked_invalid(border)
    mesh = axes.pcolormesh(across, up, gain, shading="nearest", rasterized=True, **colours)
    axes.figure.colorbar(mesh, ax=axes, label=label, fraction=fraction)
    changes = float(border.min()) < 0.0 < float(border.max())
    if changes:
        axes.contour(across, up, border, levels=[0.0], colors=line, linewidths=1.5)
    return changes


def name_sides(
    axes: Axes,
    across: Float[Array, " C"],
    up: Float[Array, " S"],
    border: Float[Array, "S C"],
    names: tuple[str, str],
    *,
    colour: str,
    halo: str,
) -> None:
    """Write a name on every large part of where `border` is above 0, and one where it is below."""
    for name, side in zip(names, (border > 0.0, border < 0.0), strict=True):  # NaN is neither
        for row, column in _middles(side):
            effects = [withStroke(linewidth=2.0, foreground=halo)]
            place = (across[column], up[row])
            axes.annotate(name, place, color=colour, ha="center", va="center", path_effects=effects)


def _middles(region: Bool[np.ndarray, "S C"]) -> list[tuple[int, int]]:
    """The cell farthest from the edge, for every part of a region with a twentieth of all cells or more."""
    from scipy.ndimage import distance_transform_edt, label

    # padded, so that the map's own edge counts as an edge
    depth = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    parts, number = label(region)
    found = []
    for part in range(1, number + 1):
        if np.sum(parts == part) >= region.size / 20:  # less has no room for a name
            row, column = np.unravel_index(int(np.argmax(np.where(parts == part, depth, 0.0))), region.shape)
            found.append((int(row), int(column)))
    return found

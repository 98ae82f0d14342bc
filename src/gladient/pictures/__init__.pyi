from .files import save_figure, svg_text
from .ink import FAMILIES, INK, PALE, Family, family, ordered
from .maps import heat_map, name_sides
from .panels import blank, correlations, draw_points, frame, legend_below, panel_grid

__all__ = [
    # ink
    "FAMILIES",
    "Family",
    "family",
    "ordered",
    "INK",
    "PALE",
    # panels
    "blank",
    "panel_grid",
    "frame",
    "draw_points",
    "legend_below",
    "correlations",
    # maps
    "heat_map",
    "name_sides",
    # files
    "save_figure",
    "svg_text",
]

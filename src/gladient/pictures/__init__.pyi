from .files import save_figure, svg_text
from .ink import FAMILIES, INK, PALE, Family, add_family, family, ordered
from .maps import heat_map, name_sides
from .panels import blank, draw_points, frame, legend_below, log_axis, panel_grid, panel_title

__all__ = [
    # ink
    "FAMILIES",
    "Family",
    "family",
    "add_family",
    "ordered",
    "INK",
    "PALE",
    # panels
    "blank",
    "panel_grid",
    "frame",
    "log_axis",
    "draw_points",
    "legend_below",
    "panel_title",
    # maps
    "heat_map",
    "name_sides",
    # files
    "save_figure",
    "svg_text",
]

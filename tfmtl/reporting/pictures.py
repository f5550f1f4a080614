"""Figures of matplotlib as SVG that takes the colors of a page."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfmtl._checks import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#0a0b0c"  # a color that no plot uses: it becomes that of the text of the page
_SETTINGS = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor", "savefig.facecolor"), "none"),
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "legend.framealpha": 0.0,
}


def require_matplotlib() -> None:
    """Raise unless matplotlib is installed.

    Raises:
        ValueError: if it is not.
    """
    cure = "install it with `pip install tfmtl[plots]`"
    require(importlib.util.find_spec("matplotlib") is not None, f"A report draws pictures by matplotlib; {cure}.")


@contextlib.contextmanager
def page_colors() -> Iterator[None]:
    """Draw lines and texts in the color of the page's text, on no background; figures made inside have them."""
    import matplotlib  # the extra may be absent

    with matplotlib.rc_context(_SETTINGS):
        yield


def as_svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element.

    Args:
        figure: made inside `page_colors`.
        name: begins the ids inside the element, which are unique on a page of figures with other names.
    """
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg[svg.index("<svg") :])
    return svg.replace(_INK, "currentColor")

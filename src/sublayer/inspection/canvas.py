"""A canvas to draw on: its fonts and colours, text and axes placed in inches, and the file that it becomes."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sublayer import files
from sublayer.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")

INK, QUIET = "#1a1a1a", "#6b6b6b"

MARGIN, LINE = 0.30, 0.24
"""Inches around the canvas, and of a line of its title."""
_MAX_PIXELS = 60e6  # and no side over 2 ** 16, which is all that Agg draws


def require_picture_path(path: Path) -> None:
    """Raise `InputError` unless `path` names a picture that can be drawn."""
    if path.suffix.lower() not in SUFFIXES:
        given = f"ends in '{path.suffix}'" if path.suffix else "has no suffix"
        raise InputError(f"{path} {given}, but a picture is .png or .svg", f"Say {path.with_suffix('.png').name}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder", "Name a file, which the picture may replace.")


def printable(text: str) -> str:
    """White space as single spaces, and nothing that XML forbids (control characters, lone surrogates)."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def wrapped(text: str, inches: float) -> list[str]:
    """Lines of the title: at its size 9 letters an inch, or 6 of the full-width ones of Chinese, Japanese, Korean."""
    wide = any(unicodedata.east_asian_width(c) in "WF" for c in text)
    return textwrap.wrap(text, int(inches * (6 if wide else 9)))


def write(page: Figure, left: float, top: float, text: str, **look: Any) -> None:
    """Text whose upper left corner is so many inches from the lower left corner of the page."""
    width, height = page.get_size_inches()
    look = {"va": "top", "color": INK, "parse_math": False} | look
    page.text(left / width, top / height, text, None, **look)


def titled_page(title: Sequence[str], width: float, height: float) -> tuple[Figure, float]:
    """A page with room of this height, beside its margins, below its title; and where that room begins.

    title: texts, each on lines of its own. Inches.
    """
    from matplotlib.figure import Figure

    lines = [line for text in title for line in wrapped(text, width - 2 * MARGIN)]
    titled = LINE * len(lines) + (0.12 if lines else 0.0)
    whole = 2 * MARGIN + titled + height
    page = Figure(figsize=(width, whole), facecolor="white")
    # From the top down; matplotlib counts from the bottom up.
    for place, line in enumerate(lines):
        write(page, MARGIN, whole - MARGIN - place * LINE, line, fontsize=12)
    return page, whole - MARGIN - titled


def thin_frame(axes: Axes) -> None:
    """A frame that does not compete with what stands in it."""
    for spine in axes.spines.values():
        spine.set(linewidth=0.5, color="#b0b0b0")


def axes_at(page: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes placed in inches."""
    across, up = page.get_size_inches()
    return page.add_axes((left / across, bottom / up, width / across, height / up))


def save(page: Figure, path: Path) -> None:
    """Agg for PNG, the SVG writer for SVG; no pyplot, so no display is needed and nothing stays behind."""
    width, height = page.get_size_inches()
    dots = min(150.0, math.sqrt(_MAX_PIXELS / (width * height)), 60_000 / max(width, height))
    kind = path.suffix.lower()[1:]
    with files.replacing(path) as aside:
        # Without the date the same maps give the same file.
        page.savefig(aside, format=kind, dpi=dots, metadata={"Date": None} if kind == "svg" else None)

"""How pictures are drawn: with settings of our own, every text as plain text, and never at the cost of a result."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sublayer.errors import StorageError
from sublayer.untrusted import first_line

# Tried after DejaVu, which matplotlib brings along, for the scripts that it lacks; only those installed are used.
_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Noto Sans Arabic", "Noto Sans Devanagari"),
    *("Hiragino Sans", "PingFang SC", "Microsoft YaHei", "Malgun Gothic", "Segoe UI", "Arial Unicode MS"),
)


@contextmanager
def drawing() -> Generator[None]:
    """Settings of our own, whatever the user's matplotlibrc says, and no word about glyphs that no font has."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    settings: dict[Any, Any] = {
        "font.family": ["DejaVu Sans", *(name for name in _FONTS if name in installed), "sans-serif"],
        "text.usetex": False,
        # A label is text: "$5 to $10" is no formula.
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "sublayer",
        "axes.grid": False,
        "savefig.bbox": None,
        "savefig.transparent": False,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def attempt(picture: Path, draw: Callable[[], None]) -> None:
    """Draw a picture beside a result; where that fails, the logger "sublayer" warns of it, and the result stays.

    Raises:
        StorageError: the disk refused, as it will refuse the result.
    """
    try:
        with drawing():
            draw()
    except StorageError:
        raise
    except Exception as error:  # whatever the library stumbles over
        logging.getLogger("sublayer").warning("%s could not be drawn (%s)", picture, first_line(error))

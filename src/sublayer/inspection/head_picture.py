"""What heads do as a picture: for each kind of attention a row of heat maps, layers down and heads across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sublayer.drawing import drawing
from sublayer.errors import InputError
from sublayer.inspection import canvas
from sublayer.inspection.ablation import Ablation
from sublayer.inspection.heads import MEASURES, SHARES, HeadScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

_CELL, _LEAST, _BETWEEN, _SECTIONS = 0.30, 0.9, 0.42, 0.35  # of a head, of a map, between maps, between sections
_HEADING, _CAPTION = 0.62, 0.42  # above the maps, below them
_ACROSS = 6  # maps side by side
_NOTE = "layers down, heads across · the number below: what even attention would score"


@dataclass(frozen=True)
class _Map:
    """One heat map. Shape: values [L, H]. span: of the colours; around 0 where `both`."""

    name: str
    values: Tensor
    span: tuple[float, float]
    caption: str
    both: bool = False


def draw_heads(scores: Sequence[HeadScores], path: Path, *, ablation: Ablation | None = None, title: str = "") -> None:
    """Write the scores to `path`, as PNG or SVG by its suffix.

    Shares are drawn from 0 to 1, so that maps can be compared, the colour going with their square root; entropy and
    distance from 0 to the highest; the change of loss with a head off around 0, red where the loss rises, the strongest
    change at the end of the scale.

    Raises:
        InputError: the suffix is another, or there is nothing to draw. StorageError: the disk refused.
    """
    canvas.require_picture_path(path)
    if not scores:
        raise InputError("there are no scores to draw", "Score at least one kind of attention.")
    changes = [] if ablation is None else [one.change for one in ablation.importance]
    most = max((float(change.abs().max()) for change in changes), default=0.0) or 1.0
    sections = [(one, _maps(one, changes[place] if changes else None, most)) for place, one in enumerate(scores)]
    with drawing():
        canvas.save(_draw(sections, canvas.printable(title)), path)


def _maps(one: HeadScores, change: Tensor | None, most: float) -> list[_Map]:
    found: list[_Map] = []
    for name in MEASURES:
        if name not in one.values:
            continue
        values = one.values[name]
        top = 1.0 if name in SHARES else max(float(values.max()), one.chance[name], 1e-9)
        unit = "" if name in SHARES else f" · scale to {top:.3g}"
        found.append(_Map(name, values, (0.0, top), f"even: {one.chance[name]:.2f}{unit}"))
    if change is not None:
        caption = f"nats a token · scale ±{most:.2g}"
        found.append(_Map("loss when off", change, (-most, most), caption, both=True))
    return found


def _draw(sections: Sequence[tuple[HeadScores, list[_Map]]], title: str) -> Figure:
    sizes = [_size(one) for one, _ in sections]
    rows = [[maps[at : at + _ACROSS] for at in range(0, len(maps), _ACROSS)] for _, maps in sections]
    width = 2 * canvas.MARGIN + 0.25 + max(
        max(len(row) for row in some) * (across + _BETWEEN) - _BETWEEN
        for (across, _), some in zip(sizes, rows, strict=True)
    )  # fmt: skip
    heights = [
        0.45 + len(some) * (_HEADING - 0.3 + down + _CAPTION) for (_, down), some in zip(sizes, rows, strict=True)
    ]
    height = sum(heights) + _SECTIONS * (len(heights) - 1)
    page, top = canvas.titled_page([title] if title else [], max(width, 5.0), height)
    for (one, _), size, some, high in zip(sections, sizes, rows, heights, strict=True):
        canvas.write(page, canvas.MARGIN, top, one.group.title, fontsize=11, weight="bold")
        canvas.write(page, canvas.MARGIN, top - 0.21, _NOTE, fontsize=7.5, color=canvas.QUIET)
        below = top - 0.45
        for row in some:
            for place, each in enumerate(row):
                left = canvas.MARGIN + 0.25 + place * (size[0] + _BETWEEN)
                _draw_map(page, each, left, below, size)
            below -= _HEADING - 0.3 + size[1] + _CAPTION
        top -= high + _SECTIONS
    return page


def _size(one: HeadScores) -> tuple[float, float]:
    """Inches of one map: wide enough for its title, and no wider than 3 however many heads there are."""
    layers, heads = len(one.group.attentions), one.group.heads
    cell = min(_CELL, 3.0 / max(heads, layers))
    return max(_LEAST, cell * heads), max(0.3, cell * layers)


def _draw_map(page: Figure, each: _Map, left: float, top: float, size: tuple[float, float]) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize, PowerNorm

    across, down = size
    layers, heads = each.values.shape
    bottom = top - (_HEADING - 0.3) - down
    axes = canvas.axes_at(page, left, bottom, across, down)
    low, high = each.span
    colours = colormaps["RdBu_r" if each.both else "Blues"]
    scale = PowerNorm(0.5, low, high) if each.name in SHARES else Normalize(low, high)
    axes.imshow(each.values.numpy(), colours, scale, aspect="auto", interpolation="none")
    canvas.thin_frame(axes)
    look: dict[str, Any] = {"fontsize": 6, "color": canvas.QUIET}
    axes.tick_params(length=0, pad=1.5)
    # So many numbers that they do not run into each other.
    every = max(1, -(-heads // max(1, int(across / 0.16))))
    axes.set_xticks(range(0, heads, every), [str(head) for head in range(0, heads, every)], **look)
    step = max(1, -(-layers // max(1, int(down / 0.12))))
    axes.set_yticks(range(0, layers, step), [str(layer) for layer in range(0, layers, step)], **look)
    axes.set_title(each.name, fontsize=8.5, color=canvas.INK, pad=3)
    canvas.write(page, left, bottom - 0.16, each.caption, fontsize=6.5, color=canvas.QUIET)

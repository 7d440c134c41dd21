"""Attention maps as a picture: a panel a head, the words on the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sublayer.drawing import drawing
from sublayer.errors import InputError
from sublayer.inspection import canvas
from sublayer.inspection.attention import AttentionMaps, TextMaps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from torch import Tensor

# The look: inches and colours.
_GAP, _BETWEEN = 0.10, 0.30  # between panels, between sections
_HEADING, _BAR_ROOM = 0.60, 0.60  # a section's heading, room for the colour bar
_HIDDEN = "#ececec"
_TICKS = (0.0, 0.05, 0.2, 0.5, 1.0)


def draw_attention(
    maps: AttentionMaps,
    source_pieces: Sequence[str],
    target_pieces: Sequence[str],
    path: Path,
    *,
    source: str = "",
    translation: str = "",
    layers: Sequence[int] | None = None,
    start: str = "<s>",
    end: str = "</s>",
) -> None:
    """Write the maps to `path`, as PNG or SVG by its suffix.

    Three sections (encoder, decoder, cross-attention); in each a row of panels for a layer and a panel for a head,
    both counted from 0 as in the taps' names. A panel's row is the token that attends, its columns what it attends to.
    In cross-attention the rows carry the token being predicted, in the decoder's own the token that is fed.

    One colour scale for all, 0 to 1; the colour goes with the square root of the weight, so that attention spread
    thin is still seen. Long sentences get smaller cells and then only every n-th word; huge pictures fewer dots an
    inch. In an SVG, words are text: they can be searched, and the viewer's fonts show any script. A PNG has DejaVu's
    scripts (Latin, Cyrillic, Greek and more) and those of the usual fonts for others where they are installed; what
    no font has is an empty box.

    Args:
        source_pieces: S pieces, the end marker included, as `Tokenizer.pieces` gives them ("▁" for a space before).
        target_pieces: the T - 1 pieces of the translation, without markers.
        source, translation: texts for the title; left out where both are empty.
        layers: which to draw, counted from 0; all where left out.
        start, end: what the markers are called on the axes.

    Raises:
        InputError: the suffix is another, a layer does not exist, or the pieces are not as many as the maps say.
        StorageError: the disk refused; what was under `path` is untouched.
    """
    canvas.require_picture_path(path)
    _require_size("source_pieces", source_pieces, maps.encoder.shape[-1])
    _require_size("target_pieces", target_pieces, maps.decoder.shape[-1] - 1)
    sources, targets = labels(source_pieces), labels(target_pieces)
    fed, predicted = [start, *targets], [*targets, end]
    encoder, decoder = _require_layers(layers, [maps.encoder, maps.decoder])
    title = [canvas.printable(text) for text in (source, f"→ {translation}") if source or translation]
    with drawing():
        sections = [
            _Section("Encoder self-attention", "row: a source token · columns: the source tokens it attends to",
                     maps.encoder, sources, sources, encoder),
            _Section("Decoder self-attention", "row: the token being fed · columns: the tokens so far (grey: to come)",
                     maps.decoder, fed, fed, decoder, causal=True),
            _Section("Cross-attention", "row: the token being predicted · columns: the source tokens it attends to",
                     maps.cross, predicted, sources, decoder),
        ]  # fmt: skip
        canvas.save(_draw(sections, title), path)


def draw_text_attention(
    maps: TextMaps, pieces: Sequence[str], path: Path, *, title: str = "", layers: Sequence[int] | None = None
) -> None:
    """Write the self-attention of a model of one stack to `path`: one section, otherwise as `draw_attention`.

    Args:
        pieces: S pieces, markers included. title: the text, or nothing.

    Raises:
        InputError, StorageError: as `draw_attention`.
    """
    canvas.require_picture_path(path)
    _require_size("pieces", pieces, maps.weights.shape[-1])
    shown = labels(pieces)
    [drawn] = _require_layers(layers, [maps.weights])
    note = "row: a token · columns: the tokens it attends to" + (" (grey: to come)" if maps.causal else "")
    with drawing():
        section = _Section(maps.title, note, maps.weights, shown, shown, drawn, causal=maps.causal)
        canvas.save(_draw([section], [canvas.printable(title)] if title else []), path)


def labels(pieces: Sequence[str]) -> list[str]:
    """Pieces as words on an axis: the "▁" of a new word goes; what goes on within a word gets a dot before it.

    >>> labels(["▁trans", "lation", "."])
    ['trans', '·lation', '.']
    """
    shown: list[str] = []
    for place, piece in enumerate(pieces):
        if piece.startswith("▁") and len(piece) > 1:
            shown.append(piece[1:])
        elif place and piece[:1].lower() != piece[:1].upper():
            # Only letters with case: scripts without (Chinese, Japanese, Thai) do not put spaces between words.
            shown.append(f"·{piece}")
        else:
            shown.append(piece)
    return [_clipped(canvas.printable(piece)) for piece in shown]


def _clipped(label: str, most: int = 16) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def _require_layers(layers: Sequence[int] | None, maps: Sequence[Tensor]) -> list[list[int]]:
    """The layers to draw of each of the maps; one may have fewer than the others, but somebody has each."""
    counts = [stack.shape[0] for stack in maps]
    if layers is None:
        return [list(range(count)) for count in counts]
    known = f"The layers are 0 to {max(counts) - 1}."
    for layer in layers:
        if not 0 <= layer < max(counts):
            raise InputError(f"there is no layer {layer}", known)
    if not layers:
        raise InputError("layers is empty", known)
    return [[layer for layer in layers if layer < count] for count in counts]


def _require_size(name: str, pieces: Sequence[str], size: int) -> None:
    if len(pieces) != size:
        raise InputError(f"{name} has {len(pieces)} pieces, but the maps are of {size}")


class _Section:
    """One kind of attention: a grid of panels, and its measures in inches.

    Shape: weights [L, H, rows, columns]. `layers` are those to draw; there may be none.
    """

    def __init__(
        self,
        title: str,
        note: str,
        weights: Tensor,
        rows: list[str],
        columns: list[str],
        layers: list[int],
        causal: bool = False,
    ) -> None:
        self.title, self.note, self.weights, self.causal = title, note, weights, causal
        self.rows, self.columns, self.layers, self.heads = rows, columns, layers, weights.shape[1]
        self.cell = _cell(max(len(rows), len(columns)))
        self.font = min(8.0, max(72 * self.cell * 0.8, 4.5))
        # Where a cell is smaller than a word is high, only every n-th word is written.
        self.every = math.ceil(self.font * 1.1 / 72 / self.cell)
        # At least as wide as "head 10" above it, however short the sentence.
        self.panel_width = max(self.cell * len(columns), 0.5)
        self.panel_height = max(self.cell * len(rows), 0.5)
        self.words_beside = _widest(rows, self.font) + 0.28
        self.width = self.heads * (self.panel_width + _GAP) - _GAP
        words_below = _widest(columns, self.font) + 0.08
        self.height = _HEADING + len(layers) * (self.panel_height + _GAP) - _GAP + words_below if layers else 0.0


def _cell(tokens: int) -> float:
    """Inches a cell: 0.17 for a short sentence, less as it grows, so that a panel is never wider than 4.5."""
    return min(0.17, max(0.105, 1.9 / tokens), 4.5 / tokens)


def _widest(words: Sequence[str], points: float) -> float:
    """Inches that the longest of the words takes."""
    from matplotlib.figure import Figure

    figure = Figure(dpi=72)
    return (
        max(figure.text(0, 0, w, fontsize=points, parse_math=False).get_window_extent().width for w in set(words)) / 72
    )


def _draw(sections: Sequence[_Section], title: Sequence[str]) -> Figure:
    sections = [section for section in sections if section.layers]
    left = canvas.MARGIN + max(section.words_beside for section in sections)
    width = max(6.0, left + max(section.width for section in sections) + _BAR_ROOM + canvas.MARGIN)
    height = sum(section.height for section in sections) + _BETWEEN * (len(sections) - 1)
    page, top = canvas.titled_page(title, width, height)
    for place, section in enumerate(sections):
        _draw_section(page, section, left, top, bar=place == 0)
        top -= section.height + _BETWEEN
    return page


def _draw_section(page: Figure, section: _Section, left: float, top: float, *, bar: bool) -> None:
    canvas.write(page, canvas.MARGIN, top, section.title, fontsize=11, weight="bold")
    canvas.write(page, canvas.MARGIN, top - 0.21, section.note, fontsize=7.5, color=canvas.QUIET)
    image: AxesImage | None = None
    for row, layer in enumerate(section.layers):
        bottom = top - _HEADING - section.panel_height - row * (section.panel_height + _GAP)
        middle = bottom + section.panel_height / 2
        canvas.write(
            page, canvas.MARGIN, middle, f"layer {layer}", fontsize=8, rotation=90, va="center", color=canvas.QUIET
        )
        for head in range(section.heads):
            place = left + head * (section.panel_width + _GAP)
            axes = canvas.axes_at(page, place, bottom, section.panel_width, section.panel_height)
            image = _draw_panel(axes, section, layer, head)
            _label(axes, section, rows=head == 0, columns=layer == section.layers[-1])
            if row == 0:
                axes.set_title(f"head {head}", fontsize=8, color=canvas.QUIET, pad=3)
    if bar and image is not None:
        _draw_bar(page, section, image, left + section.width + 0.15, top)


def _draw_panel(axes: Axes, section: _Section, layer: int, head: int) -> AxesImage:
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    weights = section.weights[layer, head].numpy()
    if section.causal:
        weights = np.ma.masked_array(weights, np.triu(np.ones_like(weights, dtype=bool), 1))
    colours = colormaps["Blues"].with_extremes(bad=_HIDDEN)
    # "none" keeps an SVG's cells sharp: the viewer enlarges them, and is told not to smooth.
    image = axes.imshow(weights, colours, PowerNorm(0.5, 0, 1), aspect="auto", interpolation="none")
    canvas.thin_frame(axes)
    return image


def _label(axes: Axes, section: _Section, *, rows: bool, columns: bool) -> None:
    """The words, at the outer panels alone: below the last layer, and left of the first head."""
    look: dict[str, Any] = {"fontsize": section.font, "color": canvas.INK, "parse_math": False}
    axes.tick_params(length=0, pad=2)
    every = section.every
    below = section.columns[::every] if columns else []
    beside = section.rows[::every] if rows else []
    axes.set_xticks(range(0, every * len(below), every), below, rotation=90, **look)
    axes.set_yticks(range(0, every * len(beside), every), beside, **look)


def _draw_bar(page: Figure, section: _Section, image: AxesImage, left: float, top: float) -> None:
    """The colour scale, right of the first section."""
    panels = len(section.layers) * (section.panel_height + _GAP) - _GAP
    height = min(panels, 1.8)
    axes = canvas.axes_at(page, left, top - _HEADING - height, 0.12, height)
    bar = page.colorbar(image, cax=axes, ticks=_TICKS)
    axes.set_yticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes.tick_params(length=2, width=0.5, labelsize=7, labelcolor=canvas.QUIET)
    axes.set_title("weight", fontsize=7, color=canvas.QUIET, pad=4)
    bar.outline.set_linewidth(0.5)  # pyright: ignore

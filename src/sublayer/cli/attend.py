"""`sublayer attend`: what a model attends to, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sublayer.cli.arguments import Device, ModelFolder, Translation
from sublayer.cli.inspecting import examples_of, opened, require_words
from sublayer.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sublayer.hub.folder import TransformerBundle
    from sublayer.inspection.examples import Example


def attend(
    model: ModelFolder,
    text: Annotated[str, typer.Argument(help="Text to encode, or sentence to translate.", metavar="TEXT")],
    target: Translation = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Picture to write: .png or .svg.", metavar="PATH", show_default="attention.png, unless --html is given"
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write an interactive page instead: one self-contained HTML file.", metavar="PATH"),
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=0, max=256, help="With --html: number of tokens that a language model adds to the text.")
    ] = 0,
    layers: Annotated[
        list[int] | None,
        typer.Option("--layer", metavar="N", help="Layer to draw, counted from 0; may be repeated. Default: all."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Draw the attention maps of a model, one panel per head: encoder, decoder and cross-attention of a translation
    model, self-attention of any other.

    Example: sublayer attend runs/en-es "Where are my keys?" --out keys.svg

    Example: sublayer attend models/bert "the cat sat on a mat" --out mat.png

    Example: sublayer attend runs/en-es "Where are my keys?" --html keys.html
    """
    if html is not None:
        _write_page(model, text, target, html, tokens, device)
    if out is not None or html is None:
        _draw(model, text, target, out or Path("attention.png"), layers, device)


def _write_page(model: Path, text: str, target: str | None, html: Path, tokens: int, device: str) -> None:
    from sublayer.inspection.html import require_html_path, write_html
    from sublayer.inspection.loaded_model import describe, folder_name
    from sublayer.inspection.look import look
    from sublayer.inspection.view import Question, Written

    # Before the model is loaded: a typo should not cost that time.
    require_html_path(html)
    require_words("the text", text)
    question = Question.parse({"text": text, "target": target, "tokens": tokens}, "attend")
    found = opened(model, device)
    view = look(found, question, about=describe(found, folder_name(model)))
    write_html(view, html)
    if isinstance(view.output, Written) and view.output.text:
        say(view.output.text)
    say(f"The page is {html}")


def _draw(model: Path, text: str, target: str | None, out: Path, layers: Sequence[int] | None, device: str) -> None:
    from sublayer.inspection.canvas import require_picture_path
    from sublayer.models import EncoderDecoder

    # Before the model is loaded: a typo should not cost that time.
    require_picture_path(out)
    require_words("the text", text)
    if target is not None:
        require_words("--target", target)
    found = opened(model, device)
    [example] = examples_of(found, model, [text], target)
    if isinstance(found.model, EncoderDecoder):
        say(_draw_pair(found, example, text, target, out, layers))
    else:
        _draw_text(found, example, text, out, layers)
    say(f"The picture is {out}")


def _draw_pair(
    found: TransformerBundle, example: Example, text: str, target: str | None, out: Path, layers: Sequence[int] | None
) -> str:
    """Draw a sentence and its translation, which is returned."""
    from sublayer.inspection.attention import attention_maps
    from sublayer.inspection.picture import draw_attention
    from sublayer.models import EncoderDecoder

    model, tokenizer, ids = found.model, found.tokenizer, list(example.fed[1:])
    marks = example.fed[0], example.wanted[-1]
    assert isinstance(model, EncoderDecoder)
    translation = tokenizer.decode([ids])[0].strip() if target is None else target
    maps = attention_maps(model, example.tokens, ids, start_id=marks[0], end_id=marks[1])
    start, end = tokenizer.pieces(marks)
    draw_attention(
        maps,
        tokenizer.pieces(example.tokens),
        tokenizer.pieces(ids),
        out,
        source=text,
        translation=translation,
        layers=layers,
        start=start,
        end=end,
    )
    return translation


def _draw_text(found: TransformerBundle, example: Example, text: str, out: Path, layers: Sequence[int] | None) -> None:
    from sublayer.inspection.attention import text_maps
    from sublayer.inspection.picture import draw_text_attention
    from sublayer.models import EncoderDecoder

    assert not isinstance(found.model, EncoderDecoder)
    maps = text_maps(found.model, example)
    draw_text_attention(maps, found.tokenizer.pieces(example.tokens), out, title=text, layers=layers)

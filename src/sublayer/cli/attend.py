"""`sublayer attend`: what a translation model attends to, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sublayer.generation.translator import Translator


def attend(
    model: Annotated[Path, typer.Argument(help="Folder of a model, or of the run that made it.", metavar="MODEL")],
    sentence: Annotated[str, typer.Argument(help="The sentence to translate.", metavar="SENTENCE")],
    target: Annotated[
        str | None, typer.Option(help="A translation to read along; unset: the model's own.", metavar="TEXT")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the picture goes: .png or .svg.", metavar="PATH")] = Path(
        "attention.png"
    ),
    layers: Annotated[
        list[int] | None,
        typer.Option("--layer", metavar="N", help="Draw this layer, counted from 0; may be repeated. Unset: all."),
    ] = None,
    device: Annotated[str, typer.Option(help="cuda, mps, cpu, or auto.")] = "auto",
) -> None:
    """Draw what a model attends to while it translates: encoder, decoder and cross-attention, a panel a head.

    Example: sublayer attend runs/en-es "Where are my keys?" --out keys.svg
    """
    from sublayer.errors import InputError
    from sublayer.hub.folder import load_translator
    from sublayer.inspection.attention import attention_maps
    from sublayer.inspection.picture import draw_attention, require_picture_path
    from sublayer.models import EncoderDecoder
    from sublayer.training.runtime import pick_device

    # Before the model is loaded: a typo should not cost that time.
    require_picture_path(out)
    _require_words("the sentence", sentence)
    if target is not None:
        _require_words("--target", target)
    translator = load_translator(model, pick_device(device))
    tokenizer = translator.tokenizer
    if not isinstance(translator.model, EncoderDecoder):
        raise InputError(
            f"{model} is recurrent: it has no layers and heads of attention to draw",
            "Its one attention, where it has one, comes with translate(..., alignments=True) from Python.",
        )
    [source_ids] = translator.encode([sentence])
    if target is None:
        translation, target_ids = _translated(translator, sentence)
    else:
        translation, [target_ids] = target, tokenizer.encode([target])
    maps = attention_maps(
        translator.model, source_ids, target_ids, start_id=tokenizer.start_id, end_id=tokenizer.end_id
    )
    start, end = tokenizer.pieces([tokenizer.start_id, tokenizer.end_id])
    draw_attention(
        maps,
        tokenizer.pieces(source_ids),
        tokenizer.pieces(target_ids),
        out,
        source=sentence,
        translation=translation,
        layers=layers,
        start=start,
        end=end,
    )
    typer.echo(f"{translation}\nThe picture is {out}")


def _translated(translator: Translator, sentence: str) -> tuple[str, list[int]]:
    """The model's own translation: its text, and its tokens as they were chosen (encoding the text may differ)."""
    [translation] = translator.translate([sentence])
    tokens = translation.tokens
    if not translation.complete:
        typer.echo(
            f"The translation ran into its limit of {len(tokens)} tokens and is shown as far as it came.", err=True
        )
        # The start marker takes a position too: where all are taken, the last token is only predicted, never read.
        tokens = tokens[: translator.model.config.max_length - 1]
    return translation.text, tokens


def _require_words(name: str, text: str) -> None:
    from sublayer.errors import InputError

    if not text.strip():
        raise InputError(f"{name} is empty", "Give it words.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # What the shell passed on was not UTF-8: Python keeps such bytes as lone surrogates, which no model knows.
        raise InputError(f"{name} is not UTF-8: {ascii(text)[:60]}", "Set the terminal to UTF-8.") from None

"""What `attend`, `heads` and `lens` have in common: a model of any shape, and what it is to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sublayer.cli import terminal
from sublayer.cli.terminal import say
from sublayer.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from sublayer.generation.translator import Translator
    from sublayer.hub.folder import ModelBundle, TransformerBundle
    from sublayer.inspection.examples import Example
    from sublayer.models import EncoderDecoder


def opened(path: Path, device: str) -> TransformerBundle:
    """The model at `path` with its tokenizer; an encoder needs no head to be looked into.

    Raises:
        CheckpointError: there is no model, or it is damaged. InputError: it is no Transformer.
    """
    from sublayer.hub.folder import read_transformer
    from sublayer.training.runtime import pick_device

    return read_transformer(path, pick_device(device))


def examples_of(found: TransformerBundle, path: Path, texts: Sequence[str], target: str | None = None) -> list[Example]:
    """Texts as the model reads them; of a translator with the translation given, or its own.

    Raises:
        InputError: a text is empty, not UTF-8 or too long, or a translation was given to a model that makes none.
    """
    from sublayer.inspection.examples import of_pairs
    from sublayer.inspection.material import from_texts
    from sublayer.models import EncoderDecoder

    for number, text in enumerate(texts, start=1):
        require_words("the text" if len(texts) == 1 else f"text {number}", text)
    if not isinstance(found.model, EncoderDecoder):
        if target is not None:
            raise InputError(
                f"--target is for models that translate, and this one is of the kind '{found.model.config.kind}'",
                "Leave it out.",
            )
        return from_texts(found.model, found.tokenizer, texts)
    translator = translator_of(found, path)
    if target is not None:
        require_words("--target", target)
        pairs = [(text, target) for text in texts]
        return of_pairs(found.model, translator.tokenizer, translator.affixes, pairs)
    return _translated(found.model, translator, texts)


def translator_of(found: ModelBundle, path: Path) -> Translator:
    """An encoder-decoder, ready to translate as its folder says."""
    from sublayer.generation.translator import Translator
    from sublayer.hub.folder import ready

    translator = ready(found, path)
    assert isinstance(translator, Translator)
    return translator


def _translated(model: EncoderDecoder, translator: Translator, texts: Sequence[str]) -> list[Example]:
    """With the model's own translations: their tokens as they were chosen (encoding the text may differ)."""
    from sublayer.inspection.examples import of_pair_ids

    translations = translator.translate(texts)
    targets = [one.tokens for one in translations]
    cut = sum(not one.complete for one in translations)
    if cut:
        say(f"{cut} translations ran into their limit and are read as far as they came", err=True)
        # The start marker takes a position too: where all are taken, the last token is only predicted, never read.
        targets = [tokens[: translator.model.config.max_length - 1] for tokens in targets]
    return of_pair_ids(model, translator.affixes, translator.encode(texts), targets)


def require_words(name: str, text: str) -> None:
    """Raise `InputError` unless there is something to read."""

    if not text.strip():
        raise InputError(f"{name} is empty", "Give it words.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # What the shell passed on was not UTF-8: Python keeps such bytes as lone surrogates, which no model knows.
        raise InputError(f"{name} is not UTF-8: {ascii(text)[:60]}", "Set the terminal to UTF-8.") from None


def wide_console() -> Console:
    """As wide as the terminal; in a file or a pipe, wide enough that no column is cut."""
    made = terminal.console(highlight=False)
    return made if made.is_terminal else terminal.console(width=max(made.width, 160), highlight=False)


def spelled(found: ModelBundle, ids: Sequence[int]) -> list[str]:
    """Tokens as they stand in a table: spaces seen, nothing that a terminal or rich would take for a command."""
    from sublayer.inspection.canvas import printable

    return [printable(piece) for piece in found.tokenizer.pieces(ids)]


def plain(value: Any) -> str:
    """Text for a cell of a table, brackets and all."""
    from rich.markup import escape

    return escape(str(value))

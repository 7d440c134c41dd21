"""Models as CTranslate2 keeps them, written by `sublayer export`: what `engine_speed.py` gives to it.

Tokens are named by their numbers ("17"), so that ids go in and come out, and nothing is put around a source. Weights
are written in the type that is asked for, as CTranslate2's own converters round them (`tests/hub/test_ctranslate2.py`).
"""

from __future__ import annotations

from pathlib import Path

from marian import END, PAD, START
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel

from sublayer import config
from sublayer.hub.ctranslate2.model_bin import Weights
from sublayer.hub.ctranslate2.writing import export
from sublayer.hub.folder import ModelBundle
from sublayer.hub.importing import import_folder
from sublayer.models import EncoderDecoder
from sublayer.text import Specials, Tokenizer


def translator_folder(path: Path, model: EncoderDecoder, weights: Weights) -> Path:
    """Write `model` at `path`, unless it is there."""
    if not (path / "model.bin").is_file():
        tokenizer = _numbers(model.config.vocab_size, START, END, PAD)
        export(path, ModelBundle(model, tokenizer, config.Decoding(source_end=False).plain()), weights)
    return path


def generator_folder(folder: Path, weights: Weights) -> Path:
    """Write the model of `folder` (of `transformers`) into a folder in it, unless it is there."""
    path = folder / f"ctranslate2-{weights}"
    if not (path / "model.bin").is_file():
        model = import_folder(folder).model
        # Something must end texts: what `gguf_models.py` takes.
        last = model.config.vocab_size - 1
        export(path, ModelBundle(model, _numbers(last + 1, last, last, last), config.Generation().plain()), weights)
    return path


def _numbers(size: int, start: int, end: int, unknown: int) -> Tokenizer:
    backend = Backend(WordLevel({str(number): number for number in range(size)}, unk_token=str(unknown)))
    return Tokenizer(backend, Specials.of({"start": start, "end": end, "unknown": unknown}))

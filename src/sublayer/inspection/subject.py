"""What is looked into: a model with its tokenizer, described in a few words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch

from sublayer import config
from sublayer.errors import InputError
from sublayer.hub.folder import find, read, ready
from sublayer.inspection.view import About, MapName, Task
from sublayer.models import DecoderOnly, EncoderDecoder, EncoderOnly, Model
from sublayer.tasks.filler import MASK
from sublayer.text import Tokenizer

MOST_WEIGHTS = 48_000_000
"""Attention weights of one view: what a browser takes in a second or two."""


@runtime_checkable
class Subject(Protocol):
    """Whatever `sublayer.load` gives, or `hub.folder.read` of an encoder without a head."""

    @property
    def model(self) -> Any: ...

    @property
    def tokenizer(self) -> Tokenizer: ...


def opened(path: Path, device: str | torch.device = "cpu") -> Subject:
    """The model in a folder, whatever its shape; an encoder needs no head to be looked into.

    Raises:
        CheckpointError: as `hub.folder.read`.
    """
    found = read(path, device)
    return found if isinstance(found.model, EncoderOnly) else cast("Subject", ready(found, path))


def model_of(subject: Subject) -> Model:
    """The model, if there is attention in it.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(subject, Subject):  # pyright: ignore[reportUnnecessaryIsInstance] (anything may be given)
        raise InputError(f"{type(subject).__name__} is no model with a tokenizer", "Give what sublayer.load returned.")
    model = subject.model
    if not isinstance(model, EncoderDecoder | DecoderOnly | EncoderOnly):
        raise InputError(f"{type(model).__name__} has no attention to look at", "Name a Transformer.")
    return model


def describe(subject: Subject, name: str = "", examples: Sequence[str] = ()) -> About:
    """The model in a few words.

    Args:
        name: what the user calls it. examples: texts to try; some of our own where left out.

    Raises:
        InputError: it has no attention to look at.
    """
    model = model_of(subject)
    match model:
        case EncoderDecoder(config=c):
            encoder, decoder = c.encoder, c.decoder
            maps: list[tuple[MapName, str, int, int]] = [
                ("cross", "Cross", decoder.layers, decoder.block.cross.heads),
                ("encoder", "Encoder", encoder.layers, encoder.block.attention.heads),
                ("decoder", "Decoder", decoder.layers, decoder.block.attention.heads),
            ]
            task: Task = "translate"
        case DecoderOnly(config=c):
            maps = [("decoder", "Self-attention", c.decoder.layers, c.decoder.block.attention.heads)]
            task = "generate"
        case EncoderOnly(config=c):
            maps = [("encoder", "Self-attention", c.encoder.layers, c.encoder.block.attention.heads)]
            task = _TASKS[type(c.head)]
    heads = sum(layers * heads for _, _, layers, heads in maps)
    return About(
        name=name,
        kind=model.config.kind,
        task=task,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocabulary=model.config.vocab_size,
        longest=min(model.config.max_length, math.isqrt(MOST_WEIGHTS // heads)),
        chat=isinstance(model, DecoderOnly) and subject.tokenizer.chat_template is not None,
        maps=tuple(maps),
        examples=tuple(examples) or _EXAMPLES[task],
    )


_TASKS: Mapping[type, Task] = {
    config.MaskedLanguage: "fill",
    config.Classification: "classify",
    config.Tagging: "tag",
    config.SentenceEmbedding: "embed",
    config.NoHead: "encode",
}
_EXAMPLES: Mapping[Task, tuple[str, ...]] = {
    "translate": ("Where did you leave my keys?", "The old man lives in a small house near the sea."),
    "generate": ("The capital of France is", "When Mary and John went to the store, John gave a drink to"),
    "fill": (f"Paris is the {MASK} of France.", f"The cat sat on the {MASK}."),
    "classify": ("A film to see twice.", "Two hours that I will never get back."),
    "tag": ("Ada Lovelace lived in London.",),
    "embed": ("The cat sat on the mat because it was tired.", "The trophy did not fit into the case: it was too big."),
    "encode": ("The cat sat on the mat because it was tired.",),
}


def held_out(path: Path, most: int = 4) -> list[str]:
    """The first texts of middling length that were held out when the model at `path` was trained; none where unknown."""
    try:
        lines = (find(path) / "test.jsonl").read_text(encoding="utf-8").splitlines()
        rows: list[Any] = [json.loads(line) for line in lines[:400]]
    except (OSError, ValueError):
        return []
    texts = [str(row["source"]) for row in rows if isinstance(row, dict) and "source" in row]
    return list(dict.fromkeys(text for text in texts if 20 <= len(text) <= 70))[:most]

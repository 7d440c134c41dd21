"""What is looked into: a model with its tokenizer, described in a few words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from sublayer import config
from sublayer.errors import CheckpointError, InputError
from sublayer.hub.folder import find
from sublayer.inspection.groups import groups
from sublayer.inspection.view import About, MapName, Task
from sublayer.models import DecoderOnly, EncoderDecoder, EncoderOnly
from sublayer.models import Transformer as Model
from sublayer.reading.filler import MASK
from sublayer.text import Tokenizer
from sublayer.untrusted import expanded, parse_json

MOST_WEIGHTS = 48_000_000
"""Attention weights of one view: what a browser takes in a second or two."""


@runtime_checkable
class LoadedModel(Protocol):
    """Whatever `sublayer.load` gives, or `hub.folder.read` of an encoder without a head."""

    @property
    def model(self) -> Any: ...

    @property
    def tokenizer(self) -> Tokenizer: ...


def model_of(loaded: LoadedModel) -> Model:
    """The model, if there is attention in it.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(loaded, LoadedModel):  # pyright: ignore[reportUnnecessaryIsInstance] (anything may be given)
        raise InputError(f"{type(loaded).__name__} is no model with a tokenizer", "Give what sublayer.load returned.")
    model = loaded.model
    if not isinstance(model, EncoderDecoder | DecoderOnly | EncoderOnly):
        raise InputError(f"{type(model).__name__} has no attention to look at", "Name a Transformer.")
    return model


def describe(loaded: LoadedModel, name: str = "", examples: Sequence[str] = ()) -> About:
    """The model in a few words.

    Args:
        name: what the user calls it. examples: texts to try; some of our own where left out.

    Raises:
        InputError: it has no attention to look at.
    """
    model = model_of(loaded)
    kinds = groups(model)
    # What a translation looks at comes first.
    maps: tuple[tuple[MapName, str, int, int], ...] = tuple(
        (kind.name, _TITLES[kind.name] if len(kinds) > 1 else "Self-attention", len(kind.attentions), kind.heads)
        for kind in sorted(kinds, key=lambda kind: kind.name != "cross")
    )
    heads = sum(layers * heads for _, _, layers, heads in maps)
    return About(
        name=name,
        kind=model.config.kind,
        task=_task(model),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocabulary=model.config.vocab_size,
        longest=min(model.config.max_length, math.isqrt(MOST_WEIGHTS // heads)),
        chat=isinstance(model, DecoderOnly) and loaded.tokenizer.chat_template is not None,
        maps=maps,
        examples=tuple(examples) or _EXAMPLES[_task(model)],
    )


_TITLES: Mapping[MapName, str] = {"cross": "Cross", "encoder": "Encoder", "decoder": "Decoder"}


def _task(model: Model) -> Task:
    match model:
        case EncoderDecoder():
            return "translate"
        case DecoderOnly():
            return "generate"
        case EncoderOnly():
            return _TASKS[type(model.config.head)]


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
    """Some texts of middling length that were held out when the model at `path` was trained; none where unknown."""
    try:
        lines = (find(path) / "test.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [cast("dict[str, Any]", parse_json(line)) for line in lines[:400]]
        texts = [str(row["source"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, CheckpointError):
        return []
    return list(dict.fromkeys(text for text in texts if 20 <= len(text) <= 70))[:most]


def folder_name(path: Path) -> str:
    """What a model's folder is called; of the folder `model` in a run, the run's."""
    path = expanded(path).absolute()
    return path.parent.name if path.name == "model" else path.name

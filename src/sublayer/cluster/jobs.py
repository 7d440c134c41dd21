"""What a model does to the texts of rows: translate, generate, embed, classify. What it refuses it refuses alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from sublayer.errors import CheckpointError, ConfigError, InputError, named

Answer: TypeAlias = Callable[[Sequence[str], int], list[tuple[Any, ...]]]
"""What it says of texts, a value for each column of the result. The number is that of the first text among all."""


@dataclass(frozen=True)
class Kind:
    """columns: of the result, with their types as Arrow names them. ready: makes of a loaded model what answers, by
    options that are plain data."""

    columns: Mapping[str, str]
    ready: Callable[..., Answer]


def _translating(
    model: Any, folder: Path, *, shortlist: bool = False, decoding: Mapping[str, Any] | None = None, **options: Any
) -> Answer:
    from sublayer.generation.shortlist import read_shortlist
    from sublayer.generation.translator import Translator
    from sublayer.hub.location import find

    _require(model, Translator, folder, "translate")
    if shortlist:
        model = model.with_shortlist(read_shortlist(find(folder), model.tokenizer.fingerprint, model.vocab_size))
    told = model.with_decoding(**(decoding or {}))
    return lambda texts, _: [(each.text, each.complete) for each in told.translate(texts, **options)]


def _generating(model: Any, folder: Path, *, search: Any = None, constraints: Any = None, **options: Any) -> Answer:
    from sublayer import config
    from sublayer.generation.generator import Generator

    _require(model, Generator, folder, "go on from a text")
    given = {name: each for name, each in (("search", search), ("constraints", constraints)) if each is not None}
    told = config.Generation.parse(given, "generate")
    options |= {name: getattr(told, name) for name in given}
    return lambda texts, first: [(each.text, each.best.ended) for each in model.generate(texts, first=first, **options)]


def _embedding(model: Any, folder: Path) -> Answer:
    from sublayer.reading import Embedder

    _require(model, Embedder, folder, "make vectors")
    return lambda texts, _: [(vector,) for vector in model.embed(texts).tolist()]


def _classifying(model: Any, folder: Path) -> Answer:
    from sublayer.reading import Classifier

    _require(model, Classifier, folder, "classify texts")
    return lambda texts, _: [(each.label, each.probability) for each in model.classify(texts)]


KINDS: Mapping[str, Kind] = {
    "translate": Kind({"translation": "string", "complete": "bool"}, _translating),
    "generate": Kind({"completion": "string", "ended": "string"}, _generating),
    "embed": Kind({"embedding": "list<float>"}, _embedding),
    "classify": Kind({"label": "string", "probability": "double"}, _classifying),
}


@dataclass(frozen=True)
class Job:
    """One of `KINDS` by a model. options: plain data, as JSON holds it. device: "cuda" wants a GPU for each worker."""

    name: str
    model: Path
    options: Mapping[str, Any]
    device: str = "cpu"
    weights: Any = None

    @property
    def columns(self) -> Mapping[str, str]:
        return named(KINDS, self.name, ConfigError, f"there is no '{self.name}' to be done in a cluster").columns

    def open(self) -> Answer:
        """Load the model.

        Raises:
            SublayerError: there is none, it does something else, or an option cannot be.
        """
        from sublayer.hub.loading import load_to_use

        found = load_to_use(self.model, self.device, self.weights)
        return partial(answers, KINDS[self.name].ready(found, self.model, **self.options))


def answers(answer: Answer, texts: Sequence[Any], first: int) -> list[Any]:
    """What a model says of each text, or, of one that it cannot take, what is wrong with it, as a string.

    Texts are asked about together. Where the model refuses one of them, each half is asked about by itself, so that the
    others are still answered many at a time.
    """
    found: list[Any] = [_fault(text) for text in texts]
    good = [place for place, fault in enumerate(found) if fault is None]
    for place, one in zip(good, _halved(answer, [texts[place] for place in good], first), strict=True):
        found[place] = one
    return found


def _halved(answer: Answer, texts: list[str], first: int) -> list[Any]:
    if not texts:
        return []
    try:
        return [*answer(texts, first)]
    except InputError as error:
        if len(texts) == 1:
            return [str(error)]
    half = len(texts) // 2
    return _halved(answer, texts[:half], first) + _halved(answer, texts[half:], first + half)


def _fault(text: Any) -> str | None:
    if not isinstance(text, str):
        return f"{str(text)[:40]!r} is no text" if text is not None else "there is no text"
    return None if text.strip() else "the text is empty"


def _require(model: Any, kind: type[Any], folder: Path, what: str) -> None:
    if not isinstance(model, kind):
        raise CheckpointError(f"{folder} does not {what}: it is a {type(model).__name__}", "Name another model.")

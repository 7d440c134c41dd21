"""The models of a server: each with the thread that runs it, and what may be asked of it."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from sublayer.errors import ConfigError, InputError
from sublayer.generation.generator import Generator
from sublayer.generation.translator import Translator
from sublayer.hub.folder import Loaded, find, load
from sublayer.reading import Classifier, Embedder, Filler, Tagger
from sublayer.serving import languages
from sublayer.serving.collector import Collector
from sublayer.serving.limits import BatchLimits
from sublayer.serving.metrics import Metrics
from sublayer.serving.refusals import Refusal
from sublayer.serving.scheduler import Scheduler
from sublayer.untrusted import is_file

WHAT: dict[type[Any], str] = {
    Translator: "translates",
    Generator: "goes on from a text",
    Classifier: "classifies",
    Tagger: "tags words",
    Embedder: "makes vectors",
    Filler: "fills masks",
}


TASKS: dict[type[Any], str] = {
    Translator: "translate",
    Generator: "generate",
    Classifier: "classify",
    Tagger: "tag",
    Embedder: "embed",
    Filler: "fill",
}


@dataclass(eq=False)
class ServedModel:
    """A model by its name.

    runs: the thread that owns it. pair: the languages that a translator was made for, source and target; None where it
    is told them by tokens (`codes`: what it writes for each code).
    """

    name: str
    loaded: Loaded
    runs: Scheduler[Any] | Collector
    created: int = 0
    pair: tuple[str, str] | None = None
    codes: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(
        cls,
        name: str,
        loaded: Loaded,
        metrics: Metrics,
        limits: BatchLimits,
        *,
        folder: Path | None = None,
        created: int = 0,
    ) -> ServedModel:
        """Give a model its thread.

        Raises:
            ConfigError: it translates, and nothing says between which languages.
        """
        own = metrics.of(name)
        match loaded:
            case Translator():
                runs = Scheduler(loaded.backend, loaded.model.device, own, encodes=True, limits=limits)
            case Generator():
                runs = Scheduler(loaded.backend, loaded.model.device, own, encodes=False, limits=limits)
            case _:
                runs = Collector(own, limits.waiting)
        model = cls(name, loaded, runs, created)
        if isinstance(loaded, Translator):
            model.pair, model.codes = _languages_of(name, loaded, folder)
        return model

    @property
    def task(self) -> str:
        """What it does, in a word: that of its paths."""
        return TASKS[type(self.loaded)]

    def translates(self, source: str, target: str) -> bool:
        """Whether it does between these languages."""
        if not isinstance(self.loaded, Translator):
            return False
        if self.pair is not None:
            return self.pair == (source, target)
        return source != target and source in self.codes and target in self.codes

    def translator(self, source: str, target: str) -> Translator:
        """The translator for these languages, which it has."""
        assert isinstance(self.loaded, Translator)
        return self.loaded if self.pair is not None else self._told(source, target)

    @lru_cache(maxsize=256)  # noqa: B019  # as long-lived as the server
    def _told(self, source: str, target: str) -> Translator:
        assert isinstance(self.loaded, Translator)
        told: dict[str, str] = {"target_language": self.codes[target]}
        tokenizer = self.loaded.tokenizer
        named = {identifier for _, identifier in tokenizer.specials.languages}
        if named & {*tokenizer.template.before, *tokenizer.template.after}:
            told["source_language"] = self.codes[source]
        return self.loaded.with_decoding(**told)


def _languages_of(
    name: str, translator: Translator, folder: Path | None
) -> tuple[tuple[str, str] | None, dict[str, str]]:
    """The pair of languages, or the codes, of a model."""
    said = languages.pair(name)
    if said is not None:
        return said, {}
    own = languages.by_code(code for code, _ in translator.tokenizer.specials.languages)
    if len(own) > 1:
        return None, own
    titles = [] if folder is None else [folder.name, folder.parent.name, _recipe_name(folder)]
    said = next((found for title in titles if (found := languages.pair(title)) is not None), None)
    if said is None:
        raise ConfigError(
            f"{name} translates, but nothing says between which languages",
            "Say it by its name, source first: `sublayer serve en-es=MODEL`.",
        )
    return said, {}


def _recipe_name(folder: Path) -> str:
    path = find(folder) / "recipe.toml"
    if not is_file(path):
        return ""
    try:
        return str(tomllib.loads(path.read_text(encoding="utf-8")).get("name", ""))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return ""


class Models:
    """All models of a server, by name and by languages."""

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self.by_name = {model.name: model for model in models}

    def __iter__(self) -> Any:
        return iter(self.by_name.values())

    def named(self, name: str | None, *kinds: type[Any]) -> ServedModel:
        """The model of that name, or the only one of these kinds.

        Raises:
            Refusal: there is none, or it does something else, or no name says which.
        """
        fitting = [model for model in self if isinstance(model.loaded, kinds)]
        if name is None:
            if len(fitting) == 1:
                return fitting[0]
            raise Refusal("model is missing", self._known(fitting), field="model")
        model = self.by_name.get(name)
        if model is None:
            raise Refusal(
                f"there is no model {name[:80]!r} here",
                self._known(fitting),
                field="model",
                status=404,
                code="model_not_found",
            )
        if not isinstance(model.loaded, kinds):
            raise Refusal(
                f"the model {name!r} {WHAT[type(model.loaded)]}, and does nothing else",
                self._known(fitting),
                field="model",
            )
        return model

    @property
    def pairs(self) -> dict[str, set[str]]:
        """For each source language the languages that it can be translated into."""
        found: dict[str, set[str]] = {}
        for model in self:
            if model.pair is not None:
                found.setdefault(model.pair[0], set()).add(model.pair[1])
            for source in model.codes:
                found.setdefault(source, set()).update(model.codes.keys() - {source})
        return found

    def between(self, source: str, target: str) -> ServedModel:
        """The model that translates between two languages: one made for them before one that knows many.

        Raises:
            Refusal: there is none.
        """
        fitting = [model for model in self if model.translates(source, target)]
        if not fitting:
            pairs = self.pairs
            fault, known = ("source", sorted(pairs)) if source not in pairs else ("target", sorted(pairs[source]))
            raise Refusal(
                f"{source if fault == 'source' else target} is not supported",
                f"{fault} may be: {', '.join(known) or 'none, for no model here translates'}.",
                field=fault,
            )
        return min(fitting, key=lambda model: model.pair is None)

    def stop(self) -> None:
        for model in self:
            model.runs.stop()

    def join(self, seconds: float) -> bool:
        """Wait until all have finished what they took, so long for all of them; whether they have."""
        end = time.monotonic() + seconds
        finished = [model.runs.join(max(0.0, end - time.monotonic())) for model in self]
        return all(finished)

    @property
    def alive(self) -> bool:
        return all(model.runs.alive for model in self)

    def _known(self, fitting: list[ServedModel]) -> str:
        return f"Models for this: {', '.join(model.name for model in fitting) or 'none'}."


def load_models(
    named: Iterable[tuple[str, Path]], metrics: Metrics, limits: BatchLimits, device: Any, weights: Any
) -> Models:
    """Load models, as `parse` names them, and give each its thread.

    Raises:
        SublayerError: one cannot be loaded, or translates and nothing says between which languages.
    """
    served: list[ServedModel] = []
    for name, path in named:
        loaded = load(path, device, weights=weights)
        created = int((find(path) / "config.json").stat().st_mtime)
        served.append(ServedModel.of(name, loaded, metrics, limits, folder=path, created=created))
    return Models(served)


def parse(arguments: Iterable[str]) -> list[tuple[str, Path]]:
    """Models as the command line names them, NAME=FOLDER or FOLDER, by whose name it is then known.

    Raises:
        InputError: a name is empty or stands twice.
    """
    found: list[tuple[str, Path]] = []
    for argument in arguments:
        name, sign, folder = argument.partition("=")
        path = Path(folder if sign else argument)
        chosen = name if sign else folder_title(path)
        if not chosen or not chosen.isprintable():
            raise InputError(f"{argument!r} names no model", "Write NAME=FOLDER.")
        if chosen in [known for known, _ in found]:
            raise InputError(f"two models are called {chosen!r}", "Name them apart: NAME=FOLDER.")
        found.append((chosen, path))
    return found


def folder_title(path: Path) -> str:
    """What a model's folder is called: of a run, the run's."""
    resolved = path.resolve()
    return resolved.parent.name if resolved.name == "model" else resolved.name

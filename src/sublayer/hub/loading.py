"""Load a model ready to use; one that the engine can answer for alone without torch, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sublayer.errors import CheckpointError, SublayerError
from sublayer.fast.engine.decoder import EngineDecoder
from sublayer.fast.engine.library import Unavailable
from sublayer.generation.decoding_model import DecodingModel, Deferred
from sublayer.generation.generator import Generator
from sublayer.generation.translator import Translator
from sublayer.hub.engine_file import find_engine, write_engine
from sublayer.hub.location import WEIGHTS, find, read_description

if TYPE_CHECKING:
    import torch

    from sublayer import config
    from sublayer.fast.decoding import Backend
    from sublayer.hub.folder import Loaded


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    backend: Backend = "auto",
    weights: config.Weights | None = None,
) -> Loaded:
    """Load a model from a model folder or a run folder, ready to use.

    An encoder-decoder becomes a `Translator`, a decoder-only model a `Generator`. An encoder becomes a `Classifier`,
    `Tagger`, `Embedder` or `Filler`, by its head.

    On a CPU a model that decodes may come without its modules: the engine answers for it alone, from `engine.bin` in
    the folder, which is made here where it is missing. They are read when somebody asks for `.model`.

    Args:
        backend: what steps a decoder: "auto" (the fastest that there is), "modules", "fixed-shapes", or a function that
            makes a decoder backend of the model (`models/backend.py`).
        weights: weight format of the matrices, on a CPU; default: as stored.

    Raises:
        CheckpointError: there is no model; a file is damaged; tensors are missing, unexpected, misshapen or not finite
            (the error names all of them); the tokenizer is not the one of the training; the base of adapters is
            missing or different; or the model is an encoder without a head.
        InputError: `backend` or `weights` is given, and this model or machine does not support it.
    """
    read = partial(_with_modules, find(Path(path)), device, backend, weights)
    return _load(path, weights, read, alone=backend == "auto" and str(device) == "cpu")


def load_to_use(path: str | Path, device: str | torch.device = "cpu", weights: config.Weights | None = None) -> Loaded:
    """Load a model that nobody is going to look into or change: where the engine answers for it, with its own copy of
    the weights, the memory of the modules' is given back, and read from the file should they be asked after all.

    Raises:
        CheckpointError, InputError: as `load`.
    """
    return _load(
        path, weights, partial(_with_modules_to_use, find(Path(path)), device, weights), alone=str(device) == "cpu"
    )


def _load(path: str | Path, weights: config.Weights | None, read: Callable[[], Loaded], *, alone: bool) -> Loaded:
    """See `load`.

    Args:
        read: reads the model with its modules. alone: whether the engine may answer without them.
    """
    if not alone:
        return read()
    folder = find(Path(path))
    found = _alone(folder, weights, read)
    if found is not None:
        return found
    loaded = read()
    if isinstance(loaded, DecodingModel):
        model: Any = loaded.model
        if write_engine(folder, read_description(folder), model, weights):
            return _alone(folder, weights, read) or loaded
    return loaded


def _with_modules(folder: Path, device: str | torch.device, backend: Backend, weights: config.Weights | None) -> Any:
    from sublayer.hub.folder import load

    return load(folder, device, backend=backend, weights=weights)


def _with_modules_to_use(folder: Path, device: str | torch.device, weights: config.Weights | None) -> Any:
    from sublayer.hub.folder import load
    from sublayer.hub.tensors import Release

    loaded = load(folder, device, weights=weights, packed=Release(folder / WEIGHTS))
    let_go(loaded, folder)
    return loaded


def let_go(found: Loaded, folder: Path) -> None:
    """Give the memory of the modules' weights back, as `load_to_use`. They must be as this folder has them."""
    if isinstance(found, DecodingModel) and found.is_deferred:
        return
    from sublayer.hub.tensors import Release

    model: Any = found.model
    if found.prepare():
        give_back = Release(folder / WEIGHTS)
        for weight in model.parameters():
            give_back(weight)


def load_translator(
    path: str | Path, device: str | torch.device = "cpu", weights: config.Weights | None = None
) -> Translator:
    """Load a model that translates.

    Raises:
        CheckpointError: as in `load`, or the model is of another shape. InputError: as in `load`.
    """
    return as_translator(load(path, device, weights=weights), path)


def as_translator(found: Any, path: str | Path) -> Translator:
    """What was loaded from `path`, if it translates.

    Raises:
        CheckpointError: it does not.
    """
    if not isinstance(found, Translator):
        kind = found.model.config.kind
        raise CheckpointError(
            f"{path} holds a model of the kind '{kind}', which does not translate", "Name an encoder-decoder model."
        )
    return found


def _alone(folder: Path, weights: config.Weights | None, read: Callable[[], Any]) -> Translator | Generator[Any] | None:
    """A model without its modules; None where it needs them, and where whoever reads them has the better error."""
    try:
        description = read_description(folder)
        file = find_engine(folder, description, weights)
        engine = None if file is None else EngineDecoder(file)
    except (CheckpointError, Unavailable):
        return None
    if engine is None:
        return None
    from sublayer.config.decoding import Decoding, Generation
    from sublayer.text import Tokenizer

    where = f"{folder / 'config.json'}: decoding"
    try:
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        if engine.geometry.sources:
            return Translator(Deferred(engine, read), tokenizer, Decoding.parse(description["decoding"], where))
        return Generator(Deferred(engine, read), tokenizer, Generation.parse(description["decoding"], where))
    except (SublayerError, KeyError, TypeError, ValueError):
        return None

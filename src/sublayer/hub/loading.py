"""Load a model ready to use; one that the engine can answer for alone without torch, which takes seconds to import."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sublayer.errors import CheckpointError, SublayerError
from sublayer.fast.engine.decoder import EngineDecoder
from sublayer.fast.engine.library import Unavailable
from sublayer.generation.translator import Deferred, Translator
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

    On a CPU a translator may come without its modules: the engine answers for it alone, from `engine.bin` in the
    folder, which is made here where it is missing. They are read when somebody asks for `.model`.

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
    alone = backend == "auto" and str(device) == "cpu"
    found = _alone(Path(path), weights) if alone else None
    if found is not None:
        return found
    from sublayer.hub import folder

    loaded = folder.load(path, device, backend=backend, weights=weights)
    if alone and isinstance(loaded, Translator):
        where = find(Path(path))
        if write_engine(where, read_description(where), loaded.model, weights):
            return _alone(where, weights) or loaded
    return loaded


def load_to_use(path: str | Path, device: str | torch.device = "cpu", weights: config.Weights | None = None) -> Loaded:
    """Load a model that nobody is going to look into or change: where the engine answers for it, with its own copy of
    the weights, the memory of the modules' is given back, and read from the file should they be asked after all.

    Raises:
        CheckpointError, InputError: as `load`.
    """
    found = _alone(Path(path), weights) if str(device) == "cpu" else None
    if found is not None:
        return found
    from sublayer.hub import folder
    from sublayer.hub.tensors import Release

    loaded = folder.load(path, device, weights=weights, packed=Release(find(Path(path)) / WEIGHTS))
    let_go(loaded, find(Path(path)))
    return loaded


def let_go(found: Loaded, folder: Path) -> None:
    """Give the memory of the modules' weights back, as `load_to_use`. They must be as this folder has them."""
    if isinstance(found, Translator) and found.is_deferred:
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


def _alone(path: Path, weights: config.Weights | None) -> Translator | None:
    """A translator without its modules; None where it needs them, and where whoever reads them has the better error."""
    folder = find(path)
    try:
        description = read_description(folder)
        file = find_engine(folder, description, weights)
        engine = None if file is None else EngineDecoder(file)
    except (CheckpointError, Unavailable):
        return None
    if engine is None:
        return None
    from sublayer.config.decoding import Decoding
    from sublayer.text import Tokenizer

    try:
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        decoding = Decoding.parse(description["decoding"], f"{folder / 'config.json'}: decoding")
    except (SublayerError, KeyError, TypeError, ValueError):
        return None

    return Translator(Deferred(engine, partial(_with_modules, folder, weights)), tokenizer, decoding)


def _with_modules(folder: Path, weights: config.Weights | None) -> Translator:
    from sublayer.hub.folder import load_translator

    return load_translator(folder, weights=weights)

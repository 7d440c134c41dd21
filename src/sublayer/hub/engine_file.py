"""`engine.bin` beside a model: what the engine runs of it without torch. Made when needed; nothing is lost with it.

It belongs to a model folder by sums: of the weights, of what `config.json` says of the model, of the tokenizer. To sum
the weights at each start would take a second for each two gigabytes, so they are summed again only where their size or
the time of their last change is not what it was when the file was made.

A folder that cannot be written to, and a model that is not lowered, have no such file, and are used as before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sublayer.errors import CheckpointError, StorageError
from sublayer.fast.engine.checks import Geometry
from sublayer.fast.engine.executable import Executable
from sublayer.fast.engine.file import EngineFile, read_file, write_file
from sublayer.fast.engine.library import Unavailable
from sublayer.files import replacing, sha256
from sublayer.hub.location import WEIGHTS
from sublayer.untrusted import is_file, to_json

if TYPE_CHECKING:
    from sublayer import config
    from sublayer.models import DecoderOnly, EncoderDecoder, Model


def engine_path(folder: Path, weights: config.Weights | None) -> Path:
    """Where the file of a model folder stands, with the matrices in this weight format."""
    return folder / ("engine.bin" if weights in (None, "float32") else f"engine.{weights}.bin")


def find_engine(folder: Path, description: Mapping[str, Any], weights: config.Weights | None) -> EngineFile | None:
    """The engine's file of a model folder, if there is one that belongs to it as it is.

    Args:
        description: what `config.json` says.

    Raises:
        Unavailable: there is no engine here.
    """
    path = engine_path(folder, weights)
    if not is_file(path):
        return None
    try:
        found = read_file(path)
        return found if _belongs(found, folder, description, weights) else None
    except (CheckpointError, OSError, KeyError, TypeError):
        return None


def write_engine(
    folder: Path, description: Mapping[str, Any], model: Model, weights: config.Weights | None = None
) -> bool:
    """Write the engine's file of the model that stands in this folder, as far as that can be done; whether it was.

    Args:
        model: as it was read from there, and not changed since.
    """
    from sublayer.fast.engine.program import NotLowered
    from sublayer.models import DecoderOnly, EncoderDecoder

    if (
        type(model) not in (DecoderOnly, EncoderDecoder)
        or not is_file(folder / WEIGHTS)
        or not os.access(folder, os.W_OK)
    ):
        return False
    with suppress(NotLowered, Unavailable, StorageError, OSError):
        _write(folder, description, cast("DecoderOnly | EncoderDecoder", model), weights)
        return True
    return False


def _write(
    folder: Path, description: Mapping[str, Any], model: DecoderOnly | EncoderDecoder, weights: config.Weights | None
) -> None:
    from sublayer.fast.decoding.guard import Guard

    Guard.of(model)
    programs, geometry = lowered(model, weights or "float32")
    made_of = _made_of(folder, description, weights) | {"sha256": sha256(folder / WEIGHTS)}
    with replacing(engine_path(folder, weights)) as aside:
        write_file(aside, programs, geometry, made_of)


def lowered(model: DecoderOnly | EncoderDecoder, weights: str) -> tuple[dict[str, Executable], Geometry]:
    """The programs of a model with their matrices packed in a weight format, and what its decoder remembers.

    Raises:
        NotLowered: a part does not say how it is lowered. Unavailable: there is no engine here.
    """
    import torch

    from sublayer.fast.engine.packing import Matrices, executable
    from sublayer.models import EncoderDecoder

    decoder = model.decoder
    layers = range(len(decoder.layers)) if isinstance(model, EncoderDecoder) else ()
    crosses = [decoder.cross_attention(index) for index in layers]
    geometry = Geometry(
        max_length=model.config.max_length,
        vocabulary=model.config.vocab_size,
        layers=len(decoder.layers),
        groups=decoder.cache_heads,
        width=decoder.cache_width,
        sources=tuple((cross.groups, cross.width) for cross in crosses),
    )
    matrices = Matrices(weights)
    with torch.no_grad():
        programs = {"decoding": model.lower()}
        if isinstance(model, EncoderDecoder):
            programs["encoding"] = model.lower_encoder()
        return {name: executable(program, matrices) for name, program in programs.items()}, geometry


def _belongs(found: EngineFile, folder: Path, description: Mapping[str, Any], weights: config.Weights | None) -> bool:
    told, here = found.about, _made_of(folder, description, weights)
    if any(told.get(name) != value for name, value in here.items() if name != "changed"):
        return False
    return told.get("changed") == here["changed"] or told.get("sha256") == sha256(folder / WEIGHTS)


def _made_of(folder: Path, description: Mapping[str, Any], weights: config.Weights | None) -> dict[str, Any]:
    state = (folder / WEIGHTS).stat()
    model = to_json([description["model"], description["tied"]]).encode()
    beside = folder / "sublayer_tokenizer.json"
    return {
        "weights": weights or "float32",
        "size": state.st_size,
        "changed": state.st_mtime_ns,
        "model": hashlib.sha256(model).hexdigest(),
        "tokenizer": [sha256(folder / "tokenizer.json"), sha256(beside) if is_file(beside) else None],
        "fingerprint": description["tokenizer"]["fingerprint"],
    }

"""A model as a folder: sublayer's own format.

    config.json          format, the model's tree, the decoding defaults, the tokenizer's fingerprint, the tied weights,
                         and, of a model that came from elsewhere, its family
    model.safetensors    the weights, those that are tied once; adapters on another model: see hub/adapted.py
    tokenizer.json       as the `tokenizers` library writes it
    recipe.toml          how the model came about
    README.md            the model card
    engine.bin           what the engine runs of it without torch (hub/engine_file.py): made when needed

Never a pickle, never code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sublayer import config, models
from sublayer.errors import CheckpointError, InputError, SublayerError
from sublayer.fast.decoding import Backend, Packed, decoder_backend
from sublayer.files import replacing, write_json, write_text
from sublayer.generation.generator import Generator
from sublayer.generation.translator import Translator
from sublayer.hub.adapted import Adapted, put_on
from sublayer.hub.loading import as_translator
from sublayer.hub.location import ADAPTERS, FORMAT, PARTS, WEIGHTS, find, read_description
from sublayer.hub.tensors import Release, read_tensors, write_tensors
from sublayer.hub.weights import fill, nonfinite, refuse_nonfinite, require_layers, untied
from sublayer.models.empty import without_memory
from sublayer.nn.linear import prepare
from sublayer.reading import Classifier, Embedder, Filler, Tagger
from sublayer.text import Tokenizer


@dataclass(frozen=True)
class ModelCard:
    """A model card: its text, and the recipe as TOML that belongs to it."""

    recipe: str
    text: str


@dataclass(frozen=True, eq=False)
class ModelBundle:
    """What a model folder holds.

    decoding: default settings of decoding, as plain data of `config.Decoding` or `config.Generation`.
    imported: origin of an imported model, at least {"family": ...}; empty for a model trained here.
    adapted: the adapters, if the folder holds adapters on a base model instead of a whole model.
    """

    model: models.Model
    tokenizer: Tokenizer
    decoding: Mapping[str, Any] = field(default_factory=dict[str, Any])
    imported: Mapping[str, Any] = field(default_factory=dict[str, Any])
    adapted: Adapted | None = None


def write(folder: Path, bundle: ModelBundle, card: ModelCard) -> None:
    """Write the model folder, whole or not at all; what else stands in it is kept."""
    model, tokenizer = bundle.model, bundle.tokenizer
    parameters, ties = untied(model)
    with replacing(folder, PARTS) as aside:
        aside.mkdir()
        tokenizer.save(aside / "tokenizer.json")
        if bundle.adapted is None:
            write_tensors(aside / WEIGHTS, parameters)
        else:
            write_tensors(aside / ADAPTERS, bundle.adapted.tensors)
        write_text(aside / "recipe.toml", card.recipe)
        write_text(aside / "README.md", card.text)
        origin = {"imported": dict(bundle.imported)} if bundle.imported else {}
        write_json(
            aside / "config.json",
            {
                "format": FORMAT,
                "model": model.config.plain(),
                "decoding": dict(bundle.decoding),
                "tokenizer": {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size},
                "tied": ties,
                **origin,
                **({} if bundle.adapted is None else bundle.adapted.plain),
            },
        )


@dataclass(frozen=True, eq=False)
class TransformerBundle(ModelBundle):
    """A bundle whose model is a Transformer, so that its attention can be inspected."""

    model: models.Transformer


Loaded = Translator | Generator[Any] | Classifier | Tagger | Embedder | Filler
"""A model with its tokenizer, ready to do what its shape and head are for."""


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    backend: Backend = "auto",
    weights: config.Weights | None = None,
    packed: Packed | None = None,
) -> Loaded:
    """Load a model from a model folder or a run folder, ready to use.

    An encoder-decoder becomes a `Translator`, a decoder-only model a `Generator`. An encoder becomes a `Classifier`,
    `Tagger`, `Embedder` or `Filler`, by its head.

    Args:
        backend: what steps a decoder: "auto" (the fastest that there is), "modules", "fixed-shapes", or a function that
            makes a decoder backend of the model (`models/backend.py`).
        weights: weight format of the matrices, on a CPU; default: as stored.
        packed: told each matrix that a decoder's engine has a copy of its own of.

    Raises:
        CheckpointError: as in `read`, or the model is an encoder without a head.
        InputError: `backend` or `weights` is given, and this model or machine does not support it.
    """
    return ready(read(path, device), path, backend=backend, weights=weights, packed=packed)


def ready(
    found: ModelBundle,
    path: str | Path,
    *,
    backend: Backend = "auto",
    weights: config.Weights | None = None,
    packed: Packed | None = None,
) -> Loaded:
    """Wrap what was read from `path`, ready to use. Raises as `load`."""
    model, tokenizer = found.model, found.tokenizer
    where = f"{find(Path(path)) / 'config.json'}: decoding"
    match model:
        case models.EncoderDecoder() | models.RecurrentEncoderDecoder():
            # Its own where nothing was asked for: that follows the model, should another be put in its place.
            steps = None if backend == "auto" and weights is None else decoder_backend(model, backend, weights)
            return Translator(model, tokenizer, config.Decoding.parse(found.decoding, where), backend=steps)
        case models.DecoderOnly() | models.RecurrentDecoderOnly():
            steps = decoder_backend(model, backend, weights, packed)
            return Generator(model, tokenizer, config.Generation.parse(found.decoding, where), backend=steps)
        case models.EncoderOnly() if backend != "auto":
            raise InputError(
                f"backend = {backend!r}, but {path} holds an encoder, which decodes nothing", "Leave backend out."
            )
        case models.EncoderOnly():
            return _reader(model, tokenizer, path, weights)


def load_translator(
    path: str | Path, device: str | torch.device = "cpu", weights: config.Weights | None = None
) -> Translator:
    """Load a model that translates.

    Raises:
        CheckpointError: as in `load`, or the model is of another shape. InputError: as in `load`.
    """
    return as_translator(load(path, device, weights=weights), path)


def _reader(
    model: models.EncoderOnly, tokenizer: Tokenizer, path: str | Path, weights: config.Weights | None
) -> Classifier | Tagger | Embedder | Filler:
    match model.config.head:
        case config.Classification():
            return Classifier(model, tokenizer, weights)
        case config.Tagging():
            return Tagger(model, tokenizer, weights)
        case config.SentenceEmbedding():
            return Embedder(model, tokenizer, weights)
        case config.MaskedLanguage():
            return Filler(model, tokenizer, weights)
        case config.NoHead():
            raise CheckpointError(
                f"{path} is an encoder without a head: there is nothing to ask it",
                "Read it with sublayer.hub.folder.read, or train a head on it.",
            )


def read(
    path: str | Path, device: str | torch.device = "cpu", *, merged: bool = True, allow_nonfinite: bool = False
) -> ModelBundle:
    """Read a model folder, or the model in a run folder.

    Args:
        merged: merge adapters into the weights, which makes the model as fast as one without adapters.
        allow_nonfinite: accept weights that are not finite.

    Raises:
        CheckpointError: there is no model; a file is damaged; tensors are missing, unexpected, misshapen or not finite
            (the error names all of them); the tokenizer is not the one of the training; or the base of adapters is
            missing or different.
    """
    return _read(find(Path(path)), device, merged=merged, allow_nonfinite=allow_nonfinite)


def _read(
    folder: Path, device: str | torch.device, *, merged: bool, allow_nonfinite: bool, above: tuple[Path, ...] = ()
) -> ModelBundle:
    """above: the adapters whose base is read."""
    description = read_description(folder)
    try:
        tree = _tree(description["model"], f"{folder / 'config.json'}: model")
        decoding, imported = dict(description["decoding"]), dict(description.get("imported", {}))
        fingerprint, ties = str(description["tokenizer"]["fingerprint"]), dict(description["tied"])
    except SublayerError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'} lacks or garbles {error}", "Copy or train the model again."
        ) from None
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    if tokenizer.fingerprint != fingerprint:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'} is not this model's tokenizer (its fingerprint is "
            f"{tokenizer.fingerprint[:12]}…, the model was trained with {fingerprint[:12]}…)",
            "Put back the tokenizer.json that came with the model.",
        )
    adapted = Adapted.read(folder, description) if "adapter" in description else None
    if adapted is None:
        tensors = read_tensors(folder / WEIGHTS)
        require_layers(tree, len(tensors), str(folder / WEIGHTS))
        with without_memory():
            model = models.build_model(tree)
        fill(model, tensors, ties, folder / WEIGHTS)
        if not allow_nonfinite:
            # All are looked at, and few are needed at once.
            wrong = nonfinite(tensors, Release(folder / WEIGHTS))
            refuse_nonfinite(wrong, str(folder / WEIGHTS))
    else:
        below = (*above, folder.resolve())
        where = adapted.base_folder(folder)
        if where.resolve() in below:
            raise CheckpointError(
                f"{folder} holds adapters whose base, in the end, is themselves: {where}",
                f"Put the path of the model that they were made for into {folder / 'config.json'} (base.path).",
            )
        if not allow_nonfinite:
            refuse_nonfinite(nonfinite(adapted.tensors), str(folder / ADAPTERS))
        base = _read(where, "cpu", merged=True, allow_nonfinite=allow_nonfinite, above=below).model
        model = put_on(base, tree, adapted, ties, folder / ADAPTERS, merged=merged)
    model.to(device)
    prepare(model)
    return ModelBundle(model.eval(), tokenizer, decoding, imported, adapted)


def read_transformer(path: str | Path, device: str | torch.device = "cpu") -> TransformerBundle:
    """Read a model that is a Transformer.

    Raises:
        CheckpointError: as in `read`. InputError: the model is recurrent.
    """
    found = read(path, device)
    if not isinstance(found.model, models.Transformer):
        raise InputError(
            f"{path} holds a model of the kind '{found.model.config.kind}': it has no layers of attention to look into",
            "Name a Transformer. Where a recurrent translator looks, translate(..., alignments=True) tells.",
        )
    return TransformerBundle(**vars(found))


def _tree(data: Mapping[str, Any], where: str) -> config.Transformer | config.Recurrent:
    if not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] (a file may say anything)
        raise CheckpointError(f"{where}: should be a table (given: {data!r})", "Copy the folder again, whole.")
    kind = data.get("kind", "encoder-decoder")
    if kind not in config.KINDS:
        raise CheckpointError(f"{where}.kind = {kind!r} is unknown", f"Known: {', '.join(config.KINDS)}.")
    return config.KINDS[kind].parse(data, where)

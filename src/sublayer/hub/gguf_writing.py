"""A model -> a GGUF file: weights, tokenizer, chat template and settings in one, for llama.cpp and what stands on it.

The model is written as a family of `transformers` has it, and that by the table of `gguf_table.py` backwards; what the
file says is read again and must describe the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sublayer import config
from sublayer.errors import CheckpointError, InputError
from sublayer.files import replacing
from sublayer.hub.canonical import canonical, lost
from sublayer.hub.exporting import expressed
from sublayer.hub.families import FAMILIES
from sublayer.hub.family import Family, Tree
from sublayer.hub.folder import ModelBundle
from sublayer.hub.gguf import config_of
from sublayer.hub.gguf_table import ARCHITECTURES, FACTORS, moves, original_name
from sublayer.hub.importing import read_tree
from sublayer.models import DecoderOnly, Transformer
from sublayer.nn.positions.rotation import frequencies
from sublayer.text.gguf_metadata import to_gguf

Weights = Literal["F32", "F16", "Q8_0", "Q4_0"]
BLOCK = 32
"""Numbers that Q8_0 and Q4_0 take together; a matrix whose rows are no multiple of it becomes F16."""
VOCABULARY = ("token_embd.weight", "output.weight")
"""The matrices that four bits hurt most: with Q4_0 they are Q8_0."""
REMEDY = (
    "Train one of Llama's form (preset = 'mini-lm') or of GPT-2's (preset = 'gpt2'), with such settings as are named."
)


def export_gguf(path: Path, bundle: ModelBundle, weights: Weights = "F32", name: str = "model") -> str:
    """Write the file, whole or not at all.

    Args:
        weights: of the matrices; norms, biases and positions are float32 always.
        name: of the model, for people.

    Returns:
        llama.cpp's name of the architecture.

    Raises:
        CheckpointError: no architecture that is written can express the model or its tokenizer, or the library `gguf`
            is not installed; what stands in the way is named. StorageError: the disk refused.
    """
    try:
        import gguf
    except ImportError:
        raise CheckpointError(
            f"{path} is to be a GGUF file, and the library that writes them is not installed",
            "Run `pip install 'sublayer[hub]'`.",
        ) from None
    model, family, settings = _expressed(bundle)
    architecture = next(key for key, kind in ARCHITECTURES.items() if kind.model_type == family.name)
    kind = ARCHITECTURES[architecture]
    try:
        tokens = to_gguf(bundle.tokenizer, model.config.vocab_size)
    except InputError as error:
        raise CheckpointError(f"GGUF cannot express the tokenizer: {error.what}", error.remedy) from None
    said = metadata(architecture, settings)
    factors = _factors(model.config)
    _require_same(model, family, said, architecture, factors, path)
    with replacing(path) as aside:
        writer = gguf.GGUFWriter(aside, architecture)
        writer.add_name(name)
        writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if weights == 'F32' else 'MOSTLY'}_{weights}"])
        for key, value in (said | tokens | _ends(bundle)).items():
            add(writer, key, value)
        if factors is not None:
            writer.add_tensor(FACTORS, factors.numpy())
        for theirs, tensor in _tensors(model, family):
            kept = moves(theirs, kind, settings)[0](tensor().float()).contiguous().numpy()
            own = original_name(theirs, kind)
            written = gguf.GGMLQuantizationType[_type_of(own, kept.shape, weights)]
            writer.add_tensor(own, gguf.quants.quantize(kept, written), raw_dtype=written)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return architecture


def metadata(architecture: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What llama.cpp reads of a config.json, by its keys."""
    kind = ARCHITECTURES[architecture]
    found = {key: settings[name] for key, name in kind.settings.items() if settings.get(name) is not None}
    if "rope.freq_base" in kind.settings:
        found |= {"attention.value_length": settings["head_dim"], "rope.dimension_count": settings["head_dim"]}
        scaling: Mapping[str, Any] = settings.get("rope_scaling") or {}
        if scaling.get("rope_type") in ("linear", "yarn"):
            found |= {"rope.scaling.type": scaling["rope_type"], "rope.scaling.factor": float(scaling["factor"])}
        if scaling.get("rope_type") == "yarn":
            found["rope.scaling.original_context_length"] = scaling["original_max_position_embeddings"]
    return {f"{architecture}.{key}": value for key, value in found.items()}


def _expressed(bundle: ModelBundle) -> tuple[Transformer, Family, dict[str, Any]]:
    if not isinstance(bundle.model, DecoderOnly):
        raise CheckpointError(
            f"GGUF is written for language models, and this one is of the kind '{bundle.model.config.kind}'",
            "Export translators with --format ctranslate2, encoders with --format onnx.",
        )
    written = [kind.model_type for kind in ARCHITECTURES.values()]
    families = [family for family in FAMILIES if family.name in written]
    preferred = bundle.imported.get("family")
    preferred = preferred if preferred in written else None
    return expressed(bundle.model, preferred, families, whose="architecture that is written as GGUF", remedy=REMEDY)


def _require_same(
    model: Transformer,
    family: Family,
    said: Mapping[str, Any],
    architecture: str,
    factors: Tensor | None,
    path: Path,
) -> None:
    """Raise where the settings, read again, describe another model: llama.cpp takes the rest for granted."""
    tree = model.config
    assert isinstance(tree, config.DecoderOnly)
    shapes = {"token_embd.weight": (tree.dim, tree.vocab_size)} | ({} if tree.tied else {"output.weight": ()})
    again = read_tree(family, config_of(said, architecture, shapes, factors, path))
    lacking = lost(_single(canonical(tree)), _single(canonical(again)))
    if lacking:
        raise CheckpointError(
            f"llama.cpp's {architecture} cannot express this model: {'; '.join(dict.fromkeys(lacking))}", REMEDY
        )


def _single(plain: Any) -> Any:
    """The same with numbers in single precision, as the file has them."""
    if isinstance(plain, dict):
        return {key: _single(value) for key, value in plain.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(plain, list):
        return [_single(value) for value in plain]  # pyright: ignore[reportUnknownVariableType]
    return float(np.float32(plain)) if isinstance(plain, float) else plain


def _factors(tree: Tree) -> Tensor | None:
    """What Llama 3's scaling divides each frequency by, [r / 2]; None for another."""
    position = tree.decoder.position if isinstance(tree, config.DecoderOnly) else None
    if not isinstance(position, config.Rotary) or not isinstance(position.scaling, config.Llama3Scaling):
        return None
    assert isinstance(tree, config.DecoderOnly)
    width = tree.decoder.block.attention.width(tree.dim)
    plain, _ = frequencies(position.model_copy(update={"scaling": config.Unscaled()}), width)
    scaled, _ = frequencies(position, width)
    return (plain / scaled).float()


@torch.no_grad()
def _tensors(model: Transformer, family: Family) -> list[tuple[str, Callable[[], Tensor]]]:
    """The checkpoint's tensors by their names, each made when it is asked for."""
    found: list[tuple[str, Callable[[], Tensor]]] = []
    for rule in family.rules(model.config):
        for place, name in enumerate(rule.theirs):

            def made(rule: Any = rule, place: int = place) -> Tensor:
                return rule.write([model.get_parameter(ours).detach().cpu() for ours in rule.ours])[place]

            found.append((name, made))
    return found


def _type_of(name: str, shape: tuple[int, ...], weights: Weights) -> str:
    if len(shape) == 1 or name.startswith("position_embd"):
        return "F32"
    if weights in ("F32", "F16"):
        return weights
    if shape[-1] % BLOCK:
        return "F16"
    return "Q8_0" if name in VOCABULARY else weights


def _ends(bundle: ModelBundle) -> dict[str, int]:
    """What ends a turn beside the end token: llama.cpp has room for one, and one more."""
    c = config.Generation.parse(bundle.decoding, "decoding")
    return {f"tokenizer.ggml.{name}_token_id": number for name, number in zip(("eot", "eom"), c.end_ids, strict=False)}


def add(writer: Any, key: str, value: Any) -> None:
    """Write a setting in the type that llama.cpp reads it in."""
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _ if key.endswith("charsmap"):
            writer.add_array(key, bytes(value))
        case _:
            writer.add_array(key, value)

"""GGUF files (llama.cpp's format): one file that holds weights, often quantized, tokenizer, chat template and settings.

A GGUF file is read as though it were the Hugging Face folder that it was made from: its settings become a config, its
tensors get their names and order back, and the family's own rules do the rest. Reading and dequantizing is the `gguf`
library's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sublayer.config.foreign import GGUF, MODEL, require, require_all
from sublayer.errors import CheckpointError, SublayerError
from sublayer.hub.families.rope import scaling_of_factors
from sublayer.hub.gguf_table import ARCHITECTURES, FACTORS, LARGEST, REDUNDANT, Architecture, moves, name_of
from sublayer.hub.importing import Imported, find_family, import_tensors, read_tree
from sublayer.hub.sources import Header
from sublayer.text import Tokenizer
from sublayer.text.gguf import from_gguf
from sublayer.untrusted import library_errors


@dataclass(frozen=True)
class Gguf:
    """A GGUF file, read as the folder that it was made from: a `Source` of tensors, and a config.

    config: as a config.json holds it. reading: tensors by their names there; each is dequantized (float32) when it is
    called. metadata: everything that the file says, by its own keys; the tokenizer is among it.
    """

    name: str
    config: dict[str, Any]
    headers: Mapping[str, Header]
    reading: Mapping[str, Callable[[], Tensor]]
    metadata: dict[str, Any]

    def tensor(self, name: str) -> Tensor:
        """One tensor, on the CPU."""
        return self.reading[name]()


def import_gguf(
    path: Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    allow_nonfinite: bool = False,
) -> tuple[Imported, Tokenizer]:
    """The model and the tokenizer, chat template and all, of a GGUF file.

    Args:
        dtype: unset: float32, which holds every quantized number exactly as the library gives it.
        allow_nonfinite: also take weights that are not finite.

    Raises:
        CheckpointError: as in `read_gguf`, or as in `importing.import_folder`.
    """
    found = read_gguf(path)
    family = find_family(found.config, str(path))
    model = import_tensors(
        read_tree(family, found.config), family, found, device=device, dtype=dtype, allow_nonfinite=allow_nonfinite
    )
    tokenizer = from_gguf(found.metadata)
    return Imported(model, family, {**found.config, **_token_ids(found.metadata)}), tokenizer


def read_gguf(path: Path) -> Gguf:
    """The file at `path`; no tensor is read before it is asked for.

    Raises:
        CheckpointError: it is no GGUF file or damaged, its architecture is not known, or it has settings or tensors
            that we do not know; or the library `gguf` is not installed.
    """
    try:
        from gguf import GGUFReader
    except ImportError:
        raise CheckpointError(
            f"{path} is a GGUF file, and the library that reads them is not installed",
            "Run `pip install 'sublayer[hub]'`.",
        ) from None
    from sublayer.hub.gguf_layout import require_layout

    try:
        require_layout(path)
        reader: Any = GGUFReader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
        tensors = list(reader.tensors)
    except SublayerError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist", "Check the path.") from None
    except Exception as error:  # the library raises whatever it stumbles over
        raise CheckpointError(f"{path} is damaged or no GGUF file ({error})", "Fetch it again.") from error
    require_all(metadata, GGUF, str(path))
    name = str(metadata.get("general.architecture"))
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"{path} holds a model of the architecture '{name}', which sublayer does not read from GGUF",
            f"Known: {', '.join(ARCHITECTURES)}.",
        )
    kind = ARCHITECTURES[name]
    shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in tensors}
    try:
        factors = next((torch.tensor(tensor.data.tolist()) for tensor in tensors if tensor.name == FACTORS), None)
        settings = config_of(metadata, name, shapes, factors, path)
    except SublayerError:
        raise
    except (LookupError, TypeError, ArithmeticError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{path} lacks a setting or a tensor that models of its kind have, or it is of another kind ({error})",
            "Fetch it again, or take another file.",
        ) from error
    found: dict[str, Callable[[], Tensor]] = {}
    headers: dict[str, Header] = {}
    unknown: list[str] = []
    for tensor in tensors:
        if tensor.name == FACTORS:
            continue
        theirs = name_of(tensor.name, kind)
        if theirs is None:
            unknown.append(tensor.name)
        else:
            found[theirs] = _reading(tensor, theirs, kind, settings, path)
            shape = _shape(tensor)
            turned = kind.turned and len(shape) == 2 and theirs.startswith(kind.layers)
            headers[theirs] = Header(shape[::-1] if turned else shape, torch.float32)
    if unknown:
        raise CheckpointError(f"{path} has tensors that sublayer does not know: {', '.join(unknown)}")
    return Gguf(str(path), settings, headers, found, metadata)


def config_of(
    metadata: Mapping[str, Any],
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    factors: Tensor | None,
    path: Path,
) -> dict[str, Any]:
    """The config.json that the settings came from.

    Args:
        name: of the architecture. shapes: of the tensors, by llama.cpp's names and in its order of dimensions.
        factors: what rotary frequencies are divided by, one a pair; None where the file does not say.
    """
    kind = ARCHITECTURES[name]
    known = kind.settings
    found: dict[str, Any] = {"model_type": kind.model_type, "architectures": [kind.class_name], **kind.fixed}
    unknown: list[str] = []
    for key, value in metadata.items():
        prefix, _, setting = key.partition(".")
        if prefix != name or setting in REDUNDANT or setting.startswith("rope.scaling."):
            continue
        if setting in known:
            require(value, key, MODEL[known[setting]], str(path))
            found[known[setting]] = value
        else:
            unknown.append(f"{key} = {value!r}")
    if unknown:
        raise CheckpointError(f"{path} has settings that sublayer does not know: {', '.join(unknown)}")
    found["tie_word_embeddings"] = "output.weight" not in shapes
    # Rows of the embedding, whatever the settings say: some files pad it.
    found["vocab_size"] = shapes["token_embd.weight"][-1]
    if "rope.freq_base" in known:
        _rotated(found, metadata, name, factors, path)
    if name in LARGEST:
        # llama.cpp knows the scale of the scores from the model's size, and so must we.
        largest = found["num_hidden_layers"] == LARGEST[name]
        shared = found["hidden_size"] // found["num_attention_heads"]
        found["query_pre_attn_scalar"] = shared if largest else found["head_dim"]
    return found


def _rotated(found: dict[str, Any], metadata: Mapping[str, Any], name: str, factors: Tensor | None, path: Path) -> None:
    """What a model with rotary positions has beside the others."""
    found["rope_scaling"] = _scaling(metadata, name, factors, path)
    found.setdefault("head_dim", found["hidden_size"] // found["num_attention_heads"])
    rotated = metadata.get(f"{name}.rope.dimension_count", found["head_dim"])
    if rotated != found["head_dim"]:
        raise CheckpointError(
            f"{path} turns {rotated} of the {found['head_dim']} dimensions of a head, which is not read from GGUF",
            "Take the checkpoint in the Hugging Face format.",
        )


def _shape(tensor: Any) -> tuple[int, ...]:
    """llama.cpp counts dimensions from the innermost."""
    return tuple(reversed([int(size) for size in tensor.shape]))


ENDS = ("eos", "eot", "eom")
"""What ends a text, a turn, and a message that waits for a tool's answer."""


def _token_ids(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of special tokens, by their names in a config.json."""

    def number(name: str) -> int | None:
        value = metadata.get(f"tokenizer.ggml.{name}_token_id")
        return None if value is None else int(value)

    ends = list(dict.fromkeys(one for one in map(number, ENDS) if one is not None))
    given = {
        "bos_token_id": number("bos"),
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": number("padding"),
    }
    return {name: value for name, value in given.items() if value is not None}


def _reading(
    tensor: Any, theirs: str, kind: Architecture, settings: Mapping[str, Any], path: Path
) -> Callable[[], Tensor]:
    def read() -> Tensor:
        from gguf import dequantize

        with library_errors(f"{path}: {tensor.name} is of a type that is not read", "Take another quantization."):
            values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())  # pyright: ignore[reportUnknownArgumentType]
            values = values.reshape(_shape(tensor))
        return moves(theirs, kind, settings)[1](values)

    return read


def _scaling(metadata: Mapping[str, Any], name: str, factors: Tensor | None, path: Path) -> dict[str, Any] | None:
    """`rope_scaling` as a config.json has it."""
    prefix = f"{name}.rope.scaling."
    own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    how = own.get("type")
    if how in (None, "none"):
        if factors is None:
            return None
        found = scaling_of_factors(factors, float(metadata.get(f"{name}.rope.freq_base", 10_000.0)))
        if found is None:
            raise CheckpointError(
                f"{path} has rotary frequencies of its own ({FACTORS}), and they are not what Llama 3's scaling gives",
                "Take the checkpoint in the Hugging Face format.",
            )
        return found or None
    if how not in ("linear", "yarn"):
        raise CheckpointError(f"{path} scales its rotary positions by '{how}', which sublayer does not read from GGUF")
    scaling = {"rope_type": how, "factor": float(own["factor"])}
    if how == "yarn":
        scaling["original_max_position_embeddings"] = int(own["original_context_length"])
    return scaling

"""A language model's folder as a GGUF file, in a weight format of llama.cpp: what `engine_speed.py` gives to it.

Names, settings and the order of rows are those of `sublayer export` (`hub/gguf_table.py`). The numbers are those of the
folder: float32, or rounded by the `gguf` library, which rounds as llama.cpp does. Q4_K alone is rounded here, more
simply than there (`q4_k`). Where matrices have four bits that of the vocabulary has eight, as in the engine's int4, so
that both read as much; `llama-quantize` keeps that one wider, too.

The tokenizer inside is a stand-in: piece number 17 is the text " 17", so that whoever feeds ids gets ids back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from sublayer.hub.gguf_table import ARCHITECTURES, moves, original_name
from sublayer.hub.gguf_writing import add, metadata

FORMATS = ("F32", "F16", "Q8_0", "Q4_0", "Q4_K")

BLOCK = 256
"""Numbers that Q4_K takes together. Rows that are no multiple of it become Q5_0, as `llama-quantize` has it."""


def type_of(name: str, columns: int, *, vocabulary: bool = False) -> str:
    """The type of a matrix with rows of so many columns, in a file of this format.

    Args:
        vocabulary: it has a row for each token.
    """
    if vocabulary and name.startswith("Q4"):
        return "Q8_0"
    return "Q5_0" if name == "Q4_K" and columns % BLOCK else name


def bits(name: str, columns: int, *, vocabulary: bool = False) -> float:
    """Bits that a weight of such a matrix takes."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_of(name, columns, vocabulary=vocabulary)]]
    return 8 * size / block


def gguf_file(folder: Path, name: str) -> Path:
    """Return the GGUF file beside the weights of `folder`, written if it is not there yet.

    Args:
        folder: a model of the Llama, Qwen2 or GPT-2 family, as `transformers` keeps it. name: one of `FORMATS`.
    """
    # A file with a vocabulary in four bits had the name without the number.
    path = folder / f"model-{name}-2.gguf"
    if not path.is_file():
        aside = path.with_suffix(".part")
        _write(folder, aside, name)
        aside.replace(path)
    return path


def _write(folder: Path, path: Path, name: str) -> None:
    import gguf

    c = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = str(c["model_type"])
    if kind != "gpt2":
        c.setdefault("head_dim", c["hidden_size"] // c["num_attention_heads"])
    writer = gguf.GGUFWriter(path, kind)
    for key, value in metadata(kind, c).items():
        add(writer, key, value)
    _stand_in_tokenizer(writer, c["vocab_size"])
    for theirs, values in load_file(folder / "model.safetensors").items():
        ours = original_name(theirs, ARCHITECTURES[kind])
        numbers = moves(theirs, ARCHITECTURES[kind], c)[0](values.float()).contiguous().numpy()
        # Positions are looked up and added: no product reads them.
        wide = numbers.ndim == 1 or ours.startswith("position_embd")
        vocabulary = ours.startswith(("token_embd", "output."))
        written = "F32" if wide else type_of(name, numbers.shape[1], vocabulary=vocabulary)
        writer.add_tensor(ours, rounded(numbers, written), raw_dtype=gguf.GGMLQuantizationType[written])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rounded(numbers: NDArray[np.float32], name: str) -> NDArray[Any]:
    """A matrix in a type of GGUF: its numbers, or the bytes of its rows."""
    import gguf

    if name == "Q4_K":
        return q4_k(numbers)
    return gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[name])


def q4_k(numbers: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rows of numbers as Q4_K: [O, I] -> [O, I / 256 * 144].

    256 numbers are 8 groups of 32, each with a scale and a least number of its own, which are whole numbers of 6 bits
    times a scale of all 8. llama.cpp looks for the best; here they are those of the largest and the least number.
    """
    out, columns = numbers.shape
    x = numbers.reshape(-1, 8, 32)
    # What is added is never above 0.
    least = np.minimum(x.min(axis=2), 0)
    step = (x.max(axis=2) - least) / 15
    d, d_least = (np.float16(part.max(axis=1, keepdims=True) / 63) for part in (step, -least))
    scale, offset = (
        _quotient(part, unit).clip(0, 63).astype(np.uint8) for part, unit in ((step, d), (-least, d_least))
    )
    width, below = (unit.astype(np.float32) * part for part, unit in ((scale, d), (offset, d_least)))
    digits = _quotient(x + below[:, :, None], width[:, :, None]).clip(0, 15).astype(np.uint8)
    # The first four of the scales have 6 bits of a byte; the upper two bits of the others stand above them.
    upper = ((scale[:, 4:] >> 4) << 6, (offset[:, 4:] >> 4) << 6)
    scales = np.concatenate(
        [scale[:, :4] | upper[0], offset[:, :4] | upper[1], (scale[:, 4:] & 15) | ((offset[:, 4:] & 15) << 4)], axis=1
    )
    pairs = digits.reshape(-1, 4, 2, 32)
    packed = (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(len(x), -1)
    whole = np.concatenate([d.view(np.uint8), d_least.view(np.uint8), scales, packed], axis=1)
    return whole.reshape(out, columns // BLOCK * whole.shape[1])


def _quotient(numbers: NDArray[Any], unit: NDArray[Any]) -> NDArray[np.float32]:
    """The nearest whole number of units; 0 where the unit is 0."""
    wide = unit.astype(np.float32)
    return np.rint(np.divide(numbers, wide, out=np.zeros_like(numbers), where=wide != 0))


def _stand_in_tokenizer(writer: Any, size: int) -> None:
    from gguf import TokenType

    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"▁{number}" for number in range(size)])
    writer.add_token_scores([0.0] * size)
    writer.add_token_types([TokenType.NORMAL] * size)
    # Something must begin and end texts. The last token is as unlikely as any, and the rarest of a real vocabulary.
    writer.add_bos_token_id(size - 1)
    writer.add_eos_token_id(size - 1)
    writer.add_add_bos_token(False)

"""Models as CTranslate2 keeps them, made by its own converters: what `engine_speed.py` gives to it.

Tokens are named by their numbers ("17"), so that ids go in and come out. Weights are written in the type that is asked
for, as its users do, and so an int8 model is quantized by CTranslate2 itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from marian import END, PAD, START, to_marian

from sublayer.models import EncoderDecoder


class _Numbers:
    """Stands where a converter wants a tokenizer."""

    def __init__(self, size: int, start: int, end: int, unknown: int) -> None:
        self._size = size
        self.bos_token, self.eos_token, self.unk_token = str(start), str(end), str(unknown)

    def get_vocab(self) -> dict[str, int]:
        return {str(number): number for number in range(self._size)}

    def convert_ids_to_tokens(self, number: int) -> str:
        return str(number)


@torch.no_grad()
def translator_folder(path: Path, model: EncoderDecoder, quantization: str) -> Path:
    """Write `model` at `path`, unless it is there; it must be one that Marian can be (`marian.why_not_marian`)."""
    from ctranslate2.converters.transformers import BartLoader

    class Marian(BartLoader):
        """A Bart with norms after. The library's own loader of Marian begins from a zero vector, not from a token."""

        def get_model_spec(self, model: Any) -> Any:
            model.config.normalize_before = model.config.normalize_embedding = False
            return super().get_model_spec(model)

    if not (path / "model.bin").is_file():
        size = model.config.vocab_size
        _save(Marian()(to_marian(model), _Numbers(size, START, END, PAD)), path, quantization)
    return path


@torch.no_grad()
def generator_folder(folder: Path, quantization: str) -> Path:
    """Write the model of `folder` (of `transformers`) into a folder in it, unless it is there."""
    from ctranslate2.converters import transformers as converters
    from transformers import AutoModelForCausalLM

    path = folder / f"ctranslate2-{quantization}"
    if not (path / "model.bin").is_file():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        loader = converters._MODEL_LOADERS[type(model.config).__name__]
        last = model.config.vocab_size - 1
        # Something must end texts: what `gguf_models.py` takes.
        _save(loader(model, _Numbers(last + 1, last, last, last)), path, quantization)
    return path


def _save(spec: Any, path: Path, quantization: str) -> None:
    spec.validate()
    spec.optimize(quantization=quantization)
    path.mkdir(parents=True, exist_ok=True)
    spec.save(str(path))

"""An encoder -> an ONNX file, for ONNX Runtime and what stands on it.

Inputs are `input_ids` and `attention_mask` (1 where a token is real, 0 for padding on the right), int64 [B, S], and
`token_type_ids` where the model has types of token. The output is `logits` (masked language [B, S, V], tags [B, S, C],
classes [B, C]) or `embeddings` [B, D]. B and S are whatever they are.
"""

from __future__ import annotations

import logging
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.files import replacing
from sublayer.hub.folder import ModelBundle
from sublayer.models import EncoderOnly
from sublayer.nn.attention import SelfAttention
from sublayer.untrusted import first_line

LARGEST = 2**31 - 1
"""Bytes of an ONNX file: protobuf's own limit."""


def _seen(*_: object) -> None:
    """Look on."""


class _Masked(nn.Module):
    """The model, asked as other libraries ask one: by a mask instead of lengths."""

    def __init__(self, model: EncoderOnly) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        return self.model(input_ids, attention_mask.sum(1), token_type_ids)


def export_onnx(path: Path, bundle: ModelBundle) -> list[str]:
    """Write the file, whole or not at all; the tokenizer stands beside it as `tokenizer.json`.

    Returns:
        The names of its inputs and its output.

    Raises:
        CheckpointError: the model is no encoder, is too large, or has a part that torch's exporter cannot express; or
            the library `onnxscript` is not installed. StorageError: the disk refused.
    """
    model = bundle.model
    if not isinstance(model, EncoderOnly):
        raise CheckpointError(
            f"ONNX is written for encoders, and this model is of the kind '{model.config.kind}'",
            "Export translators with --format ctranslate2, language models with --format gguf.",
        )
    size = sum(parameter.numel() * 4 for parameter in model.parameters())
    if size > LARGEST:
        raise CheckpointError(
            f"the model has {size:,} bytes in float32, and an ONNX file has room for {LARGEST:,}",
            "Export it with --format hf.",
        )
    program, names = _program(model.float().eval())
    with replacing(path) as aside:
        program.save(str(aside))
    bundle.tokenizer.save(path.with_name("tokenizer.json"))
    return names


def _program(model: EncoderOnly) -> tuple[Any, list[str]]:
    """What torch's exporter makes of the model, and the names of inputs and output."""
    try:
        import_module("onnxscript")  # what the exporter writes with
    except ImportError:
        raise CheckpointError(
            "an ONNX file is to be written, and the library that torch writes them with is not installed",
            "Run `pip install 'sublayer[onnx]'`.",
        ) from None
    inputs = ["input_ids", "attention_mask"] + ["token_type_ids"] * (model.config.embedding.token_types > 1)
    output = "embeddings" if isinstance(model.config.head, config.SentenceEmbedding) else "logits"
    length = min(7, model.config.max_length)
    example = (torch.zeros(2, length, dtype=torch.int64), torch.ones(2, length, dtype=torch.int64))
    example += (torch.zeros(2, length, dtype=torch.int64),) * (len(inputs) - 2)
    batch = torch.export.Dim("batch")
    dims = {0: batch, 1: torch.export.Dim("length", max=model.config.max_length)}
    # It tells of each step, and of what torch itself is about to change.
    log = logging.getLogger("torch.onnx")
    level = log.level
    # Whoever sees the weights gets attention by its equation. ONNX Runtime's own gives NaN for a place of padding that
    # may look at nothing, and NaN spreads from there.
    seen = [
        attention.weights.register_forward_hook(_seen)
        for attention in model.modules()
        if isinstance(attention, SelfAttention)
    ]
    try:
        log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Masked(model).eval(),
                example,
                dynamo=True,
                dynamic_shapes=tuple(dims for _ in inputs),
                input_names=inputs,
                output_names=[output],
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever it stumbles over
        raise CheckpointError(
            f"torch's exporter has no ONNX for a part of this model ({first_line(error)})",
            "Export it with --format hf.",
        ) from error
    finally:
        log.setLevel(level)
        for each in seen:
            each.remove()
    return program, [*inputs, output]

"""The language models of the benchmarks: folders that `transformers` and sublayer both load, and prompts."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import torch
from corpus import cache_folder
from torch import nn

from sublayer import config
from sublayer.data import corpora
from sublayer.hub.exporting import export
from sublayer.hub.importing import find_family, read_tree
from sublayer.hub.pulling import read_elsewhere
from sublayer.hub.resolving import resolve
from sublayer.models import build_model
from sublayer.text import Tokenizer
from sublayer.text.folder import load_folder

Ids = list[int]

PRESETS = {"gpt2": "gpt2", "llama-15m": "llama", "qwen2.5-0.5b": "qwen2", "mini-lm": "llama"}
"""Shapes with random weights, and the family that they are written as. The last is for `--quick`."""

FOREIGN = {
    "qwen2.5-0.5b": {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": True,
    }
}
"""Shapes that are no presets, as config.json says them."""

LONGER = {"llama-15m": 1024}
"""A longer context than the preset's, so that long prompts fit. Rotary positions have no weights."""

PULLED = ("smollm2",)
"""Models with weights of their own."""

SEED = 1


def folder_of(shape: str) -> Path:
    """The model's folder, in `transformers`' form and in float32, unless the cache has it already."""
    length = f"-{LONGER[shape]}" if shape in LONGER else ""
    path = cache_folder() / f"language-model-{shape}{length}"
    if (path / "config.json").is_file():
        return path
    if shape in PULLED:
        bundle = read_elsewhere(resolve(shape), dtype=torch.float32)
        export(path, bundle.model, tokenizer=bundle.tokenizer, family="llama")
        return path
    torch.manual_seed(SEED)
    model = build_model(without_dropout(shape))
    _sharpen(model)
    export(path, model, family=PRESETS[shape])
    return path


def tree_of(shape: str) -> config.DecoderOnly:
    """What the model of a shape with random weights is made of."""
    if shape in FOREIGN:
        found = read_tree(find_family(FOREIGN[shape], shape), FOREIGN[shape])
    else:
        found = config.preset(shape)
    assert isinstance(found, config.DecoderOnly)
    return found.model_copy(update={"max_length": LONGER.get(shape, found.max_length)})


def without_dropout(shape: str) -> config.DecoderOnly:
    """The shape, so that both sides of a training do the same."""
    c = tree_of(shape)
    block = c.decoder.block
    quiet = block.model_copy(
        update={"dropout": 0.0, "attention": block.attention.model_copy(update={"dropout": 0.0})},
    )
    return c.model_copy(
        update={
            "embedding": c.embedding.model_copy(update={"dropout": 0.0}),
            "decoder": c.decoder.model_copy(update={"block": quiet}),
        }
    )


@torch.no_grad()
def _sharpen(model: nn.Module) -> None:
    """Larger weights, and biases that are not 0, so that one token stands out and rounding does not choose it."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.mul_(2.0)
        elif name.endswith("bias"):
            parameter.normal_(std=0.1)


def prompts(shape: str, folder: Path, count: int, lengths: list[int]) -> list[Ids]:
    """`count` prompts, of these lengths in turn: of WikiText-2 where the model can read, else random tokens."""
    if shape not in PULLED:
        return [random_tokens(shape, lengths[row % len(lengths)], row) for row in range(count)]
    draw = random.Random(SEED)
    ids = wikitext(load_folder(folder))
    found: list[Ids] = []
    for row in range(count):
        begin = draw.randrange(len(ids) - max(lengths))
        found.append(ids[begin : begin + lengths[row % len(lengths)]])
    return found


def text(shape: str, folder: Path, count: int) -> Ids:
    """The first `count` tokens of WikiText-2's test part where the model can read, else random tokens."""
    return wikitext(load_folder(folder))[:count] if shape in PULLED else random_tokens(shape, count)


def random_tokens(shape: str, count: int, number: int = 0) -> Ids:
    """`count` tokens of the shape's vocabulary, the same ones for a `number`."""
    draw, size = random.Random(SEED * 1_000_003 + number), tree_of(shape).vocab_size
    return [draw.randrange(size) for _ in range(count)]


def wikitext(tokenizer: Tokenizer) -> Ids:
    """The test part of WikiText-2 as one row of tokens."""
    [path] = corpora.fetch_parts("wikitext-2", "test")
    [ids] = tokenizer.encode([gzip.decompress(path.read_bytes()).decode("utf-8")])
    return ids

"""A small checkpoint as other libraries keep it, tokenizer and all, made in a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sublayer import config
from sublayer.hub.exporting import export
from sublayer.hub.folder import ModelBundle, ModelCard, write
from sublayer.models import build_model
from sublayer.text import Specials, Template, Tokenizer

LINES = ["the cat sat on the mat", "a dog ran after the cat", "on and on and on it goes"]


def tiny_tokenizer() -> Tokenizer:
    return Tokenizer.train(LINES, config.Subwords(vocab_size=300))


def llama_tree(vocab_size: int) -> config.DecoderOnly:
    block = config.Block(
        attention=config.Attention(heads=4, kv_heads=2, bias=False),
        feed_forward=config.Gated(hidden=40),
        norm=config.RMSNorm(),
        norm_placement="pre",
    )
    stack = config.Stack(layers=2, block=block, position=config.Rotary())
    return config.DecoderOnly(dim=32, vocab_size=vocab_size, max_length=48, decoder=stack)


def tiny_llama(folder: Path, *, rows: int = 304, generation: dict[str, Any] | None = None) -> Path:
    """A folder with config.json, model.safetensors, generation_config.json and a tokenizer.

    Args:
        rows: of the embedding; more than the tokenizer has tokens, as is common.
    """
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    tokens = {"bos_token_id": tokenizer.start_id, "eos_token_id": tokenizer.end_id, "pad_token_id": tokenizer.pad_id}
    export(folder, build_model(llama_tree(rows)), tokenizer=tokenizer, tokens=tokens)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(tokens | generation))
    return folder


def write_nllb(folder: Path) -> None:
    """A model folder of an encoder-decoder that is told its languages."""
    plain = Tokenizer.train(LINES, config.Subwords(vocab_size=300), ("eng_Latn", "spa_Latn"))
    languages = {code: found for code in ("eng_Latn", "spa_Latn") if (found := plain.special_id(code)) is not None}
    tokenizer = plain.replace(
        specials=Specials.of(plain.specials.roles, languages=languages),
        template=Template.around([languages["eng_Latn"]], [plain.end_id]),
    )
    torch.manual_seed(0)
    stack = config.Stack(
        layers=1, block=config.Block(attention=config.Attention(heads=2), feed_forward=config.PositionWise(hidden=20))
    )
    tree = config.EncoderDecoder(dim=16, vocab_size=tokenizer.vocab_size, max_length=32, encoder=stack, decoder=stack)
    decoding = config.Decoding(start=tokenizer.end_id).plain()
    write(folder, ModelBundle(build_model(tree), tokenizer, decoding), ModelCard("", "A model for tests.\n"))

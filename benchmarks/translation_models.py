"""The translation models of `engine_speed.py`, each in a folder with a form for every contender.

With random weights, for fixed numbers of tokens; or trained, for sentences that end. All are in Marian's architecture
(`shapes.py`), so that `transformers` and CTranslate2 compute the same function.
"""

from __future__ import annotations

import random
from importlib.util import find_spec
from pathlib import Path

import torch
from corpus import cache_folder
from engine_contenders import StepMatrix
from marian import END, PAD, START, to_marian
from safetensors.torch import load_file, save_file
from shapes import common_shape

from sublayer import config
from sublayer.models import EncoderDecoder

Ids = list[int]
TYPES = ("float32", "int8")
"""Of CTranslate2."""
SEED = 1


def random_translator(shape: str) -> EncoderDecoder:
    """A model of the preset's sizes, and of its vocabulary, whose translations vary and do not end by themselves.

    As they begin, such weights say one token for ever: of what a token becomes, most is the token and the sentence.
    Feed-forwards are made strong and attention weak, so that a token leads to another. The end marker is a row of
    zeros: its logit is 0, and that of the best of some thousand others is above it, so that no search wants to end.
    """
    torch.manual_seed(SEED)
    model = EncoderDecoder(common_shape(shape, vocab_size=config.preset(shape).vocab_size)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "feed_forward" in name:
                parameter.mul_(5.0)
            elif name.startswith("decoder") and "attention.output" in name:
                parameter.mul_(0.2)
        model.decoder.embedding.tokens.weight[END] = 0.0
    return model


def random_sources(shape: str, count: int) -> list[Ids]:
    """`count` sentences of random tokens, as long as sentences are, with end markers; the same ones every time."""
    draw, size = random.Random(SEED), config.preset(shape).vocab_size
    lengths = [9, 14, 11, 16, 8, 13, 10, 12]
    first = max(PAD, START, END) + 1
    return [[*(draw.randrange(first, size) for _ in range(lengths[row % 8])), END] for row in range(count)]


def forms_of(name: str, model: EncoderDecoder) -> Path:
    """The folder `name` in the cache with the model in every form, each written unless it is there."""
    folder = cache_folder() / f"engine-{name}"
    if not (folder / "tree.json").is_file():
        (folder / "marian").mkdir(parents=True, exist_ok=True)
        to_marian(model).save_pretrained(folder / "marian")
        save_file({name: one.detach().clone() for name, one in model.named_parameters()}, folder / "model.safetensors")
        # Last: it says that the others are whole.
        (folder / "tree.json").write_text(model.config.model_dump_json(), encoding="utf-8")
    if find_spec("ctranslate2"):
        from ctranslate2_models import translator_folder

        for kind in TYPES:
            translator_folder(folder / f"ctranslate2-{kind}", model, kind)
    return folder


def read_translator(folder: Path) -> EncoderDecoder:
    """The model of a folder that `forms_of` made."""
    model = EncoderDecoder(_tree(folder)).eval()
    held = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(held[name])
    return model


def _tree(folder: Path) -> config.EncoderDecoder:
    return config.EncoderDecoder.model_validate_json((folder / "tree.json").read_text(encoding="utf-8"))


def step_matrices(folder: Path) -> list[StepMatrix]:
    """The matrices that a decoding step of this model reads."""
    c = _tree(folder)
    with torch.device("meta"):
        model = EncoderDecoder(c)
    found = [
        StepMatrix(weight.shape[0], weight.shape[1])
        for name, weight in model.decoder.named_parameters()
        # Keys and values of the source are computed once, and of the embedding a row is read.
        if weight.dim() == 2 and name.startswith("layers") and "key_value" not in name
    ]
    return [*found, StepMatrix(c.vocab_size, c.dim, vocabulary=True)]

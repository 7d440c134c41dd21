"""Tiny encoders with heads, and a tokenizer of a dozen words, as a test wants them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from sublayer import config
from sublayer.hub.folder import ModelBundle, ModelCard, write
from sublayer.models import EncoderOnly
from sublayer.text import Tokenizer
from sublayer.text.specials import Specials

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "a", "mat", "dog"]
HEADS = {
    "sentiment": config.Classification(labels=("neg", "pos"), pooling="mean"),
    "tagger": config.Tagging(labels=("O", "B-PER", "I-PER")),
    "minilm": config.SentenceEmbedding(),
    "bert": config.MaskedLanguage(),
}


def word_tokenizer() -> Tokenizer:
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(WORDS[:5])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return Tokenizer(backend, Specials(pad=0, unknown=1, class_=2, separator=3, mask=4))


def encoder(head: config.Head) -> EncoderOnly:
    """In float64, with weights large enough that an error shows."""
    torch.manual_seed(3)
    block = config.Block(attention=config.Attention(heads=2), feed_forward=config.PositionWise(hidden=20))
    tree = config.EncoderOnly(
        dim=16,
        vocab_size=len(WORDS),
        max_length=12,
        embedding=config.Embedding(scale=False, token_types=2, norm=config.LayerNorm()),
        encoder=config.Stack(layers=2, block=block, position=config.Learned()),
        head=head,
    )
    made = EncoderOnly(tree).double().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def write_readers(folder: Path) -> None:
    """A model folder for each head, under the names that the examples in the help use."""
    for name, head in HEADS.items():
        write(
            folder / name, ModelBundle(encoder(head).float(), word_tokenizer()), ModelCard("", "A model for tests.\n")
        )

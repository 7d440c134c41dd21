"""Small models with their tokenizers, of every shape and head, as something that can be looked into."""

from __future__ import annotations

from functools import cache

import torch

from laws.models import redraw
from readers import HEADS, encoder, word_tokenizer
from sublayer import config
from sublayer.generation.generator import Generator
from sublayer.generation.translator import Translator
from sublayer.hub.folder import ModelBundle
from sublayer.inspection.loaded_model import LoadedModel
from sublayer.models import DecoderOnly, DecoderState, EncoderDecoder, EncoderOnly
from sublayer.reading import Classifier, Embedder, Filler, Tagger
from sublayer.text import Tokenizer

LINES = [
    "Where are my keys?",
    "The keys are on the table near the door.",
    "¿Dónde están mis llaves?",
    "The old man looks at the sea and thinks of the house.",
]
SENTENCE = "Where are the keys of the old house?"
CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}assistant:"


@cache
def tokenizer() -> Tokenizer:
    made = Tokenizer.train(LINES * 4, config.Subwords(vocab_size=300))
    return Tokenizer(made.backend, made.specials, chat_template=CHAT)


def stack(layers: int = 2, heads: int = 4) -> config.Stack:
    block = config.Block(
        attention=config.Attention(heads=heads), feed_forward=config.PositionWise(hidden=32), norm_placement="pre"
    )
    return config.Stack(layers=layers, block=block, position=config.Rotary())


def translator(*, max_length: int = 48, beam: int = 2) -> Translator:
    tree = config.EncoderDecoder(
        dim=32,
        vocab_size=tokenizer().vocab_size,
        max_length=max_length,
        encoder=stack(3),
        decoder=stack(2),
    )
    model = EncoderDecoder(tree).double().eval()
    redraw(model, 5)
    return Translator(model, tokenizer(), config.Decoding(beam=beam, max_ratio=1.0, max_extra=2))


def generator(*, max_length: int = 320) -> Generator[DecoderState]:
    tree = config.DecoderOnly(
        dim=32, vocab_size=tokenizer().vocab_size, max_length=max_length, decoder=stack(3), output_bias=True
    )
    model = DecoderOnly(tree).double().eval()
    redraw(model, 6)
    with torch.no_grad():
        # Texts go on as long as they may: what is asked for is what comes.
        model.output.bias[tokenizer().end_id] = -1e4
    return Generator(model, tokenizer(), config.Generation())


def filler() -> Filler:
    return Filler(encoder(HEADS["bert"]), word_tokenizer())


def classifier() -> Classifier:
    return Classifier(encoder(HEADS["sentiment"]), word_tokenizer())


def tagger() -> Tagger:
    return Tagger(encoder(HEADS["tagger"]), word_tokenizer())


def embedder() -> Embedder:
    return Embedder(encoder(HEADS["minilm"]), word_tokenizer())


def bare() -> ModelBundle:
    model = encoder(HEADS["minilm"])
    tree = model.config.model_copy(update={"head": config.NoHead()})
    other = EncoderOnly(tree).double().eval()
    other.load_state_dict(model.state_dict())
    return ModelBundle(other, word_tokenizer())


READERS = {"fill": filler, "classify": classifier, "tag": tagger, "embed": embedder, "encode": bare}
ALL: dict[str, tuple[object, str]] = {
    "translate": (translator, SENTENCE),
    "generate": (generator, SENTENCE),
    **{name: (make, "the cat sat on a mat") for name, make in READERS.items()},
}


def made(name: str) -> tuple[LoadedModel, str]:
    """A loaded by its task, and a text for it."""
    make, text = ALL[name]
    return make(), text  # type: ignore[operator]

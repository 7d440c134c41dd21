"""A model is asked as it was trained: the tokens are the same ones, for every task and for anybody's tokenizer.

Whatever stands around a text is the tokenizer's template, or a chat template, or an encoder-decoder's affixes; a marker
more or less in use than in training is an error that nothing else would show but a worse model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from sublayer import config
from sublayer.data.report import Report
from sublayer.data.sources import Pairs
from sublayer.data.tables.conversations import Conversation, Message
from sublayer.data.tables.documents import Document
from sublayer.data.tables.labelled import Labelled
from sublayer.data.tables.table import Rows
from sublayer.data.tables.tagged import Tagged
from sublayer.generation.generator import Generator
from sublayer.generation.translator import Translator
from sublayer.models import build_model
from sublayer.reading import Classifier, Embedder, Filler, Tagger
from sublayer.reading.filler import STAND_INS, stand_ins
from sublayer.tasks import task_of
from sublayer.tasks.task import Encoding
from sublayer.text import PairAffixes, Slot, Specials, Template, Tokenizer
from sublayer.text.pieces import SPACE
from vocabularies import LINES

WORDS = ["the", "cat", "dog", "sat", "on", "a", "mat", "Tom's", "café"]
NAMED = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "[CLS]", "[SEP]", "xx_XX", "yy_YY"]
TEXTS = ["the cat sat", "a dog", "Tom's café on the mat"]
MODEL = {"dim": 16, "max_length": 64}
BLOCK = {"norm_placement": "pre", "attention": {"heads": 2}, "feed_forward": {"type": "position-wise", "hidden": 16}}


def foreign(single: Sequence[Slot], pair: Sequence[Slot] = (), **roles: int) -> Tokenizer:
    """A tokenizer as another library's folder may bring it: words, and its own template."""
    backend = Backend(models.WordLevel({w: n for n, w in enumerate([*NAMED, *WORDS, "'", "s", "Tom"])}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(NAMED)
    plain = Tokenizer(backend, Specials.of(roles, languages={"xx_XX": 7, "yy_YY": 8}))
    return plain.replace(template=Template(tuple(single), tuple(pair or (*single, Slot(text=1)))))


BERT = foreign(
    (Slot(5), Slot(text=0), Slot(6)),
    (Slot(5), Slot(text=0), Slot(6), Slot(text=1, type=1), Slot(6, type=1)),
    pad=0,
    unknown=3,
    mask=4,
    separator=6,
    class_=5,
)
ROBERTA = foreign(
    (Slot(1), Slot(text=0), Slot(2)),
    (Slot(1), Slot(text=0), Slot(2), Slot(2), Slot(text=1), Slot(2)),
    pad=0,
    start=1,
    end=2,
    unknown=3,
)
GPT2 = foreign((Slot(text=0),), start=2, end=2)
LLAMA = foreign((Slot(1), Slot(text=0)), start=1, end=2, unknown=3)
MBART_50 = foreign((Slot(7), Slot(text=0), Slot(2)), pad=0, start=1, end=2)
T5 = foreign((Slot(text=0), Slot(2)), pad=0, end=2, unknown=3)


def rows(found: list[Any]) -> Rows[Any]:
    return Rows(found, Report(len(found), len(found)), list(range(len(found))))


LOWERCASE = config.Normalization(lowercase=True, strip_accents=True)
OWN: dict[str, config.TokenizerRecipe] = {
    "own": config.Subwords(vocab_size=300),
    "unigram": config.Subwords(type="unigram", vocab_size=400, normalization=LOWERCASE),
    # "mat" occurs once, and is unknown.
    "words": config.Words(min_frequency=2, normalization=LOWERCASE),
    "separated words": config.Words(split="whitespace", min_frequency=1),
    "characters": config.Characters(normalization=config.Normalization(unicode="NFD")),
    "bytes": config.Bytes(),
}


def made(kind: Tokenizer | str, task: config.Task, table: Any) -> Tokenizer:
    """A tokenizer from elsewhere, or one that the task's training makes."""
    return kind if isinstance(kind, Tokenizer) else task_of(task).train_tokenizer(OWN[kind], table)


def shown(task: config.Task, table: Any, tokenizer: Tokenizer, **more: Any) -> Any:
    return task_of(task).examples(table, Encoding(tokenizer, 64, **more))


def trained_rows(task: config.Task, table: Any, tokenizer: Tokenizer, **more: Any) -> list[list[int]]:
    batch = shown(task, table, tokenizer, **more).fixed().collate(np.arange(len(TEXTS)))
    return [row[:length] for row, length in zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)]


def asked_rows(reader: Any, ask: Any, *texts: Any) -> list[tuple[list[int], list[int] | None]]:
    """What the model inside is fed, text by text, with the kinds of the tokens."""
    fed: list[tuple[list[int], list[int] | None]] = []

    def listen(model: Any, args: tuple[Any, ...], output: Any) -> None:
        ids, lengths, token_type_ids = args
        assert lengths is None
        fed.append((ids[0].tolist(), None if token_type_ids is None else token_type_ids[0].tolist()))

    with_hook = reader.model.register_forward_hook(listen)
    for text in texts:
        ask([text])
    with_hook.remove()
    return fed


def encoder(tokenizer: Tokenizer, head: dict[str, Any], token_type_ids: int = 0) -> Any:
    tree = config.EncoderOnly.parse(
        {
            **MODEL,
            "kind": "encoder-only",
            "vocab_size": tokenizer.vocab_size,
            "head": head,
            "embedding": {"token_types": token_type_ids},
            "encoder": {"layers": 1, "block": BLOCK},
        },
        "test",
    )
    return build_model(tree)


@pytest.mark.parametrize("kind", [*OWN, BERT, ROBERTA, GPT2], ids=[*OWN, "BERT", "RoBERTa", "GPT-2"])
def test_a_classifier(kind: Tokenizer | str) -> None:
    task, table = config.ClassificationTask(), rows([Labelled(text, "x") for text in TEXTS])
    tokenizer = made(kind, task, table)
    reader = Classifier(encoder(tokenizer, {"type": "classification", "labels": ["x", "y"]}), tokenizer)
    asked = asked_rows(reader, reader.classify, *TEXTS)
    assert [ids for ids, _ in asked] == trained_rows(task, table, tokenizer, labels=("x", "y"))


@pytest.mark.parametrize("kind", [*OWN, BERT, ROBERTA], ids=[*OWN, "BERT", "RoBERTa"])
def test_a_classifier_of_pairs(kind: Tokenizer | str) -> None:
    pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
    task, table = config.ClassificationTask(), rows([Labelled(one, "x", other) for one, other in pairs])
    tokenizer = made(kind, task, table)
    reader = Classifier(encoder(tokenizer, {"type": "classification", "labels": ["x", "y"]}, 2), tokenizer)
    batch: Any = shown(task, table, tokenizer, labels=("x", "y")).fixed().collate(np.arange(3))
    for row, (ids, token_type_ids) in enumerate(asked_rows(reader, reader.classify, *pairs)):
        assert batch.tokens[row, : len(ids)].tolist() == ids
        assert batch.token_type_ids[row, : len(ids)].tolist() == token_type_ids
        assert batch.lengths[row] == len(ids)


@pytest.mark.parametrize("kind", [*OWN, BERT, ROBERTA], ids=[*OWN, "BERT", "RoBERTa"])
def test_a_tagger(kind: Tokenizer | str) -> None:
    sentences = [tuple(text.split()) for text in TEXTS]
    task, table = config.TaggingTask(), rows([Tagged(words, ("O",) * len(words)) for words in sentences])
    tokenizer = made(kind, task, table)
    reader = Tagger(encoder(tokenizer, {"type": "tagging", "labels": ["O", "B-X"]}), tokenizer)
    asked = asked_rows(reader, reader.tag, *sentences)
    assert [ids for ids, _ in asked] == trained_rows(task, table, tokenizer, labels=("O", "B-X"))


@pytest.mark.parametrize("kind", [*OWN, BERT, ROBERTA], ids=[*OWN, "BERT", "RoBERTa"])
def test_an_embedder(kind: Tokenizer | str) -> None:
    task, table = config.EmbeddingTask(), Pairs(list(zip(TEXTS, TEXTS[::-1], strict=True)), Report(3, 3))
    tokenizer = made(kind, task, table)
    reader = Embedder(encoder(tokenizer, {"type": "sentence-embedding"}), tokenizer)
    batch: Any = shown(task, table, tokenizer).fixed().collate(np.arange(3))
    for row, (ids, _) in enumerate(asked_rows(reader, reader.embed, *TEXTS)):
        assert batch.left[row, : batch.left_lengths[row]].tolist() == ids


MASKED = [
    "the cat sat",
    "a dog, the cat.",
    "the cat; Tom's café (the mat) sat on the mat.",
    "Tom sees the house.",
    "Mary wants a small dog.",
]


@pytest.mark.parametrize("kind", [*OWN, BERT], ids=[*OWN, "BERT"])
def test_a_filler(kind: Tokenizer | str) -> None:
    """The ids of a text with one word masked are the ids of the text with that word's ids replaced."""
    task, table = config.MaskedTask(), rows([Document(text) for text in MASKED * 9 + LINES])
    tokenizer = made(kind, task, table)
    filler = Filler(encoder(tokenizer, {"type": "masked-language"}), tokenizer)
    batch: Any = shown(task, table, tokenizer).fixed().collate(np.arange(len(MASKED)))
    tried = 0
    for row, text in enumerate(MASKED):
        (whole,) = tokenizer.tokens([text])
        trained = batch.tokens[row, : batch.lengths[row]].tolist()
        hidden = batch.target[row, : batch.lengths[row]].tolist()
        assert [a if b < 0 else b for a, b in zip(trained, hidden, strict=True)] == whole.ids
        for place, (begin, end) in enumerate(whole.spans):
            word = text[begin:end].strip()
            begin = end - len(word)
            here, before = tokenizer.pieces([whole.ids[place], whole.ids[place - 1]])
            # A word of two tokens, a space and the rest, is none that a single mask hides.
            if not here.strip(SPACE) or (before == SPACE and stand_ins(tokenizer) != STAND_INS):
                continue
            inside = text[begin - 1 : begin].strip() or text[end : end + 1].isalnum()
            if whole.texts[place] is None or not word or inside:
                continue
            asked = f"{text[:begin]}[MASK]{text[end:]}"
            [(ids, _)] = asked_rows(filler, filler.fill, asked)
            assert ids == [*whole.ids[:place], tokenizer.mask_id, *whole.ids[place + 1 :]], asked
            options = filler.fill([asked], best=tokenizer.vocab_size)[0][0]
            word = tokenizer.decode([[whole.ids[place]]])[0].strip()
            assert f"{text[:begin]}{word}{text[end:]}" in [one.text for one in options if one.token == word]
            tried += 1
    assert tried


@pytest.mark.parametrize("kind", [*OWN, LLAMA, GPT2], ids=[*OWN, "Llama", "GPT-2"])
def test_a_language_model(kind: Tokenizer | str) -> None:
    """A document begins as a prompt does, and ends with what ends an answer."""
    task, table = config.CausalTask(), rows([Document(text) for text in TEXTS])
    tokenizer = made(kind, task, table)
    examples: Any = shown(task, table, tokenizer)
    generator = _generator(tokenizer)
    for row, text in enumerate(TEXTS):
        assert examples.texts[row].tolist() == [*generator.encode(text), tokenizer.end_id]


@pytest.mark.parametrize("kind", OWN)
def test_a_chat(kind: str) -> None:
    task = config.InstructionsTask()
    table = rows([Conversation((Message("user", text), Message("assistant", text[::-1]))) for text in TEXTS])
    tokenizer = made(kind, task, table)
    whole = trained_rows(task, table, tokenizer)
    for row, text in zip(whole, TEXTS, strict=True):
        asked = _generator(tokenizer).encode_chat([{"role": "user", "content": text}])
        assert row[: len(asked)] == asked
        assert tokenizer.decode([row[len(asked) :]])[0].strip() == tokenizer.decode(tokenizer.encode([text[::-1]]))[0]


@pytest.mark.parametrize(
    ("kind", "decoding", "source", "start", "forced"),
    [
        *((kind, {}, ((), (2,)), 1, ()) for kind in OWN),
        (T5, {"start": 0}, ((), (2,)), 0, ()),
        (ROBERTA, {"start": 2, "constraints": {"forced": [1]}}, ((1,), (2,)), 2, (1,)),
        (MBART_50, {"start": 2, "target_language": "yy_YY"}, ((7,), (2,)), 2, (8,)),
        (MBART_50, {"start": 2, "constraints": {"forced": [7]}, "target_language": "yy_YY"}, ((7,), (2,)), 2, (8,)),
        (MBART_50, {"start": 2, "source_language": "yy_YY", "target_language": "xx_XX"}, ((8,), (2,)), 2, (7,)),
        # The first mBART begins with the language itself.
        (MBART_50, {"start": 7, "target_language": "yy_YY"}, ((7,), (2,)), 8, ()),
        # Marian is told in the source what to write.
        (T5, {"start": 0, "target_language": "yy_YY"}, ((8,), (2,)), 0, ()),
    ],
    ids=[*OWN, "T5", "BART", "mBART-50", "told otherwise", "both ways", "mBART", "Marian"],
)
def test_a_translator(
    kind: Tokenizer | str,
    decoding: dict[str, Any],
    source: tuple[tuple[int, ...], tuple[int, ...]],
    start: int,
    forced: tuple[int, ...],
) -> None:
    task, table = config.TranslationTask(), Pairs(list(zip(TEXTS, TEXTS[::-1], strict=True)), Report(3, 3))
    tokenizer = made(kind, task, table)
    c = config.Decoding.parse(decoding, "test")
    affixes = PairAffixes.of(tokenizer, c)
    assert ((affixes.source.before, affixes.source.after), affixes.start, affixes.forced) == (source, start, forced)
    stack = {"layers": 1, "block": BLOCK}
    tree = {**MODEL, "vocab_size": tokenizer.vocab_size, "encoder": stack, "decoder": stack}
    translator = Translator(build_model(config.EncoderDecoder.parse(tree, "test")), tokenizer, c)
    batch: Any = shown(task, table, tokenizer, decoding=c).fixed().collate(np.arange(3))
    for row, (ids, target) in enumerate(zip(translator.encode(TEXTS), tokenizer.encode(TEXTS[::-1]), strict=True)):
        assert batch.source[row, : batch.source_lengths[row]].tolist() == ids
        length = int(batch.target_lengths[row])
        assert batch.target_in[row, :length].tolist() == [start, *forced, *target]
        assert batch.target_out[row, :length].tolist() == [*forced, *target, tokenizer.end_id]
    for translation in translator.translate(TEXTS, beam=1):
        assert tuple(translation.tokens[: len(forced)]) == forced


def _generator(tokenizer: Tokenizer) -> Generator[Any]:
    tree = {**MODEL, "kind": "decoder-only", "vocab_size": tokenizer.vocab_size}
    model = build_model(config.DecoderOnly.parse({**tree, "decoder": {"layers": 1, "block": BLOCK}}, "test"))
    return Generator(model, tokenizer, config.Generation())

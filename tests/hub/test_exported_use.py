"""What is exported gives our own texts by the plainest use of the library that it was exported for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from laws.models import redraw
from small_run import tree as encoder_decoder
from small_task import DECODER_ONLY
from sublayer import config
from sublayer.config.presets import merge
from sublayer.generation.generator import Generator
from sublayer.generation.translator import Translator
from sublayer.hub.exporting import export
from sublayer.hub.generation_config import inexpressible, read
from sublayer.hub.importing import find_family, import_folder, read_tree
from sublayer.models import build_model
from sublayer.reading import Classifier, Embedder, Filler, Tagger
from sublayer.text import Template, Tokenizer
from vocabularies import LINES

TEXTS = ["Tom sees the house.", "a small dog", "El niño perdió 42 apples.", "her tea", "Mary doesn't like la canción."]
OWN: dict[str, config.TokenizerRecipe] = {
    "bpe": config.Subwords(vocab_size=300),
    "unigram": config.Subwords(type="unigram", vocab_size=400),
    "words": config.Words(),
    "characters": config.Characters(),
}


def tokenizer(kind: str = "bpe", *extra: str) -> Tokenizer:
    return Tokenizer.train(LINES, OWN[kind], extra)


def built(tree: Any) -> Any:
    torch.manual_seed(0)
    model = build_model(tree).eval()
    redraw(model, 1)
    return model


def theirs(folder: Path, kind: str) -> tuple[Any, Any]:
    model, report = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return transformers.AutoTokenizer.from_pretrained(folder), model.eval()


# --- translators, a setting at a time ----------------------------------------------------------------------------

ROOM = {"max_extra": 40}
"""As long as the model's positions: no generation_config.json knows a limit that goes by the source's length."""
DECODINGS: dict[str, dict[str, Any]] = {
    "greedy": {"beam": 1},
    "beam": {"beam": 4},
    "long": {"beam": 3, "length_penalty": 2.0},
    "sum": {"beam": 3, "length_penalty": 0.0},
    "short": {"beam": 3, "length_penalty": -1.0},
    "late": {"beam": 3, "early_stopping": False},
    "late and short": {"beam": 3, "early_stopping": False, "length_penalty": -0.5},
    "limit": {"beam": 2, "max_tokens": 7},
    "limit, forced end": {"beam": 2, "max_tokens": 7, "forced_end": 2},
    "greedy, forced end": {"beam": 1, "max_tokens": 5, "forced_end": 2},
    "start": {"beam": 2, "start": 0},
    "ends": {"beam": 2, "end_ids": [30, 31, 32]},
    **{
        name: {"beam": beam, "constraints": constraint}
        for beam in (1, 3)
        for name, constraint in {
            f"n-grams, {beam}": {"no_repeat_ngram": 2},
            f"repetition, {beam}": {"repetition_penalty": 1.7},
            f"minimum, {beam}": {"min_length": 9},
            f"banned, {beam}": {"banned": [*range(40, 90)]},
            f"allowed, {beam}": {"allowed": [2, *range(50, 120)]},
            f"forced, {beam}": {"forced": [77]},
            f"renormalized, {beam}": {"renormalize": True, "banned": [*range(40, 90)], "no_repeat_ngram": 2},
        }.items()
    },
}


def translator(decoding: dict[str, Any], kind: str = "bpe") -> Translator:
    own = tokenizer(kind)
    c = config.Decoding.parse({**ROOM, **decoding}, "test")
    tree = encoder_decoder(own.vocab_size).model_copy(update={"max_length": 40})
    return Translator(built(tree), own, c)


def said_by_generate(folder: Path, kind: str, texts: list[str], *, batch: bool) -> list[str]:
    reader, model = theirs(folder, kind)
    asked = [texts] if batch else [[text] for text in texts]
    found: list[str] = []
    for some in asked:
        given = reader(some, return_tensors="pt", padding=batch)
        with torch.no_grad():
            ids = model.generate(**given)
        begun = given["input_ids"].shape[1] if "CausalLM" in kind else 0
        found += reader.batch_decode(ids[:, begun:], skip_special_tokens=True)
    return found


@pytest.mark.parametrize("name", DECODINGS)
def test_a_translator_translates_alike(name: str, tmp_path: Path) -> None:
    ours = translator(DECODINGS[name])
    plain = ours.decoding.plain()
    export(tmp_path / "out", ours.model, tokenizer=ours.tokenizer, decoding=plain)
    texts = [one.text for one in ours.translate(TEXTS)]
    kind = "AutoModelForSeq2SeqLM"
    assert [text.strip() for text in said_by_generate(tmp_path / "out", kind, TEXTS, batch=False)] == texts
    # And by us, read again.
    said = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    read_again = config.Decoding.parse(read(ours.model.config, {}, said, ours.tokenizer), "test")
    again = Translator(ours.model, ours.tokenizer, read_again)
    assert [one.text for one in again.translate(TEXTS)] == texts
    assert not inexpressible(ours.model.config, plain)


@pytest.mark.parametrize("kind", OWN)
def test_a_translator_of_each_tokenizer(kind: str, tmp_path: Path) -> None:
    ours = translator({"beam": 3}, kind)
    export(tmp_path / "out", ours.model, tokenizer=ours.tokenizer, decoding=ours.decoding.plain())
    texts = [one.text for one in ours.translate(TEXTS)]
    for batch in (False, True):
        found = said_by_generate(tmp_path / "out", "AutoModelForSeq2SeqLM", TEXTS, batch=batch)
        assert [text.strip() for text in found] == texts


def test_a_limit_by_the_source_is_told_and_not_dropped() -> None:
    ours = translator({"max_extra": 3})
    assert inexpressible(ours.model.config, ours.decoding.plain()) == ["decoding.max_ratio = 2, decoding.max_extra = 3"]


# --- language models ---------------------------------------------------------------------------------------------

GENERATIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "few": {"max_tokens": 5},
    "as many as there is room": {"max_tokens": None},
    "in all": {"max_tokens": None, "max_length": 40},
    "beam": {"search": {"type": "beam", "size": 3}, "max_tokens": 8},
    "late beam": {"search": {"type": "beam", "size": 3, "early_stopping": False}, "max_tokens": 8},
    "repetition": {"constraints": {"repetition_penalty": 1.7}, "max_tokens": 12},
    "n-grams": {"constraints": {"no_repeat_ngram": 2}, "max_tokens": 12},
    "minimum": {"constraints": {"min_length": 9}, "max_tokens": 12},
    "banned": {"constraints": {"banned": [*range(40, 90)]}, "max_tokens": 12},
    "ends": {"end_ids": [*range(4, 34)], "max_tokens": 12},
}


def generator(decoding: dict[str, Any], kind: str = "bpe") -> Generator[Any]:
    own = tokenizer(kind, *(f"<end{number}>" for number in range(30)))
    own = own.replace(template=Template.around([own.start_id], []))
    tree = config.DecoderOnly.parse(merge(DECODER_ONLY, {"vocab_size": own.vocab_size, "max_length": 64}), "test")
    block = tree.decoder.block.model_copy(
        update={
            "attention": config.Attention(heads=2, bias=False),
            "feed_forward": config.Gated(hidden=24),
            "norm": config.RMSNorm(),
        }
    )
    tree = tree.model_copy(update={"decoder": tree.decoder.model_copy(update={"block": block})})
    return Generator(built(tree), own, config.Generation.parse(decoding, "test"))


@pytest.mark.parametrize("name", GENERATIONS)
def test_a_language_model_goes_on_alike(name: str, tmp_path: Path) -> None:
    ours = generator(GENERATIONS[name])
    export(tmp_path / "out", ours.model, tokenizer=ours.tokenizer, decoding=ours.decoding.plain())
    texts = [one.text for one in ours.generate(TEXTS)]
    assert said_by_generate(tmp_path / "out", "AutoModelForCausalLM", TEXTS, batch=False) == texts
    if name != "in all":  # which counts what fills up a prompt, too
        assert len(said_by_generate(tmp_path / "out", "AutoModelForCausalLM", TEXTS, batch=True)) == len(texts)
    said = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    plain = read(ours.model.config, {}, said, ours.tokenizer)
    again = Generator(ours.model, ours.tokenizer, config.Generation.parse(plain, "test"))
    assert [one.text for one in again.generate(TEXTS)] == texts


# --- encoders ----------------------------------------------------------------------------------------------------


def encoder(own: Tokenizer, head: Any, **more: Any) -> Any:
    block = config.Block(
        attention=config.Attention(heads=2),
        feed_forward=config.PositionWise(hidden=36, activation="gelu"),
        norm_placement="post",
    )
    return built(
        config.EncoderOnly(
            dim=24,
            vocab_size=own.vocab_size,
            max_length=64,
            embedding=config.Embedding(scale=False, token_types=0, norm=config.LayerNorm()),
            encoder=config.Stack(layers=2, block=block, position=config.Learned()),
            head=head,
            **more,
        )
    )


def read_by(kind: str, *extra: str) -> Tokenizer:
    own = tokenizer(kind, *extra)
    return own.replace(template=Template.around([own.start_id], [own.end_id]))


@pytest.mark.parametrize("kind", OWN)
def test_a_classifier_by_a_pipeline(kind: str, tmp_path: Path) -> None:
    own = read_by(kind)
    head = config.Classification(labels=("sport", "world", "science"), activation=None)
    ours = Classifier(encoder(own, head, pooler=True), own)
    export(tmp_path / "out", ours.model, tokenizer=own, decoding={})
    ask = transformers.pipeline("text-classification", str(tmp_path / "out"), top_k=None)
    for one, said in zip(ours.classify(TEXTS), ask(TEXTS), strict=True):
        assert {each["label"]: each["score"] for each in said} == pytest.approx(one.probabilities, rel=1e-5)


def test_a_tagger_by_a_pipeline(tmp_path: Path) -> None:
    own = read_by("words")
    ours = Tagger(encoder(own, config.Tagging(labels=("O", "B-X", "B-Y"))), own)
    export(tmp_path / "out", ours.model, tokenizer=own, decoding={})
    ask = transformers.pipeline("token-classification", str(tmp_path / "out"), ignore_labels=[])
    sentences = ["Tom sees the house", "a small dog"]
    for one, said in zip(ours.tag(sentences), ask(sentences), strict=True):
        assert [each["entity"] for each in said] == one.tags


@pytest.mark.parametrize("kind", ["bpe", "unigram", "words"])
def test_a_mask_is_filled_by_a_pipeline(kind: str, tmp_path: Path) -> None:
    own = read_by(kind, "<mask>")
    own = own.replace(specials=dataclasses.replace(own.specials, mask=own.special_id("<mask>")))
    ours = Filler(encoder(own, config.MaskedLanguage()), own)
    export(tmp_path / "out", ours.model, tokenizer=own, decoding={})
    ask = transformers.pipeline("fill-mask", str(tmp_path / "out"), top_k=4)
    for text in ("[MASK] sees the house.", "Tom sees the [MASK].", "a [MASK] dog", "the old [MASK]"):
        [options] = ours.fill([text], best=4)[0]
        said = ask(text.replace("[MASK]", "<mask>"))
        assert [each["score"] for each in said] == pytest.approx([one.probability for one in options], rel=1e-5)


@torch.no_grad()
def test_an_embedder_by_its_modules(tmp_path: Path) -> None:
    """Texts are cut, pooled and normalized as sentence-transformers does it (its three modules, written out)."""
    own = read_by("bpe")
    ours = Embedder(encoder(own, config.SentenceEmbedding(pooling="mean", normalize=True, longest=8)), own)
    export(tmp_path / "out", ours.model, tokenizer=own, decoding={})
    # Its class has a pooler, which nobody reads.
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    given = reader(TEXTS, padding=True, truncation=True, return_tensors="pt")
    states = model(**given).last_hidden_state
    real = given["attention_mask"].unsqueeze(-1)
    expected = torch.nn.functional.normalize((states * real).sum(1) / real.sum(1), dim=-1)
    torch.testing.assert_close(ours.embed(TEXTS), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("problem", ["single-label", "multi-label", "regression"])
@pytest.mark.parametrize("labels", [("a",), ("a", "b"), ("a", "b", "c")], ids=["one", "two", "three"])
def test_scores_mean_what_the_pipeline_makes_of_them(problem: Any, labels: tuple[str, ...], tmp_path: Path) -> None:
    """A sigmoid for several labels and for one alone, numbers for a regression; and so when read again."""
    own = read_by("bpe")
    head = config.Classification(labels=labels, activation=None, problem=problem)
    ours = Classifier(encoder(own, head, pooler=True), own)
    export(tmp_path / "out", ours.model, tokenizer=own, decoding={})
    ask = transformers.pipeline("text-classification", str(tmp_path / "out"), top_k=None)
    again = import_folder(tmp_path / "out").model
    assert again.config.head == head
    for one, said in zip(ours.classify(TEXTS), ask(TEXTS), strict=True):
        assert {each["label"]: each["score"] for each in said} == pytest.approx(one.probabilities, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["bert", "distilbert", "electra", "roberta", "modernbert"])
def test_every_family_reads_what_scores_mean(name: str) -> None:
    settings = {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}, "problem_type": "regression"}
    kind = transformers.AutoConfig.for_model(name, **settings)
    stem = {
        "bert": "Bert",
        "distilbert": "DistilBert",
        "electra": "Electra",
        "roberta": "Roberta",
        "modernbert": "ModernBert",
    }
    plain = kind.to_dict() | {"architectures": [f"{stem[name]}ForSequenceClassification"]}
    family = find_family(plain, "test")
    tree = read_tree(family, plain)
    assert tree.head.problem == "regression"
    assert family.write(tree)["problem_type"] == "regression"

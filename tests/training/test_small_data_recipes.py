"""The shipped recipes for small data, end to end in two steps, on stand-ins for their corpora: no network, no hours."""

from __future__ import annotations

import gzip
import hashlib
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from small_run import sublayer
from sublayer.data import corpora
from sublayer.data.corpora import Corpus
from sublayer.hub.folder import read
from sublayer.text.word_vectors import read_vectors

EXAMPLES = Path(__file__).parents[2] / "examples"

QUESTIONS = ("Who", "What", "Where", "When", "How", "Why", "Which")
THINGS = ("a river", "the king", "this film", "a good day", "the old city", "no plot", "n't it")
ENDS = ("Spain", "winter", "war", "history", "the world", "all time", "love", "space", "the sea")
FEW = ["--set", "training.steps=2", "--set", "training.validate_every=2", "--set", "training.schedule.warmup=1"]


def sentences(count: int) -> list[str]:
    """Distinct ones."""
    return [f"{who} is {what} of {where} {n} ?" for n, who, what, where in islice(numbered(), count)]


def numbered() -> Iterator[tuple[int, str, str, str]]:
    for n in range(100):
        for who, what, where in product(QUESTIONS, THINGS, ENDS):
            yield n, who, what, where


def articles(part: str, count: int) -> bytes:
    text = "".join(f" \n = The {part} {n} = \n \n {' '.join(sentences(20))} \n" for n in range(count))
    return gzip.compress(text.encode(), mtime=0)


def stand_in(corpus: Corpus) -> dict[Path, bytes]:
    """The files of a corpus with other text, read as its own would be."""
    match corpus.name:
        case "trec":
            rows = "".join(f"{n},{n % 6},0,{text}\n" for n, text in enumerate(sentences(corpus.pairs)))
            return {corpora.place(corpus): f",label-coarse,label-fine,text\n{rows}".encode()}
        case "rotten-tomatoes" | "imdb":
            assert corpus.columns is not None
            assert corpus.columns.only is not None
            source = corpus.columns.only[1]
            rows = "".join(f"{text},{n % 2},{source}\n" for n, text in enumerate(sentences(1000)))
            return {corpora.place(corpus): f"text,label,source\n{rows}".encode()}
        case "tatoeba-en-es":
            return {corpora.place(corpus): "".join(f"{text}\tNo.\t\n" for text in sentences(1500)).encode()}
        case _:
            return {corpora.place(corpus, part): articles(part, 8) for part in corpus.parts}


@pytest.fixture(scope="module", autouse=True)
def corpora_at_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Every named corpus, put into the cache by hand; and a working folder where runs go."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBLAYER_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        (folder / "cache").mkdir()
        rows: list[Corpus] = []
        for corpus in corpora.CORPORA:
            files = stand_in(corpus)
            for path, content in files.items():
                path.write_bytes(content)
            sums = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
            own = sums.get(corpora.place(corpus), corpus.sha256)
            parts = tuple(replace(each, sha256=sums[corpora.place(corpus, each.part)]) for each in corpus.files)
            rows.append(replace(corpus, sha256=own, files=parts))
        patch.setattr(corpora, "CORPORA", tuple(rows))
        yield folder


@pytest.fixture(scope="module")
def vectors(corpora_at_hand: Path) -> Path:
    """The vectors that the others begin with, by the program that learns them."""
    path = corpora_at_hand / "runs" / "english-words.vec"
    program = runpy.run_path(str(EXAMPLES / "word-vectors" / "skip_gram.py"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["skip_gram.py", str(path), "--epochs", "1", "--least", "1"])
        program["main"]()
    return path


@pytest.mark.parametrize("name", ["trec-pretrained", "rotten-tomatoes-pretrained"])
def test_labels_are_learned_from_vectors_of_words(vectors: Path, name: str) -> None:
    assert_labels(name)
    learned = dict(read_vectors(vectors))
    made = load_file(Path("runs") / name / "model" / "model.safetensors")["encoder.embedding.tokens.weight"]
    tokenizer = read(Path("runs") / name).tokenizer
    words = [word for word in learned if tokenizer.encode([word])[0] != [tokenizer.unknown_id]]
    assert len(words) > len(learned) / 2
    begun = torch.from_numpy(np.stack([learned[word] for word in words]))
    rows = made[[tokenizer.encode([word])[0][0] for word in words]]
    # Two steps change the vectors that were there; they do not draw them anew.
    assert torch.nn.functional.cosine_similarity(begun, rows).min() > 0.9


@pytest.mark.parametrize("name", ["trec", "rotten-tomatoes"])
def test_labels_are_learned_from_scratch(name: str) -> None:
    assert_labels(name)


def assert_labels(name: str, *settings: str) -> None:
    """A run ends, its model is scored on its test part, and reads a text of somebody's own."""
    outcome = sublayer("train", name, *FEW, *settings)
    assert outcome.code == 0, outcome.err
    scored = sublayer("evaluate", f"runs/{name}")
    assert scored.code == 0, scored.err
    assert "accuracy" in scored.out
    assert sublayer("classify", f"runs/{name}", stdin=b"Who is the king of Spain ?\n").code == 0


@pytest.mark.parametrize("name", ["wikitext-2", "wikitext-2-lstm"])
def test_language_models_of_articles_train_and_are_measured(name: str) -> None:
    outcome = sublayer(
        "train", name, *FEW, "--set", "training.minutes=none", "--set", "training.batches.tokens=300",
        "--set", "tokenizer.vocab_size=300", "--set", "model.dim=32", "--set", "training.optimizer.type=adamw",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "perplexity" in sublayer("evaluate", f"runs/{name}").out

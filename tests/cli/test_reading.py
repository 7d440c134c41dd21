"""The commands that ask an encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from readers import HEADS, encoder, word_tokenizer, write_readers
from small_run import sublayer
from sublayer.reading import Classifier, Embedder, Filler, Tagger


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_readers(tmp_path)
    return tmp_path


def test_classify_gives_what_the_classifier_gives(folder: Path) -> None:
    expected = Classifier(encoder(HEADS["sentiment"]).float(), word_tokenizer()).classify(["the cat sat", "a dog"])
    outcome = sublayer("classify", folder / "sentiment", stdin=b"the cat sat\n\na dog\n")
    lines = [line.split("\t") for line in outcome.out.splitlines()]
    assert lines.pop(1) == [""], "an empty line in is an empty line out"
    assert [line[0] for line in lines] == [one.label for one in expected]
    assert [float(line[1]) for line in lines] == pytest.approx([one.probability for one in expected], abs=1e-4)
    assert [line[2] for line in lines] == ["the cat sat", "a dog"]


def test_tag_writes_conll(folder: Path) -> None:
    expected = Tagger(encoder(HEADS["tagger"]).float(), word_tokenizer()).tag(["the cat"])[0]
    outcome = sublayer("tag", folder / "tagger", "the cat")
    assert [line.split("\t")[:2] for line in outcome.out.splitlines()] == [
        ["the", expected.tags[0]],
        ["cat", expected.tags[1]],
        [""],
    ]


def test_embed_gives_vectors_or_how_alike_they_are(folder: Path) -> None:
    expected = Embedder(encoder(HEADS["minilm"]).float(), word_tokenizer()).embed(["a cat", "a dog"])
    outcome = sublayer("embed", folder / "minilm", "a cat", "a dog")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["text"] for row in rows] == ["a cat", "a dog"]
    for row, vector in zip(rows, expected.tolist(), strict=True):
        assert row["vector"] == pytest.approx(vector, abs=1e-5)
    alike = sublayer("embed", folder / "minilm", "--similar", "a cat", "a dog").out.splitlines()
    assert [float(number) for number in alike[0].split("\t")[:2]] == pytest.approx(
        [1.0, float(expected[0] @ expected[1])], abs=1e-3
    )


def test_fill_gives_the_best_first(folder: Path) -> None:
    expected = Filler(encoder(HEADS["bert"]).float(), word_tokenizer()).fill(["a [MASK] sat"], best=2)[0][0]
    lines = sublayer("fill", folder / "bert", "--best", "2", "a [MASK] sat").out.splitlines()
    assert [line.split("\t")[1:] for line in lines] == [[one.token, one.text] for one in expected]


@pytest.mark.parametrize(
    ("command", "model", "said"),
    [
        ("classify", "bert", "does not classify texts: its head is 'masked-language'"),
        ("translate", "bert", "does not translate"),
        ("generate", "minilm", "does not go on from a prompt"),
        ("fill", "nowhere", "there is no folder"),
    ],
)
def test_a_model_of_another_kind_is_refused(folder: Path, command: str, model: str, said: str) -> None:
    outcome = sublayer(command, folder / model, "a [MASK]")
    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


LINES = ["the cat [MASK]", "", "a dog [MASK]", "   ", "", "the [MASK] sat", ""]


@pytest.mark.parametrize(
    ("command", "model", "options"),
    [
        ("classify", "sentiment", ()),
        ("embed", "minilm", ()),
        ("embed", "minilm", ("--similar",)),
        ("fill", "bert", ("--best", "1")),
    ],
)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_line_in_is_a_line_out(folder: Path, command: str, model: str, options: tuple[str, ...], batch: int) -> None:
    lines = LINES if command == "fill" else [line.replace(" [MASK]", "") for line in LINES]
    given = "".join(f"{line}\n" for line in lines).encode()
    outcome = sublayer(command, folder / model, *options, "--batch", batch, stdin=given)
    assert outcome.code == 0, outcome.err
    found = outcome.out.split("\n")[:-1]
    assert len(found) == len(lines)
    for line, said in zip(lines, found, strict=True):
        if line.strip():
            [alone] = sublayer(command, folder / model, *options, line).out.splitlines()
            assert said.startswith(alone.split("\t")[0][:20]) or options == ("--similar",)
        elif command == "embed" and not options:
            assert json.loads(said) == {"text": line, "vector": None}
        else:
            assert said.strip("\t- ") == ""


def test_an_empty_line_is_an_empty_sentence_of_conll(folder: Path) -> None:
    outcome = sublayer("tag", folder / "tagger", stdin=b"the cat\n\na dog\n")
    assert [line.split("\t")[0] for line in outcome.out.split("\n")[:-1]] == ["the", "cat", "", "", "a", "dog", ""]

"""Vectors of words are read as gensim, GloVe and fastText write them, and a damaged line is named."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from sublayer.errors import DataError
from sublayer.text.word_vectors import read_vectors

WORDS = ["the", "of", "naïve", "0000", "new york"]
NUMBERS = np.random.default_rng(1).standard_normal((len(WORDS), 7)).astype(np.float32)


def lines(end: str = "") -> list[str]:
    return [f"{word} {' '.join(map(str, vector))}{end}" for word, vector in zip(WORDS, NUMBERS.tolist(), strict=True)]


@pytest.mark.parametrize("form", ["glove", "word2vec", "fasttext", "packed"])
def test_each_form_is_read(tmp_path: Path, form: str) -> None:
    path = tmp_path / ("some.vec.gz" if form == "packed" else "some.vec")
    head = [] if form == "glove" else [f"{len(WORDS)} 7"]
    text = "\n".join(head + lines(" " if form == "fasttext" else "")) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if form == "packed" else text.encode())
    found = list(read_vectors(path))
    assert [word for word, _ in found] == WORDS
    assert np.array_equal(np.stack([vector for _, vector in found]), NUMBERS)
    assert [word for word, _ in read_vectors(path, 2)] == WORDS[:2]


def test_what_gensim_writes_is_read(tmp_path: Path) -> None:
    from gensim.models import KeyedVectors

    theirs = KeyedVectors(7)
    theirs.add_vectors(WORDS, list(NUMBERS))
    theirs.save_word2vec_format(str(tmp_path / "some.vec"))
    # It orders by frequency, and writes a space in a word as it is.
    assert {word: vector.tolist() for word, vector in read_vectors(tmp_path / "some.vec")} == {
        word: theirs[word].tolist() for word in WORDS
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no vectors"),
        ("3 2\n", "holds no vectors"),
        ("the\nof\n", "line 1: not a word and finite numbers"),
        ("the 1 2 3\nof 1 2\n", "line 2: not a word and 3 finite numbers"),
        ("the 1 2 3\nof 1 x 2\n", "line 2: not a word and 3 finite numbers"),
        ("the 1 2 3\nof 1 nan 2\n", "line 2: not a word and 3 finite numbers"),
        ("the 1 2 3\n\n", "line 2: not a word and 3 finite numbers"),
        ("1 2\nthe 1e999 2\n", "line 2: not a word and 2 finite numbers"),
        ("1 3\nthe 1 2\n", "line 2: not a word and 3 finite numbers"),
        ("3 2\nthe 1 2\nof 3 4\n", "ends after 2 of 3 words"),
    ],
)
def test_a_line_that_is_no_vector_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "some.vec"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        list(read_vectors(path))


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.bin"
    path.write_bytes(b"2 2\nthe " + np.float32([1.5, 2.5]).tobytes() + b"\nof " + np.float32([-3, 4]).tobytes())
    with pytest.raises(DataError):
        list(read_vectors(path))

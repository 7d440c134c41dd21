"""Tokenizers in SentencePiece's form: its own library cuts every text as they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from sublayer.config import Normalization, Subwords
from sublayer.errors import InputError
from sublayer.text import Tokenizer
from sublayer.text.piece_model import piece_model_of, write_piece_model
from sublayer.text.sentencepiece import backend_of, read_piece_model

LINES = [
    "the cat sat on the mat, and the dog didn't",
    "l'homme qui rit, 12 345 fois; l'allée",
    "Привіт, світе! Ñandú añejo",
    "on and on and on it goes (again)",
]
OWN = Tokenizer.train(LINES * 3, Subwords(type="sentencepiece", vocab_size=400))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("pieces") / "own.model"
    write_piece_model(path, piece_model_of(OWN.backend), OWN.specials.roles)
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def test_special_tokens_are_known_to_sentencepiece(theirs: Any) -> None:
    assert (theirs.pad_id(), theirs.bos_id(), theirs.eos_id(), theirs.unk_id()) == (0, 1, 2, 3)
    assert theirs.get_piece_size() == OWN.vocab_size


TEXTS = st.text(alphabet=st.sampled_from("the catlhomqui'1 5ñé,.</s>0x41▁_\t\n日"), max_size=40)


@given(st.one_of(TEXTS, st.text(st.characters(exclude_categories=["Cs"]), max_size=20)))
def test_any_text_has_the_ids_of_sentencepiece(theirs: Any, text: str) -> None:
    if "\0" not in text:  # where its library ends a text
        assert OWN.encode([text]) == [theirs.encode(text)]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=30))
def test_any_text_comes_back(text: str) -> None:
    assert OWN.decode(OWN.encode([text])) == [text]


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
@pytest.mark.parametrize("options", [{}, {"byte_fallback": True}, {"normalization_rule_name": "identity"}])
def test_what_sentencepiece_wrote_is_written_again(algorithm: str, options: dict[str, Any], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(LINES * 3), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "theirs"),
        model_type=algorithm,
        vocab_size=330 if "byte_fallback" in options else 80,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    read = read_piece_model(tmp_path / "theirs.model")
    backend = backend_of(read)
    again = piece_model_of(backend)
    assert backend_of(again).to_str() == backend.to_str()
    write_piece_model(tmp_path / "ours.model", again, {"start": 1, "end": 2})
    one, other = (
        sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / f"{name}.model")) for name in ("theirs", "ours")
    )
    texts = [*LINES, " two  spaces ", "catmat 99", "日本"]
    assert one.encode(texts) == other.encode(texts)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Subwords(vocab_size=400), "cuts text into words as SentencePiece does not"),
        (Subwords(type="unigram", vocab_size=400), "cuts text into words as SentencePiece does not"),
        (
            Subwords(type="sentencepiece", vocab_size=400, normalization=Normalization(lowercase=True)),
            "normalizes text as SentencePiece does not",
        ),
    ],
)
def test_what_is_no_sentencepiece_model_is_named(recipe: Subwords, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        piece_model_of(Tokenizer.train(LINES, recipe).backend)
    assert 'tokenizer.type = "sentencepiece"' in caught.value.remedy


def test_the_same_text_gives_the_same_tokenizer() -> None:
    again = Tokenizer.train(LINES * 3, Subwords(type="sentencepiece", vocab_size=400))
    assert again.fingerprint == OWN.fingerprint

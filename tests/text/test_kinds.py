"""Tokenizers of words, characters and bytes, and what normalization does: each against a few lines of plain Python."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublayer.config import Bytes, Characters, Normalization, Subwords, TokenizerRecipe, Words
from sublayer.errors import ConfigError, DataError
from sublayer.text import Tokenizer

LINES = [
    "Tom doesn't see the house.\n",
    "El niño perdió 42 APPLES, the </s> and l'homme...\n",
    "Tom sees Tom; e\u0301 \ufb01 \uff21 \u00bd \u0663 \ud55c \u0130 \u00df \u03a3 \u2603!\n",
]
# What normalization changes, what spells a special token, and what no training text has.
ALPHABET = "aTom sé\u0301ÉñAZ\ufb01\uff21\u00bd\u00b2\uff11\u0663\ud55c\u0130\u00df\u03a3\u2603\U0001f600"
TEXTS = st.one_of(
    st.text(alphabet=ALPHABET, max_size=30),
    st.lists(st.sampled_from(["Tom", "</s>", "<unk>", "<pad>", "<s>", "the", "niño", "doesn't", "\n", " "])).map(
        " ".join
    ),
    st.sampled_from(LINES),
)
NORMALIZATIONS = st.builds(
    Normalization,
    unicode=st.sampled_from([None, "NFC", "NFD", "NFKC", "NFKD"]),
    lowercase=st.booleans(),
    strip_accents=st.booleans(),
    zero_digits=st.booleans(),
    collapse_whitespace=st.booleans(),
)
# To train for each example would take minutes.
SUBWORDS: dict[tuple[str, Normalization], Tokenizer] = {}


def normalized(text: str, c: Normalization) -> str:
    """What the fields of `Normalization` say."""
    if c.unicode is not None:
        text = unicodedata.normalize(c.unicode, text)
    if c.lowercase:
        text = "".join(character.lower() for character in text)
    if c.strip_accents:
        marked = unicodedata.normalize("NFD", text)
        bare = "".join(character for character in marked if unicodedata.category(character)[0] != "M")
        text = unicodedata.normalize(c.unicode or "NFC", bare)
    if c.zero_digits:
        text = "".join("0" if unicodedata.category(character) == "Nd" else character for character in text)
    return " ".join(text.split()) if c.collapse_whitespace else text


def words_of(text: str, split: str) -> list[str]:
    """What `Words.split` says."""
    if split == "whitespace":
        return re.findall(r"\n|\S+", text)
    letter, number = r"[^\W\d_²½١-٩]", r"[\d²½]"
    marks = "\u0300-\u036f"
    word = rf"(?:{letter}|[{marks}])"
    return re.findall(rf"\n|{word}+(?:['’]{word}+)*|{number}+|[^\s\w{marks}]|_", text)


def known(tokenizer: Tokenizer) -> set[str]:
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    return {token for token, identifier in vocabulary.items() if identifier > 3}


def trained(recipe: TokenizerRecipe) -> Tokenizer:
    return Tokenizer.train(LINES, recipe)


@given(text=TEXTS, c=NORMALIZATIONS)
def test_bytes_come_back_as_they_were_normalized(text: str, c: Normalization) -> None:
    tokenizer = trained(Bytes(normalization=c))
    (ids,) = tokenizer.encode([text])
    assert ids == [4 + value for value in normalized(text, c).encode("utf-8")]
    assert tokenizer.decode([ids]) == [normalized(text, c)]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@given(text=TEXTS, c=NORMALIZATIONS)
def test_subwords_come_back_as_they_were_normalized(kind: str, text: str, c: Normalization) -> None:
    if (kind, c) not in SUBWORDS:
        SUBWORDS[kind, c] = trained(Subwords(type=kind, normalization=c))
    tokenizer = SUBWORDS[kind, c]
    assert tokenizer.decode(tokenizer.encode([text])) == [normalized(text, c)]


@given(text=TEXTS, c=NORMALIZATIONS)
def test_characters_come_back_as_they_were_normalized_and_unknown_ones_are_counted(text: str, c: Normalization) -> None:
    tokenizer = trained(Characters(normalization=c))
    (ids,) = tokenizer.encode([text])
    wanted, vocabulary = normalized(text, c), known(tokenizer)
    assert vocabulary == set("".join(normalized(line, c) for line in LINES))
    assert tokenizer.decode([ids]) == ["".join(each for each in wanted if each in vocabulary)]
    assert len(ids) == len(wanted)
    assert [each == tokenizer.unknown_id for each in ids] == [each not in vocabulary for each in wanted]


@pytest.mark.parametrize("split", ["punctuation", "whitespace"])
@given(text=TEXTS, c=NORMALIZATIONS)
def test_words_are_whole_and_unknown_ones_are_counted(split: str, text: str, c: Normalization) -> None:
    tokenizer = trained(Words(split=split, min_frequency=1, normalization=c))
    (ids,) = tokenizer.encode([text])
    words, vocabulary = words_of(normalized(text, c), split), known(tokenizer)
    assert vocabulary == {word for line in LINES for word in words_of(normalized(line, c), split)} - {"</s>"}
    assert [tokenizer.token(each) for each in ids] == [word if word in vocabulary else "<unk>" for word in words]
    left = " ".join(word for word in words if word in vocabulary)
    assert tokenizer.decode([ids]) == [re.sub(" ?\n ?", "\n", left)]


@pytest.mark.parametrize(
    "recipe", [Words(min_frequency=1), Words(split="whitespace", min_frequency=1), Characters(), Bytes()], ids=str
)
@given(text=TEXTS)
def test_no_text_makes_a_special_token_but_the_unknown_one(recipe: TokenizerRecipe, text: str) -> None:
    assert all(identifier >= 3 for identifier in trained(recipe).encode([text])[0])


def test_a_word_that_spells_a_special_token_takes_no_place_in_the_vocabulary() -> None:
    tokenizer = Tokenizer.train(["a <unk> </s> </s> b"], Words(split="whitespace", min_frequency=1))
    assert tokenizer.pieces(range(tokenizer.vocab_size)) == ["<pad>", "<s>", "</s>", "<unk>", "a", "b"]
    assert tokenizer.encode(["a </s> b <unk>"]) == [[4, 3, 5, 3]]


def test_the_most_frequent_are_kept() -> None:
    lines = ["b b b a a c c d", "b e"]
    tokenizer = Tokenizer.train(lines, Words(vocab_size=7, min_frequency=1))
    assert known(tokenizer) == {"b", "a", "c"}
    assert known(Tokenizer.train(lines, Words(min_frequency=2))) == {"b", "a", "c"}
    assert known(Tokenizer.train(lines, Characters(vocab_size=6))) == {" ", "b"}
    assert known(Tokenizer.train(lines, Characters(min_frequency=2))) == {" ", "a", "b", "c"}


def test_characters_are_in_the_order_of_their_code_points() -> None:
    tokenizer = trained(Characters())
    assert tokenizer.encode(["".join(sorted(known(tokenizer)))]) == [list(range(4, tokenizer.vocab_size))]
    assert "".join(tokenizer.pieces(tokenizer.encode(["Tom \n"])[0])) == "Tom▁\\n"


def test_the_default_normalization_is_none_at_all() -> None:
    for recipe in (Subwords(vocab_size=300), Subwords(type="unigram", vocab_size=300)):
        normalizer = trained(recipe).backend.normalizer
        assert type(normalizer).__name__ == "Prepend"
    assert trained(Bytes()).backend.normalizer is None


@pytest.mark.parametrize("recipe", [Words(min_frequency=9), Characters(min_frequency=99)], ids=str)
def test_an_empty_vocabulary_is_refused(recipe: TokenizerRecipe) -> None:
    with pytest.raises(DataError, match="the vocabulary would be empty"):
        trained(recipe)


@pytest.mark.parametrize("recipe", [Words(), Characters(), Bytes()], ids=str)
def test_no_text_is_an_error(recipe: TokenizerRecipe) -> None:
    for lines in ([], ["", ""]):
        with pytest.raises(DataError, match="no text"):
            Tokenizer.train(lines, recipe)


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocab_size = 6 leaves no room beside 7 special tokens"):
        Tokenizer.train(LINES, Characters(vocab_size=6), ("<a>", "<b>", "<c>"))


@pytest.mark.parametrize(
    "recipe",
    [
        Words(normalization=Normalization(lowercase=True, strip_accents=True)),
        Characters(normalization=Normalization(unicode="NFKC")),
        Bytes(normalization=Normalization(zero_digits=True, collapse_whitespace=True)),
    ],
    ids=str,
)
def test_saving_and_loading_keep_everything(recipe: TokenizerRecipe, tmp_path: Path) -> None:
    tokenizer = trained(recipe)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.fingerprint == tokenizer.fingerprint == trained(recipe).fingerprint
    texts = [*LINES, "", " ", "</s> \u4f60 <s>"]
    assert loaded.encode(texts) == tokenizer.encode(texts)
    assert loaded.decode(loaded.encode(texts)) == tokenizer.decode(tokenizer.encode(texts))


@pytest.mark.parametrize("recipe", [Words(min_frequency=1), Characters(), Bytes(), Subwords()], ids=str)
def test_each_word_of_a_cut_sentence_has_tokens_of_its_own(recipe: TokenizerRecipe) -> None:
    words = ["El", "niño", "doesn't", "see", "APPLES"]
    tokenizer = trained(recipe.model_copy(update={"normalization": Normalization(lowercase=True, unicode="NFD")}))
    (tokens,) = tokenizer.encode_words([words])
    assert sorted(set(tokens.words)) == list(range(5))
    text = " ".join(words)
    for number, word in enumerate(words):
        spans = [span for span, each in zip(tokens.spans, tokens.words, strict=True) if each == number]
        covered = "".join(text[place] for place in sorted({p for begin, end in spans for p in range(begin, end)}))
        assert covered.strip() == word

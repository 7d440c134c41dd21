"""A text that is decoded while its ids come is the text that decoding them at once gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

import vocabularies
from sublayer.config import Bytes, Characters, Subwords, TokenizerRecipe, Words
from sublayer.text import Specials, Tokenizer
from sublayer.text.folder import load_folder
from sublayer.text.sentencepiece import Piece, PieceModel, backend_of

BYTES = [Piece(f"<0x{value:02X}>", 0.0, "byte") for value in range(256)]
WORDS = [
    *"▁Tomse",
    "▁▁",
    "▁T",
    "▁To",
    "▁Tom",
    "▁s",
    "▁se",
    "▁see",
    "▁sees",
    "é",
    "☃",
    "\ufffd",
    "☃\ufffd",
    ".",
    "n't",
    " do not",
    "x\ufffdy",
]


def spaced() -> Tokenizer:
    """The decoder that T5 and its kin bring: the library's own for "▁"."""
    backend = Backend(models.Unigram([("<unk>", 0.0), *((word, -1.0) for word in WORDS)], unk_id=0))
    backend.decoder = decoders.Metaspace()
    return Tokenizer(backend, Specials(unknown=0))


def pieces(prefix: bool) -> Tokenizer:
    """Llama's: pieces, a byte each for the rest, and a space in front or none."""
    normal = [Piece(word, -float(place)) for place, word in enumerate(WORDS)]
    model = PieceModel("bpe", (Piece("<unk>", 0.0, "unknown"), *BYTES, *normal), prefix=prefix, falls_back=True)
    return Tokenizer(backend_of(model), Specials(unknown=0))


def suffixed() -> Tokenizer:
    backend = Backend(models.BPE({word.replace("▁", "") + "</w>": place for place, word in enumerate(WORDS)}, []))
    backend.decoder = decoders.BPEDecoder()
    return Tokenizer(backend, Specials())


def kinds(folder: Path) -> dict[str, Tokenizer]:
    own: dict[str, TokenizerRecipe] = {
        **{kind: Subwords(type=kind, vocab_size=400) for kind in ("bpe", "unigram")},
        "words": Words(min_frequency=1),
        "characters": Characters(),
        "bytes": Bytes(),
    }
    return {
        **{kind: Tokenizer.train(vocabularies.LINES, recipe) for kind, recipe in own.items()},
        "bert": load_folder(vocabularies.bert(folder / "bert")),
        "gpt2": load_folder(vocabularies.gpt2(folder / "gpt2")),
        "spaced": spaced(),
        "pieces": pieces(prefix=True),
        "pieces without a space": pieces(prefix=False),
        "suffixed": suffixed(),
    }


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    return kinds(tmp_path_factory.mktemp("folders"))


NAMES = [
    "bpe",
    "unigram",
    "words",
    "characters",
    "bytes",
    "bert",
    "gpt2",
    "spaced",
    "pieces",
    "pieces without a space",
    "suffixed",
]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data(), skip=st.booleans())
def test_parts_together_are_the_whole(
    all_kinds: dict[str, Tokenizer], name: str, data: st.DataObject, skip: bool
) -> None:
    tokenizer = all_kinds[name]
    identifiers = st.integers(0, len(tokenizer.backend.get_vocab()) - 1)
    text = st.text(alphabet=" ab é☃\U0001f600你Tom.\n", max_size=12).map(lambda written: tokenizer.encode([written])[0])
    chunks = data.draw(st.lists(text | st.lists(identifiers, max_size=6), max_size=6))
    ids = [identifier for chunk in chunks for identifier in chunk]
    stream = tokenizer.stream(skip_special=skip)
    parts = [stream.push(chunk) for chunk in chunks]
    whole = tokenizer.decode([ids], skip_special=skip)[0]
    # What has been given at any time is final.
    assert whole.startswith("".join(parts))
    assert "".join(parts) + stream.finish() == whole
    # And the stream can be used again.
    assert "".join([*(stream.push([identifier]) for identifier in ids), stream.finish()]) == whole


@pytest.mark.parametrize("name", ["bpe", "unigram", "gpt2", "pieces"])
def test_characters_come_whole_and_at_once(all_kinds: dict[str, Tokenizer], name: str) -> None:
    tokenizer = all_kinds[name]
    text = "Tom sees 你好 \U0001f600. é"
    (ids,) = tokenizer.encode([text])
    stream = tokenizer.stream()
    parts = [stream.push([identifier]) for identifier in ids]
    assert "".join(parts) + stream.finish() == text
    assert not any("\ufffd" in part for part in parts)
    # Only bytes wait: the first word is given before the second comes.
    assert "".join(parts[: len(tokenizer.encode(["Tom sees"])[0])]) == "Tom sees"


def test_what_is_decoded_each_time_stays_short(all_kinds: dict[str, Tokenizer]) -> None:
    tokenizer = all_kinds["gpt2"]
    stream = tokenizer.stream()
    decoded: list[int] = []
    plain = stream._decode
    stream._decode = lambda ids: (decoded.append(len(ids)), plain(ids))[1]
    stream.push(tokenizer.encode(["Tom sees the house. " * 50])[0])
    assert max(decoded) <= 8

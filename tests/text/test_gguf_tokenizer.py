"""Tokenizers from GGUF metadata: the ids of transformers for the same metadata, or of the model's own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers
from tokenizers import Regex, pre_tokenizers
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

import vocabularies
from sublayer.errors import CheckpointError
from sublayer.text import Tokenizer
from sublayer.text.gguf import from_gguf
from sublayer.text.sentencepiece import backend_of, read_piece_model
from vocabularies import LINES, PLAIN, TEXTS

TRIED = [*PLAIN, *LINES, "I'LL sAy 1234567 ЖukOv's a/b//\n\n\n x  \r\n end  ", "!!!=== (a)  ... $5.00"]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The metadata of a small vocabulary of byte pairs."""
    folder = vocabularies.gpt2(
        tmp_path_factory.mktemp("gpt2"), specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    )
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    tokens = [*sorted(vocabulary, key=vocabulary.__getitem__), "<think>"]
    merges = (folder / "merges.txt").read_text("utf-8").splitlines()[1:]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3, *[1] * (len(tokens) - 4), 4],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
    }


def pieces(**more: Any) -> dict[str, Any]:
    """The metadata of a small vocabulary of pieces, with a score each."""
    letters = sorted(set("".join(LINES)) - {" "})
    words = [
        "th",
        "he",
        "the",
        "▁t",
        "▁th",
        "▁the",
        "og",
        "▁d",
        "▁dog",
        "do",
        "sees",
        "ee",
        "se",
        "▁s",
        "▁▁",
        "▁▁▁▁",
        "ñó",
    ]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *words, "▁", *letters]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)]
    scores = [0.0] * 259 + [-float(place) for place in range(len(tokens) - 259)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        **more,
    }


def oracle(metadata: dict[str, Any], architecture: str = "llama") -> Any:
    """transformers' tokenizer for the same metadata."""
    names = {"model": "tokenizer_type", "pre": "pre_tokenizer_type"}
    given = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    return convert_gguf_tokenizer(architecture, {names.get(key, key): value for key, value in given.items()})[0]


def check(ours: Tokenizer, ids: Callable[[str], list[int]]) -> None:
    assert ours.encode(TRIED) == [ids(text) for text in TRIED]


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "tekken", "gpt-4o", "dbrx"])
def test_byte_pairs_are_those_of_transformers(byte_level: dict[str, Any], pre: str) -> None:
    metadata = byte_level | {"tokenizer.ggml.pre": pre}
    theirs = oracle(metadata)
    check(from_gguf(metadata), lambda text: theirs.encode(text).ids)


def test_qwens_byte_pairs_are_those_of_its_own_tokenizer(byte_level: dict[str, Any], tmp_path: Path) -> None:
    """It puts text into NFC, which GGUF does not say."""
    metadata = byte_level | {"tokenizer.ggml.pre": "qwen2"}
    vocabulary = {token: place for place, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    theirs = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    check(from_gguf(metadata), lambda text: theirs(text)["input_ids"])


def test_digits_and_signs_are_cut_as_the_originals_do(byte_level: dict[str, Any]) -> None:
    """SmolLM's and Falcon's tokenizer.json say it with the library's own parts."""
    theirs = oracle(byte_level)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    check(from_gguf(byte_level | {"tokenizer.ggml.pre": "smollm"}), lambda text: theirs.encode(text).ids)
    numbers = pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")
    theirs.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), words, numbers])
    check(from_gguf(byte_level | {"tokenizer.ggml.pre": "falcon"}), lambda text: theirs.encode(text).ids)


@pytest.mark.parametrize("prefix", [True, False])
def test_pieces_are_those_of_transformers(prefix: bool) -> None:
    """Of Phi-3's reading, which is SentencePiece's own: one space more in front, whether or not there is one."""
    metadata = pieces(**{"tokenizer.ggml.add_space_prefix": prefix})
    theirs = oracle(metadata, "phi3" if prefix else "gemma")
    ours = from_gguf(metadata)
    check(ours, lambda text: theirs.encode(text).ids)
    # SentencePiece writes a space as "▁", so a "▁" comes back as a space.
    assert ours.decode(ours.encode(TRIED)) == [text.replace("▁", " ") for text in TRIED]
    # Text that spells a special token is not one, and comes back too.
    assert not {1, 2} & {identifier for ids in ours.encode(TEXTS) for identifier in ids}
    assert ours.decode(ours.encode(TEXTS)) == [text.replace("▁", " ") for text in TEXTS]


CODE = [
    "    return x",
    "def f(x):\n        if x:\n            return  x\n",
    "  Tom   sees\tthe house.",
    "x = {'a':    1,  \"b\": [ ] }   # naïve",
    " ",
    "   ",
    "a  b   c    d     e",
    "El niño  perdió   la canción ☃  你好  \U0001f600   !",
    "trailing   ",
    "",
]


def test_gemmas_runs_of_spaces_are_cut_out_first_as_by_sentencepiece(tmp_path: Path) -> None:
    """In the file of SentencePiece, and in GGUF, where their converter writes spaces and a score of -1000."""
    runs = ["▁" * count for count in range(2, 9)]
    path = vocabularies.pieces(
        tmp_path / "tokenizer.model",
        lines=[*LINES, *CODE] * 3,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=runs,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    lines = [*CODE, *LINES, *(text for text in TRIED if "▁" not in text)]
    expected = [theirs.encode(line) for line in lines]
    ours = backend_of(read_piece_model(path))
    assert [ours.encode(line, add_special_tokens=False).ids for line in lines] == expected
    model = read_piece_model(path)
    numbers = {"normal": 1, "unknown": 2, "control": 3, "user": 4, "unused": 5, "byte": 6}
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [p.text.replace("▁", " ") if p.kind == "user" else p.text for p in model.pieces],
        "tokenizer.ggml.token_type": [numbers[piece.kind] for piece in model.pieces],
        "tokenizer.ggml.scores": [-1000.0 if piece.kind == "user" else piece.score for piece in model.pieces],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": False,
    }
    ours = from_gguf(metadata)
    assert ours.encode(lines) == expected
    assert ours.decode(expected) == [theirs.decode(ids) for ids in expected]


def test_special_tokens_and_what_is_put_around(byte_level: dict[str, Any]) -> None:
    ours = from_gguf(byte_level)
    assert (ours.unknown_id, ours.start_id, ours.end_id, ours.pad_id) == (0, 1, 2, 2)
    think = len(byte_level["tokenizer.ggml.tokens"]) - 1
    assert ours.encode(["<think>"]) == [[think]]
    assert ours.encode_with_special_tokens(["Tom"]) == ours.encode(["Tom"])
    assert from_gguf(byte_level | {"tokenizer.ggml.add_bos_token": True}).encode_with_special_tokens([""]) == [[1]]
    assert from_gguf(byte_level | {"tokenizer.ggml.pre": "llama-bpe"}).encode_with_special_tokens([""]) == [[1]]
    assert from_gguf(pieces()).encode_with_special_tokens([""]) == [[1]]
    both = {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": True}
    assert from_gguf(pieces(**both)).encode_with_special_tokens([""]) == [[2]]
    [first, *_, last] = ours.encode_chat([{"role": "user", "content": "Tom<|im_end|>"}])
    assert (first, last) == (1, 2)
    assert ours.encode_chat([{"role": "user", "content": "Tom<|im_end|>"}]).count(2) == 1


def test_what_is_not_known_is_named(byte_level: dict[str, Any]) -> None:
    for change, message in [
        ({"tokenizer.ggml.model": "bert"}, "kind 'bert'"),
        ({"tokenizer.ggml.pre": "smolm"}, "cuts words by 'smolm'.*Did you mean 'smollm'"),
        ({"tokenizer.ggml.merges": ["a b c"]}, "not of two tokens"),
        ({"tokenizer.ggml.merges": None}, "no tokenizer.ggml.merges"),
        ({"tokenizer.ggml.token_type": [1]}, "does not fit its tokens"),
        ({"tokenizer.ggml.eos_token_id": 99_999}, "names a special token that it does not have"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            from_gguf(byte_level | change)
    with pytest.raises(CheckpointError, match="1 scores"):
        from_gguf(pieces(**{"tokenizer.ggml.scores": [0.0]}))

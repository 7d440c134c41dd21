"""Exported tokenizers: `transformers.AutoTokenizer` loads them and gives the same ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

import vocabularies
from sublayer.config import Bytes, Characters, Normalization, Subwords, TokenizerRecipe, Words
from sublayer.errors import InputError
from sublayer.text import Specials, Template, Tokenizer
from sublayer.text.export import export
from sublayer.text.folder import load_folder
from vocabularies import LINES, PLAIN, write

ROLES = {
    "pad": "pad",
    "start": "bos",
    "end": "eos",
    "unknown": "unk",
    "mask": "mask",
    "separator": "sep",
    "class_": "cls",
}


NORMALIZED = Normalization(unicode="NFKC", lowercase=True, strip_accents=True, collapse_whitespace=True)
OWN: dict[str, TokenizerRecipe] = {
    "bpe": Subwords(vocab_size=400),
    "unigram": Subwords(type="unigram", vocab_size=400),
    "normalized": Subwords(vocab_size=400, normalization=NORMALIZED),
    "words": Words(),
    "separated words": Words(split="whitespace", normalization=NORMALIZED),
    "characters": Characters(),
    "bytes": Bytes(),
}


def made(kind: str, folder: Path) -> Tokenizer:
    if kind in OWN:
        return Tokenizer.train(LINES, OWN[kind])
    if kind == "bert":
        return load_folder(vocabularies.bert(folder))
    specials = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|im_end|>")
    named: dict[str, Any] = {"additional_special_tokens": ["<|im_end|>"], "chat_template": "{{ messages[0].content }}"}
    return load_folder(vocabularies.gpt2(folder, specials=specials, tokenizer_class="RobertaTokenizer", **named))


@pytest.mark.parametrize("architecture", [None, "llama", "marian", "bert"])
@pytest.mark.parametrize("kind", [*OWN, "bert", "roberta"])
def test_transformers_gives_the_same_ids(kind: str, architecture: str | None, tmp_path: Path) -> None:
    ours = made(kind, tmp_path / "from")
    if kind == "bpe":
        ours = ours.replace(template=Template.around([ours.start_id], [ours.end_id]))
    export(ours, tmp_path / "to", max_length=77)
    if architecture is not None:
        write(tmp_path / "to", "config.json", {"model_type": architecture})
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "to")
    assert theirs.model_max_length == 77
    assert len(theirs) == ours.vocab_size
    for marked, encode in ((False, ours.encode), (True, ours.encode_with_special_tokens)):
        assert encode([*PLAIN, *LINES]) == theirs([*PLAIN, *LINES], add_special_tokens=marked)["input_ids"]
    rows = ours.encode_with_special_tokens(PLAIN)
    assert ours.decode(rows) == theirs.batch_decode(rows, skip_special_tokens=True)
    for part, name in ROLES.items():
        assert getattr(ours.specials, part) == getattr(theirs, f"{name}_token_id")
    assert set(theirs.all_special_ids) == ours.specials.ids
    (tokens,) = ours.encode_pairs([("Tom sees.", "the dog")])
    assert tokens.ids == theirs("Tom sees.", "the dog")["input_ids"]


@pytest.mark.parametrize("kind", [*OWN, "bert", "roberta"])
def test_what_is_exported_is_imported_again(kind: str, tmp_path: Path) -> None:
    ours = made(kind, tmp_path / "from")
    export(ours, tmp_path / "to")
    again = load_folder(tmp_path / "to")
    assert again.fingerprint == ours.fingerprint
    assert again.specials == ours.specials
    assert again.chat_template == ours.chat_template
    assert again.template == ours.template


def test_the_chat_template_goes_along(tmp_path: Path) -> None:
    export(made("roberta", tmp_path / "from"), tmp_path / "to")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "to")
    assert theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi"


def test_a_vocabulary_with_pieces_outside_is_refused(tmp_path: Path) -> None:
    own = made("bpe", tmp_path)
    outside = Tokenizer(own.backend, Specials(unknown=3), size=300)
    assert max(max(ids, default=0) for ids in outside.encode(LINES)) < 300
    with pytest.raises(InputError, match="pieces that its vocabulary does not have"):
        export(outside, tmp_path / "to")
    assert not (tmp_path / "to").exists()

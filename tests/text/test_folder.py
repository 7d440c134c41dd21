"""Other people's folders: the ids, spans and text are those of transformers, which wrote them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

import vocabularies
from sublayer.config import Subwords
from sublayer.errors import CheckpointError, InputError
from sublayer.text import Tokenizer
from sublayer.text.folder import load_folder
from vocabularies import LINES, PLAIN, TEXTS, write

Maker = Callable[..., Path]
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
FOLDERS: dict[str, tuple[Maker, dict[str, Any], type[Any]]] = {
    "bert": (vocabularies.bert, {}, transformers.BertTokenizer),
    "bert cased": (vocabularies.bert, {"do_lower_case": False}, transformers.BertTokenizer),
    "bert accents": (
        vocabularies.bert,
        {"strip_accents": False, "tokenize_chinese_chars": False},
        transformers.BertTokenizer,
    ),
    "distilbert": (
        vocabularies.bert,
        {"tokenizer_class": "DistilBertTokenizer"},
        transformers.DistilBertTokenizer,
    ),
    "electra": (vocabularies.bert, {"tokenizer_class": "ElectraTokenizerFast"}, transformers.ElectraTokenizer),
    "gpt2": (vocabularies.gpt2, {}, transformers.GPT2Tokenizer),
    "gpt2 prefixed": (vocabularies.gpt2, {"add_prefix_space": True}, transformers.GPT2Tokenizer),
    "gpt2 with ends": (vocabularies.gpt2, {"add_bos_token": True}, transformers.GPT2Tokenizer),
    "roberta": (
        vocabularies.gpt2,
        {"specials": ROBERTA, "tokenizer_class": "RobertaTokenizer"},
        transformers.RobertaTokenizer,
    ),
    "bart": (vocabularies.gpt2, {"specials": ROBERTA, "tokenizer_class": "BartTokenizer"}, transformers.BartTokenizer),
    "qwen2": (vocabularies.gpt2, {"tokenizer_class": "Qwen2Tokenizer"}, transformers.Qwen2Tokenizer),
}


@pytest.fixture(params=FOLDERS, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """A tokenizer of ours, and transformers' of the same folder."""
    make, config, theirs = FOLDERS[request.param]
    folder = make(tmp_path_factory.mktemp("folder"), **config)
    return load_folder(folder), theirs.from_pretrained(folder)


def test_ids_are_those_of_transformers(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    assert ours.encode(PLAIN) == theirs(PLAIN, add_special_tokens=False)["input_ids"]
    assert ours.encode_with_special_tokens(PLAIN) == theirs(PLAIN)["input_ids"]
    assert [ours.encode([text])[0] for text in PLAIN] == ours.encode(PLAIN)
    assert max(max(ids, default=0) for ids in ours.encode(TEXTS)) < ours.vocab_size == len(theirs)


def test_pairs_and_their_types_are_those_of_transformers(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    pairs = [("Tom sees the house.", "doesn't he?"), ("", "dog")]
    for tokens, (first, second) in zip(ours.encode_pairs(pairs), pairs, strict=True):
        expected = theirs(first, second, return_token_type_ids=True)
        assert tokens.ids == expected["input_ids"]
        assert tokens.token_type_ids == expected["token_type_ids"]
        assert tokens.texts == expected.sequence_ids()


def test_spans_and_words_are_those_of_transformers(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    for tokens, text in zip(ours.tokens(PLAIN), PLAIN, strict=True):
        expected = theirs(text, return_offsets_mapping=True)
        assert tokens.ids == expected["input_ids"]
        assert tokens.spans == expected["offset_mapping"]
        assert tokens.words == expected.word_ids()


def test_text_comes_back_as_from_transformers(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    rows = ours.encode_with_special_tokens(TEXTS)
    assert ours.decode(rows) == theirs.batch_decode(rows, skip_special_tokens=True)
    assert ours.decode(rows, skip_special=False) == theirs.batch_decode(rows, skip_special_tokens=False)


def test_special_tokens_are_those_of_transformers(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    for part, name in (("pad", "pad"), ("start", "bos"), ("end", "eos"), ("unknown", "unk"), ("mask", "mask")):
        assert getattr(ours.specials, part) == getattr(theirs, f"{name}_token_id")
    assert ours.specials.separator == theirs.sep_token_id
    assert ours.specials.class_ == theirs.cls_token_id
    assert ours.template.added == theirs.num_special_tokens_to_add()


def test_a_special_token_in_a_text_is_text_until_it_is_meant(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    marks = {ours.token(identifier) for identifier in ours.specials.ids}
    # A vocabulary with an unknown token of its own may need it for the signs.
    never = ours.specials.ids - ({ours.specials.unknown} if len(ours.specials.ids) > 1 else set())
    text = "Tom" + "".join(sorted(marks)) + " sees " + max(marks) + " it"
    assert not never & set(ours.encode([text])[0])
    meant = ours.encode_template(text)
    assert meant.ids == theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.encode_template(text, add_special_tokens=True).ids == theirs(text)["input_ids"]


def test_given_words_are_counted(tmp_path: Path) -> None:
    """BERT cuts at spaces anyway, so words that are cut already give what transformers gives for them."""
    sentences = [["Tom", "sees", "the", "dogs", "."], ["niño", "", "doesn't"], []]
    ours = load_folder(vocabularies.bert(tmp_path / "bert"))
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path / "bert")
    for tokens, words in zip(ours.encode_words(sentences), sentences, strict=True):
        expected = theirs(words, is_split_into_words=True)
        assert tokens.ids == expected["input_ids"]
        assert tokens.words == expected.word_ids()
    byte_level = load_folder(vocabularies.gpt2(tmp_path / "gpt2"))
    (tokens,) = byte_level.encode_words([["El", "niño", "perdió", "☃☃"]])
    text: dict[int, list[int]] = {}
    for identifier, word in zip(tokens.ids, tokens.words, strict=True):
        assert word is not None
        text.setdefault(word, []).append(identifier)
    assert byte_level.decode(list(text.values())) == ["El", " niño", " perdió", " ☃☃"]


def test_a_whole_folder_with_padding_asked_for_is_read_without_it(tmp_path: Path) -> None:
    folder = vocabularies.bert(tmp_path / "old")
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    theirs.backend_tokenizer.enable_padding(length=16)
    theirs.backend_tokenizer.enable_truncation(4)
    theirs.save_pretrained(tmp_path / "new")
    assert (tmp_path / "new" / "tokenizer.json").is_file()
    ours = load_folder(tmp_path / "new")
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    assert ours.encode_with_special_tokens(PLAIN) == theirs(PLAIN)["input_ids"]
    assert ours.specials == load_folder(folder).specials


def test_added_tokens_get_the_ids_that_the_files_say(tmp_path: Path) -> None:
    folder = vocabularies.gpt2(tmp_path / "chat", additional_special_tokens=["<|im_start|>", "<|im_end|>"])
    size = len(json.loads((folder / "vocab.json").read_text("utf-8")))
    write(folder, "added_tokens.json", {"<|im_end|>": size + 1, "<|im_start|>": size, "<think>": size + 2})
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    write(folder, "tokenizer_config.json", config | {"eos_token": {"content": "<|im_end|>"}, "pad_token": "[PAD]"})
    ours = load_folder(folder)
    assert ours.end_id == size + 1
    assert ours.pad_id == size + 3
    assert ours.specials.extra == (size,)
    assert ours.encode_template("<|im_start|>Tom<|im_end|>").ids[::2] == [size, size + 1]
    # One that is added but not special is a word like any other.
    assert ours.encode(["<think>"]) == [[size + 2]]
    write(folder, "added_tokens.json", {"<|im_end|>": size, "<|im_start|>": size + 7})
    with pytest.raises(CheckpointError, match=f"with the id {size + 7}"):
        load_folder(folder)


def test_saved_and_loaded_it_is_the_same(pair: tuple[Tokenizer, Any], tmp_path: Path) -> None:
    ours, _ = pair
    ours.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.fingerprint == ours.fingerprint
    assert again.specials == ours.specials
    assert again.encode_with_special_tokens([*TEXTS, *LINES]) == ours.encode_with_special_tokens([*TEXTS, *LINES])
    (tmp_path / "sublayer_tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"sublayer_tokenizer\.json is damaged"):
        Tokenizer.load(tmp_path / "tokenizer.json")
    # One of ours in its place says all in its own file, and nothing of the other is left.
    own = Tokenizer.train(LINES, Subwords(vocab_size=400))
    own.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").fingerprint == own.fingerprint


def test_what_a_tokenizer_has_not_is_named(tmp_path: Path) -> None:
    ours = load_folder(vocabularies.gpt2(tmp_path))
    assert ours.start_id == ours.end_id == ours.unknown_id == 0
    for part, name in (
        ("pad_id", "padding"),
        ("mask_id", "mask"),
    ):
        with pytest.raises(InputError, match=rf"no {name} token \(it has: start '<\|endoftext\|>', end"):
            getattr(ours, part)
    with pytest.raises(InputError, match="no chat template"):
        _ = ours.chat
    with pytest.raises(InputError, match="no language 'de'"):
        ours.for_language("de")


def test_folders_that_are_not_understood_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer that is read here"):
        load_folder(tmp_path)
    write(tmp_path / "tekken", "tekken.json", {})
    with pytest.raises(CheckpointError, match=r"only tekken\.json"):
        load_folder(tmp_path / "tekken")
    folder = vocabularies.bert(tmp_path / "unknown", tokenizer_class="WhatTokenizer")
    with pytest.raises(CheckpointError, match="not known for the tokenizer 'WhatTokenizer'"):
        load_folder(folder)
    write(folder, "config.json", {"model_type": "bert"})
    assert load_folder(folder).specials.class_ == 3
    folder = vocabularies.gpt2(tmp_path / "merges")
    write(folder, "merges.txt", "#version: 0.2\nT o m\n")
    with pytest.raises(CheckpointError, match="line 2: 'T o m' is not two tokens"):
        load_folder(folder)
    write(folder, "merges.txt", "T zzz\n")
    with pytest.raises(CheckpointError, match="the merge 'T zzz'"):
        load_folder(folder)
    write(folder, "vocab.json", "[1")
    with pytest.raises(CheckpointError, match=r"vocab\.json is damaged"):
        load_folder(folder)


@pytest.mark.parametrize("name", ["vocab.json", "tokenizer.json"])
def test_two_tokens_of_one_id_are_refused(tmp_path: Path, name: str) -> None:
    """One of them would be gone when the tokenizer is written and read again, and texts would be cut otherwise."""
    folder = vocabularies.gpt2(tmp_path)
    if name == "tokenizer.json":
        load_folder(folder).save(folder / name)
    whole = json.loads((folder / name).read_text())
    vocabulary = whole if name == "vocab.json" else whole["model"]["vocab"]
    vocabulary["?"] = vocabulary[">"]
    (folder / name).write_text(json.dumps(whole))
    with pytest.raises(CheckpointError, match=rf"{name}: '.' and '.' have one id, {vocabulary['>']}"):
        load_folder(folder)


@pytest.mark.parametrize("identifier", [2**31, 2**24])
def test_an_id_that_would_take_all_memory_is_refused_at_once(tmp_path: Path, identifier: int) -> None:
    saved = tmp_path / "tokenizer.json"
    load_folder(vocabularies.gpt2(tmp_path / "gpt2")).save(saved)
    whole = json.loads(saved.read_text())
    whole["model"]["vocab"][">"] = identifier
    saved.write_text(json.dumps(whole))
    with pytest.raises(CheckpointError, match=rf"tokenizer\.json: '>' has the id {identifier}"):
        Tokenizer.load(saved)


@pytest.mark.parametrize("identifier", [2**64, -1, True, "3", 1.0, [3]])
def test_what_is_no_id_is_refused(tmp_path: Path, identifier: Any) -> None:
    saved = tmp_path / "saved" / "tokenizer.json"
    saved.parent.mkdir()
    load_folder(vocabularies.bert(tmp_path / "bert")).save(saved)
    beside = saved.with_name("sublayer_tokenizer.json")
    held = json.loads(beside.read_text())
    held["specials"]["separator"] = identifier
    beside.write_text(json.dumps(held))
    with pytest.raises(CheckpointError, match=r"sublayer_tokenizer\.json is damaged"):
        Tokenizer.load(saved)

"""A tokenizer.json beside a tokenizer_config.json that says otherwise: the rule of the class decides, as in
`transformers`, a setting at a time for each class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

import vocabularies
from sublayer.text.folder import load_folder

TEXTS = [
    "Tom SEES the CANCIÓN",
    "  Two  spaces, and more   ",
    "El niño 你好世 Dog.",
    "",
    "dog",
    "def f(x):\n    return  x",
    "naïve ☃ \U0001f600 Привет",
]
BYTES = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>")
ENDS: list[dict[str, Any]] = [{"add_bos_token": True}, {"add_bos_token": False}, {"add_eos_token": True}]
NORMAL: list[dict[str, Any]] = [
    {"do_lower_case": False},
    {"do_lower_case": True},
    {"strip_accents": False},
    {"strip_accents": True},
    {"do_lower_case": False, "strip_accents": True},
    {"tokenize_chinese_chars": False},
]
SPACED: list[dict[str, Any]] = [{"add_prefix_space": True}, {"add_prefix_space": False}, {"trim_offsets": False}]
SIDES: list[dict[str, Any]] = [
    {"legacy_behaviour": True},
    {"legacy_behaviour": False},
    {"src_lang": "fra_Latn"},
    {"src_lang": "fra_Latn", "legacy_behaviour": True},
]
CASES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "BertTokenizer": ("bert", NORMAL),
    "BertTokenizerFast": ("bert", NORMAL),
    "DistilBertTokenizer": ("bert", NORMAL),
    "ElectraTokenizer": ("bert", NORMAL),
    "RobertaTokenizer": ("gpt2", SPACED),
    "BartTokenizer": ("gpt2", SPACED),
    "GPT2Tokenizer": ("gpt2", SPACED),
    "GPTNeoXTokenizer": ("gpt2", SPACED),
    "Qwen2Tokenizer": ("gpt2", SPACED),
    "NllbTokenizer": ("bpe", SIDES),
    "XLMRobertaTokenizer": ("unigram", SPACED[:2]),
    "T5Tokenizer": ("unigram", []),
    "MBart50Tokenizer": ("unigram", []),
}


def written(kind: str, class_name: str, folder: Path) -> Path:
    """The folder that the class writes, tokenizer.json and all, of a small vocabulary."""
    given = folder / "given"
    match kind:
        case "bert":
            vocabularies.bert(given, tokenizer_class=class_name)
        case "gpt2":
            vocabularies.gpt2(given, BYTES, tokenizer_class=class_name)
        case _:
            vocabularies.pieces(given / "sentencepiece.bpe.model", model_type=kind)
            # NLLB has its languages by their codes.
            languages = {"additional_special_tokens": ["eng_Latn", "fra_Latn"]} if class_name == "NllbTokenizer" else {}
            vocabularies.write(given, "tokenizer_config.json", {"tokenizer_class": class_name, **languages})
    transformers.AutoTokenizer.from_pretrained(given).save_pretrained(folder / "whole")
    return folder / "whole"


@pytest.mark.parametrize("class_name", CASES)
def test_the_class_decides(class_name: str, tmp_path: Path) -> None:
    kind, settings = CASES[class_name]
    folder = written(kind, class_name, tmp_path)
    file = folder / "tokenizer_config.json"
    usual = json.loads(file.read_text())
    silent = {key: value for key, value in usual.items() if not any(key in changed for changed in settings)}
    moved = 0
    for base in (usual, silent):
        file.write_text(json.dumps(base))
        before = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"]
        for changed in ({}, *settings, *ENDS):
            file.write_text(json.dumps({**base, **changed}))
            expected = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"]
            assert load_folder(folder).encode_with_special_tokens(TEXTS) == expected, changed
            moved += expected != before
    assert moved or not settings, "none of these settings has an effect: the test would not see one passed over"

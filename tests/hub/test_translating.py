"""Encoder-decoders of others, asked in sentences: what is fed first, what is forced, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import Row, build_oracle
from seq2seq_rows import SIZES, T5

import vocabularies
from small_run import sublayer
from sublayer.generation.translator import Translator
from sublayer.hub.folder import load
from sublayer.hub.pulling import pull

LINES = vocabularies.LINES
T5_PIECES = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}


def by_pieces(name: str, file: str, **options: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        vocabularies.pieces(folder / file, model_type="unigram", normalization_rule_name="nmt_nfkc", **options)
        vocabularies.write(folder, "tokenizer_config.json", {"tokenizer_class": f"{name}Tokenizer"})

    return write


def by_merges(folder: Path) -> None:
    vocabularies.gpt2(folder, ("<s>", "<pad>", "</s>", "<unk>", "<mask>"), tokenizer_class="BartTokenizer")


BART = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
# By name: what writes the tokenizer, the model, its settings, its generation settings, the languages, and what
# transformers is told about these.
MODELS: dict[str, tuple[Callable[[Path], None], str, dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "T5": (by_pieces("T5", "spiece.model", **T5_PIECES), "T5ForConditionalGeneration", T5, {}, ()),
    "Pegasus": (
        by_pieces("Pegasus", "spiece.model", **T5_PIECES),
        "PegasusForConditionalGeneration",
        SIZES | {"scale_embedding": True, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
        {"no_repeat_ngram_size": 3},
        (),
    ),
    "BART": (
        by_merges,
        "BartForConditionalGeneration",
        SIZES | BART | {"decoder_start_token_id": 2},
        {"forced_bos_token_id": 0, "no_repeat_ngram_size": 2, "min_length": 9},
        (),
    ),
    "mBART": (
        by_pieces("MBart", "sentencepiece.bpe.model"),
        "MBartForConditionalGeneration",
        SIZES | BART,
        {"decoder_start_token_id": "es_XX"},
        ("en_XX", "de_DE"),
    ),
    "mBART-50": (
        by_pieces("MBart50", "sentencepiece.bpe.model"),
        "MBartForConditionalGeneration",
        SIZES | BART | {"decoder_start_token_id": 2},
        {"bad_words_ids": [[9], [12]]},
        ("es_XX", "de_DE"),
    ),
}


def sized(settings: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    """`settings` for this vocabulary, and with room for sentences where positions are counted."""
    room = {"max_position_embeddings": 64} if "max_position_embeddings" in settings else {}
    return settings | {"vocab_size": vocabulary} | room


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Any, Any]:
    name = request.param
    write, architecture, settings, generation, _ = MODELS[name]
    theirs = tmp_path / "theirs"
    write(theirs)
    tokenizer = transformers.AutoTokenizer.from_pretrained(theirs)
    said = {k: tokenizer.convert_tokens_to_ids(v) if isinstance(v, str) else v for k, v in generation.items()}
    torch.manual_seed(3)
    row = Row(name, architecture, sized(settings, len(tokenizer)), generation={})
    oracle = build_oracle(row).float()
    for key, value in said.items():
        setattr(oracle.generation_config, key, value)
    oracle.save_pretrained(theirs)
    return name, theirs, tokenizer, oracle


def test_sentences_become_what_transformers_makes_of_them(case: tuple[str, Path, Any, Any], tmp_path: Path) -> None:
    name, theirs, tokenizer, oracle = case
    languages = MODELS[name][4]
    pull(str(theirs), tmp_path / "ours")
    translator = load(tmp_path / "ours")
    assert isinstance(translator, Translator)
    told: dict[str, Any] = {"max_ratio": 0.01, "max_extra": 14}
    asked: dict[str, Any] = {}
    if languages:
        source, target = languages
        told |= {"source_language": source, "target_language": target}
        tokenizer.src_lang = source
        first = "decoder_start_token_id" if name == "mBART" else "forced_bos_token_id"
        asked = {first: tokenizer.convert_tokens_to_ids(target)}
    translator = translator.with_decoding(**told)
    sentences = LINES[::9]
    found = translator.translate(sentences, beam=1)
    for sentence, one in zip(sentences, found, strict=True):
        given = tokenizer(sentence, return_tensors="pt")
        with torch.no_grad():
            ids = oracle.generate(**given, **asked, max_length=15, num_beams=1, do_sample=False)[0].tolist()
        ours = [translator.affixes.start, *one.tokens, *([tokenizer.eos_token_id] if one.complete else [])]
        # Where the room ends, the last token may be forced.
        assert ours[:14] == ids[:14]


def test_in_the_terminal(case: tuple[str, Path, Any, Any], tmp_path: Path) -> None:
    name, theirs, _, _ = case
    assert sublayer("pull", theirs, tmp_path / "ours").code == 0
    languages = MODELS[name][4]
    options = ["--from", languages[0], "--to", languages[1]] if languages else []
    outcome = sublayer("translate", tmp_path / "ours", *options, LINES[0])
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip()
    only = tmp_path / "only.txt"
    only.write_text("Tom dog\n")
    narrow = sublayer("translate", tmp_path / "ours", *options, "--only", only, LINES[0])
    assert narrow.code == 0, narrow.err
    assert set(narrow.out) <= set("Tom dog\n")
    wrong = sublayer("translate", tmp_path / "ours", "--to", "kl_IN", LINES[0])
    assert wrong.code == 2
    assert "no language 'kl_IN'" in wrong.err
    if not languages:
        assert "names no languages" in wrong.err


def test_a_fine_tuned_model_keeps_its_marks(tmp_path: Path) -> None:
    """Trained on, an imported model begins as it did, in training and in the folder that comes of it."""
    write, architecture, settings, _, _ = MODELS["mBART-50"]
    theirs = tmp_path / "theirs"
    write(theirs)
    tokenizer = transformers.AutoTokenizer.from_pretrained(theirs)
    row = Row("a", architecture, sized(settings, len(tokenizer)), generation={})
    build_oracle(row).float().save_pretrained(theirs)
    pull(str(theirs), tmp_path / "ours")
    (tmp_path / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in pairwise(LINES)))
    recipe = tmp_path / "tune.toml"
    recipe.write_text(
        'name = "tune"\n[start]\npath = "ours"\n[data]\nsource = { type = "tsv", path = "pairs.tsv" }\n'
        'split = { type = "random", validation = 4, test = 4 }\nmax_length = 40\n[model]\n'
        '[decoding]\nsource_language = "es_XX"\ntarget_language = "de_DE"\nbeam = 1\n'
        '[training]\nsteps = 3\nbatches = { tokens = 400 }\noptimizer = { type = "adamw", learning_rate = 1e-4 }\n'
    )
    outcome = sublayer("train", recipe, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    kept = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["decoding"]
    assert (kept["start"], kept["target_language"], kept["beam"]) == (2, "de_DE", 1)
    translator = load(tmp_path / "run")
    assert isinstance(translator, Translator)
    german = tokenizer.convert_tokens_to_ids("de_DE")
    assert translator.translate(LINES[:1])[0].tokens[0] == german

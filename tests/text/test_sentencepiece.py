"""SentencePiece models: the ids of SentencePiece itself, and of transformers for the families built on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
import sentencepiece
import transformers
from hypothesis import given
from hypothesis import strategies as st

from sublayer.errors import CheckpointError
from sublayer.text import Specials, Tokenizer
from sublayer.text.folder import load_folder
from sublayer.text.sentencepiece import backend_of, read_piece_model
from vocabularies import LINES, PLAIN, TEXTS, pieces, write

# Trailing and doubled spaces, which transformers' own classes read in another way than SentencePiece, are tried with
# SentencePiece itself.
TIDY = [text for text in PLAIN if text == " ".join(text.split()) and "▁" not in text]
LANGUAGES = ["__en__", "__de__", "__fr__"]
MODELS: dict[str, dict[str, Any]] = {
    "unigram": {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc"},
    "unigram bytes": {"model_type": "unigram", "normalization_rule_name": "identity", "byte_fallback": True},
    "bpe": {"model_type": "bpe", "normalization_rule_name": "nmt_nfkc_cf"},
    "bpe bytes": {
        "model_type": "bpe",
        "normalization_rule_name": "identity",
        "byte_fallback": True,
        "remove_extra_whitespaces": False,
    },
    "bpe spaces": {
        "model_type": "bpe",
        "normalization_rule_name": "identity",
        "byte_fallback": True,
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "split_by_whitespace": False,
        "max_sentencepiece_length": 8,
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, Any]]:
    """By name: ours, and SentencePiece's processor."""
    folder = tmp_path_factory.mktemp("pieces")
    made: dict[str, tuple[Tokenizer, Any]] = {}
    for name, options in MODELS.items():
        path = pieces(folder / f"{name}.model", **options)
        model = read_piece_model(path)
        control = [place for place, piece in enumerate(model.pieces) if piece.kind == "control"]
        ours = Tokenizer(backend_of(model), Specials(unknown=model.unknown, extra=tuple(control)))
        made[name] = ours, sentencepiece.SentencePieceProcessor(model_file=str(path))
    return made


@pytest.mark.parametrize("name", MODELS)
def test_ids_are_those_of_sentencepiece(models: dict[str, tuple[Tokenizer, Any]], name: str) -> None:
    ours, theirs = models[name]
    texts = [*TEXTS, *LINES, "a  b   c", " a", "a ", "\ta\n"]
    assert ours.encode(texts) == [theirs.encode(text) for text in texts]


@pytest.mark.parametrize("name", MODELS)
@given(text=st.text(alphabet="Tom sehdog.ñó<>/s0x41é☃ \t\u00a0ﬁ", max_size=20))
def test_any_text_has_the_ids_of_sentencepiece(models: dict[str, tuple[Tokenizer, Any]], name: str, text: str) -> None:
    ours, theirs = models[name]
    assert ours.encode([text]) == [theirs.encode(text)]


@pytest.mark.parametrize("name", MODELS)
def test_text_comes_back_as_from_sentencepiece(models: dict[str, tuple[Tokenizer, Any]], name: str) -> None:
    ours, theirs = models[name]
    # A space that is written "▁" is trimmed by SentencePiece's decoder only.
    for text in [*(text for text in PLAIN if not text.startswith("▁")), *LINES]:
        ids = [identifier for identifier in theirs.encode(text) if identifier != theirs.unk_id()]
        assert ours.decode([ids]) == [theirs.decode(ids)]


FAMILIES: dict[str, tuple[str, dict[str, Any], type[Any]]] = {
    "T5": (
        "spiece.model",
        MODELS["unigram"] | {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        transformers.T5Tokenizer,
    ),
    "XLMRoberta": ("sentencepiece.bpe.model", MODELS["unigram"], transformers.XLMRobertaTokenizer),
    "MBart": ("sentencepiece.bpe.model", MODELS["unigram"], transformers.MBartTokenizer),
    "MBart50": ("sentencepiece.bpe.model", MODELS["unigram"], transformers.MBart50Tokenizer),
    "Pegasus": (
        "spiece.model",
        MODELS["unigram"] | {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        transformers.PegasusTokenizer,
    ),
    "Llama": ("tokenizer.model", MODELS["bpe bytes"], transformers.LlamaTokenizer),
    "Gemma": (
        "tokenizer.model",
        MODELS["bpe spaces"]
        | {
            "pad_id": 0,
            "eos_id": 1,
            "bos_id": 2,
            "unk_id": 3,
            "pad_piece": "<pad>",
            "eos_piece": "<eos>",
            "bos_piece": "<bos>",
        },
        transformers.GemmaTokenizer,
    ),
}


@pytest.fixture(params=FAMILIES, scope="module")
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Tokenizer, Any]:
    file, options, theirs = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    pieces(folder / file, **options)
    config: dict[str, Any] = {"tokenizer_class": f"{request.param}Tokenizer"}
    if request.param in {"Llama", "Gemma"}:
        config |= {"add_bos_token": True, "add_eos_token": False}
    write(folder, "tokenizer_config.json", config)
    return request.param, load_folder(folder), theirs.from_pretrained(folder)


def test_families_are_those_of_transformers(family: tuple[str, Tokenizer, Any]) -> None:
    name, ours, theirs = family
    # transformers leaves out the rules of normalization that mBART's file has.
    texts = [*LINES, *(text for text in TIDY if name != "MBart" or text == normalize("NFKC", text))]
    assert ours.encode(texts) == theirs(texts, add_special_tokens=False)["input_ids"]
    assert ours.encode_with_special_tokens(texts) == theirs(texts)["input_ids"]
    assert ours.vocab_size == len(theirs)
    rows = ours.encode_with_special_tokens([*LINES, "Tom"])
    assert ours.decode(rows) == theirs.batch_decode(rows, skip_special_tokens=True)
    for part, role in (("pad", "pad"), ("end", "eos"), ("unknown", "unk"), ("mask", "mask"), ("class_", "cls")):
        assert getattr(ours.specials, part) == getattr(theirs, f"{role}_token_id")
    # What a user writes is no special token, though every such token is a piece of the vocabulary.
    spelled = "".join(ours.token(identifier) for identifier in sorted(ours.specials.ids))
    assert ours.specials.ids - {ours.unknown_id} <= set(ours.encode_template(spelled).ids)
    assert not (ours.specials.ids - {ours.unknown_id}) & set(ours.encode([spelled, f"Tom {spelled}"])[1])


@pytest.mark.parametrize("code", ["de_DE", "zh_CN"])
@pytest.mark.parametrize("name", ["MBart", "MBart50"])
def test_languages_stand_where_transformers_puts_them(name: str, code: str, tmp_path: Path) -> None:
    file, options, theirs_class = FAMILIES[name]
    pieces(tmp_path / file, **options)
    write(tmp_path, "tokenizer_config.json", {"tokenizer_class": f"{name}Tokenizer"})
    theirs = theirs_class.from_pretrained(tmp_path, src_lang=code)
    ours = load_folder(tmp_path).for_language(code)
    assert ours.encode_with_special_tokens(LINES) == theirs(LINES)["input_ids"]
    assert dict(ours.specials.languages)[code] == theirs.convert_tokens_to_ids(code)


def test_nllbs_languages_come_from_its_files(tmp_path: Path) -> None:
    pieces(tmp_path / "sentencepiece.bpe.model", **MODELS["bpe"])
    codes = ["deu_Latn", "eng_Latn", "zho_Hans"]
    write(tmp_path, "tokenizer_config.json", {"tokenizer_class": "NllbTokenizer"})
    with pytest.raises(CheckpointError, match="its files name none"):
        load_folder(tmp_path)
    write(tmp_path, "special_tokens_map.json", {"additional_special_tokens": codes})
    ours = load_folder(tmp_path)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "sentencepiece.bpe.model"))
    size = theirs.get_piece_size()
    # fairseq's four for SentencePiece's three: every other piece moves on by one.
    start, end = dict(ours.specials.languages)["eng_Latn"], ours.end_id
    moved = [[start, *(3 if i == 0 else i + 1 for i in theirs.encode(line)), end] for line in [*LINES, *PLAIN]]
    assert ours.encode_with_special_tokens([*LINES, *PLAIN]) == moved
    assert ours.specials.languages == tuple((code, size + 1 + place) for place, code in enumerate(codes))
    assert ours.mask_id == size + 1 + len(codes)
    german = ours.for_language("deu_Latn").encode_with_special_tokens(LINES)
    assert [row[0] for row in german] == [size + 1] * len(LINES)


def test_m2m100_has_its_own_numbers(tmp_path: Path) -> None:
    path = pieces(tmp_path / "sentencepiece.bpe.model", **MODELS["bpe"])
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    names = [processor.id_to_piece(place) for place in range(3, processor.get_piece_size())]
    # Some pieces are not in the vocabulary, and some of it are not pieces.
    kept = [name for place, name in enumerate(reversed(names)) if place % 7]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *kept, "▁madeupword0000"]
    write(tmp_path, "vocab.json", {token: place for place, token in enumerate(vocabulary)})
    config = {"tokenizer_class": "M2M100Tokenizer", "src_lang": "en", "tgt_lang": None}
    theirs = transformers.M2M100Tokenizer(str(tmp_path / "vocab.json"), str(path), src_lang="en")
    codes = [theirs.get_lang_token(code) for code in theirs.lang_code_to_id]
    write(tmp_path, "tokenizer_config.json", config | {"additional_special_tokens": codes})
    ours = load_folder(tmp_path)
    assert ours.encode_with_special_tokens([*LINES, *PLAIN]) == [theirs(text)["input_ids"] for text in [*LINES, *PLAIN]]
    theirs.src_lang = "de"
    assert ours.for_language("__de__").encode_with_special_tokens(LINES) == [
        theirs(text)["input_ids"] for text in LINES
    ]
    assert ours.vocab_size == len(vocabulary) + len(codes)
    assert ours.unknown_id in {identifier for row in ours.encode(LINES) for identifier in row}


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_marian_cuts_each_side_in_its_own_way(tmp_path: Path) -> None:
    sides: dict[str, list[str]] = {}
    for side, lines in (("source", LINES), ("target", [line[::-1] for line in LINES])):
        path = pieces(tmp_path / f"{side}.spm", lines=lines, **MODELS["unigram"])
        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        sides[side] = [processor.id_to_piece(place) for place in range(3, processor.get_piece_size())]
    both = dict.fromkeys([*sides["source"][5:], *sides["target"]])
    vocabulary = ["</s>", "<unk>", ">>deu<<", ">>fra<<", *both, "<pad>"]
    write(tmp_path, "vocab.json", {token: place for place, token in enumerate(vocabulary)})
    write(tmp_path, "tokenizer_config.json", {"tokenizer_class": "MarianTokenizer"})
    theirs = transformers.MarianTokenizer.from_pretrained(tmp_path)
    texts = [text for text in [*LINES, *PLAIN, *(line[::-1] for line in LINES)] if not text.startswith(">>")]
    source, target = load_folder(tmp_path), load_folder(tmp_path, side="target")
    assert source.encode_with_special_tokens(texts) == [theirs(text)["input_ids"] for text in texts]
    assert target.encode_with_special_tokens(texts) == [theirs(text_target=text)["input_ids"] for text in texts]
    assert source.encode(texts) != target.encode(texts)
    french = source.for_language(">>fra<<")
    assert french.encode_with_special_tokens(LINES) == [theirs(f">>fra<<{text}")["input_ids"] for text in LINES]
    rows = source.encode_with_special_tokens(LINES)
    assert source.decode(rows) == theirs.batch_decode(rows, skip_special_tokens=True)
    assert source.vocab_size == target.vocab_size == len(vocabulary)
    # Saved as sublayer's own, too, though tokenizer.json alone cannot say where the vocabulary ends.
    source.save(tmp_path / "own" / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "own" / "tokenizer.json").encode_with_special_tokens(
        texts
    ) == source.encode_with_special_tokens(texts)


def test_models_that_are_not_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pieces(tmp_path / "model", model_type="char")
    with pytest.raises(CheckpointError, match="the algorithm 'char'"):
        read_piece_model(path)
    path = pieces(tmp_path / "model", model_type="unigram", treat_whitespace_as_suffix=True)
    with pytest.raises(CheckpointError, match="white space as suffix"):
        read_piece_model(path)
    for damaged in (b"", b"\xff" * 50, path.read_bytes()[:100]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is not a SentencePiece model"):
            read_piece_model(path)
    with pytest.raises(CheckpointError, match="is missing"):
        read_piece_model(tmp_path / "gone")
    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)
    with pytest.raises(CheckpointError, match=r"not installed.*pip install 'sublayer\[hub\]'"):
        read_piece_model(path)

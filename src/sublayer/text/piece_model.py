"""A tokenizer as a SentencePiece model, where it is one: what `text/sentencepiece.py` reads, backwards."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sublayer.errors import InputError
from sublayer.text.sentencepiece import KINDS, SPACE, Piece, PieceModel, backend_of, empty_proto

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

NUMBERS = {kind: number for number, kind in KINDS.items()}
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
REMEDY = 'Train one with tokenizer.type = "sentencepiece" and no tokenizer.normalization.'


def piece_model_of(backend: Backend) -> PieceModel:
    """The SentencePiece model that gives the same ids as `backend`.

    Raises:
        InputError: there is none: made into a tokenizer again, the nearest is not `backend`.
    """
    plain = json.loads(backend.to_str())
    kind = plain["model"]["type"]
    if kind not in ("Unigram", "BPE"):
        raise InputError(f"a tokenizer of the kind {kind} is no SentencePiece model", REMEDY)
    model = _read(plain)
    again = json.loads(backend_of(model).to_str())
    parts = {
        "cuts text into words as SentencePiece does not (pre_tokenizer)": "pre_tokenizer",
        "normalizes text as SentencePiece does not (normalizer)": "normalizer",
        "decodes as SentencePiece does not (decoder)": "decoder",
        "has special tokens that SentencePiece reads in another way (added_tokens)": "added_tokens",
        "has pieces or merges that no scores stand for (model)": "model",
    }
    wrong = [what for what, part in parts.items() if plain[part] != again[part]]
    if wrong:
        raise InputError(f"this tokenizer is no SentencePiece model: it {wrong[0]}", REMEDY)
    return model


def write_piece_model(path: Path, model: PieceModel, roles: Mapping[str, int]) -> None:
    """Write `model` as SentencePiece's own library reads it.

    Args:
        roles: ids of special tokens, by the fields of `Specials`.

    Raises:
        CheckpointError: the library is not installed.
    """
    proto = empty_proto("a SentencePiece model is to be written", "Run `pip install 'sublayer[hub]'`.")
    for piece in model.pieces:
        proto.pieces.add(piece=piece.text, score=piece.score, type=NUMBERS[piece.kind])
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    trainer.model_type = 1 if model.algorithm == "unigram" else 2
    trainer.vocab_size = len(model.pieces)
    trainer.byte_fallback = model.falls_back
    trainer.unk_id = model.unknown
    trainer.unk_piece = model.pieces[model.unknown].text
    for name, field in (("bos", "start"), ("eos", "end"), ("pad", "pad")):
        number = roles.get(field, -1)
        setattr(trainer, f"{name}_id", number)
        if number >= 0:
            setattr(trainer, f"{name}_piece", model.pieces[number].text)
    normalizer.name = "identity" if not model.charsmap else "custom"
    normalizer.precompiled_charsmap = model.charsmap
    normalizer.add_dummy_prefix = model.prefix
    normalizer.remove_extra_whitespaces = model.trims
    normalizer.escape_whitespaces = True
    path.write_bytes(proto.SerializeToString())


def _read(plain: Mapping[str, Any]) -> PieceModel:
    """What the parts of a tokenizer.json would be of, were it of a SentencePiece model."""
    model = plain["model"]
    steps = _steps(plain["normalizer"], "normalizers")
    cuts = _steps(plain["pre_tokenizer"], "pretokenizers")
    charsmap = next((step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled"), "")
    trims = {"Regex": " {2,}"} in [step.get("pattern") for step in steps]
    first = any(cut.get("prepend_scheme") == "first" for cut in cuts)
    falls_back = bool(model.get("byte_fallback"))
    added = {token["id"]: bool(token["special"]) for token in plain["added_tokens"]}
    if model["type"] == "Unigram":
        texts = cast("list[tuple[str, float]]", model["vocab"])
        unknown = model["unk_id"]
    else:
        merges = cast("list[list[str]]", model["merges"])
        ranks = {"".join(pair): -place for place, pair in reversed(list(enumerate(merges)))}
        ids = cast("dict[str, int]", model["vocab"])
        texts = [(text, float(ranks.get(text, 0.0))) for text in sorted(ids, key=ids.__getitem__)]
        unknown = ids.get(str(model["unk_token"]))

    def piece(place: int, text: str, score: float) -> Piece:
        if place == unknown:
            return Piece(text, score, "unknown")
        if falls_back and _BYTE.fullmatch(text):
            return Piece(text, score, "byte")
        if place not in added:
            return Piece(text, score)
        special = added[place]
        return Piece(text if special or trims else text.replace(" ", SPACE), score, "control" if special else "user")

    return PieceModel(
        "unigram" if model["type"] == "Unigram" else "bpe",
        tuple(piece(place, text, score) for place, (text, score) in enumerate(texts)),
        unknown=unknown or 0,
        charsmap=base64.b64decode(charsmap),
        prefix=first or any(step["type"] == "Prepend" for step in steps),
        trims=trims,
        falls_back=falls_back,
        only_first=first,
    )


def _steps(part: Mapping[str, Any] | None, inside: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return part[inside] if part["type"] == "Sequence" else [cast("dict[str, Any]", part)]

"""SentencePiece models (Kudo & Richardson 2018) as `tokenizers` objects: unigram and byte pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sublayer.config.part import LARGEST_COUNT
from sublayer.errors import CheckpointError
from sublayer.text.pieces import SPACE
from sublayer.untrusted import library_errors, read_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

Kind = Literal["normal", "unknown", "control", "user", "unused", "byte"]
KINDS: dict[int, Kind] = {1: "normal", 2: "unknown", 3: "control", 4: "user", 5: "unused", 6: "byte"}
_MODELS: dict[int, str] = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece: how it is spelled ("▁" for a space), its score (a log-probability, or minus its rank), its kind."""

    text: str
    score: float = 0.0
    kind: Kind = "normal"


@dataclass(frozen=True, slots=True)
class PieceModel:
    """What a SentencePiece model is, of which a piece's place is its id.

    Attributes:
        algorithm: "unigram" or "bpe".
        charsmap: the compiled rules of normalization; empty for none.
        prefix: a space is put before a text ("add_dummy_prefix").
        trims: spaces around a text are taken off, and several inside it become one.
        falls_back: a character without a piece becomes its UTF-8 bytes, a piece each.
        only_first: in a text with special tokens inside, the space is put before its beginning only, not behind each of
            them (Llama's `legacy` false).
    """

    algorithm: Literal["unigram", "bpe"]
    pieces: tuple[Piece, ...]
    unknown: int = 0
    charsmap: bytes = b""
    prefix: bool = True
    trims: bool = True
    falls_back: bool = False
    only_first: bool = False

    def with_pieces(self, pieces: Sequence[Piece]) -> PieceModel:
        """The same with other pieces; the unknown one is found by its kind."""
        unknown = next((place for place, piece in enumerate(pieces) if piece.kind == "unknown"), 0)
        return replace(self, pieces=tuple(pieces), unknown=unknown)


def read_piece_model(path: Path) -> PieceModel:
    """The SentencePiece model at `path`.

    Raises:
        CheckpointError: `sentencepiece` is not installed; the file is missing, damaged, or of a kind that is not read.
    """
    remedy = "Install it: pip install 'sublayer[hub]' (or sentencepiece and protobuf)."
    proto = empty_proto(f"{path} is a SentencePiece model", remedy)
    found = read_bytes(path, remedy="Copy the model's folder anew, whole.")
    try:
        proto.ParseFromString(found)
    except Exception as error:  # protobuf's own DecodeError, whose module moved between versions
        raise CheckpointError(
            f"{path} is not a SentencePiece model ({error})", "Copy the model's folder anew, whole."
        ) from None
    if not proto.pieces or not proto.HasField("trainer_spec") or not proto.HasField("normalizer_spec"):
        raise CheckpointError(f"{path} is not a SentencePiece model: it lacks a part", "Copy the folder anew, whole.")
    return _understood(proto, path)


def empty_proto(why: str, remedy: str) -> Any:
    """A SentencePiece model as its own library holds it, with nothing in it.

    Raises:
        CheckpointError: the library is not installed; says why it is needed.
    """
    try:
        module: Any = import_module("sentencepiece.sentencepiece_model_pb2")
    except ImportError as error:
        raise CheckpointError(f"{why}, and {error.name or 'sentencepiece'} is not installed", remedy) from None
    return module.ModelProto()


def _understood(proto: Any, path: Path) -> PieceModel:
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    algorithm = _MODELS.get(trainer.model_type, str(trainer.model_type))
    traits = {
        f"the algorithm {algorithm!r}": algorithm not in {"unigram", "bpe"},
        "white space as suffix": trainer.treat_whitespace_as_suffix,
        "spaces that are not escaped": not normalizer.escape_whitespaces,
    }
    if strange := [trait for trait, has in traits.items() if has]:
        raise CheckpointError(f"{path} has {', '.join(strange)}", "Such SentencePiece models are not read.")
    _require_sound(proto, path)
    return PieceModel(
        "unigram" if algorithm == "unigram" else "bpe",
        tuple(Piece(piece.piece, piece.score, KINDS[piece.type]) for piece in proto.pieces),
        unknown=next((place for place, piece in enumerate(proto.pieces) if piece.type == 2), 0),
        charsmap=bytes(normalizer.precompiled_charsmap),
        prefix=normalizer.add_dummy_prefix,
        trims=normalizer.remove_extra_whitespaces,
        falls_back=trainer.byte_fallback,
    )


MOST_CUTS = 2 * 10**8
"""Of the squares of the pieces' lengths: what `merges_of` compares. A vocabulary of 262,144 has 2 * 10 ** 7."""


def _require_sound(proto: Any, path: Path) -> None:
    """Raise where the pieces are none that SentencePiece could have written, or there is too much work in them."""
    texts = [str(piece.piece) for piece in proto.pieces]
    wrong = ""
    if len(set(texts)) != len(texts):
        wrong = f"the piece {next(text for text in texts if texts.count(text) > 1)[:40]!r} twice"
    elif "" in texts:
        wrong = "an empty piece"
    elif sum(len(text) ** 2 for text in texts) > MOST_CUTS:
        wrong = "pieces that are too long"
    elif not all(math.isfinite(piece.score) for piece in proto.pieces):
        wrong = "a score that is not finite"
    elif len(texts) > LARGEST_COUNT:
        wrong = f"more than {LARGEST_COUNT} pieces"
    if wrong:
        raise CheckpointError(f"{path} is damaged: it has {wrong}", "Copy the model's folder anew, whole.")
    with library_errors(f"{path} has a damaged table of characters", "Copy the model's folder anew, whole."):
        require_charsmap(bytes(proto.normalizer_spec.precompiled_charsmap))


def require_charsmap(charsmap: bytes) -> None:
    """Raise a ValueError unless each step in a compiled table of characters stays inside it.

    It is the number of bytes of a double-array trie (four bytes, little-endian), the trie, and what characters become,
    each ended by a zero byte. The library that reads it goes wherever the trie says, and stops the process's work
    where that is nowhere.
    """
    if not charsmap:
        return
    size = int.from_bytes(charsmap[:4], "little")
    if len(charsmap) < 8 or size % 4 or not 4 <= size <= len(charsmap) - 4:
        raise ValueError("its size is wrong")
    units = np.frombuffer(charsmap, "<u4", size // 4, 4).astype(np.int64)
    after = charsmap[4 + size :]
    after.decode("utf-8")
    # As spm_precompiled has it: 9 bits more where bit 9 is set.
    offsets = (units >> 10) << ((units & (1 << 9)) >> 6)
    labels = units & ((1 << 31) | 0xFF)
    leaves = (units >> 8) & 1
    bytes_ = np.arange(1, 256)
    seen: set[int] = set()
    waiting = [int(offsets[0])]
    while waiting:
        base = waiting.pop()
        if base in seen:
            continue
        seen.add(base)
        places = base ^ bytes_
        if places.max() >= len(units):
            raise ValueError("it leads outside of itself")
        for place in places[labels[places] == bytes_]:
            below = int(place) ^ int(offsets[place])
            if leaves[place]:
                if below >= len(units):
                    raise ValueError("it leads outside of itself")
                value = int(units[below]) & 0x7FFFFFFF
                if value > len(after) or (value < len(after) and after[value] & 0xC0 == 0x80):
                    raise ValueError("it leads outside of its texts")
            waiting.append(below)


def backend_of(model: PieceModel) -> Backend:
    """`model` as a `tokenizers.Tokenizer` with the same ids; its control pieces are special, its user's are added.

    Pieces that no text may become are kept from it by being special (see `Quoting`). The ids are those of
    SentencePiece, but for what the library's normalizer does to rare signs: a charsmap's rule for a letter is applied
    to the letter with its combining marks, which it swallows.
    """
    from tokenizers import AddedToken, Tokenizer, models

    model = replace(model, pieces=tuple(_as_typed(piece, model) for piece in model.pieces))
    if model.algorithm == "unigram":
        scored = [(piece.text, piece.score) for piece in model.pieces]
        backend = Tokenizer(models.Unigram(scored, unk_id=model.unknown, byte_fallback=model.falls_back))
    else:
        ids = {piece.text: place for place, piece in enumerate(model.pieces)}
        backend = Tokenizer(
            models.BPE(
                ids,
                merges_of(model.pieces),
                unk_token=model.pieces[model.unknown].text,
                fuse_unk=True,
                byte_fallback=model.falls_back,
            )
        )
    _spaces(backend, model)
    special = ("control", "unknown", "unused")
    backend.add_special_tokens(
        [AddedToken(p.text, normalized=False, special=True) for p in model.pieces if p.kind in special]
    )
    backend.add_tokens([AddedToken(p.text, normalized=False) for p in model.pieces if p.kind == "user"])
    return backend


def _as_typed(piece: Piece, model: PieceModel) -> Piece:
    """The piece; one of the user's, which is cut out of a text before all else, with its spaces as the text has them.

    Gemma's runs of spaces are such pieces. Where a model makes one space of several, no text has a run.
    """
    spaced = piece.kind == "user" and not model.trims
    return replace(piece, text=piece.text.replace(SPACE, " ")) if spaced else piece


def merges_of(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """The merges that a byte pair model of SentencePiece stands for, first to last.

    It has no merges: any two neighbours that together are a piece may be joined, and the piece with the best score
    goes first. So each way to cut a piece into two pieces is a merge of that piece's rank.
    """
    usable = {piece.text: place for place, piece in enumerate(pieces) if piece.kind in {"normal", "user"}}
    merges: list[tuple[float, int, int, int, str, str]] = []
    for text, place in usable.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in usable and right in usable:
                merges.append((-pieces[place].score, place, usable[left], usable[right], left, right))
    return [(left, right) for *_, left, right in sorted(merges)]


def _spaces(backend: Backend, model: PieceModel) -> None:
    """What is done to a text before it is cut, and undone by the decoder."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    steps: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.trims:
        # Of white space only spaces count, and the library's own Strip takes tabs too.
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if not (model.prefix and model.only_first):
        steps += [normalizers.Prepend(SPACE)] if model.prefix else []
        steps.append(normalizers.Replace(" ", SPACE))
    backend.normalizer = normalizers.Sequence(steps)
    # Where no piece goes on past a space, words can be cut one by one, which is the same and faster.
    apart = model.trims and not any(SPACE in piece.text[1:] for piece in model.pieces if piece.kind == "normal")
    scheme = "first" if model.prefix and model.only_first else "never"
    cuts: list[Any] = []
    if model.falls_back and model.algorithm == "unigram":
        # A text that spells a byte's piece is not that byte, so it is cut inside. Merges never make one.
        cuts.append(pre_tokenizers.Split(Regex("<(?=0x[0-9A-F]{2}>)"), "merged_with_previous"))
    if apart or scheme == "first":
        cuts.append(pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=apart))
    if cuts:
        backend.pre_tokenizer = pre_tokenizers.Sequence(cuts) if len(cuts) > 1 else cuts[0]
    back: list[Any] = [decoders.Replace(SPACE, " ")]
    back += [decoders.ByteFallback()] if model.falls_back else []
    back.append(decoders.Fuse())
    back += [decoders.Strip(" ", 1, 0)] if model.prefix else []
    backend.decoder = decoders.Sequence(back)

"""The tokenizer inside a GGUF file, from its metadata (llama.cpp's `tokenizer.ggml.*` keys)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sublayer.config.foreign import GGUF, require_all
from sublayer.errors import CheckpointError, nearest
from sublayer.text.chat import ChatSource
from sublayer.text.pieces import SPACE
from sublayer.text.sentencepiece import KINDS, Kind, Piece, PieceModel, backend_of, require_charsmap
from sublayer.text.specials import Specials, Template, put_around
from sublayer.text.tokenizer import Tokenizer
from sublayer.text.vocabularies import byte_level
from sublayer.untrusted import library_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

# `tokenizer.ggml.pre` names how words are cut: which of `vocabularies.WORDS` that is.
CUTS = {
    "gpt2": ("gpt-2", "phi-2", "mpt", "olmo", "modern-bert", "exaone4", "trillion", "granite-docling", "mellum"),
    "digits": ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    "llama3": ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "lfm2", "dbrx", "smaug-bpe"),
    "qwen2": ("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan"),
    "tekken": ("tekken",),
    "gpt4o": ("gpt-4o", "llama4", "kanana2"),
    "falcon": ("falcon",),
}
_CUT = {name: words for words, names in CUTS.items() for name in names}
TOKENS = {
    "start": "bos",
    "end": "eos",
    "unknown": "unknown",
    "pad": "padding",
    "separator": "seperator",  # llama.cpp spells it so
    "class_": "cls",
    "mask": "mask",
}
"""What the parts of `Specials` are called in keys (`tokenizer.ggml.bos_token_id`)."""
COMPOSED = frozenset({"qwen2", "megrez"})
WHOLE_WORDS = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "lfm2", "tekken"})
_STARTED = WHOLE_WORDS


def from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that `metadata` describes: plain values by their keys, arrays as lists.

    Byte-level byte pairs ("gpt2") and SentencePiece's byte pairs ("llama") and unigrams ("t5") are read, for the
    Llama, Qwen, Gemma and GPT-2 families.

    Raises:
        CheckpointError: a key is missing, lists differ in length, or the kind of tokenizer, or its way to cut words, is
            not known; it is named.
    """
    require_all(metadata, GGUF, "the GGUF file")
    with library_errors("the GGUF file has no tokenizer that can be read", "Fetch the file anew."):
        return _built(metadata)


def _built(metadata: Mapping[str, Any]) -> Tokenizer:
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        backend = _byte_level(metadata)
        starts = metadata.get("tokenizer.ggml.pre") in _STARTED
    elif kind in _ALGORITHMS:
        backend = _pieces(metadata, _ALGORITHMS[str(kind)])
        starts = kind == "llama"
    else:
        raise CheckpointError(
            f"the GGUF file's tokenizer is of the kind {kind!r} (tokenizer.ggml.model)",
            'Read are "gpt2", "llama" and "t5".',
        )
    specials = _specials(metadata, backend)
    before = _affix(metadata, "add_bos_token", starts, specials.start)
    after = _affix(metadata, "add_eos_token", False, specials.end)
    put_around(backend, Template.around(before, after, [*after, *before]))
    return Tokenizer(backend, specials, chat_template=_chat_template(metadata))


def _chat_template(metadata: Mapping[str, Any]) -> ChatSource | None:
    """The chat template; by name, where there are more ("tokenizer.chat_template.tool_use")."""
    key = "tokenizer.chat_template"
    others = {name.removeprefix(key + "."): source for name, source in metadata.items() if name.startswith(key + ".")}
    default = metadata.get(key)
    return default if not others else others if default is None else {"default": default, **others}


def _byte_level(metadata: Mapping[str, Any]) -> Backend:
    pre = str(metadata.get("tokenizer.ggml.pre", "default"))
    if pre not in _CUT:
        raise CheckpointError(
            f"the GGUF file's tokenizer cuts words by {pre!r} (tokenizer.ggml.pre), which is not known here",
            nearest(pre, _CUT),
        )
    tokens, kinds = _tokens(metadata)
    merges = [tuple(merge.split(" ")) for merge in _listed(metadata, "merges")]
    pairs = [(merge[0], merge[1]) for merge in merges if len(merge) == 2]
    if len(pairs) != len(merges):
        raise CheckpointError("the GGUF file has a merge that is not of two tokens", "Fetch the file anew.")
    backend = byte_level(
        {token: place for place, token in enumerate(tokens)},
        pairs,
        words=_CUT[pre],
        compose=pre in COMPOSED,
        whole_words=pre in WHOLE_WORDS,
    )
    _add(backend, [token for token, kind in zip(tokens, kinds, strict=True) if kind == "user"], special=False)
    _add(backend, [token for token, kind in zip(tokens, kinds, strict=True) if kind in _SPECIAL], special=True)
    return backend


_ALGORITHMS: Mapping[str, Literal["bpe", "unigram"]] = {"llama": "bpe", "t5": "unigram"}
"""Kinds of SentencePiece's tokenizers."""


def _pieces(metadata: Mapping[str, Any], algorithm: Literal["bpe", "unigram"]) -> Backend:
    tokens, kinds = _tokens(metadata)
    scores: Sequence[float] = _listed(metadata, "scores")
    if len(scores) != len(tokens):
        raise CheckpointError(
            f"the GGUF file has {len(tokens)} tokens and {len(scores)} scores of them", "Fetch the file anew."
        )
    # The converter writes the spaces of a user's symbols as spaces, where SentencePiece has "▁".
    pieces = tuple(
        Piece(token.replace(" ", SPACE) if kind == "user" else token, score, kind)
        for token, score, kind in zip(tokens, scores, kinds, strict=True)
    )
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    charsmap = bytes(int(value) & 255 for value in metadata.get("tokenizer.ggml.precompiled_charsmap", ()))
    require_charsmap(charsmap)
    return backend_of(
        PieceModel(
            algorithm,
            pieces,
            unknown=int(unknown),
            charsmap=charsmap,
            prefix=bool(metadata.get("tokenizer.ggml.add_space_prefix", True)),
            trims=bool(metadata.get("tokenizer.ggml.remove_extra_whitespaces", False)),
            falls_back="byte" in kinds,
        )
    )


_SPECIAL = frozenset({"control", "unknown", "unused"})


def _add(backend: Backend, tokens: Sequence[str], *, special: bool) -> None:
    from tokenizers import AddedToken

    backend.add_tokens([AddedToken(token, normalized=False, special=special) for token in tokens])


def _tokens(metadata: Mapping[str, Any]) -> tuple[list[str], list[Kind]]:
    tokens: list[str] = list(_listed(metadata, "tokens"))
    numbers: Sequence[int] = metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if len(numbers) != len(tokens) or not set(numbers) <= set(KINDS):
        raise CheckpointError("the GGUF file's token_type does not fit its tokens", "Fetch the file anew.")
    return tokens, [KINDS[number] for number in numbers]


def _listed(metadata: Mapping[str, Any], key: str) -> Sequence[Any]:
    found = metadata.get(f"tokenizer.ggml.{key}")
    if found is None:
        raise CheckpointError(f"the GGUF file has no tokenizer.ggml.{key}", "Fetch the file anew, or another one.")
    return found


def _specials(metadata: Mapping[str, Any], backend: Backend) -> Specials:
    found = {part: metadata.get(f"tokenizer.ggml.{name}_token_id") for part, name in TOKENS.items()}
    parts = {part: None if identifier is None else int(identifier) for part, identifier in found.items()}
    tokens = [backend.id_to_token(i) for i in parts.values() if i is not None]
    if None in tokens:
        raise CheckpointError("the GGUF file names a special token that it does not have", "Fetch the file anew.")
    _add(backend, [token for token in tokens if token is not None], special=True)
    marked = [i for i, token in sorted(backend.get_added_tokens_decoder().items()) if token.special]
    return Specials.of(parts, [i for i in marked if i not in parts.values()])


def _affix(metadata: Mapping[str, Any], key: str, otherwise: bool, identifier: int | None) -> list[int]:
    return [identifier] if metadata.get(f"tokenizer.ggml.{key}", otherwise) and identifier is not None else []

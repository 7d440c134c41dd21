"""A tokenizer as GGUF's metadata: what `text/gguf.py` reads, backwards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sublayer.errors import InputError
from sublayer.text.gguf import COMPOSED, CUTS, TOKENS, WHOLE_WORDS, from_gguf
from sublayer.text.piece_model import NUMBERS, REMEDY, piece_model_of
from sublayer.text.sentencepiece import SPACE
from sublayer.text.tokenizer import Tokenizer
from sublayer.text.vocabularies import WORDS

NORMAL, CONTROL, USER, UNUSED = NUMBERS["normal"], NUMBERS["control"], NUMBERS["user"], NUMBERS["unused"]
PROBES = ("Hello world", " two  spaces", "It's 1,234.5% of 67", "naïve café", "new\nline\n\n  end", "日本語", "x_y</s>")
"""Texts that what is written must cut as the tokenizer does."""


def to_gguf(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """The metadata from which llama.cpp makes the same tokenizer: plain values by their keys, arrays as lists.

    Args:
        rows: of the embedding; there are names for those that have no token.

    Raises:
        InputError: llama.cpp cuts no text as this tokenizer does.
    """
    plain = json.loads(tokenizer.backend.to_str())
    byte_level = "ByteLevel" in json.dumps(plain["decoder"])
    found = _byte_level(tokenizer, plain) if byte_level else _pieces(tokenizer)
    _fill(found, rows)
    found |= _roles(tokenizer)
    template = tokenizer.chat_template
    if isinstance(template, str):
        found["tokenizer.chat_template"] = template
    elif template is not None:
        named = {f"tokenizer.chat_template.{name}": source for name, source in template.items() if name != "default"}
        found |= named | ({"tokenizer.chat_template": template["default"]} if "default" in template else {})
    again = from_gguf(found)
    if again.encode_with_special_tokens(PROBES) != tokenizer.encode_with_special_tokens(PROBES):
        raise InputError("llama.cpp cuts text in another way than this tokenizer", REMEDY)
    return found


def _roles(tokenizer: Tokenizer) -> dict[str, Any]:
    roles, template = tokenizer.specials, tokenizer.template
    numbers: dict[str, int | None] = {name: getattr(roles, part) for part, name in TOKENS.items()}
    # A model without a start token begins with nothing; llama.cpp asks for one all the same.
    if roles.start is None and roles.end is not None:
        numbers["bos"] = roles.end
    found: dict[str, Any] = {
        f"tokenizer.ggml.{name}_token_id": number for name, number in numbers.items() if number is not None
    }
    starts = template.before == (numbers["bos"],) and roles.start is not None
    if (template.before and not starts) or template.after not in ((), (roles.end,)):
        raise InputError(
            f"llama.cpp can put a start and an end token around a text, and this tokenizer puts"
            f" {tokenizer.pieces(template.before)} before and {tokenizer.pieces(template.after)} after it",
            "Give the tokenizer another template (Tokenizer.replace).",
        )
    return found | {"tokenizer.ggml.add_bos_token": starts, "tokenizer.ggml.add_eos_token": bool(template.after)}


def _byte_level(tokenizer: Tokenizer, plain: Mapping[str, Any]) -> dict[str, Any]:
    model = plain["model"]
    cuts: dict[str, Any] = plain["pre_tokenizer"] or {"type": "none"}
    steps: Sequence[dict[str, Any]] = cuts.get("pretokenizers", [cuts])
    patterns = tuple(step["pattern"].get("Regex") for step in steps if step["type"] == "Split")
    spaced = any(step.get("add_prefix_space") for step in steps)
    own = any(step["type"] == "ByteLevel" and step.get("use_regex") for step in steps)
    words = [name for name, known in WORDS.items() if known == patterns or (name == "gpt2" and own and not patterns)]
    # The library's own digits are a step of their own, and the pattern of GPT-2 is the last.
    if own and [step["type"] for step in steps] == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        words = ["digits"]
    normalizer: dict[str, Any] = plain["normalizer"] or {}
    normal = normalizer.get("type")
    named = [
        name
        for kind in words
        for name in CUTS[kind]
        if (name in COMPOSED) == (normal == "NFC") and (name in WHOLE_WORDS) == bool(model.get("ignore_merges"))
    ]
    if not named or spaced or normal not in (None, "NFC") or model["type"] != "BPE":
        raise InputError(
            "llama.cpp has no name for how this tokenizer cuts words (tokenizer.ggml.pre)",
            REMEDY,
        )
    added = tokenizer.backend.get_added_tokens_decoder()
    special = tokenizer.left_out
    size = tokenizer.vocab_size
    tokens = [tokenizer.backend.id_to_token(number) for number in range(size)]
    kinds = [
        CONTROL if number in special else USER if number in added else UNUSED if token is None else NORMAL
        for number, token in enumerate(tokens)
    ]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": named[0],
        "tokenizer.ggml.tokens": [f"[PAD{i}]" if token is None else token for i, token in enumerate(tokens)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
    }


def _pieces(tokenizer: Tokenizer) -> dict[str, Any]:
    if tokenizer.vocab_size < tokenizer.backend.get_vocab_size(with_added_tokens=True):
        raise InputError("this tokenizer has pieces outside its vocabulary, which GGUF cannot say", REMEDY)
    model = piece_model_of(tokenizer.backend)
    spaced = [piece.text.replace(SPACE, " ") if piece.kind == "user" else piece.text for piece in model.pieces]
    found: dict[str, Any] = {
        "tokenizer.ggml.model": "llama" if model.algorithm == "bpe" else "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": spaced,
        "tokenizer.ggml.scores": [float(piece.score) for piece in model.pieces],
        "tokenizer.ggml.token_type": [NUMBERS[piece.kind] for piece in model.pieces],
        "tokenizer.ggml.add_space_prefix": model.prefix,
        "tokenizer.ggml.remove_extra_whitespaces": model.trims,
    }
    if model.charsmap:
        found["tokenizer.ggml.precompiled_charsmap"] = list(model.charsmap)
    return found


def _fill(found: dict[str, Any], rows: int) -> None:
    """A name for each row of the embedding that has no token."""
    more = range(len(found["tokenizer.ggml.tokens"]), rows)
    found["tokenizer.ggml.tokens"] += [f"[PAD{number}]" for number in more]
    found["tokenizer.ggml.token_type"] += [UNUSED] * len(more)
    if "tokenizer.ggml.scores" in found:
        found["tokenizer.ggml.scores"] += [0.0] * len(more)

"""Tokenizers of older files: BERT's list of words, and GPT-2's vocabulary with merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sublayer.errors import CheckpointError
from sublayer.untrusted import UntrustedError, library_errors, parse_json, read_bytes, read_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

ANEW = "Copy the model's folder anew, whole."
MOST_TOKENS = 2**24
"""A vocabulary's size; the largest in use have 2**18 tokens."""

# How text is cut into words before byte pairs are merged inside them. Where there are several, each cuts what the one
# before it left; "gpt2" is the library's own, the others are what the models' files say.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
WORDS: dict[str, tuple[str, ...]] = {
    "gpt2": (_GPT2,),
    "digits": (r"\p{N}", _GPT2),
    "llama3": (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _SIGNS + _REST,),
    "qwen2": (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _SIGNS + _REST,),
    "tekken": (f"{_CASED[0]}|{_CASED[1]}" + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _REST,),
    "gpt4o": (
        f"{_CASED[0]}{_CONTRACTIONS}?|{_CASED[1]}{_CONTRACTIONS}?" + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _REST,
    ),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]"),
}


def wordpiece(vocabulary: Mapping[str, int], config: Mapping[str, Any]) -> Backend:
    """BERT's tokenizer (Devlin et al. 2019, and Wu et al. 2016): words and signs, and inside words the longest pieces.

    Args:
        config: `do_lower_case`, `strip_accents` (None: as `do_lower_case`), `tokenize_chinese_chars`, `unk_token`, as
            tokenizer_config.json has them.

    Raises:
        CheckpointError: the unknown token is not in the vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    unknown = str(config.get("unk_token", "[UNK]"))
    if unknown not in vocabulary:
        raise CheckpointError(f"the vocabulary has no {unknown!r}", "Copy the model's files anew.")
    backend = Tokenizer(models.WordPiece(dict(vocabulary), unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def byte_level(
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    words: str = "gpt2",
    prefix_space: bool = False,
    compose: bool = False,
    whole_words: bool = False,
    trims: bool = False,
) -> Backend:
    """Byte pair encoding over bytes (Radford et al. 2019).

    Args:
        words: a key of `WORDS`.
        prefix_space: a space is put before a text that has none.
        compose: text is normalized to NFC first.
        whole_words: a word that is in the vocabulary is one token, whatever the merges say.
        trims: the span of a token leaves out its space.

    Raises:
        CheckpointError: a merge is of tokens that the vocabulary has not.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    unknown = next((pair for pair in merges if any(p not in vocabulary for p in (*pair, "".join(pair)))), None)
    if unknown is not None:
        raise CheckpointError(
            f"the merge {' '.join(unknown)!r} is of tokens that the vocabulary has not", "Copy the model's files anew."
        )
    backend = Tokenizer(models.BPE(dict(vocabulary), list(merges), fuse_unk=False, ignore_merges=whole_words))
    if compose:
        backend.normalizer = normalizers.NFC()
    if words == "gpt2":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    else:
        cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in WORDS[words]]
        bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, bytes_only])
    backend.decoder = decoders.ByteLevel()
    if trims:
        backend.post_processor = processors.ByteLevel(add_prefix_space=prefix_space, trim_offsets=True)
    return backend


def read_vocab_txt(path: Path) -> dict[str, int]:
    """BERT's `vocab.txt`: a token a line, whose number, from 0, is its id.

    Raises:
        CheckpointError: the file cannot be read.
    """
    lines = read_text(path).split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return {line.removesuffix("\r"): number for number, line in enumerate(lines)}


def read_vocab_json(path: Path) -> dict[str, int]:
    """A `vocab.json`: ids by token.

    Raises:
        CheckpointError: the file cannot be read or is something else.
    """
    read = read_object(path, remedy=ANEW)
    if not all(type(identifier) is int and 0 <= identifier < MOST_TOKENS for identifier in read.values()):
        raise CheckpointError(f"{path} is not a vocabulary", "It should have a number for each token.")
    _require_ids(path, read)
    return cast("dict[str, int]", read)


def _require_ids(path: Path, vocabulary: Mapping[str, Any]) -> None:
    """Two tokens with one id would be one of them when the tokenizer is written and read again; and the library makes
    room for every id below the largest."""
    held: dict[Any, str] = {}
    for token, identifier in vocabulary.items():
        if isinstance(identifier, int) and not 0 <= identifier < MOST_TOKENS:
            raise CheckpointError(f"{path}: {token!r} has the id {identifier}, and there are {MOST_TOKENS:,}", ANEW)
        if isinstance(identifier, int) and held.setdefault(identifier, token) != token:
            raise CheckpointError(f"{path}: {held[identifier]!r} and {token!r} have one id, {identifier}", ANEW)


def read_backend(path: Path) -> Backend:
    """The `tokenizers.Tokenizer` written at `path`.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    from tokenizers import Tokenizer as Backend

    remedy = "Copy the file anew or train again."
    held = read_bytes(path, remedy="Name the folder of a trained model.")
    try:
        # Its own parser has no limit on depth, on how often a key stands, or on numbers.
        model = cast("dict[str, Any]", parse_json(held)).get("model")
        vocabulary = cast("dict[str, Any]", model).get("vocab") if isinstance(model, dict) else None
        if isinstance(vocabulary, dict):
            _require_ids(path, cast("dict[str, Any]", vocabulary))
        with library_errors(f"{path} is not a tokenizer", remedy):
            return Backend.from_str(held.decode("utf-8"))
    except AttributeError:
        raise CheckpointError(f"{path} is not a tokenizer: it is no table", remedy) from None
    except UntrustedError as error:
        raise CheckpointError(f"{path} is not a tokenizer: it {error}", remedy) from None


def read_merges(path: Path) -> list[tuple[str, str]]:
    """GPT-2's `merges.txt`: two tokens a line, the first line perhaps a version.

    Raises:
        CheckpointError: the file cannot be read, or a line is something else.
    """
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2:
            raise CheckpointError(f"{path}, line {number}: {line!r} is not two tokens", "Copy the model's files anew.")
        merges.append((parts[0], parts[1]))
    return merges


def read_text(path: Path) -> str:
    """A file as UTF-8.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return read_bytes(path, remedy=ANEW).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 ({error.reason} at byte {error.start})", ANEW) from None

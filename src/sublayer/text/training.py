"""How a tokenizer is trained: which parts it has, and what comes out of the library's trainers made reproducible.

Both kinds of subwords share one idea of a word, and one way to mark where words begin: a space is put before every
text and taken off again by the decoder, so that "Tom" is the same piece at the start of a sentence and inside it.
Nothing else is changed but what the recipe's normalization says, so any text comes back as it was normalized.

Characters and bytes are the library's BPE without a single merge. Words are its word-level model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, assert_never, cast

from sublayer.config.tokenizer import Bytes, Characters, Subwords, TokenizerRecipe, Words
from sublayer.errors import ConfigError, DataError
from sublayer.text.normalization import normalizer, normalizers_of
from sublayer.text.pieces import byte_level_alphabet
from sublayer.text.sentencepiece import SPACE, Kind, Piece, PieceModel, backend_of
from sublayer.text.specials import SPECIALS

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

# A word keeps its leading space, its combining marks, and apostrophes inside it (don't, l'homme, п'ять). Letters,
# digits and other signs never share a piece, so no piece can spell a special token such as "</s>" or "<0x41>".
WORD = r" ?[\p{L}\p{M}]+(?:['’][\p{L}\p{M}]+)*| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"

_BYTES = tuple(f"<0x{value:02X}>" for value in range(256))


# Whole words by themselves, without the space. The end of a line is one of them.
SPLITS = {
    "punctuation": r"\n|[\p{L}\p{M}]+(?:['’][\p{L}\p{M}]+)*|\p{N}+|[^\s\p{L}\p{M}\p{N}]",
    "whitespace": r"\n|\S+",
}


def train_backend(
    lines: Iterable[str], recipe: TokenizerRecipe, extra: Sequence[str] = (), known: Sequence[str] = ()
) -> Backend:
    """A trained `tokenizers.Tokenizer`, the same one for the same lines in the same order.

    Args:
        extra: special tokens after the four that every tokenizer has. known: words that a vocabulary of whole words has
            after those of the text, as they come, beside `recipe.vocab_size`.

    Raises:
        DataError: there is no text in `lines`, or nothing in it is frequent enough for a vocabulary.
        ConfigError: `recipe.vocab_size` leaves no room beside the special tokens.
    """
    sample = None if isinstance(recipe, Bytes) else recipe.sample
    counted = _Counted(lines if sample is None else spread(lines, sample))
    specials = (*SPECIALS, *extra)
    match recipe:
        case Subwords(type="bpe"):
            backend = _byte_level_bpe(counted, recipe, specials)
        case Subwords(type="unigram"):
            backend = _unigram(counted, recipe, specials)
        case Subwords():
            backend = _sentencepiece(counted, recipe, specials)
        case Words():
            backend = _words_alone(counted, recipe, specials, known)
        case Characters():
            backend = _characters(counted, recipe, specials)
        case Bytes():
            any(counted)  # nothing is learned, but no text is an error here as for the others
            backend = _bytes(recipe, specials)
        case _:
            assert_never(recipe)
    if not counted.characters:
        raise DataError("there is no text to train the tokenizer on", "Check the data: every line is empty.")
    if backend.get_vocab_size() == len(specials):
        raise DataError(
            "the vocabulary would be empty: nothing in the training text is frequent enough",
            "Lower tokenizer.min_frequency.",
        )
    return backend


def spread(lines: Iterable[str], count: int) -> list[str]:
    """At most `count` lines, evenly spread over `lines`, holding at most twice as many in memory.

    Every line is kept until there are too many; then every second is dropped and every second is kept from there on.
    """
    kept: list[str] = []
    stride = 1
    for index, line in enumerate(lines):
        if index % stride:
            continue
        kept.append(line)
        if len(kept) == 2 * count:
            del kept[1::2]
            stride *= 2
    if len(kept) <= count:
        return kept
    return [kept[place * len(kept) // count] for place in range(count)]


class _Counted:
    """Iterates once and remembers how much went by: an iterator has no length to ask beforehand."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.characters += len(line)
            yield line


def _words() -> Any:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(WORD), "isolated")


def _byte_level_bpe(lines: Iterable[str], recipe: Subwords, specials: Sequence[str]) -> Backend:
    """Byte pair encoding over bytes (Sennrich et al. 2016; Radford et al. 2019): no text is unknown to it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizer(recipe.normalization, prefix=" ")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([_words(), byte_level])
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    return backend


def _unigram(lines: Iterable[str], recipe: Subwords, specials: Sequence[str]) -> Backend:
    """The unigram model (Kudo 2018); a character outside the vocabulary becomes its UTF-8 bytes, a token each."""
    from tokenizers import Tokenizer, decoders, models, trainers

    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizer(recipe.normalization, prefix=" ")
    backend.pre_tokenizer = _words()
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    room = recipe.vocab_size - len(specials) - len(_BYTES)
    lines = _within_alphabet(lines, room // 2)
    trainer = trainers.UnigramTrainer(
        vocab_size=room + len(specials), special_tokens=list(specials), unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(lines, trainer)
    return _with_bytes(backend, room, specials)


def _sentencepiece(lines: Iterable[str], recipe: Subwords, specials: Sequence[str]) -> Backend:
    """The unigram model's pieces, put together as SentencePiece does it: without cutting the text into words first.

    Scores are multiples of 2 ** -10. Their sums are exact in SentencePiece's single precision as in the library's
    double, so that both decide between two ways to cut a text alike.
    """
    from tokenizers import normalizers

    plain = json.loads(_unigram(lines, recipe, specials).to_str())
    vocab = cast("list[tuple[str, float]]", plain["model"]["vocab"])
    kinds: dict[str, Kind] = {**dict.fromkeys(specials, "control"), "<unk>": "unknown", **dict.fromkeys(_BYTES, "byte")}
    pieces = tuple(
        Piece(text.replace(" ", SPACE), round(score * 1024) / 1024, kinds.get(text, "normal")) for text, score in vocab
    )
    model = PieceModel("unigram", pieces, unknown=plain["model"]["unk_id"], trims=False, falls_back=True)
    backend = backend_of(model)
    steps = normalizers_of(recipe.normalization)
    if steps:
        backend.normalizer = normalizers.Sequence([*steps, backend.normalizer])
    return backend


def _words_alone(lines: Iterable[str], recipe: Words, specials: Sequence[str], known: Sequence[str]) -> Backend:
    """Whole words, the most frequent first. A word of the text that is spelled as a special token is unknown."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    def untrained(vocabulary: dict[str, int]) -> Backend:
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        backend.normalizer = normalizer(recipe.normalization)
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(SPLITS[recipe.split]), "removed", invert=True)
        # The library's way to put spaces between tokens: no token has this prefix, so none is joined to the one before.
        spaced = decoders.WordPiece(prefix="\ufdd0", cleanup=False)
        ends = decoders.Replace(Regex(" ?\n ?"), "\n")
        backend.decoder = decoders.Sequence([spaced, decoders.Fuse(), ends])
        return backend

    trained = untrained({})
    # Room for all: which words there are is settled below, where words that spell special tokens are known.
    trainer = trainers.WordLevelTrainer(
        vocab_size=2**31, min_frequency=recipe.min_frequency, special_tokens=[], show_progress=False
    )
    trained.train_from_iterator(lines, trainer)
    ranked = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    words = [word for word, _ in ranked if word not in specials][: _room(recipe, specials)]
    normal: Any = trained.normalizer
    cut: Any = trained.pre_tokenizer
    spelled = known if normal is None else [normal.normalize_str(word) for word in known]
    # What is cut into several words, or has a space, never comes in a text.
    whole = [word for word in spelled if [found for found, _ in cut.pre_tokenize_str(word)] == [word]]
    words = [word for word in dict.fromkeys([*words, *whole]) if word not in specials]
    return _with_specials(untrained(_numbered(specials, words)), specials)


def _characters(lines: Iterable[str], recipe: Characters, specials: Sequence[str]) -> Backend:
    """The characters of the text in the order of their code points."""
    from tokenizers import Tokenizer, decoders, models

    normal: Any = normalizer(recipe.normalization)
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line if normal is None else normal.normalize_str(line))
    frequent = [item for item in counts.items() if item[1] >= recipe.min_frequency]
    ranked = [character for character, _ in sorted(frequent, key=lambda item: (-item[1], item[0]))]
    known = _numbered(specials, sorted(ranked[: _room(recipe, specials)]))
    backend = Tokenizer(models.BPE(vocab=known, merges=[], unk_token="<unk>"))
    backend.normalizer = normal
    backend.pre_tokenizer = _words()
    backend.decoder = decoders.Fuse()
    return _with_specials(backend, specials)


def _bytes(recipe: Bytes, specials: Sequence[str]) -> Backend:
    """The 256 bytes in their order, each as byte-level BPE spells it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    known = _numbered(specials, byte_level_alphabet())
    backend = Tokenizer(models.BPE(vocab=known, merges=[]))
    backend.normalizer = normalizer(recipe.normalization)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([_words(), byte_level])
    backend.decoder = decoders.ByteLevel()
    return _with_specials(backend, specials)


def _room(recipe: Words | Characters, specials: Sequence[str]) -> int | None:
    """How many tokens there may be beside the special ones; None for any number."""
    if recipe.vocab_size is None:
        return None
    if recipe.vocab_size <= len(specials):
        raise ConfigError(
            f"tokenizer.vocab_size = {recipe.vocab_size} leaves no room beside {len(specials)} special tokens",
            f"Set it to {len(specials) + 1} at least.",
        )
    return recipe.vocab_size - len(specials)


def _numbered(specials: Sequence[str], tokens: Sequence[str]) -> dict[str, int]:
    """Special tokens first, then the others, with ids in this order."""
    return {token: identifier for identifier, token in enumerate((*specials, *tokens))}


def _with_specials(backend: Backend, specials: Sequence[str]) -> Backend:
    backend.add_special_tokens(list(specials))
    return backend


def _within_alphabet(lines: Iterable[str], limit: int) -> Iterator[str]:
    """`lines` with at most `limit` distinct characters: those first seen after that are U+FFFD, and so left to bytes.

    The trainer keeps every character it is shown and gives up where they do not fit; the frequent ones come early.
    """
    known = {" ", "\ufffd"}
    for line in lines:
        unknown = sorted(set(line) - known)
        known.update(unknown[: max(0, limit - len(known))])
        rest = set(unknown) - known
        yield line.translate(dict.fromkeys(map(ord, rest), "\ufffd")) if rest else line


def _with_bytes(trained: Backend, room: int, specials: Sequence[str]) -> Backend:
    """`trained` with a token for every byte, and at most `room` pieces, in an order that does not vary."""
    from tokenizers import Tokenizer

    plain = json.loads(trained.to_str())
    learned = cast("list[tuple[str, float]]", plain["model"]["vocab"][len(specials) :])
    pieces = _reproducible(learned)[:room]
    # Only the fallback makes bytes: no word of the text can be "<0x41>", so their score never counts.
    least = pieces[-1][1] if pieces else 0.0
    fixed = [(special, 0.0) for special in specials] + [(byte, least) for byte in _BYTES]
    plain["model"] |= {"vocab": [*fixed, *pieces], "byte_fallback": True, "unk_id": SPECIALS.index("<unk>")}
    return Tokenizer.from_str(json.dumps(plain))


def _reproducible(learned: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Pieces and scores, best first, without what differs from run to run.

    The trainer goes through hash tables: sums differ in their last bits, and characters too rare for a piece of their
    own get the least score plus 0.0001 times their place in such a table. Those get the least score; all are rounded.
    """
    least = min((score for _, score in learned), default=0.0)
    fixed: list[tuple[str, float]] = []
    for piece, score in learned:
        steps = (score - least) * 10_000
        by_chance = len(piece) == 1 and steps < len(learned) and abs(steps - round(steps)) < 1e-3
        fixed.append((piece, round(least if by_chance else score, 6)))
    return sorted(fixed, key=lambda item: (-item[1], item[0]))

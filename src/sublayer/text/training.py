"""How a tokenizer is trained: which parts it has, and what comes out of the library's trainers made reproducible.

Both kinds share one idea of a word, and one way to mark where words begin: a space is put before every text and
taken off again by the decoder, so that "Tom" is the same piece at the start of a sentence and inside it. Nothing
else is changed, so any text comes back as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from sublayer.config import TokenizerRecipe
from sublayer.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")

# A word keeps its leading space, its combining marks, and apostrophes inside it (don't, l'homme, п'ять). Letters,
# digits and other signs never share a piece, so no piece can spell a special token such as "</s>" or "<0x41>".
WORD = r" ?[\p{L}\p{M}]+(?:['’][\p{L}\p{M}]+)*| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"

_BYTES = tuple(f"<0x{value:02X}>" for value in range(256))


def train_backend(lines: Iterable[str], recipe: TokenizerRecipe, extra: Sequence[str] = ()) -> Backend:
    """A trained `tokenizers.Tokenizer`, the same one for the same lines in the same order.

    Args:
        extra: special tokens after the four that every tokenizer has.

    Raises:
        DataError: there is no text in `lines`.
    """
    counted = _Counted(lines if recipe.sample is None else spread(lines, recipe.sample))
    specials = (*SPECIALS, *extra)
    train = _byte_level_bpe if recipe.type == "bpe" else _unigram
    backend = train(counted, recipe, specials)
    if not counted.characters:
        raise DataError("there is no text to train the tokenizer on", "Check the data: every line is empty.")
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


def _byte_level_bpe(lines: Iterable[str], recipe: TokenizerRecipe, specials: Sequence[str]) -> Backend:
    """Byte pair encoding over bytes (Sennrich et al. 2016; Radford et al. 2019): no text is unknown to it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Prepend(" ")
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


def _unigram(lines: Iterable[str], recipe: TokenizerRecipe, specials: Sequence[str]) -> Backend:
    """The unigram model (Kudo 2018); a character outside the vocabulary becomes its UTF-8 bytes, a token each."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Prepend(" ")
    backend.pre_tokenizer = _words()
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    room = recipe.vocab_size - len(specials) - len(_BYTES)
    lines = _within_alphabet(lines, room // 2)
    trainer = trainers.UnigramTrainer(
        vocab_size=room + len(specials), special_tokens=list(specials), unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(lines, trainer)
    return _with_bytes(backend, room, specials)


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

"""Texts whose targets are given: a label for each text, a tag for each word, an answer in each conversation.

All three are rows of tokens with something beside them. Texts longer than a row are left out of training, and counted.
Where a model is evaluated none is: `positions` says how many tokens it can read, and a longer text is read as far as
that goes (a tagged one in several rows), which is noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sublayer.data.batch import IGNORE, TextBatch, as_tensor
from sublayer.data.encoding import Unchanging
from sublayer.data.packing import Integers, cut
from sublayer.data.ragged import Ragged, encode_texts
from sublayer.data.report import Report
from sublayer.data.tables.conversations import Conversation
from sublayer.data.tables.labelled import Labelled
from sublayer.data.tables.table import Rows
from sublayer.data.tables.tagged import Tagged
from sublayer.errors import DataError, InputError, nearest
from sublayer.text import Affixes, Tokenizer


@dataclass(frozen=True)
class EncodedTexts(Unchanging):
    """N texts as tokens, markers included.

    target: what is to be said, one number for each token (`IGNORE`: nothing), or int64 [N], one for each text.
    token_type_ids: of each token, as the tokenizer numbers the texts of a pair, or None where there is one text a row.
    kept: int64 [N], where each text stands in what was read; a tagged text that is read in several rows stands there
    as often. report: what was left out or cut, and why.
    """

    tokens: Ragged
    target: Ragged | Integers
    kept: Integers
    report: Report
    pad_id: int
    token_type_ids: Ragged | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def source_lengths(self) -> Integers:
        return self.tokens.lengths

    @property
    def target_lengths(self) -> Integers:
        return np.zeros(len(self.tokens), dtype=np.int64)

    def arrays(self) -> Iterator[NDArray[np.generic]]:
        yield from self.tokens.arrays()
        yield self.target.tokens if isinstance(self.target, Ragged) else self.target

    def collate(self, rows: Integers) -> TextBatch:
        chosen = self.tokens.take(rows)
        if isinstance(self.target, Ragged):
            target = self.target.take(rows).rectangle(IGNORE)
            targets = int((target != IGNORE).sum())
        else:
            target, targets = self.target[rows], len(rows)
        types = self.token_type_ids
        return TextBatch(
            tokens=as_tensor(chosen.rectangle(self.pad_id)),
            lengths=as_tensor(chosen.lengths),
            target=as_tensor(target),
            rows=rows,
            targets=targets,
            token_type_ids=None if types is None else as_tensor(types.take(rows).rectangle(0)),
        )


RowT = TypeVar("RowT", Labelled, Tagged, Conversation)


def encode_labelled(
    table: Rows[Labelled],
    tokenizer: Tokenizer,
    max_length: int,
    labels: Sequence[str],
    *,
    positions: int | None = None,
) -> EncodedTexts:
    """Texts, or two texts together, with their labels. To be scored, a text loses its end, of two the longer.

    Raises:
        DataError: a label is not among `labels`, some rows have a second text and some not, or no text fits.
    """
    number = {label: place for place, label in enumerate(labels)}
    for row, text in enumerate(table):
        if text.label not in number:
            raise _unknown("label", text.label, labels, table.lines_of([row]))
    target = np.array([number[text.label] for text in table], dtype=np.int64)
    return encode_read(table, tokenizer, max_length, target, positions=positions)


def encode_read(
    table: Rows[Labelled], tokenizer: Tokenizer, max_length: int, target: NDArray[Any], *, positions: int | None = None
) -> EncodedTexts:
    """As `encode_labelled`, with any number for each text. Shape: target [N]."""
    pairs = [(text.text, text.second) for text in table if text.second is not None]
    if pairs and len(pairs) < len(table):
        raise DataError(f"{len(pairs)} of {len(table)} texts have a second text", "Give all of them one, or none.")
    token_type_ids = None
    if pairs:
        encoded = tokenizer.encode_pairs(pairs)
        tokens = Ragged.of([one.ids for one in encoded])
        kept, report = _fitting(table, tokens, max_length, positions)
        if positions is not None:
            encoded = [one.cut(positions) for one in encoded]
            tokens = Ragged.of([one.ids for one in encoded])
        token_type_ids = Ragged.of([one.token_type_ids for one in encoded]).take(kept)
    else:
        affixes, inner = Affixes.of(tokenizer), encode_texts([text.text for text in table], tokenizer)
        tokens = inner.within(affixes.before, affixes.after)
        kept, report = _fitting(table, tokens, max_length, positions)
        if positions is not None:
            tokens = inner.cut(positions - affixes.length).within(affixes.before, affixes.after)
    return EncodedTexts(tokens.take(kept), target[kept], kept, report, tokenizer.padding_id, token_type_ids)


def encode_tagged(
    table: Rows[Tagged], tokenizer: Tokenizer, max_length: int, tags: Sequence[str], *, positions: int | None = None
) -> EncodedTexts:
    """Sentences as `Tokenizer.encode_words` makes them; a word's tag is the target of its first piece.

    To be scored, a long sentence is read in several rows that overlap by half; each word is asked for in one of them.

    Raises:
        DataError: a tag is not among `tags`, a word has no pieces, or no sentence fits.
    """
    number = {tag: place for place, tag in enumerate(tags)}
    rows: list[list[int]] = []
    targets: list[list[int]] = []
    encoded = tokenizer.encode_words([sentence.words for sentence in table])
    for row, (sentence, tokens) in enumerate(zip(table, encoded, strict=True)):
        first = tokens.firsts
        target = [IGNORE] * len(tokens)
        for place, (word, tag) in enumerate(zip(sentence.words, sentence.tags, strict=True)):
            if tag not in number:
                raise _unknown("tag", tag, tags, table.lines_of([row]))
            if place not in first:
                raise DataError(f"the word {word!r}{_at(table.lines_of([row]))} has no pieces", "Leave it out.")
            target[first[place]] = number[tag]
        rows.append(tokens.ids)
        targets.append(target)
    kept, report = _fitting(table, Ragged.of(rows), max_length, positions)
    if positions is not None:
        rows, targets, kept = _windows(rows, targets, Affixes.of(tokenizer), positions)
        return EncodedTexts(Ragged.of(rows), Ragged.of(targets), kept, report, tokenizer.padding_id)
    tokens = Ragged.of(rows)
    return EncodedTexts(tokens.take(kept), Ragged.of(targets).take(kept), kept, report, tokenizer.padding_id)


def _windows(
    rows: list[list[int]], targets: list[list[int]], affixes: Affixes, positions: int
) -> tuple[list[list[int]], list[list[int]], Integers]:
    """Framed rows in pieces of at most `positions` tokens, their targets, and which row each piece is of."""
    before, room = len(affixes.before), positions - affixes.length
    pieces = cut(np.array([len(row) - affixes.length for row in rows]), room, max(1, room // 2), None)
    found: list[list[int]] = []
    asked: list[list[int]] = []
    for text, begin, fresh, end in zip(pieces.text, pieces.begin, pieces.fresh, pieces.end, strict=True):
        first, last = before + begin, before + end
        found.append([*affixes.before, *rows[text][first:last], *affixes.after])
        known = [IGNORE] * (before + fresh - begin)
        asked.append([*known, *targets[text][before + fresh : last], *([IGNORE] * len(affixes.after))])
    return found, asked, pieces.text


def encode_conversations(
    table: Rows[Conversation], tokenizer: Tokenizer, max_length: int, *, positions: int | None = None
) -> EncodedTexts:
    """Conversations as the tokenizer's chat template writes them; targets are the assistant's answers and their ends.

    By their position: the same token is learned in an answer and is not learned anywhere else. To be scored, a long
    conversation loses its beginning, and what stands after the last answer.

    Raises:
        DataError: the template refuses a conversation, or none fits. InputError: the tokenizer has no chat template.
    """
    rows: list[list[int]] = []
    targets: list[list[int]] = []
    encoded = tokenizer.encode_answers_of([conversation.plain["messages"] for conversation in table])
    for row in range(len(table)):
        try:
            ids, answers = next(encoded)
        except InputError as error:
            if tokenizer.chat_template is None:
                raise
            raise DataError(f"{error.what}{_at(table.lines_of([row]))}", error.remedy) from None
        # The target of each place is the next token; the last has none.
        rows.append(ids[:-1])
        targets.append([token if learned else IGNORE for token, learned in zip(ids[1:], answers[1:], strict=True)])
    kept, report = _fitting(table, Ragged.of(rows), max_length, positions)
    if positions is not None:
        for place, target in enumerate(targets):
            if len(target) > positions:
                end = 1 + max(at for at, token in enumerate(target) if token != IGNORE)
                here = slice(max(0, end - positions), end)
                rows[place], targets[place] = rows[place][here], target[here]
    tokens, target = Ragged.of(rows).take(kept), Ragged.of(targets).take(kept)
    return EncodedTexts(tokens, target, kept, report, tokenizer.padding_id)


def _fitting(table: Rows[RowT], tokens: Ragged, max_length: int, positions: int | None) -> tuple[Integers, Report]:
    """The rows of at most `max_length` tokens, and a report of the rest; or all of them, to be scored, and a report of
    those over `positions`."""
    fits = tokens.lengths <= (max_length if positions is None else positions)
    long = np.flatnonzero(~fits)
    lines, report = table.lines_of(long.tolist()), table.report
    if positions is not None:
        return np.arange(len(table)), report.note(f"over {positions} tokens, cut there to be scored", lines, len(long))
    if not fits.any():
        raise DataError(f"none of {len(table)} {report.unit} has at most {max_length} tokens", "Raise data.max_length.")
    return np.flatnonzero(fits).astype(np.int64), report.leave_out(f"over {max_length} tokens", lines, len(long))


def _unknown(what: str, found: str, known: Sequence[str], lines: list[int]) -> DataError:
    return DataError(f"the {what} '{found}'{_at(lines)} is not one that the training text has", nearest(found, known))


def _at(lines: list[int]) -> str:
    return f" (line {lines[0]})" if lines else ""

"""Texts whose targets are given: a label for each text, a tag for each word, an answer in each conversation.

All three are rows of tokens with something beside them; texts longer than a row are left out and counted, never cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sublayer.data.batch import IGNORE, TextBatch, as_tensor
from sublayer.data.encoding import Ragged, encode_texts
from sublayer.data.examples.frame import Frame
from sublayer.data.report import Report
from sublayer.data.tables.conversations import Conversation
from sublayer.data.tables.labelled import Labelled
from sublayer.data.tables.table import Rows
from sublayer.data.tables.tagged import Tagged
from sublayer.errors import DataError, InputError, nearest
from sublayer.text import Tokenizer

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class EncodedTexts:
    """N texts as tokens, markers included.

    target: what is to be said, one number for each token (`IGNORE`: nothing), or int64 [N], one for each text.
    types: of each token, as the tokenizer numbers the texts of a pair, or None where there is one text a row.
    kept: int64 [N], where each text stands in what was read. report: what was left out, and why.
    """

    tokens: Ragged
    target: Ragged | Integers
    kept: Integers
    report: Report
    pad_id: int
    types: Ragged | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def source_lengths(self) -> Integers:
        return self.tokens.lengths

    @property
    def target_lengths(self) -> Integers:
        return np.zeros(len(self.tokens), dtype=np.int64)

    def epoch(self, seed: int, number: int) -> EncodedTexts:
        """The texts are the same in every epoch."""
        return self

    def fixed(self) -> EncodedTexts:
        return self

    def arrays(self) -> Iterator[NDArray[Any]]:
        yield self.tokens.starts
        yield self.tokens.tokens
        yield self.target.tokens if isinstance(self.target, Ragged) else self.target

    def collate(self, rows: Integers) -> TextBatch:
        every, chosen = np.arange(len(rows)), self.tokens.take(rows)
        lengths = chosen.lengths
        width = int(lengths.max())
        if isinstance(self.target, Ragged):
            target = self.target.padded(rows, width=width, offset=0, fill=IGNORE)
            targets = int((target != IGNORE).sum())
        else:
            target, targets = self.target[rows], len(rows)
        types = None if self.types is None else self.types.padded(rows, width=width, offset=0, fill=0)
        return TextBatch(
            tokens=as_tensor(chosen.padded(every, width=width, offset=0, fill=self.pad_id)),
            lengths=as_tensor(lengths),
            target=as_tensor(target),
            rows=rows,
            targets=targets,
            types=None if types is None else as_tensor(types),
        )


RowT = TypeVar("RowT", Labelled, Tagged, Conversation)


def encode_labelled(
    table: Rows[Labelled], tokenizer: Tokenizer, max_length: int, labels: Sequence[str]
) -> EncodedTexts:
    """Framed texts, or two texts together, with their labels.

    Raises:
        DataError: a label is not among `labels`, some rows have a second text and some not, or no text fits.
    """
    number = {label: place for place, label in enumerate(labels)}
    for row, text in enumerate(table):
        if text.label not in number:
            raise _unknown("label", text.label, labels, table.lines_of([row]))
    pairs = [(text.text, text.second) for text in table if text.second is not None]
    if not pairs:
        tokens, types = Frame.of(tokenizer).around(encode_texts([text.text for text in table], tokenizer)), None
    elif len(pairs) == len(table):
        encoded = tokenizer.encode_pairs(pairs)
        tokens, types = Ragged.of([one.ids for one in encoded]), Ragged.of([one.types for one in encoded])
    else:
        raise DataError(f"{len(pairs)} of {len(table)} texts have a second text", "Give all of them one, or none.")
    kept, report = _fitting(table, tokens, max_length)
    return EncodedTexts(
        tokens=tokens.take(kept),
        target=np.array([number[text.label] for text in table], dtype=np.int64)[kept],
        kept=kept,
        report=report,
        pad_id=tokenizer.padding_id,
        types=None if types is None else types.take(kept),
    )


def encode_tagged(table: Rows[Tagged], tokenizer: Tokenizer, max_length: int, tags: Sequence[str]) -> EncodedTexts:
    """Sentences as `Tokenizer.encode_words` makes them; a word's tag is the target of its first piece.

    Raises:
        DataError: a tag is not among `tags`, a word has no pieces, or no sentence fits.
    """
    number = {tag: place for place, tag in enumerate(tags)}
    rows: list[list[int]] = []
    targets: list[list[int]] = []
    encoded = tokenizer.encode_words([sentence.words for sentence in table])
    for row, (sentence, tokens) in enumerate(zip(table, encoded, strict=True)):
        first = {word: place for place, word in reversed(list(enumerate(tokens.words))) if word is not None}
        target = [IGNORE] * len(tokens)
        for place, (word, tag) in enumerate(zip(sentence.words, sentence.tags, strict=True)):
            if tag not in number:
                raise _unknown("tag", tag, tags, table.lines_of([row]))
            if place not in first:
                raise DataError(f"the word {word!r}{_at(table.lines_of([row]))} has no pieces", "Leave it out.")
            target[first[place]] = number[tag]
        rows.append(tokens.ids)
        targets.append(target)
    tokens = Ragged.of(rows)
    kept, report = _fitting(table, tokens, max_length)
    return EncodedTexts(tokens.take(kept), Ragged.of(targets).take(kept), kept, report, tokenizer.padding_id)


def encode_conversations(table: Rows[Conversation], tokenizer: Tokenizer, max_length: int) -> EncodedTexts:
    """Conversations as the tokenizer's chat template writes them; targets are the assistant's answers and their ends.

    By their position: the same token is learned in an answer and is not learned anywhere else.

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
    tokens = Ragged.of(rows)
    kept, report = _fitting(table, tokens, max_length)
    return EncodedTexts(tokens.take(kept), Ragged.of(targets).take(kept), kept, report, tokenizer.padding_id)


def _fitting(table: Rows[RowT], tokens: Ragged, max_length: int) -> tuple[Integers, Report]:
    """The rows of at most `max_length` tokens, and a report of the rest."""
    fits = tokens.lengths <= max_length
    if not fits.any():
        raise DataError(f"none of {len(table)} {table.unit} has at most {max_length} tokens", "Raise data.max_length.")
    long = np.flatnonzero(~fits)
    report = table.report.leave_out(f"over {max_length} tokens", table.lines_of(long.tolist()), len(long))
    return np.flatnonzero(fits).astype(np.int64), report


def _unknown(what: str, found: str, known: Sequence[str], lines: list[int]) -> DataError:
    return DataError(f"the {what} '{found}'{_at(lines)} is not one that the training text has", nearest(found, known))


def _at(lines: list[int]) -> str:
    return f" (line {lines[0]})" if lines else ""

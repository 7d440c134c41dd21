"""What each task reads, and what it makes of what it read: the one place where tasks and kinds of text meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, assert_never

from sublayer import config
from sublayer.data import sources
from sublayer.data.encoding import encode, encode_texts
from sublayer.data.examples.corrupted import CorruptedText, Denoising, Masking, SpanCorruption
from sublayer.data.examples.frame import Frame
from sublayer.data.examples.interface import Examples
from sublayer.data.examples.packed import packed_documents
from sublayer.data.examples.similar import similar_pairs
from sublayer.data.examples.texts import encode_conversations, encode_labelled, encode_tagged
from sublayer.data.sources import Pairs
from sublayer.data.tables.conversations import Conversation, read_conversations
from sublayer.data.tables.documents import Document, read_documents
from sublayer.data.tables.labelled import Labelled, read_labelled
from sublayer.data.tables.table import Rows
from sublayer.data.tables.tagged import Tagged, read_tagged
from sublayer.data.vocabulary import MASK, Words, mask_id, plain_ids, sentence_ends, sentinel_ids, sentinel_tokens
from sublayer.errors import DataError
from sublayer.text import Marks, Slot, Specials, Template, Tokenizer

DECODING = config.Decoding()
AnyTable = Pairs | Rows[Document] | Rows[Labelled] | Rows[Tagged] | Rows[Conversation]


def reader(task: config.Task) -> Callable[[Any, Path], Any]:
    """What reads the text of a task, given a source and the folder where relative paths start; returns an `AnyTable`.

    The recipe has been checked: the source is one that the task takes.
    """
    match task:
        case config.TranslationTask() | config.EmbeddingTask():
            return sources.read
        case config.CausalTask() | config.MaskedTask() | config.SpanCorruptionTask() | config.DenoisingTask():
            return read_documents
        case config.ClassificationTask():
            return read_labelled
        case config.TaggingTask():
            return read_tagged
        case config.InstructionsTask():
            return partial(read_conversations, made=task.messages)
        case _:
            assert_never(task)


def lines_of(table: AnyTable, *, ends: bool = False) -> Iterator[str]:
    """The text that a tokenizer is trained on.

    Args:
        ends: whether a line of a document ends with its line feed, which is then a part of the text.
    """
    if isinstance(table, Pairs):
        yield from table.sources
        yield from table.targets
        return
    for row in table:
        match row:
            case Document():
                # Line by line: no word reaches over the end of a line.
                *lines, last = row.text.split("\n")
                yield from (f"{line}\n" for line in lines) if ends else lines
                yield last
            case Labelled():
                yield row.text
                if row.second is not None:
                    yield row.second
            case Tagged():
                yield " ".join(row.words)
            case Conversation():
                for message in row.messages:
                    yield from (f"{message.role}\n", message.content)


def extra_tokens(task: config.Task) -> tuple[str, ...]:
    """The special tokens that a task needs beside those that every tokenizer has."""
    match task:
        case config.MaskedTask() | config.DenoisingTask():
            return (MASK,)
        case config.SpanCorruptionTask():
            return sentinel_tokens(task.sentinels)
        case _:
            return ()


CHAT = (
    "{% for message in messages %}{{ bos_token }}{{ message.role + '\n' + message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}{{ 'assistant\n' }}{% endif %}"
)
"""sublayer's own form of a conversation: `<s>role NEWLINE content</s>` for each message."""


def train_tokenizer(task: config.Task, recipe: config.TokenizerRecipe, training: AnyTable) -> Tokenizer:
    """A tokenizer trained on the text, which puts around texts what the task wants there.

    An encoder reads `<s> text </s>`, and `<s> text </s> second </s>`; a language model begins with `<s>`.
    """
    extra = extra_tokens(task)
    # In a vocabulary of subwords every byte stands anyway, and no piece spans lines.
    ends = not isinstance(recipe, config.Subwords)
    plain = Tokenizer.train(lines_of(training, ends=ends), recipe, extra)
    mask = plain.special_id(MASK)
    others = tuple(found for token in extra if (found := plain.special_id(token)) is not None and found != mask)
    specials = Specials.of({**plain.specials.roles, "mask": mask}, others)
    begun = Template.around((plain.start_id,), ())
    match task:
        case config.TranslationTask() | config.SpanCorruptionTask() | config.DenoisingTask():
            return plain.dressed(specials=specials)
        case config.CausalTask():
            return plain.dressed(template=begun)
        case config.InstructionsTask():
            return plain.dressed(template=begun, chat_template=CHAT)
        case _:
            return plain.dressed(template=_framed(plain.start_id, plain.end_id), specials=specials)


def spoken(task: config.Task, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer of a model to begin with; where it knows no form of a conversation and needs one, with ours."""
    if isinstance(task, config.InstructionsTask) and tokenizer.chat_template is None:
        return tokenizer.dressed(chat_template=CHAT)
    return tokenizer


def _framed(start: int, end: int) -> Template:
    """`start text end`, and `start text end second end` with the second text's part of type 1."""
    first = (Slot(start), Slot(text=0), Slot(end))
    return Template(first, (*first, Slot(text=1, type=1), Slot(end, type=1)))


def labels_of(table: AnyTable) -> tuple[str, ...]:
    """The labels, or tags, that the text has, sorted; empty where it has none.

    Raises:
        DataError: there is only one.
    """
    if isinstance(table, Pairs):
        return ()
    found: set[str] = set()
    for row in table:
        if isinstance(row, Labelled):
            found.add(row.label)
        elif isinstance(row, Tagged):
            found.update(row.tags)
    if len(found) == 1:
        raise DataError(f"all the training text has one label: '{found.pop()}'", "Check the column of the labels.")
    return tuple(sorted(found))


def encode_for(
    task: config.Task,
    table: Any,
    tokenizer: Tokenizer,
    max_length: int,
    labels: Sequence[str] = (),
    decoding: config.Decoding = DECODING,
) -> Examples[Any]:
    """The text as a task shows it to a model.

    Args:
        table: what the task's `reader` gave. max_length: tokens of a row. labels: in the order of the model's head.
        decoding: what an encoder-decoder's texts begin with.

    Raises:
        DataError: nothing fits, or a label is unknown. ConfigError: the tokenizer lacks a special token.
    """
    match task:
        case config.TranslationTask():
            return encode(table, tokenizer, max_length, Marks.of(tokenizer, decoding))
        case config.EmbeddingTask():
            return similar_pairs(table, tokenizer, max_length)
        case config.CausalTask():
            return packed_documents(
                encode_texts(table.texts(), tokenizer),
                table.report,
                Frame.of_documents(tokenizer),
                room=max_length,
                stride=task.stride,
                evaluation_stride=task.evaluation_stride,
            )
        case config.MaskedTask():
            noise = Masking(
                task, max_length, Frame.of(tokenizer), mask_id(tokenizer), plain_ids(tokenizer), Words.of(tokenizer)
            )
            return CorruptedText(encode_texts(table.texts(), tokenizer).filled(), noise, table.report)
        case config.SpanCorruptionTask():
            noise = SpanCorruption(
                task, max_length, Marks.of(tokenizer, decoding), sentinel_ids(tokenizer, task.sentinels)
            )
            return CorruptedText(encode_texts(table.texts(), tokenizer).filled(), noise, table.report)
        case config.DenoisingTask():
            marks = Marks.of(tokenizer, decoding)
            noise = Denoising(task, max_length, marks, mask_id(tokenizer), sentence_ends(tokenizer))
            return CorruptedText(encode_texts(table.texts(), tokenizer).filled(), noise, table.report)
        case config.ClassificationTask():
            return encode_labelled(table, tokenizer, max_length, labels)
        case config.TaggingTask():
            return encode_tagged(table, tokenizer, max_length, labels)
        case config.InstructionsTask():
            return encode_conversations(table, tokenizer, max_length)
        case _:
            assert_never(task)

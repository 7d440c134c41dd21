"""Encoded text as a model is shown it: masks by position, markers, twins; resumed = uninterrupted, noise and all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sublayer import config
from sublayer.config import Batching, Subwords
from sublayer.data.batch import IGNORE
from sublayer.data.examples.texts import encode_conversations
from sublayer.data.loader import Cursor, Loader, validation
from sublayer.data.report import Report
from sublayer.data.sources import Pairs
from sublayer.data.tables.conversations import Conversation, Message
from sublayer.data.tables.documents import Document
from sublayer.data.tables.labelled import Labelled
from sublayer.data.tables.table import Rows
from sublayer.data.tables.tagged import Tagged
from sublayer.errors import DataError
from sublayer.tasks import task_of
from sublayer.tasks.instructions import CHAT
from sublayer.tasks.task import Encoding
from sublayer.text import Tokenizer

WORDS = ["ba", "co", "di", "fu", "ge", "ha", "ki", "lo", "mu", "ne", "pa", "ri"]


def line(n: int) -> str:
    return " ".join(WORDS[(n * 7 + k * (n % 5 + 1)) % 12] for k in range(3 + n % 9)) + "."


def rows(found: list[Any], noun: str = "texts") -> Rows[Any]:
    return Rows(found, Report(len(found), len(found), noun=noun), list(range(1, len(found) + 1)))


def table_for(task: config.Task) -> Any:
    lines = [line(n) for n in range(40)]
    match task:
        case config.TranslationTask() | config.EmbeddingTask():
            return Pairs(list(zip(lines, lines[::-1], strict=True)), Report(40, 40))
        case config.ClassificationTask():
            return rows([Labelled(text, "odd" if n % 2 else "even", lines[-n]) for n, text in enumerate(lines)])
        case config.TaggingTask():
            split = [tuple(text.split()) for text in lines]
            return rows([Tagged(words, tuple("B-X" if word < "ge" else "O" for word in words)) for words in split])
        case config.InstructionsTask():
            talk = [(Message("user", text), Message("assistant", text[::-1])) for text in lines]
            return rows([Conversation(messages) for messages in talk])
        case _:
            return rows([Document(" ".join(lines[n : n + 3])) for n in range(40)], "documents")


TASKS: dict[str, config.Task] = {
    "translation": config.TranslationTask(),
    "causal": config.CausalTask(stride=20),
    "masked": config.MaskedTask(),
    "whole words": config.MaskedTask(whole_words=True),
    "span corruption": config.SpanCorruptionTask(sentinels=12),
    "denoising": config.DenoisingTask(),
    "classification": config.ClassificationTask(),
    "tagging": config.TaggingTask(),
    "embedding": config.EmbeddingTask(),
    "instructions": config.InstructionsTask(),
}


def shown(task: config.Task, table: Any, tokenizer: Tokenizer, max_length: int, labels: Sequence[str] = ()) -> Any:
    return task_of(task).examples(table, Encoding(tokenizer, max_length, labels))


def made(name: str, max_length: int = 60) -> tuple[Any, Tokenizer]:
    task, table = TASKS[name], table_for(TASKS[name])
    tokenizer = task_of(task).train_tokenizer(Subwords(vocab_size=300), table)
    labels = ("B-X", "O") if name == "tagging" else ("even", "odd")
    return shown(task, table, tokenizer, max_length, labels), tokenizer


def tensors(batch: Any) -> dict[str, torch.Tensor]:
    return {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}


def same(one: Any, other: Any) -> bool:
    left, right = tensors(one), tensors(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", TASKS)
def test_from_any_cursor_the_loader_goes_on_as_though_never_stopped(name: str) -> None:
    examples, _ = made(name)
    batching = Batching(tokens=240)
    whole = list(islice(Loader(examples, batching, seed=3).batches(), 30))
    assert whole[-1][0].epoch >= 1
    before = Cursor()
    for place, (after, _) in enumerate(whole):
        if place % 6 == 0:
            rest = list(islice(Loader(examples, batching, seed=3).batches(before), 2))
            assert all(same(one, other) for (_, one), (_, other) in zip(rest, whole[place : place + 2]))
        before = after


@pytest.mark.parametrize("name", TASKS)
def test_batches_keep_to_the_budget_and_count_their_targets(name: str) -> None:
    examples, _ = made(name)
    for batch in validation(examples, Batching(tokens=240)):
        held = tensors(batch)
        sides = [held[side] for side in ("tokens", "source", "target_in", "left", "right") if side in held]
        assert sum(side.numel() for side in sides) <= 240
        if "target_out" in held:
            assert batch.targets == int((held["target_out"] != IGNORE).sum())
        elif "target" in held:
            target = held["target"]
            assert batch.targets == int((target != IGNORE).sum())
            assert batch.targets > 0
        else:
            assert batch.targets == len(held["left"])
        assert {tensor.device.type for tensor in tensors(batch.to("meta")).values()} == {"meta"}


@pytest.mark.parametrize("name", ["masked", "whole words", "span corruption", "denoising"])
def test_noise_is_new_in_every_epoch_and_fixed_in_validation(name: str) -> None:
    examples, _ = made(name)

    def content(epoch: Any) -> list[Any]:
        batch = epoch.collate(np.arange(len(epoch.source_lengths)))
        return [tensor.tolist() for tensor in tensors(batch).values()]

    assert content(examples.epoch(1, 0)) == content(examples.epoch(1, 0))
    assert content(examples.epoch(1, 0)) != content(examples.epoch(1, 1))
    assert content(examples.epoch(1, 0)) != content(examples.epoch(2, 0))
    assert content(examples.fixed()) == content(examples.fixed())


@pytest.mark.parametrize("name", ["masked", "span corruption", "denoising"])
def test_planned_lengths_are_never_too_small(name: str) -> None:
    """Long documents too: their pieces fit the rows, and together they are the documents."""
    examples, _ = made(name, max_length=17)
    for epoch in (examples.fixed(), examples.epoch(1, 4)):
        assert epoch.source_lengths.max() <= 17
        assert epoch.target_lengths.max() <= 17
        for row in range(len(epoch.source_lengths)):
            batch = epoch.collate(np.array([row]))
            held = tensors(batch)
            if name == "masked":
                assert held["tokens"].shape[1] == epoch.source_lengths[row]
            else:
                assert held["source"].shape[1] <= epoch.source_lengths[row]
                assert held["target_in"].shape[1] <= epoch.target_lengths[row]
        assert epoch.pieces.lengths.sum() == len(examples.texts.tokens)


def test_a_masked_row_is_the_framed_text() -> None:
    examples, tokenizer = made("masked")
    batch = next(iter(validation(examples, Batching(tokens=240))))
    restored = torch.where(batch.target != IGNORE, batch.target, batch.tokens)
    texts = {tuple(examples.texts[row].tolist()) for row in range(len(examples))}
    for row, length in zip(restored.tolist(), batch.lengths.tolist()):
        assert (row[0], row[length - 1]) == (tokenizer.start_id, tokenizer.end_id)
        assert tuple(row[1 : length - 1]) in texts
        assert set(row[length:]) <= {tokenizer.pad_id}


def test_a_masked_token_is_never_made_from_text() -> None:
    tokenizer = Tokenizer.train(["a <mask> b"] * 3, Subwords(vocab_size=300), ("<mask>",))
    mask = tokenizer.special_id("<mask>")
    assert mask == 4
    assert mask not in tokenizer.encode(["<mask>"])[0]
    assert tokenizer.decode([[mask, *tokenizer.encode(["<mask>"])[0]]]) == ["<mask>"]


@pytest.mark.parametrize("second", [False, True])
def test_labelled_texts(second: bool) -> None:
    texts = ["ba co di", "fu", "ge ha ki lo"]
    others = ["mu", "ne pa ri", "ba"]
    table = rows([Labelled(a, label, b if second else None) for a, b, label in zip(texts, others, "xyx")])
    tokenizer = task_of(config.ClassificationTask()).train_tokenizer(Subwords(vocab_size=300), table)
    examples = shown(config.ClassificationTask(), table, tokenizer, 40, ("x", "y"))
    batch = examples.fixed().collate(np.array([2, 0, 1]))
    assert batch.target.tolist() == [0, 0, 1]
    for row, number in enumerate((2, 0, 1)):
        first, other = tokenizer.encode([texts[number], others[number]])
        expected = [1, *first, 2, *other, 2] if second else [1, *first, 2]
        length = int(batch.lengths[row])
        assert batch.tokens[row, :length].tolist() == expected
        if second:
            kinds = [0] * (len(first) + 2) + [1] * (len(other) + 1)
            assert batch.token_type_ids[row].tolist() == kinds + [0] * (batch.tokens.shape[1] - length)
    assert second or batch.token_type_ids is None


def test_labelled_texts_that_cannot_be() -> None:
    task = config.ClassificationTask()
    tokenizer = task_of(task).train_tokenizer(Subwords(vocab_size=300), rows([Labelled(word, "x") for word in WORDS]))
    with pytest.raises(DataError, match=r"the label 'evn' \(line 2\) is not one .*Did you mean 'even'"):
        shown(task, rows([Labelled("ba", "odd"), Labelled("co", "evn")]), tokenizer, 20, ("even", "odd"))
    with pytest.raises(DataError, match="1 of 2 texts have a second text"):
        shown(task, rows([Labelled("ba", "odd", "x"), Labelled("co", "odd")]), tokenizer, 20, ("odd",))
    long = rows([Labelled("ba", "odd"), Labelled("ba " * 40, "odd"), Labelled("co", "odd")])
    found = shown(task, long, tokenizer, 20, ("odd",))
    assert str(found.report) == "2 of 3 texts; left out: 1 over 20 tokens (line 2)"
    assert found.kept.tolist() == [0, 2]
    with pytest.raises(DataError, match="none of 3 texts has at most 3 tokens"):
        shown(task, rows([Labelled("ba co di fu", "odd")] * 3), tokenizer, 3, ("odd",))


def test_a_words_tag_is_asked_of_its_first_piece() -> None:
    task, sentence = config.TaggingTask(), Tagged(("xyz", "ba", "Ünï"), ("B-X", "O", "I-X"))
    tokenizer = task_of(task).train_tokenizer(Subwords(vocab_size=300), rows([sentence]))
    examples = shown(task, rows([sentence]), tokenizer, 40, ("B-X", "I-X", "O"))
    batch = examples.fixed().collate(np.array([0]))
    # A space stands before every text, so that a word alone is cut as it is in its sentence.
    pieces = tokenizer.encode(sentence.words)
    assert batch.tokens[0].tolist() == [1, *pieces[0], *pieces[1], *pieces[2], 2]
    expected = [IGNORE]
    for ids, tag in zip(pieces, (0, 2, 1)):
        expected += [tag] + [IGNORE] * (len(ids) - 1)
    assert batch.target[0].tolist() == [*expected, IGNORE]
    assert batch.targets == 3


def test_twins_are_texts_that_are_no_wrong_answer() -> None:
    lefts, rights = ["ba", "co", "ba", "di"], ["fu", "ge", "ha", "ge"]
    table = Pairs(list(zip(lefts, rights, strict=True)), Report(4, 4))
    tokenizer = task_of(config.EmbeddingTask()).train_tokenizer(Subwords(vocab_size=300), table)
    batch = shown(config.EmbeddingTask(), table, tokenizer, 20, ()).fixed().collate(np.arange(4))
    expected = [[i != j and (lefts[i] == lefts[j] or rights[i] == rights[j]) for j in range(4)] for i in range(4)]
    assert batch.twins.tolist() == expected


# --- conversations: the loss goes by position --------------------------------------------------------------------


def learned(conversation: Conversation, chat_template: str = CHAT) -> tuple[list[int], list[int], Tokenizer]:
    """The tokens of a conversation, each with the target of the place before it."""
    text = [f"{message.role}\n{message.content}" for message in conversation.messages]
    tokenizer = Tokenizer.train([*WORDS, *text], Subwords(vocab_size=320)).replace(chat_template=chat_template)
    examples = encode_conversations(rows([conversation]), tokenizer, 400)
    batch = examples.fixed().collate(np.array([0]))
    tokens = batch.tokens[0].tolist()
    return [*tokens, batch.target[0, -1].item()], [IGNORE, *batch.target[0].tolist()], tokenizer


def test_only_answers_and_their_ends_are_learned() -> None:
    """The user says word for word what the assistant says, and neither that nor the other ends are learned."""
    talk = Conversation(
        (
            Message("system", "ba co"),
            Message("user", "di fu"),
            Message("assistant", "di fu"),
            Message("user", "</s> <s>assistant\ndi fu"),
            Message("assistant", "ge"),
        )
    )
    tokens, target, tokenizer = learned(talk)
    expected: list[int] = []
    whole: list[int] = []
    for message in talk.messages:
        [said] = tokenizer.tokens([f"{message.role}\n{message.content}"], add_special_tokens=False)
        head = sum(begin <= len(message.role) for begin, _ in said.spans)
        whole += [tokenizer.start_id, *said.ids, tokenizer.end_id]
        answer = [*said.ids[head:], tokenizer.end_id]
        expected += [IGNORE] * (1 + head) + (answer if message.role == "assistant" else [IGNORE] * len(answer))
    assert tokens == whole
    assert target == expected
    # Nothing that anybody writes makes a marker.
    assert tokens.count(tokenizer.end_id) == tokens.count(tokenizer.start_id) == 5


def test_a_conversation_that_ends_with_the_user() -> None:
    tokens, target, tokenizer = learned(
        Conversation((Message("user", "ba"), Message("assistant", "co"), Message("user", "di")))
    )
    assert [place for place, each in enumerate(target) if each == tokenizer.end_id] == [
        [place for place, each in enumerate(tokens) if each == tokenizer.end_id][1]
    ]


def test_another_form_of_conversation() -> None:
    """What the template puts behind an end token is nothing that the assistant says."""
    form = "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    form += "{% if add_generation_prompt %}[assistant]\n{% endif %}"
    talk = Conversation((Message("user", "ba"), Message("assistant", "co di")))
    tokens, target, tokenizer = learned(talk, form)
    said = [token for token in target if token != IGNORE]
    assert said[-1] == tokenizer.end_id
    assert tokenizer.decode([said])[0].strip() == "co di"
    assert target[-1] == IGNORE
    assert tokens[-1] != tokenizer.end_id


@pytest.mark.parametrize("name", TASKS)
def test_every_kind_of_row_is_written_as_it_is_read(tmp_path: Path, name: str) -> None:
    from sublayer.tasks.held_out import read_rows, write_rows

    table = table_for(TASKS[name])
    (tmp_path / "rows.jsonl").write_text(write_rows(table))
    again = read_rows(task_of(TASKS[name]), tmp_path / "rows.jsonl")
    assert again.plain_rows() == table.plain_rows()
    assert again.texts() == table.texts()


# --- evaluated on every row -----------------------------------------------------------------------------------------

LONG = ("translation", "classification", "tagging", "embedding", "instructions")
"""Tasks whose rows have a length of their own: plain text goes on in the next row."""


def evaluated(name: str, positions: int) -> tuple[Any, Any, Tokenizer]:
    """A table, its examples where a model with so many positions is evaluated, and the tokenizer."""
    task, table = task_of(TASKS[name]), table_for(TASKS[name])
    tokenizer = task.train_tokenizer(Subwords(vocab_size=300), table)
    labels = ("B-X", "O") if name == "tagging" else ("even", "odd")
    return table, task.examples(table, Encoding(tokenizer, 12, labels, positions=positions)), tokenizer


@pytest.mark.parametrize("name", LONG)
def test_rows_that_fit_a_model_are_judged_as_they_are_trained_on(name: str) -> None:
    _, examples, _ = evaluated(name, 60)
    trained, _ = made(name)
    assert str(examples.report) == str(trained.report)
    assert [array.tobytes() for array in examples.arrays()] == [array.tobytes() for array in trained.arrays()]


@pytest.mark.parametrize("name", LONG)
def test_no_row_is_left_out_where_a_model_is_judged(name: str) -> None:
    """Nothing is longer than the model's positions, every row is there, and those that are cut are counted."""
    positions = 40 if name == "instructions" else 12
    table, whole, _ = evaluated(name, 60)
    _, examples, _ = evaluated(name, positions)
    long = sum(max(pair) > positions for pair in zip(whole.source_lengths.tolist(), whole.target_lengths.tolist()))
    assert 0 < long < len(table)
    assert examples.report.kept == len(table)
    assert str(examples.report).startswith(
        f"{len(table)} {table.report.noun}; among them {long} over {positions} tokens"
    )
    assert int(examples.source_lengths.max()) <= positions
    assert int(examples.target_lengths.max()) <= positions
    rows = getattr(examples, "kept", getattr(examples, "rows", np.arange(len(examples))))
    assert sorted(set(rows.tolist())) == list(range(len(table)))


def test_every_word_of_a_long_sentence_is_asked_once_with_words_before_it() -> None:
    table, examples, tokenizer = evaluated("tagging", 12)
    _, whole, _ = evaluated("tagging", 60)
    labels = ("B-X", "O")
    tags: dict[int, list[str]] = {}
    for row, sentence in enumerate(examples.kept.tolist()):
        tags.setdefault(sentence, []).extend(labels[tag] for tag in examples.target[row].tolist() if tag != IGNORE)
        ids = examples.tokens[row].tolist()
        assert (ids[0], ids[-1]) == (tokenizer.start_id, tokenizer.end_id)
        inner, every = ids[1:-1], whole.tokens[sentence].tolist()
        assert any(every[place : place + len(inner)] == inner for place in range(len(every)))
    assert [tags[row] for row in range(len(table))] == [list(sentence.tags) for sentence in table]
    again = [row for row in range(1, len(examples)) if examples.kept[row] == examples.kept[row - 1]]
    assert again
    for row in again:
        asked = [place for place, tag in enumerate(examples.target[row].tolist()) if tag != IGNORE]
        assert not asked or asked[0] >= 5, "half a row of context, and the start marker"


def test_of_a_long_conversation_the_answer_stays() -> None:
    talk = Conversation((Message("user", "ba " * 30), Message("assistant", "co di"), Message("user", "fu " * 30)))
    task = task_of(config.InstructionsTask())
    tokenizer = task.train_tokenizer(Subwords(vocab_size=300), rows([talk]))
    examples: Any = task.examples(rows([talk]), Encoding(tokenizer, 12, positions=12))
    said = [token for token in examples.target[0].tolist() if token != IGNORE]
    assert tokenizer.decode([said])[0].strip() == "co di"
    assert examples.target[0].tolist()[-1] == tokenizer.end_id
    assert len(examples.tokens[0]) == 12


def test_of_two_long_texts_the_longer_loses_its_end() -> None:
    task = task_of(config.ClassificationTask())
    table = rows([Labelled("ba " * 30, "x", "co di"), Labelled("ba " * 30, "y", "co " * 20)])
    tokenizer = task.train_tokenizer(Subwords(vocab_size=300), table)
    examples: Any = task.examples(table, Encoding(tokenizer, 12, ("x", "y"), positions=15))
    (first,) = tokenizer.encode(["co di"])
    assert examples.tokens[0].tolist()[-1 - len(first) : -1] == first
    for row in range(2):
        ids, kinds = examples.tokens[row].tolist(), examples.token_type_ids[row].tolist()
        assert len(ids) == len(kinds) == 15
        assert ids.count(tokenizer.end_id) == 2
    assert examples.token_type_ids[1].tolist().count(0) - 2 in (
        examples.token_type_ids[1].tolist().count(1) - 1 + n for n in (-1, 0, 1)
    )

"""Documents, labelled texts, tagged words, conversations: what is read and counted, errors that name the line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sublayer.config import (
    Chat,
    Conll,
    GivenSplit,
    LabelledJsonl,
    LabelledTsv,
    LineAligned,
    Messages,
    NamedCorpus,
    PlainText,
    RandomSplit,
)
from sublayer.data.split import split
from sublayer.data.tables.conversations import read_conversations
from sublayer.data.tables.documents import Document, read_documents
from sublayer.data.tables.labelled import read_labelled
from sublayer.data.tables.tagged import read_tagged
from sublayer.errors import DataError

# --- documents ---------------------------------------------------------------------------------------------------


def texts(folder: Path, content: str, document: Any) -> list[str]:
    (folder / "a.txt").write_text(content, encoding="utf-8")
    return [row.text for row in read_documents(PlainText(path="a.txt", document=document), folder)]


def test_a_line_a_file_or_blank_lines_make_a_document(tmp_path: Path) -> None:
    content = "one\ntwo \n\n\n three\nfour\n"
    assert texts(tmp_path, content, "line") == ["one", "two ", " three", "four"]
    assert texts(tmp_path, content, "blank-lines") == ["one\ntwo ", " three\nfour"]
    assert texts(tmp_path, content, "file") == ["one\ntwo \n\n\n three\nfour"]


def test_empty_documents_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n \ntwo\n")
    table = read_documents(PlainText(path="a.txt"), tmp_path)
    assert str(table.report) == "2 of 4 documents; left out: 2 empty (lines 2, 3)"
    assert table.lines == [1, 4]


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    for name, content in (("b.txt", "second"), ("a.txt", "first\nand more"), ("c.md", "not this")):
        (tmp_path / name).write_text(content)
    table = read_documents(PlainText(path=".", document="file"), tmp_path)
    assert [row.text for row in table] == ["first\nand more", "second"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"is a folder without \.txt files"):
        read_documents(PlainText(path="empty"), tmp_path)


WIKITEXT = (
    " \n = One = \n \n Text of one . \n \n = = Section = = \n \n 3 \n = Goals ; A = \n 4 \n"
    " \n \n = Two ; a title = \n \n = = = Deep = = = \n Last . \n"
)


def test_articles_go_from_heading_to_heading_and_are_the_file(tmp_path: Path) -> None:
    """A line of an article that looks like a heading is none unless blank lines stand round it."""
    found = texts(tmp_path, WIKITEXT, "wikitext")
    assert "".join(found) == WIKITEXT
    assert [text.split(" = ")[1] for text in found] == ["One", "Two ; a title"]
    with pytest.raises(DataError, match=r"has no heading such as ' = Title = '"):
        texts(tmp_path, "no heading\n", "wikitext")


def test_words_are_counted_as_the_literature_counts_them(tmp_path: Path) -> None:
    """Each line's words, and one end for each line: `len(line.split() + ["<eos>"])`."""
    found = texts(tmp_path, WIKITEXT, "wikitext")
    expected = sum(len(line.split()) + 1 for line in WIKITEXT.removesuffix("\n").split("\n"))
    assert sum(Document(text).words for text in found) == expected
    assert Document("a line of a file").words == 6
    assert Document("a b\nc").words == 5


def test_packed_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    assert len(read_documents(PlainText(path="a.txt.gz"), tmp_path)) == 2
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\ntwo\n" * 1000)[:-9])
    with pytest.raises(DataError, match=r"a\.txt\.gz is damaged: "):
        read_documents(PlainText(path="a.txt.gz"), tmp_path)


# --- labelled texts ----------------------------------------------------------------------------------------------


def test_columns(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("label\ttext\tmore\nyes\t good \tx\n\nno\t\ty\n\tbad\tz\nno\tbad\tz\n")
    source = LabelledTsv(path="a.tsv", text_column=1, label_column=0, header=True)
    table = read_labelled(source, tmp_path)
    assert [(row.text, row.label, row.second) for row in table] == [("good", "yes", None), ("bad", "no", None)]
    assert str(table.report) == (
        "2 of 5 texts; left out: 1 blank line (line 3); 1 empty text (line 4); 1 empty label (line 5)"
    )
    both = read_labelled(source.model_copy(update={"second_column": 2}), tmp_path)
    assert [row.second for row in both] == ["x", "z"]
    assert both.texts() == ["good\nx", "bad\nz"]


def test_fields(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 3}, {"text": "b", "label": "x"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = read_labelled(LabelledJsonl(path="a.jsonl"), tmp_path)
    assert [(row.text, row.label) for row in table] == [("a", "3"), ("b", "x")]


def test_tagged_words(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(
        "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nsays VBZ B-VP O\n\n\nPeter NNP B-NP B-PER"
    )
    table = read_tagged(Conll(path="a.conll"), tmp_path)
    assert [row.plain for row in table] == [
        {"words": ["EU", "says"], "tags": ["B-ORG", "O"]},
        {"words": ["Peter"], "tags": ["B-PER"]},
    ]
    assert table.lines == [3, 7]
    chunks = read_tagged(Conll(path="a.conll", tag_column=2), tmp_path)
    assert [row.tags for row in chunks] == [("B-NP", "B-VP"), ("B-NP",)]


@pytest.mark.parametrize(
    ("line", "word", "tag"),
    [
        ("10\u00a0000\tB-NUM", "10\u00a0000", "B-NUM"),
        ("New York\tB-LOC", "New York", "B-LOC"),
        ("\u3000\tO", "\u3000", "O"),
        ("10\u00a0000 B-NUM", "10\u00a0000", "B-NUM"),
        ("\u3000 O", "\u3000", "O"),
        ("a\u2009b   NN   O", "a\u2009b", "O"),
        ("a\u0085b\x0cc O", "a\u0085b\x0cc", "O"),
        (" word \tO", "word", "O"),
    ],
)
def test_other_white_space_is_part_of_a_tagged_word(line: str, word: str, tag: str, tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_bytes(f"x O\n{line}\n\t\n \n{line}\r\n".encode())
    table = read_tagged(Conll(path="a.conll"), tmp_path)
    assert [(row.words, row.tags) for row in table] == [(("x", word), ("O", tag)), ((word,), (tag,))]


def test_conversations(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    lines = [{"messages": said, "id": 3}, {"messages": said[:1]}, {"messages": [*said, *said]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = read_conversations(Chat(path="a.jsonl"), tmp_path)
    assert [row.plain["messages"] for row in table] == [said, [*said, *said]]
    assert str(table.report) == "2 of 3 conversations; left out: 1 without an answer (line 2)"
    assert table.texts() == ["Hi", "Hi"]


@pytest.mark.parametrize(
    ("read", "content", "says"),
    [
        (lambda f: read_labelled(LabelledTsv(path="a"), f), "x\ty\nx\n", r"line 2: column 1 is missing.*label_column"),
        (lambda f: read_labelled(LabelledTsv(path="a"), f), "", r"a has no texts\. Check the path"),
        (
            lambda f: read_labelled(LabelledJsonl(path="a"), f),
            '{"text": "x"}',
            r"line 1: no field 'label' \(fields: text",
        ),
        (
            lambda f: read_labelled(LabelledJsonl(path="a"), f),
            '{"text": "x", "label": true}',
            r"line 1: field 'label' is True, not a string or a whole number",
        ),
        (lambda f: read_tagged(Conll(path="a", tag_column=3), f), "a b\n", r"line 1: column 3 is missing.*tag_column"),
        (lambda f: read_tagged(Conll(path="a"), f), "\n", r"a has no sentences"),
        (
            lambda f: read_conversations(Chat(path="a"), f),
            '{"messages": "x"}',
            r"line 1: field 'messages' is not a list",
        ),
        (
            lambda f: read_conversations(Chat(path="a"), f),
            '{"messages": [{"role": "asistant", "content": ""}]}',
            r"line 1, message 1: no role is called 'asistant'\. Did you mean 'assistant'",
        ),
        (
            lambda f: read_conversations(Chat(path="a"), f),
            '{"messages": [{"role": "user"}]}',
            r"message 1: no field 'content'",
        ),
        (lambda f: read_documents(PlainText(path="b"), f), "x", r"b does not exist"),
        (lambda f: read_documents(PlainText(path="a"), f), " \n", r"a has no documents"),
        (
            lambda f: read_documents(NamedCorpus(name="imdb", part="test"), f),
            "",
            r"the corpus 'imdb' has no part 'test'\. Leave it out",
        ),
        (
            lambda f: read_labelled(NamedCorpus(name="imdb", part="test"), f),
            "",
            r"the corpus 'imdb' has no part 'test'\. Leave it out",
        ),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, read: Callable[[Path], Any], content: str, says: str) -> None:
    (tmp_path / "a").write_text(content)
    with pytest.raises(DataError, match=says) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


# --- splits ------------------------------------------------------------------------------------------------------


def test_a_document_is_held_out_with_its_twins(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"Text {n % 20}\ntext  {n % 20}\n" for n in range(60)))
    table = read_documents(PlainText(path="a.txt"), tmp_path)
    made = split(table, RandomSplit(validation=3, test=4), tmp_path, read_documents)
    keys = [
        {" ".join(text.lower().split()) for text in part.texts()} for part in (made.train, made.validation, made.test)
    ]
    assert [len(each) for each in keys] == [13, 3, 4]
    assert not keys[0] & (keys[1] | keys[2])
    assert str(made.train.report).startswith("78 of 120 documents; left out: 18 held out for validation")
    with pytest.raises(DataError, match="20 distinct documents are too few"):
        split(table, RandomSplit(validation=10, test=10), tmp_path, read_documents)


def test_given_parts_of_labelled_text(tmp_path: Path) -> None:
    for name, rows in (("a", "xyz"), ("b", "zw"), ("c", "v")):
        (tmp_path / name).write_text("".join(f"{row}\tl\n" for row in rows))
    how = GivenSplit(validation=LabelledTsv(path="b"), test=LabelledTsv(path="c"))
    made = split(read_labelled(LabelledTsv(path="a"), tmp_path), how, tmp_path, read_labelled)
    assert [row.text for row in made.train] == ["x", "y"]
    assert [row.text for row in made.validation] == ["z", "w"]
    assert str(made.train.report) == "2 of 3 texts; left out: 1 with a source of validation or test (line 3)"


def test_an_official_training_part_is_kept_and_what_it_gives_away_is_counted(tmp_path: Path) -> None:
    for name, rows in (("a", "xyz"), ("b", "zw"), ("c", "X")):
        (tmp_path / name).write_text("".join(f"{row}\tl\n" for row in rows))
    how = GivenSplit(validation=LabelledTsv(path="b"), test=LabelledTsv(path="c"), overlap="keep")
    made = split(read_labelled(LabelledTsv(path="a"), tmp_path), how, tmp_path, read_labelled)
    assert [row.text for row in made.train] == ["x", "y", "z"]
    assert str(made.train.report) == (
        "3 texts; among them 2 with a source of validation or test, kept as data.split.overlap says (lines 1, 3)"
    )


# --- conversations made of other text ----------------------------------------------------------------------------


def asked(folder: Path, source: Any, **made: Any) -> list[list[dict[str, str]]]:
    return [row.plain["messages"] for row in read_conversations(source, folder, Messages(**made))]


def test_rows_become_conversations(tmp_path: Path) -> None:
    """Every kind of labelled or parallel text, by templates written out by hand."""
    (tmp_path / "a.tsv").write_text("Who?\tHUM\n{where} {0}\tLOC\n\t\n")
    (tmp_path / "a.jsonl").write_text('{"text": "x", "b": "y", "label": 3}\n')
    (tmp_path / "a.src").write_text("one\n\ntwo\n")
    (tmp_path / "a.tgt").write_text("uno\nx\ndos\n")
    short = {"user": "Q: {text}", "assistant": "{label}."}
    # Braces in a text are the text's own; doubled ones in a template are braces.
    assert asked(tmp_path, LabelledTsv(path="a.tsv"), system="Be {{brief}}.", **short) == [
        [
            {"role": "system", "content": "Be {brief}."},
            {"role": "user", "content": f"Q: {text}"},
            {"role": "assistant", "content": f"{label}."},
        ]
        for text, label in (("Who?", "HUM"), ("{where} {0}", "LOC"))
    ]
    pair = LabelledJsonl(path="a.jsonl", second_field="b")
    [[user, answer]] = asked(tmp_path, pair, user="{text} and {second}", assistant="{label}")
    assert (user["content"], answer["content"]) == ("x and y", "3")
    aligned = LineAligned(source="a.src", target="a.tgt")
    found = asked(tmp_path, aligned, user="Say in Spanish: {source}", assistant="{target}")
    assert [talk[1]["content"] for talk in found] == ["uno", "dos"]
    table = read_conversations(aligned, tmp_path, Messages(user="{source}", assistant="{target}"))
    assert str(table.report) == "2 of 3 conversations; left out: 1 empty source (line 2)"
    assert table.lines == [1, 3]


def test_a_field_that_the_rows_have_not(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("Who?\tHUM\n")
    with pytest.raises(DataError, match=r"messages\.user: rows of this text have no \{source\}\. There are \{text"):
        asked(tmp_path, LabelledTsv(path="a.tsv"), user="{source}", assistant="{label}")

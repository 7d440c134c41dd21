"""What is held out: split by source sentence, so that no test sentence's source is in the training text."""

from __future__ import annotations

import hashlib
import unicodedata
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, assert_never

from sublayer.config import GivenSplit, RandomSplit, Split, TailSplit
from sublayer.data.report import Report
from sublayer.data.sources import read
from sublayer.data.tables.documents import Document, cut_documents
from sublayer.data.tables.table import TableT
from sublayer.errors import DataError


@dataclass(frozen=True)
class Splits(Generic[TableT]):
    """The three parts. The report of `train` counts what the other two took from it."""

    train: TableT
    validation: TableT
    test: TableT


def key(source: str) -> str:
    """What makes two sources the same sentence: NFC, case folded, runs of white space as one space.

    Coarser than equality, so that "Come here." in training does not give away "come  here." in the test.
    """
    return " ".join(unicodedata.normalize("NFC", source).casefold().split())


def split(table: TableT, how: Split, folder: Path, read_part: Callable[[Any, Path], Any] = read) -> Splits[TableT]:
    """`table` in three parts, such that no source of one part has the `key` of a source in another.

    RandomSplit: distinct sources, each with all its translations, chosen by a hash of seed and key: the choice does
    not depend on the order of the rows, and a sentence stays held out when text is added elsewhere.
    GivenSplit: validation and test are read from their own files (relative to `folder`) and kept whole; training pairs
    with a source of theirs are left out, or kept where `overlap` says so, and counted. A source that stands in both
    validation and test is left as the user has it.
    TailSplit: validation and test are the end of the text; training rows with a source of theirs are left out.
    What is said here of the sources of pairs holds of the text of any other kind of row.

    Args:
        read_part: reads what a GivenSplit names, as rows of the same kind.

    Raises:
        DataError: too few distinct sources for a random split, nothing left to train on, or a file that cannot be read.
    """
    match how:
        case RandomSplit():
            return _random(table, how)
        case GivenSplit():
            validation, test = read_part(how.validation, folder), read_part(how.test, folder)
            return _given(table, validation, test, keep=how.overlap == "keep")
        case TailSplit():
            return _given(*_tail(table, how))
        case _:
            assert_never(how)


def _random(table: TableT, how: RandomSplit) -> Splits[TableT]:
    keys = [key(text) for text in table.texts()]
    # Sorted by the hash and then by the key, so that even equal hashes have one order.
    distinct = sorted(set(keys), key=lambda each: (draw(how.seed, each), each))
    held_out = how.test + how.validation
    if len(distinct) <= held_out:
        raise too_few(len(distinct), table.report, how)
    part_of = dict.fromkeys(distinct[: how.test], "test") | dict.fromkeys(distinct[how.test : held_out], "validation")
    rows: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for row, each in enumerate(keys):
        rows[part_of.get(each, "train")].append(row)
    report = table.report.leave_out("held out for validation", (), len(rows["validation"]))
    report = report.leave_out("held out for the test", (), len(rows["test"]))
    return Splits(
        train=table.take(rows["train"], report),
        validation=_whole(table, rows["validation"]),
        test=_whole(table, rows["test"]),
    )


def _given(table: TableT, validation: TableT, test: TableT, *, keep: bool = False) -> Splits[TableT]:
    held_out = {key(text) for part in (validation, test) for text in part.texts()}
    kept: list[int] = []
    out: list[int] = []
    for row, text in enumerate(table.texts()):
        (out if key(text) in held_out else kept).append(row)
    if keep:
        report = table.report.note(f"{OVERLAP}, kept as data.split.overlap says", table.lines_of(out), len(out))
        return Splits(table.take(range(len(table)), report), validation, test)
    if not kept:
        raise nothing_to_train_on()
    report = table.report.leave_out(OVERLAP, table.lines_of(out), len(out))
    return Splits(train=table.take(kept, report), validation=validation, test=test)


OVERLAP = "with a source of validation or test"
"""What is said of training rows that are held out too."""


def _tail(table: TableT, how: TailSplit) -> tuple[TableT, TableT, TableT]:
    """The three parts of `table` in the order of its text; a document is cut where a part begins."""
    total = sum(map(len, table.texts()))
    begins = [total - round(total * (how.validation + how.test)), total - round(total * how.test)]
    table = _cut(table, begins)
    lengths = [len(text) for text in table.texts()]
    # A row that is not cut belongs where its first character stands.
    starts = [0, *accumulate(lengths)][:-1]
    bounds = [bisect_left(starts, begin) for begin in begins]
    parts = [range(bounds[0]), range(*bounds), range(bounds[1], len(starts))]
    for name, rows in zip(("train on", "validate on", "test on"), parts, strict=True):
        if not rows:
            raise DataError(
                f"{len(starts)} {table.report.unit} leave nothing to {name}",
                "Give more text, or raise data.split.validation or data.split.test.",
            )
    train, validation, test = ([*rows] for rows in parts)
    report = table.report.leave_out("held out at the end", (), len(validation) + len(test))
    return table.take(train, report), _whole(table, validation), _whole(table, test)


def _cut(table: Any, places: list[int]) -> Any:
    """A table of documents with those cut that reach over one of `places`; any other table as it is."""
    return cut_documents(table, places) if table.rows and isinstance(table.rows[0], Document) else table


def _whole(table: TableT, rows: list[int]) -> TableT:
    return table.take(rows, Report(read=len(rows), kept=len(rows), noun=table.report.noun))


def draw(seed: int, each: str) -> bytes:
    """The hash by which what is held out is chosen: the sources with the least are."""
    return hashlib.blake2b(f"{seed}\n{each}".encode(), digest_size=16).digest()


def too_few(distinct: int, report: Report, how: RandomSplit) -> DataError:
    """What is to be raised where there are not more distinct texts than are to be held out."""
    return DataError(
        f"{distinct} distinct {report.unit} are too few to hold out {how.validation} for validation and "
        f"{how.test} for the test",
        "Lower data.split.validation and data.split.test, or give more text.",
    )


def nothing_to_train_on() -> DataError:
    """What is to be raised where all that is trained on is held out too."""
    return DataError(
        "every training source stands in the validation or test text too", "Give training text of its own."
    )

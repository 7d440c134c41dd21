"""What stands in a folder of shards, and how the folder is opened.

index.json              this: columns, vocabulary, recipe, report, and of each shard its rows, ids, size and SHA-256
00000.safetensors …     the shards (`file.py`)
tokenizer.json          that made the ids
validation.jsonl        what was held out, a list of texts a row
test.jsonl
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from sublayer.config.part import Part
from sublayer.data.portions import TextRow
from sublayer.data.ragged import Ragged
from sublayer.data.report import Dropped, Report
from sublayer.data.shards.file import AGAIN, Shard
from sublayer.errors import ConfigError, DataError
from sublayer.files import sha256
from sublayer.text.lines import read_lines
from sublayer.untrusted import UntrustedError, is_file, parse_json, read_object

FILE = "index.json"
HELD_OUT = ("validation", "test")

Count = Annotated[int, Field(ge=0, lt=2**62)]
Sum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Left(Part):
    """Rows left out, or noted: as `Dropped`."""

    reason: str
    count: Count
    lines: tuple[Count, ...] = ()

    @classmethod
    def of(cls, dropped: Dropped) -> Left:
        return cls(reason=dropped.reason, count=dropped.count, lines=dropped.lines)

    @property
    def dropped(self) -> Dropped:
        return Dropped(self.reason, self.count, self.lines)


class Counted(Part):
    """As `Report`."""

    read: Count
    kept: Count
    noun: str
    dropped: tuple[Left, ...] = ()
    noted: tuple[Left, ...] = ()

    @classmethod
    def of(cls, report: Report) -> Counted:
        dropped, noted = (tuple(map(Left.of, some)) for some in (report.dropped, report.noted))
        return cls(read=report.read, kept=report.kept, noun=report.noun, dropped=dropped, noted=noted)

    @property
    def report(self) -> Report:
        dropped, noted = (tuple(each.dropped for each in some) for some in (self.dropped, self.noted))
        return Report(self.read, self.kept, dropped, self.noun, noted)


class ShardFile(Part):
    """A shard, its name without a folder."""

    file: Annotated[str, Field(pattern=r"^[0-9]+\.safetensors$")]
    rows: Count
    ids: Count
    bytes: Count
    sha256: Sum


class MixedPart(Part):
    """A text of a mixture: its weight, and how many shards, after those of the texts before it, it has."""

    weight: Annotated[int, Field(gt=0, le=10_000)]
    shards: Annotated[int, Field(gt=0, le=2**31)]


class Index(Part):
    """Everything that is known of a folder of shards.

    recipe: what of the recipe decides the rows and their ids. tokenizer: its fingerprint. report: of the rows before
    they were encoded. long: those that were then left out. held_out: SHA-256 of the files of what was held out.
    parts: of a mixture.
    """

    format: Literal["sublayer-shards-1"] = "sublayer-shards-1"
    columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    ids: Literal["uint16", "uint32"]
    vocab_size: Annotated[int, Field(gt=0, le=2**31)]
    tokenizer: Sum
    recipe: dict[str, Any]
    report: Counted
    long: Left | None = None
    held_out: dict[Literal["validation", "test"], Sum]
    shards: tuple[ShardFile, ...]
    parts: tuple[MixedPart, ...] = ()

    @model_validator(mode="after")
    def _parts_are_all(self) -> Self:
        if self.parts and sum(part.shards for part in self.parts) != len(self.shards):
            raise ValueError("the parts have not as many shards as there are")
        return self


@dataclass(frozen=True)
class Shards:
    """An open folder. firsts: int64 [shards + 1], which row is the first of each."""

    folder: Path
    index: Index
    firsts: NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """
        Raises:
            DataError: there is no whole folder of shards, or a file of it has not the size that it should have.
        """
        path = folder / FILE
        missing = f"There is no prepared text in {folder}: make it by `sublayer data prepare`."
        if not is_file(path):
            raise DataError(f"{path} is missing", missing)
        plain = read_object(path, DataError, AGAIN)
        try:
            index = Index.parse(plain, str(path))
        except ConfigError as error:
            raise DataError(error.what, AGAIN) from None
        for shard in index.shards:
            found = folder / shard.file
            size = found.stat().st_size if found.is_file() else None
            if size != shard.bytes:
                said = "is missing" if size is None else f"has {size:,} bytes, and {shard.bytes:,} were written"
                raise DataError(f"{found} {said}", AGAIN)
        return cls(folder, index, np.cumsum([0, *(shard.rows for shard in index.shards)], dtype=np.int64))

    def __len__(self) -> int:
        return int(self.firsts[-1])

    @property
    def report(self) -> Report:
        """Of all rows, those left out for their length too."""
        report, long = self.index.report.report, self.index.long
        return report if long is None else report.leave_out(long.reason, long.lines, long.count)

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Read every file once and compare its SHA-256.

        Raises:
            DataError: one is not what was written.
        """
        index = self.index
        wanted = {f"{name}.jsonl": index.held_out[name] for name in HELD_OUT if name in index.held_out}
        wanted |= {shard.file: shard.sha256 for shard in index.shards}
        for number, (name, told) in enumerate(wanted.items(), start=1):
            try:
                found = sha256(self.folder / name)
            except OSError as error:
                raise DataError(f"cannot read {self.folder / name}: {error.strerror or error}", AGAIN) from None
            if found != told:
                raise DataError(f"{self.folder / name} is damaged: its SHA-256 is not the one in {FILE}", AGAIN)
            progress(number, len(wanted))

    def take(self, rows: NDArray[np.int64]) -> list[Ragged]:
        """The ids of these rows, a column after the other. Each shard is open only while it is read.

        Args:
            rows: rising.

        Raises:
            DataError: a shard is damaged, or was made with another vocabulary.
        """
        index = self.index
        bounds = np.searchsorted(rows, self.firsts)
        found: list[list[Ragged]] = []
        for number, held in enumerate(index.shards):
            some = rows[bounds[number] : bounds[number + 1]]
            if not len(some):
                continue
            path, columns = self.folder / held.file, len(index.columns)
            shard = Shard.open(path, rows=held.rows, ids=held.ids, columns=columns, type_=index.ids)
            texts = shard.take(some - self.firsts[number])
            if any(len(text.tokens) and int(text.tokens.max()) >= index.vocab_size for text in texts):
                raise DataError(f"{path} is damaged: it has ids over the {index.vocab_size:,} of the vocabulary", AGAIN)
            found.append(texts)
        return [_joined(column) for column in zip(*found, strict=True)]

    def held_out(self, name: str) -> Iterator[TextRow]:
        """The rows that were held out for validation or the test.

        Raises:
            DataError: the file is missing or damaged.
        """
        path = self.folder / f"{name}.jsonl"
        for number, line in enumerate(read_lines(path), start=1):
            try:
                row = cast("Sequence[Any]", parse_json(line))
            except UntrustedError as error:
                raise DataError(f"{path}, line {number}: it {error}", AGAIN) from None
            if not isinstance(row, list) or [type(text) for text in row] != [str] * len(self.index.columns):
                raise DataError(f"{path}, line {number}: not {len(self.index.columns)} texts", AGAIN)
            yield tuple(row)


def held_line(row: TextRow) -> str:
    """A row as `Shards.held_out` reads it."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def _joined(parts: Sequence[Ragged]) -> Ragged:
    lengths = np.concatenate([part.lengths for part in parts])
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Ragged(np.concatenate([part.tokens for part in parts]), starts)

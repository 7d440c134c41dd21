"""The second look at every row: those that are trained on become ids, those that are held out are put aside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sublayer.config.part import Part
from sublayer.data.portions import Portion, Stream, TextRow
from sublayer.data.ragged import encode_texts
from sublayer.data.report import SHOWN
from sublayer.data.shards.fates import TEST, TRAIN, VALIDATION
from sublayer.data.shards.file import writing
from sublayer.data.shards.index import Left, ShardFile, held_line
from sublayer.data.shards.survey import CHUNK
from sublayer.errors import DataError
from sublayer.files import replacing, sha256, write_json
from sublayer.text import Tokenizer

HELD = {VALIDATION: "validation", TEST: "test"}


class Made(Part):
    """What was made of a portion. long: rows left out for their length."""

    shard: ShardFile
    long: Left | None = None


def rows_with_fates(
    stream: Stream[Any], sources: Sequence[Any], portion: Portion, fates: NDArray[np.uint8]
) -> Iterator[tuple[int, TextRow, int]]:
    """The line, the texts and the fate of each row of a portion.

    Raises:
        DataError: the text is not what was surveyed.
    """
    number = 0
    for line, row in stream.rows(sources[portion.part], portion):
        if not isinstance(row, str):
            if number == len(fates):
                break
            yield line, row, int(fates[number])
            number += 1
    else:
        if number == len(fates):
            return
    raise DataError(f"{portion.paths[0]} has changed since it was first read", "Remove the folder and prepare it anew.")


@dataclass(frozen=True)
class Encoding:
    """How rows become ids.

    tokenizer: the path of it. type: of the ids. most: tokens that a text of each column may have; None for any. reason:
    what a row that has more is. shards, beside: folders for the shard, and for what is kept until all are made.
    """

    stream: Stream[Any]
    sources: tuple[Any, ...]
    tokenizer: Path
    type: str
    most: tuple[int, ...] | None
    reason: str
    shards: Path
    beside: Path

    def __call__(self, number: int, portion: Portion, fates: NDArray[np.uint8]) -> None:
        """Write the shard of a portion, what it holds out, and then what was made.

        Raises:
            DataError: the text cannot be read. StorageError: the disk refused.
        """
        path, long = self.shards / f"{number:05}.safetensors", Left(reason=self.reason, count=0)
        rows = rows_with_fates(self.stream, self.sources, portion, fates)
        with (
            replacing(self.beside / f"{number:05}.held") as aside,
            aside.open("w", encoding="utf-8", newline="\n") as held,
            writing(path, self.type) as shard,
        ):
            while chunk := list(islice(rows, CHUNK)):
                for _, row, fate in chunk:
                    if fate in HELD:
                        held.write(f"{HELD[fate]}\t{held_line(row)}")
                training = [(line, row) for line, row, fate in chunk if fate == TRAIN]
                columns = [
                    encode_texts([row[place] for _, row in training], _tokenizer(self.tokenizer))
                    for place in range(len(self.stream.columns))
                ]
                if self.most is not None and training:
                    over = [ids.lengths > most for ids, most in zip(columns, self.most, strict=True)]
                    fits = ~np.logical_or.reduce(over)
                    columns = [ids.take(np.flatnonzero(fits)) for ids in columns]
                    lines = [training[place][0] for place in np.flatnonzero(~fits)]
                    shown = (*long.lines, *lines)[:SHOWN]
                    long = replace_left(long, long.count + len(lines), shown)
                shard.add(columns)
        file = ShardFile(file=path.name, rows=shard.rows, ids=shard.ids, bytes=path.stat().st_size, sha256=sha256(path))
        write_json(self.beside / f"{number:05}.json", Made(shard=file, long=long).plain())


def replace_left(left: Left, count: int, lines: Sequence[int]) -> Left:
    """`left` with other numbers."""
    return left.model_copy(update={"count": count, "lines": tuple(lines)})


@cache
def _tokenizer(path: Path) -> Tokenizer:
    """Read once a process."""
    return Tokenizer.load(path)

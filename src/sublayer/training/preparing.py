"""`sublayer data prepare`: text of any size into a folder of shards (`data/shards/`), by several processes.

All rows are looked at (`survey.py`), the fate of each is decided (`fates.py`), a tokenizer is made, and all rows are
looked at again and encoded (`encoding.py`). What is done stands in the folder `unfinished` from the moment when it is
whole, so that a preparation that was killed goes on from there and ends with the same bytes. How the text is cut into
portions does not depend on the number of processes, and a portion is a shard.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sublayer import config
from sublayer.config.load import LoadedRecipe
from sublayer.data.encoding import none_fits, over
from sublayer.data.portions import Portion, Stream, TextRow, size_and_time
from sublayer.data.report import SHOWN, Report
from sublayer.data.shards.encoding import Encoding as EncodingPortions
from sublayer.data.shards.encoding import Made, rows_with_fates
from sublayer.data.shards.fates import TRAIN, fates
from sublayer.data.shards.file import smallest_type
from sublayer.data.shards.index import FILE, HELD_OUT, Counted, Index, Left, MixedPart, held_line
from sublayer.data.shards.survey import Survey, Surveying
from sublayer.data.shards.workers import each
from sublayer.data.split import draw, key
from sublayer.data.tables.table import Table
from sublayer.errors import ConfigError, DataError
from sublayer.files import clear_leftovers, remove_parts, replacing, require_name, sha256, storage_error, write_json
from sublayer.locks import LockedError, NoLocksError, locked
from sublayer.tasks import AnyTask, task_of
from sublayer.tasks.task import Encoding
from sublayer.text import Tokenizer
from sublayer.training.task_data import decisive, tokenizer_of
from sublayer.untrusted import read_object

LINES = 100_000
"""Lines of a portion, of files that are cut by lines."""
SAMPLE, CHARACTERS = 1_000_000, 200_000_000
"""The most rows and characters that a tokenizer is trained on. Of more text it reads the beginning of each portion."""
UNFINISHED = "unfinished"

T = TypeVar("T")
Fates = NDArray[np.uint8]


class Progress(Protocol):
    def __call__(self, title: str, work: Callable[[Callable[[int, int], None]], T]) -> T:
        """Do some work, which says how much of it is done."""
        ...


@dataclass(frozen=True)
class Preparation:
    """A recipe whose text is put into the folder `out`, with so many processes."""

    recipe: config.Recipe
    folder: Path
    out: Path
    workers: int
    lines: int = LINES

    @property
    def beside(self) -> Path:
        return self.out / UNFINISHED

    @property
    def task(self) -> AnyTask:
        return task_of(self.recipe.task)

    @property
    def stream(self) -> Stream[Any]:
        stream = self.task.reader.stream
        if stream is None:
            raise ConfigError(f"task '{self.task.name()}' reads no prepared text", "Train it on the text itself.")
        return stream

    @property
    def parts(self) -> tuple[tuple[Any, int], ...]:
        """Each text with its weight."""
        source = self.recipe.data.source
        return (
            tuple((each.source, each.weight) for each in source.parts)
            if isinstance(source, config.Mixture)
            else ((source, 1),)
        )

    @property
    def sources(self) -> tuple[Any, ...]:
        return tuple(source for source, _ in self.parts)

    def require_free(self) -> None:
        """Check that nothing stands in `out` but what was begun there.

        Raises:
            ConfigError: something does. StorageError: no folder can be called so.
        """
        require_name(self.out)
        if (self.out / FILE).exists():
            raise ConfigError(f"{self.out} already holds prepared text", "Remove the folder, or name another one.")
        begun = self.beside.is_dir() or not self.out.is_dir()
        if not begun and any(not path.name.startswith(".") for path in self.out.iterdir()):
            raise ConfigError(f"{self.out} is not empty and no prepared text", "Name another folder.")

    def begin(self) -> list[Portion]:
        """The portions; what was begun by another recipe, or on other text, is refused."""
        if isinstance(self.recipe.data.split, config.TailSplit):
            raise ConfigError(
                "data.split.type = 'tail' is for one long text, which is read into memory", "Take 'random' or 'given'."
            )
        portions = [
            replace(portion, part=part)
            for part, source in enumerate(self.sources)
            for portion in self.stream.cut(source, self.folder, self.lines, None)
        ]
        files = dict.fromkeys(path for portion in portions for path in portion.paths)
        text = {str(path): size_and_time(path) for path in files}
        began = json.loads(json.dumps({"recipe": decisive(self.recipe), "lines": self.lines, "text": text}))
        path = self.beside / "begun.json"
        if not path.is_file():
            write_json(path, began)
        elif read_object(path) != began:
            raise ConfigError(
                f"{self.out} was begun with another recipe or other text", "Remove the folder, or name another one."
            )
        return portions

    def surveyed(self, portions: Sequence[Portion], progress: Progress) -> list[Survey]:
        paths = [self.beside / f"{number:05}.survey" for number in range(len(portions))]
        how = self.recipe.data.split
        seed = how.seed if isinstance(how, config.RandomSplit) else 0
        surveying = Surveying(self.stream, self.sources, self.recipe.data.filter, seed)
        missing = [(portion, path) for portion, path in zip(portions, paths, strict=True) if not path.is_file()]
        self._shared(surveying, missing, len(portions), "reading", progress)
        return [Survey.read(path) for path in paths]

    def given(self) -> dict[str, Table[Any]]:
        """What a GivenSplit holds out."""
        how = self.recipe.data.split
        if not isinstance(how, config.GivenSplit):
            return {}
        return {name: self.task.read(getattr(how, name), self.folder) for name in HELD_OUT}

    def tokenizer(
        self, portions: Sequence[Portion], decided: Sequence[Fates], surveys: Sequence[Survey], noun: str
    ) -> Tokenizer:
        path, done = self.out / "tokenizer.json", self.beside / "tokenizer.json"
        if done.is_file():
            kept = Tokenizer.load(path)
            if kept.fingerprint == read_object(done)["fingerprint"]:
                return kept

        def sample() -> Table[Any]:
            rows = list(_sample(self.stream, self.sources, portions, decided, surveys))
            return self.stream.table(rows, Report(len(rows), len(rows), noun=noun))

        made = tokenizer_of(self.recipe, self.folder, sample)
        made.save(path)
        write_json(done, {"fingerprint": made.fingerprint})
        return Tokenizer.load(path)

    def encoded(
        self,
        portions: Sequence[Portion],
        decided: Sequence[Fates],
        tokenizer: Tokenizer,
        progress: Progress,
    ) -> list[Made]:
        how = Encoding.of(self.recipe, tokenizer, evaluation=False)
        around = self.task.around(how)
        most = None if around is None else tuple(how.max_length - length for length in around)
        encoding = EncodingPortions(
            self.stream,
            self.sources,
            self.out / "tokenizer.json",
            smallest_type(tokenizer.vocab_size),
            most,
            over(how.max_length),
            self.out,
            self.beside,
        )
        paths = [self.beside / f"{number:05}.json" for number in range(len(portions))]
        missing = [
            (number, portions[number], decided[number]) for number, path in enumerate(paths) if not path.is_file()
        ]
        self._shared(encoding, missing, len(portions), "encoding", progress)
        return [Made.parse(read_object(path), str(path)) for path in paths]

    def hold_out(self, given: dict[str, Table[Any]], portions: int) -> None:
        """Write what is held out, in the order of the text."""
        for name in HELD_OUT:
            with replacing(self.out / f"{name}.jsonl") as aside, aside.open("wb") as held:
                if given:
                    held.writelines(held_line(row).encode() for row in given[name].rows_of_text())
                    continue
                for number in range(portions):
                    with (self.beside / f"{number:05}.held").open("rb") as lines:
                        begin = f"{name}\t".encode()
                        held.writelines(line.removeprefix(begin) for line in lines if line.startswith(begin))

    def index(self, tokenizer: Tokenizer, report: Report, made: Sequence[Made], portions: Sequence[Portion]) -> Index:
        parts: list[MixedPart] = []
        for place, (_, weight) in enumerate(self.parts):
            rows = [one.shard.rows for one, portion in zip(made, portions, strict=True) if portion.part == place]
            if len(self.parts) > 1 and not sum(rows):
                raise DataError(f"nothing is left of data.source.parts[{place}].source", "Leave it out.")
            parts.append(MixedPart(weight=weight, shards=len(rows)))
        left = [each.long for each in made if each.long is not None and each.long.count]
        long = None
        if left:
            lines = tuple(line for each in left for line in each.lines)[:SHOWN]
            long = Left(reason=left[0].reason, count=sum(each.count for each in left), lines=lines)
            if long.count == report.kept:
                raise none_fits(report.kept, self.recipe.data.max_length)
        return Index(
            columns=self.stream.columns,
            ids="uint16" if smallest_type(tokenizer.vocab_size) == "uint16" else "uint32",
            vocab_size=tokenizer.vocab_size,
            tokenizer=tokenizer.fingerprint,
            recipe=json.loads(json.dumps(decisive(self.recipe))),
            report=Counted.of(report),
            long=long,
            held_out={"validation": sha256(self.out / "validation.jsonl"), "test": sha256(self.out / "test.jsonl")},
            shards=tuple(each.shard for each in made),
            parts=tuple(parts) if len(parts) > 1 else (),
        )

    def _shared(
        self, do: Callable[..., None], jobs: Sequence[tuple[Any, ...]], total: int, title: str, progress: Progress
    ) -> None:
        def work(report: Callable[[int, int], None]) -> None:
            done = total - len(jobs)

            def one() -> None:
                nonlocal done
                done += 1
                report(done, total)

            each(do, jobs, self.workers, one)

        progress(title, work)


def prepare_shards(
    loaded: LoadedRecipe, out: Path, workers: int, progress: Progress, *, lines: int = LINES
) -> tuple[Index, str]:
    """Put the text of a recipe into the folder `out`, or go on with what was begun there; its index, and a report of
    what was read where some of it was left out.

    Raises:
        SublayerError: anything that the user can mend.
    """
    preparation = Preparation(loaded.recipe, loaded.folder, out, workers, lines)
    preparation.require_free()
    with ExitStack() as held:
        try:
            preparation.beside.mkdir(parents=True, exist_ok=True)
            with suppress(NoLocksError):
                held.enter_context(locked(out / ".lock"))
            for folder in (out, preparation.beside):
                clear_leftovers(folder)
        except LockedError:
            raise ConfigError(f"another process prepares text in {out}", "Wait until it has ended.") from None
        except OSError as error:
            raise storage_error(out, error) from error
        return _prepare(preparation, progress)


def _prepare(preparation: Preparation, progress: Progress) -> tuple[Index, str]:
    portions = preparation.begin()
    surveys = preparation.surveyed(portions, progress)
    given = preparation.given()
    texts = [text for table in given.values() for text in table.texts()]
    held = np.array([int.from_bytes(draw(0, key(text))[:8], "big") for text in texts], dtype=np.uint64)
    how, noun = preparation.recipe.data.split, NOUNS[preparation.stream.columns]
    assert not isinstance(how, config.TailSplit)
    decided, report, read = fates(surveys, how, held, preparation.recipe.data.filter, noun)
    tokenizer = preparation.tokenizer(portions, decided, surveys, noun)
    made = preparation.encoded(portions, decided, tokenizer, progress)
    preparation.hold_out(given, len(portions))
    index = preparation.index(tokenizer, report, made, portions)
    write_json(preparation.out / FILE, index.plain())
    remove_parts(preparation.beside, ("begun.json", "tokenizer.json", "*.survey", "*.held", "*.json"))
    return index, read


NOUNS: Mapping[tuple[str, ...], str] = {("source", "target"): "pairs", ("text",): "documents"}
"""What rows are called."""


def _sample(
    stream: Stream[Any],
    sources: Sequence[Any],
    portions: Sequence[Portion],
    decided: Sequence[Fates],
    surveys: Sequence[Survey],
) -> Iterator[TextRow]:
    """Training rows for a tokenizer: all of them, or, of too many, the first ones of each portion."""
    rows = sum(int((fate == TRAIN).sum()) for fate in decided)
    whole = rows <= SAMPLE and sum(survey.characters for survey in surveys) <= CHARACTERS
    most = (SAMPLE, CHARACTERS) if whole else (-(-SAMPLE // len(portions)), -(-CHARACTERS // len(portions)))
    for portion, fate in zip(portions, decided, strict=True):
        taken = characters = 0
        for _, row, what in rows_with_fates(stream, sources, portion, fate):
            if what == TRAIN:
                yield row
                taken, characters = taken + 1, characters + sum(map(len, row))
                if not whole and (taken >= most[0] or characters >= most[1]):
                    break

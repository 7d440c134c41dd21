"""An actor: a model that is loaded once, and does parts one after another, a chunk of rows at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sublayer.cluster.jobs import Job
from sublayer.cluster.layout import ERROR, Layout
from sublayer.cluster.output import asides, file_of, writing
from sublayer.cluster.parts import Part, read
from sublayer.errors import SublayerError

DEATHS = 3
"""As many workers as have died in a part before it is left."""
Answers = Callable[[list[Any], int], list[Any]]


@dataclass(frozen=True)
class Outcome:
    """What became of a part. failed: rows. first: what was wrong with the first of them. fault: why nothing became of
    it, with what to do about it. model: whether that is the model's fault, so that all other parts would end so."""

    number: int
    rows: int = 0
    failed: int = 0
    first: str | None = None
    fault: str | None = None
    remedy: str = ""
    model: bool = False


class Worker:
    """What is called with a part in each of `map_batches`' batches, and gives its outcome.

    An actor that dies is started again by Ray Data, and is given again what it had not done.
    """

    def __init__(self, job: Job, layout: Layout, out: Path, threads: int) -> None:
        from sublayer.fast.engine.threads import use_threads

        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        use_threads(threads)
        self._job, self._layout, self._out = job, layout, out
        self._answers: Answers | None = None

    def __call__(self, batch: Any) -> Any:
        pa: Any = import_module("pyarrow")
        return pa.Table.from_pylist([vars(self.done(Part(**row))) for row in batch.to_pylist()])

    def done(self, part: Part) -> Outcome:
        """Do a part."""
        if self._answers is None:
            # Here, and not where the actor is made: Ray gives on what is raised there as text alone.
            try:
                self._answers = self._job.open()
            except SublayerError as error:
                return Outcome(part.number, fault=error.what, remedy=error.remedy, model=True)
        try:
            return self._written(part, self._answers)
        except SublayerError as error:
            return Outcome(part.number, fault=error.what, remedy=error.remedy)

    def _written(self, part: Part, answers: Answers) -> Outcome:
        path = file_of(self._out, part.number, self._layout.format)
        if len(asides(path)) >= DEATHS:
            raise SublayerError(f"{DEATHS} workers have died in it", "Look for too little memory, then start again.")
        rows, failed, first = 0, 0, None
        with writing(path, self._layout) as sink:
            for chunk in map(self._layout.fitted, read(part)):
                texts = chunk.texts(self._layout.column)
                # Samples are drawn by the number of the row among all.
                found = answers(texts, (part.number << 32) + rows)
                errors = [
                    chunk.faults.get(place, each if isinstance(each, str) else None) for place, each in enumerate(found)
                ]
                values = zip(*(_values(each, len(self._layout.new)) for each in found), strict=True)
                sink.write(chunk, {**dict(zip(self._layout.new, values, strict=True)), ERROR: errors})
                wrong = [(place, error) for place, error in enumerate(errors) if error is not None]
                if first is None and wrong:
                    first = f"{part.path}, row {part.first + rows + wrong[0][0]}: {wrong[0][1]}"
                rows, failed = rows + len(texts), failed + len(wrong)
        return Outcome(part.number, rows, failed, first)


def _values(found: Any, columns: int) -> tuple[Any, ...]:
    return (None,) * columns if isinstance(found, str) else found

"""A data set through a model on many machines: Ray Data hands the parts to a pool of actors.

What is in memory: of each actor its model, `ROWS` rows and their results, and of a Parquet file one row group, packed,
and up to `GROUP` rows to be written; of who started it the list of parts. Rows never pass through Ray's object store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sublayer.cluster.connection import connected, required
from sublayer.cluster.jobs import Job
from sublayer.cluster.layout import layout
from sublayer.cluster.manifest import claimed, manifest
from sublayer.cluster.output import counted, file_of
from sublayer.cluster.parts import Format, Part, cut, inputs
from sublayer.cluster.worker import Outcome, Worker
from sublayer.errors import ConfigError, DataError, SublayerError

ROWS_OF_PART = 10_000


@dataclass(frozen=True)
class Summary:
    """What stands in the output now. failed: rows whose `error` says why. first: what was wrong with one of them.
    faults: why nothing became of some parts; they are done when it is started again. new: rows done this time."""

    rows: int
    failed: int
    first: str | None
    faults: Sequence[str]
    parts: int
    new: int
    seconds: float

    def require(self, *, every_row: bool = False) -> None:
        """Raise where parts are missing, where all rows failed, or, with `every_row`, where any did.

        Raises:
            DataError: then.
        """
        if self.faults:
            raise DataError(
                f"nothing became of {len(self.faults)} of {self.parts} parts: {self.faults[0]}",
                "Start again, for these alone.",
            )
        if self.failed and (every_row or self.failed == self.rows):
            raise DataError(f"{self.failed:,} of {self.rows:,} rows failed" + (f": {self.first}" if self.first else ""))


def run(
    job: Job,
    patterns: Sequence[str | Path],
    out: Path,
    *,
    column: str | None = None,
    output_format: Format | None = None,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    address: str | None = None,
    rows_per_part: int = ROWS_OF_PART,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Do a job with all rows of some files, or go on with what was begun in the folder `out`.

    Raises:
        SublayerError: anything that the user can mend.
    """
    required("ray.data")
    if min(rows_per_part, cpus_per_worker, 1 if workers is None else workers) < 1:
        raise ConfigError("workers, cpus_per_worker and rows_per_part are 1 or more", "Give other numbers.")
    paths, out = inputs(patterns), out.resolve()
    if not paths:
        raise DataError("no file is named", "Name Parquet files or files of JSON lines.")
    found = layout(paths, column, job.columns, output_format)
    parts = cut(paths, rows_per_part)
    began, outcomes = time.monotonic(), list[Outcome]()
    with claimed(out, manifest(job, paths, found, rows_per_part)):
        missing = [part for part in parts if not file_of(out, part.number, found.format).is_file()]
        progress(len(parts) - len(missing), max(1, len(parts)))
        arguments = (job, found, out, cpus_per_worker)
        for outcome in _outcomes(missing, arguments, address, workers, cpus_per_worker, job.device) if missing else ():
            if outcome.model:
                raise SublayerError(outcome.fault or "", outcome.remedy)
            outcomes.append(outcome)
            progress(len(parts) - len(missing) + len(outcomes), len(parts))
        standing = [file_of(out, part.number, found.format) for part in parts]
        counts = [counted(path) for path in standing if path.is_file()]
    return Summary(
        rows=sum(rows for rows, _ in counts),
        failed=sum(failed for _, failed in counts),
        first=next((each.first for each in outcomes if each.first), None),
        faults=[
            f"{parts[each.number].path} from row {parts[each.number].first}: {each.fault}. {each.remedy}".strip()
            for each in outcomes
            if each.fault
        ],
        parts=len(parts),
        new=sum(each.rows for each in outcomes),
        seconds=time.monotonic() - began,
    )


def _outcomes(
    parts: Sequence[Part], arguments: tuple[Any, ...], address: str | None, workers: int | None, cpus: int, device: str
) -> Iterator[Outcome]:
    """What becomes of the parts, as it comes."""
    gpus = 0 if device == "cpu" else 1
    with connected(address, workers, cpus, gpus) as (data, room):
        pool = min(room, len(parts))
        done: Any = data.from_items([asdict(part) for part in parts], override_num_blocks=len(parts)).map_batches(
            Worker,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_args=arguments,
            # All that there is room for, from the beginning. An actor that dies is made anew and its part is done again
            # (`max_restarts` and `max_task_retries` are -1): Ray Data's own settings, unlike Ray's.
            compute=data.ActorPoolStrategy(min_size=1, max_size=pool, initial_size=pool),
            num_cpus=cpus,
            num_gpus=gpus,
        )
        for row in done.iter_rows():
            yield Outcome(**row)

"""What becomes of every row, decided from the surveys of all portions: as `split` and `clean` decide it in memory.

Two rows are the same if their hashes of 64 bits are: among 100 million rows one is taken for another with a chance of
one in 3,700. A byte a row stands in memory, beside what is sorted at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sublayer.config import Filter, GivenSplit, RandomSplit
from sublayer.config.filter import SUSPICIOUS
from sublayer.data.filters import FOREIGN, REPEATED, conditions, nothing_left
from sublayer.data.report import SHOWN, Report
from sublayer.data.shards.survey import Survey, faults
from sublayer.data.split import OVERLAP, nothing_to_train_on, too_few
from sublayer.errors import DataError

TRAIN, VALIDATION, TEST, OUT = range(4)
"""Fates."""
SORTED = 1 << 22
"""Rows that are sorted at a time."""

Bools = NDArray[np.bool_]


@dataclass
class _Tally:
    """Rows with something in common: how many, and the lines of the first."""

    count: int = 0
    lines: tuple[int, ...] = ()

    def add(self, found: Bools, survey: Survey) -> None:
        places = np.flatnonzero(found)
        self.count += len(places)
        if len(places) and len(self.lines) < SHOWN:
            self.lines = (*self.lines, *survey.array("line")[places[:SHOWN]].tolist())[:SHOWN]


def fates(
    surveys: Sequence[Survey], how: RandomSplit | GivenSplit, held: NDArray[np.uint64], settings: Filter, noun: str
) -> tuple[list[NDArray[np.uint8]], Report, str]:
    """The fate of each row, a report of those that are trained on, and one of what was read.

    Args:
        held: the hashes of what a GivenSplit holds out.

    Raises:
        DataError: there is no row, too few to hold out, or none is left.
    """
    report = _read(surveys, noun)
    found = [np.zeros(survey.rows, dtype=np.uint8) for survey in surveys]
    if isinstance(how, RandomSplit):
        report = _draw(surveys, found, how, report)
    else:
        report = _overlap(surveys, found, how, held, report)
    return found, _filter(surveys, found, settings, report), str(_read(surveys, noun))


def _read(surveys: Sequence[Survey], noun: str) -> Report:
    left: dict[str, _Tally] = {}
    for survey in surveys:
        for reason, (count, lines) in survey.left.items():
            tally = left.setdefault(reason, _Tally())
            tally.count, tally.lines = tally.count + count, (*tally.lines, *lines)[:SHOWN]
    total = sum(survey.rows for survey in surveys) + sum(tally.count for tally in left.values())
    report = Report(read=total, kept=total, noun=noun)
    for reason, tally in left.items():
        report = report.leave_out(reason, tally.lines, tally.count)
    if not report.kept:
        raise DataError(f"data.source has no {noun}", "Check the path, and which columns, fields or files are which.")
    return report


def _draw(
    surveys: Sequence[Survey],
    found: list[NDArray[np.uint8]],
    how: RandomSplit,
    report: Report,
) -> Report:
    """The sources with the least hashes are held out; as many as are needed are kept in memory."""
    wanted, least = how.test + how.validation, np.zeros(0, dtype=np.uint64)
    for survey in surveys:
        least = np.unique(np.concatenate([least, survey.array("draw")]))[: wanted + 1]
    if len(least) <= wanted:
        raise too_few(len(least), report, how)
    counts = dict.fromkeys((VALIDATION, TEST), 0)
    for survey, fate in zip(surveys, found, strict=True):
        drawn = survey.array("draw")
        for part, some in ((TEST, least[: how.test]), (VALIDATION, least[how.test : wanted])):
            fate[np.isin(drawn, some)] = part
            counts[part] += int((fate == part).sum())
    report = report.leave_out("held out for validation", (), counts[VALIDATION])
    return report.leave_out("held out for the test", (), counts[TEST])


def _overlap(
    surveys: Sequence[Survey], found: list[NDArray[np.uint8]], how: GivenSplit, held: NDArray[np.uint64], report: Report
) -> Report:
    tally = _Tally()
    for survey, fate in zip(surveys, found, strict=True):
        there = np.isin(survey.array("draw"), held)
        tally.add(there, survey)
        if how.overlap == "drop":
            fate[there] = OUT
    if how.overlap == "keep":
        return report.note(f"{OVERLAP}, kept as data.split.overlap says", tally.lines, tally.count)
    if tally.count == report.kept:
        raise nothing_to_train_on()
    return report.leave_out(OVERLAP, tally.lines, tally.count)


def _filter(surveys: Sequence[Survey], found: list[NDArray[np.uint8]], settings: Filter, report: Report) -> Report:
    asked, reported, bits = conditions(settings), conditions(SUSPICIOUS), faults(settings)
    repeated, usual, before = _repeated(surveys, found), _usual(surveys, found), report.kept
    left, noted = ({what: _Tally() for what in some} for some in (asked, reported))
    first = 0
    for survey, fate in zip(surveys, found, strict=True):
        flags = survey.array("faults")
        among_all = {REPEATED: repeated[first : first + survey.rows], FOREIGN: _foreign(survey, usual)}
        first += survey.rows

        def damaged(what: str, flags: NDArray[np.uint16] = flags, among_all: dict[str, Bools] = among_all) -> Bools:
            return among_all[what] if what in among_all else (flags >> bits.index(what) & 1).astype(np.bool_)

        for what, tally in left.items():
            out = damaged(what) & (fate == TRAIN)
            tally.add(out, survey)
            fate[out] = OUT
        for what, tally in noted.items():
            tally.add(damaged(what) & (fate == TRAIN), survey)
    for what, tally in left.items():
        report = report.leave_out(what, tally.lines, tally.count)
    if not report.kept:
        raise nothing_left(before, report)
    for what, tally in noted.items():
        report = report.note(what, tally.lines, tally.count)
    return report


def _repeated(surveys: Sequence[Survey], found: list[NDArray[np.uint8]]) -> Bools:
    """Training rows that came before. Shape: [rows of all]. Sorted in as many parts, by their first bits, as have
    `SORTED` rows or fewer."""
    total = sum(survey.rows for survey in surveys)
    bits = max(0, -(-total // SORTED) - 1).bit_length()
    repeated = np.zeros(total, dtype=np.bool_)
    for part in range(1 << bits):
        sums: list[NDArray[np.uint64]] = []
        places: list[NDArray[np.int64]] = []
        first = 0
        for survey, fate in zip(surveys, found, strict=True):
            same = survey.array("same")
            # A shift by all 64 bits is none.
            here = same >> np.uint64(64 - bits) == part if bits else np.ones(len(same), dtype=np.bool_)
            chosen = np.flatnonzero(here & (fate == TRAIN))
            sums.append(same[chosen])
            places.append(first + chosen)
            first += survey.rows
        every, where = np.concatenate(sums), np.concatenate(places)
        order = np.argsort(every, kind="stable")
        again = every[order][1:] == every[order][:-1]
        repeated[where[order[1:][again]]] = True
    return repeated


def _usual(surveys: Sequence[Survey], found: list[NDArray[np.uint8]]) -> list[str]:
    """The script of most training texts of each column; "" where none has a letter."""
    counts: list[Counter[str]] = []
    for survey, fate in zip(surveys, found, strict=True):
        scripts = survey.array("script")[fate == TRAIN]
        counts = counts or [Counter() for _ in range(scripts.shape[1])]
        for count, column in zip(counts, scripts.T, strict=True):
            numbers, first, times = np.unique(column, return_index=True, return_counts=True)
            # Of two as frequent the first one wins, as among rows in memory.
            for place in np.argsort(first):
                if numbers[place]:
                    count[survey.scripts[int(numbers[place])]] += int(times[place])
    return [count.most_common(1)[0][0] if count else "" for count in counts]


def _foreign(survey: Survey, usual: Sequence[str]) -> Bools:
    scripts = survey.array("script")
    found = np.zeros(len(scripts), dtype=np.bool_)
    for column, name in zip(scripts.T, usual, strict=True):
        number = survey.scripts.index(name) if name in survey.scripts else -1
        found |= (column != 0) & (column != number)
    return found

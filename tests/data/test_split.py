"""No test sentence's source is in the training text, whatever the text is."""

from __future__ import annotations

import random
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublayer.config import GivenSplit, RandomSplit, Tsv
from sublayer.data.report import Report
from sublayer.data.sources import Pairs, grouped
from sublayer.data.split import Splits, key, split
from sublayer.errors import DataError

HERE = Path()


def pairs_of(table: list[tuple[str, str]]) -> Pairs:
    return Pairs([*table], Report(len(table), len(table)), list(range(1, len(table) + 1)))


def rows(pairs: Pairs) -> list[tuple[str, str]]:
    return list(zip(pairs.sources, pairs.targets, strict=True))


def parts(splits: Splits) -> list[list[tuple[str, str]]]:
    return [rows(splits.train), rows(splits.validation), rows(splits.test)]


# Few letters, so that sources repeat, and differ in case and spaces only.
SOURCES = st.text(alphabet="aAbBß é", min_size=1, max_size=3)
TABLES = st.lists(st.tuples(SOURCES, st.text(alphabet="xyz", min_size=1, max_size=3)), min_size=4)


@given(table=TABLES, seed=st.integers(0, 5), test=st.integers(1, 3), validation=st.integers(1, 3))
def test_no_source_is_in_two_parts_and_no_row_is_lost(
    table: list[tuple[str, str]], seed: int, test: int, validation: int
) -> None:
    distinct = {key(source) for source, _ in table}
    how = RandomSplit(validation=validation, test=test, seed=seed)
    if len(distinct) <= validation + test:
        with pytest.raises(DataError, match=f"{len(distinct)} distinct source sentences are too few"):
            split(pairs_of(table), how, HERE)
        return
    splits = split(pairs_of(table), how, HERE)
    keys = [{key(source) for source, _ in part} for part in parts(splits)]
    assert [len(each) for each in keys] == [len(distinct) - validation - test, validation, test]
    assert keys[0].isdisjoint(keys[1] | keys[2])
    assert keys[1].isdisjoint(keys[2])
    assert sorted(chain.from_iterable(parts(splits))) == sorted(table)
    report = splits.train.report
    assert report.read == len(table) == report.kept + sum(each.count for each in report.dropped)
    assert report.kept == len(splits.train)


@given(table=TABLES.filter(lambda table: len({key(source) for source, _ in table}) > 2), seed=st.integers(0, 5))
def test_the_order_of_the_rows_does_not_matter(table: list[tuple[str, str]], seed: int) -> None:
    how = RandomSplit(validation=1, test=1, seed=seed)
    shuffled = list(table)
    random.Random(seed).shuffle(shuffled)
    one, other = parts(split(pairs_of(table), how, HERE)), parts(split(pairs_of(shuffled), how, HERE))
    assert [sorted(part) for part in one] == [sorted(part) for part in other]


def test_the_seed_matters() -> None:
    pairs = pairs_of([(f"sentence {n}", "x") for n in range(100)])
    tests = {tuple(split(pairs, RandomSplit(validation=5, test=5, seed=seed), HERE).test.sources) for seed in range(5)}
    assert len(tests) == 5


def test_near_identical_sources_have_one_key() -> None:
    assert key(" Come  here. ") == key("come\u00a0HERE.") == "come here."
    assert key("cafe\u0301") == key("café")
    assert key("Come here.") != key("Come here!")


def test_grouped_gives_each_source_once_with_all_its_translations() -> None:
    pairs = pairs_of([("Go.", "Ve."), ("Hi.", "Hola."), ("Go.", "Vete."), ("Go.", "Ve.")])
    assert grouped(pairs) == (["Go.", "Hi."], [["Ve.", "Vete."], ["Hola."]])


def test_a_given_split_leaves_its_sources_out_of_training(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("one\tuno\n", encoding="utf-8")
    (tmp_path / "test.tsv").write_text("TWO\tdos\nfive\tcinco\n", encoding="utf-8")
    how = GivenSplit(validation=Tsv(path="dev.tsv"), test=Tsv(path="test.tsv"))
    table = [("One", "Uno"), ("two", "dos"), ("three", "tres"), ("Two ", "Dos")]
    splits = split(pairs_of(table), how, tmp_path)
    assert parts(splits) == [[("three", "tres")], [("one", "uno")], [("TWO", "dos"), ("five", "cinco")]]
    assert splits.train.lines == [3]
    assert str(splits.train.report) == ("1 of 4 pairs; left out: 3 with a source of validation or test (lines 1, 2, 4)")
    official = how.model_copy(update={"overlap": "keep"})
    assert parts(split(pairs_of(table), official, tmp_path))[0] == table
    with pytest.raises(DataError, match="every training source"):
        split(pairs_of(table[:2]), how, tmp_path)

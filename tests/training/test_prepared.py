"""Text that was prepared: the rows and the ids of text in memory, whatever prepares it and whatever stops it."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow
import pyarrow.parquet
import pytest
import tomli_w
import torch
import zstandard

from small_run import recipe, sublayer, write
from small_task import write_task
from sublayer import config, files
from sublayer.config.load import LoadedRecipe, load_recipe
from sublayer.data.loader import Cursor, Loader
from sublayer.data.shards import fates
from sublayer.data.shards.index import Shards
from sublayer.data.shards.windows import Windows
from sublayer.errors import ConfigError, DataError, SublayerError
from sublayer.training import preparing, task_data
from sublayer.training.preparing import prepare_shards
from sublayer.training.task_data import TaskData

LINES = 7


class Quiet:
    """Hears what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def busy(self, what: str) -> None:
        """Nobody waits."""


def plainly(title: str, work: Callable[[Callable[[int, int], None]], Any]) -> Any:
    return work(lambda done, total: None)


def prepared(file: Path, out: Path, *, workers: int = 1, lines: int = LINES, overrides: tuple[str, ...] = ()) -> Path:
    prepare_shards(load_recipe(str(file), overrides), out, workers, plainly, lines=lines)
    return out


def read(file: Path, shards: Path | None = None, overrides: tuple[str, ...] = ()) -> tuple[TaskData, list[str]]:
    loaded, quiet = load_recipe(str(file), overrides), Quiet()
    data = loaded.recipe.data.model_copy(update={"shards": None if shards is None else str(shards)})
    asked = loaded.recipe.model_copy(update={"data": data})
    return task_data.prepare(asked, loaded.folder, None, quiet), quiet.said  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def batches(data: TaskData, count: int = 25) -> list[dict[str, Any]]:
    loader: Loader[Any] = Loader(data.training, data.recipe.training.batches, data.recipe.seed)
    return [
        {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
        for _, batch in islice(loader.batches(), count)
    ]


def alike(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    return all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


# --- whatever the text is in ---------------------------------------------------------------------------------------

DAMAGED = [
    ("ba co", "ba co"),
    ("ba <b>co</b>", "co ba"),
    ("fu", "ge " * 40),
    ("дом ли", "il mod"),
    ("ne\u200b pa", "pa ne"),
    ("kiÃ© lo", "lo ki"),
    ("di", ""),
    ("", "fu"),
]


def rows() -> list[tuple[str, str]]:
    draw = random.Random(4)
    words = ["ba", "co", "di", "fu", "ge", "ha", "ki", "lo", "mu", "ne", "pa", "ri"]
    found = [tuple(" ".join(draw.choices(words, k=draw.randint(1, 5))) for _ in range(2)) for _ in range(120)]
    found += [*DAMAGED, *found[:9], (found[3][0].upper(), found[3][1])]  # type: ignore[list-item]
    draw.shuffle(found)
    return found  # type: ignore[return-value]


def as_lines(folder: Path, some: list[tuple[str, str]]) -> dict[str, Any]:
    (folder / "a.src").write_text("".join(f"{one}\n" for one, _ in some))
    (folder / "a.tgt").write_text("\r\n".join(other for _, other in some))
    return {"type": "lines", "source": "a.src", "target": "a.tgt"}


def as_tsv(folder: Path, some: list[tuple[str, str]]) -> dict[str, Any]:
    for number in range(3):
        part = some[number::3]
        (folder / f"part{number}.tsv").write_text("".join(f"{two}\tx\t{one}\n" for one, two in part) + "\n")
    return {"type": "tsv", "path": "part*.tsv", "source_column": 2, "target_column": 0}


def objects(some: list[tuple[str, str]]) -> bytes:
    return "".join(json.dumps({"source": one, "target": two}) + "\n" for one, two in some).encode()


def as_jsonl(folder: Path, some: list[tuple[str, str]]) -> dict[str, Any]:
    (folder / "a.jsonl").write_bytes(objects(some))
    return {"type": "jsonl", "path": "a.jsonl"}


def as_zst(folder: Path, some: list[tuple[str, str]]) -> dict[str, Any]:
    frames = [zstandard.compress(objects(some[:50])), zstandard.compress(objects(some[50:]))]
    (folder / "a.jsonl.zst").write_bytes(b"".join(frames))
    return {"type": "jsonl", "path": "a.*.zst"}


def as_gz(folder: Path, some: list[tuple[str, str]]) -> dict[str, Any]:
    for name, side in (("a.src.gz", 0), ("a.tgt.gz", 1)):
        (folder / name).write_bytes(gzip.compress("".join(f"{row[side]}\n" for row in some).encode()))
    return {"type": "lines", "source": "a.src.gz", "target": "a.tgt.gz"}


def as_parquet(folder: Path, some: list[tuple[str, str]]) -> dict[str, Any]:
    table = pyarrow.table({"en": [one for one, _ in some], "es": [two or None for _, two in some]})
    pyarrow.parquet.write_table(table, folder / "a.parquet", row_group_size=40)
    return {"type": "parquet", "path": "*.parquet", "source_column": "en", "target_column": "es"}


WRITERS = (as_lines, as_tsv, as_jsonl, as_zst, as_gz, as_parquet)
ALL_CHECKS = {
    "min_words": 1,
    "length_ratio": 3.0,
    "duplicates": True,
    "identical": True,
    "script": True,
    "control": True,
    "markup": True,
    "mojibake": True,
}


def write_corpus(
    folder: Path, writer: Callable[..., dict[str, Any]] = as_jsonl, name: str = "corpus", **data: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    plain = recipe()
    plain["data"] = {"split": plain["data"]["split"], "max_length": 12, "source": writer(folder, rows()), **data}
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps(plain))
    return path


def require_same(file: Path, folder: Path) -> None:
    """Prepared text gives what text in memory gives: report, tokenizer, what is held out, and batches to the bit."""
    (mine, said), (theirs, heard) = read(file), read(file, folder)
    assert mine.splits.train.report == theirs.splits.train.report
    assert mine.training.report == theirs.training.report
    assert mine.tokenizer.fingerprint == theirs.tokenizer.fingerprint
    for name in ("validation", "test"):
        one, other = (getattr(data.splits, name) for data in (mine, theirs))
        assert one.rows_of_text() == other.rows_of_text()
    assert mine.recipe.model == theirs.recipe.model
    assert alike(batches(mine), batches(theirs))
    assert heard[-2:][0] == said[-1] or said  # every reason of the report is among what is said
    assert str(mine.training.report) in "\n".join(heard)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("filtered", [False, True], ids=["all", "filtered"])
def test_prepared_is_unprepared(tmp_path: Path, writer: Callable[..., Any], filtered: bool) -> None:
    file = write_corpus(tmp_path, writer, filter=ALL_CHECKS if filtered else {})
    folder = prepared(file, tmp_path / "shards")
    require_same(file, folder)
    shards = Shards.open(folder)
    assert (shards.index.long is None) == filtered  # the target of forty words is over twelve times its source
    if filtered:
        found = {left.reason for left in shards.index.report.dropped}
        assert len(found) >= 4 + 6, found
    assert (len(shards.index.shards) > 2) == (writer not in (as_zst, as_gz))


@pytest.mark.parametrize("overlap", ["drop", "keep"])
def test_a_given_split(tmp_path: Path, overlap: str) -> None:
    (tmp_path / "valid.tsv").write_text("".join(f"{one}\t{two}\n" for one, two in rows()[:9] if one and two))
    (tmp_path / "test.tsv").write_text("lo lo\tlo\nBA  co\tx\n")
    split = {"type": "given", "overlap": overlap}
    split |= {name: {"type": "tsv", "path": f"{name}.tsv"} for name in ("test",)}
    split |= {"validation": {"type": "tsv", "path": "valid.tsv"}}
    file = write_corpus(tmp_path, split=split)
    require_same(file, prepared(file, tmp_path / "shards"))


@pytest.mark.parametrize("task", ["causal", "masked", "span-corruption", "denoising", "embedding"])
def test_every_task_that_reads_such_text(tmp_path: Path, task: str) -> None:
    file = write_task(tmp_path, task)
    require_same(file, prepared(file, tmp_path / "shards"))


@pytest.mark.parametrize("form", ["text-jsonl", "text-parquet"])
def test_documents_in_fields(tmp_path: Path, form: str) -> None:
    texts = [one for one, _ in rows()]
    if form == "text-jsonl":
        (tmp_path / "a.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
        source = {"type": form, "path": "a.jsonl", "text_field": "body"}
    else:
        table = pyarrow.table({"body": [text or None for text in texts]})
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
        source = {"type": form, "path": "a.parquet", "text_column": "body"}
    file = write_task(tmp_path, "causal", data={"split": {"type": "random", "validation": 4, "test": 4}})
    plain = load_recipe(str(file)).recipe.plain()
    plain["data"]["source"] = source
    made = config.Recipe.parse(plain, "made")
    whole = [row.text for row in task_data.task_of(made.task).read(made.data.source, tmp_path)]  # type: ignore[attr-defined]
    assert whole == [text for text in texts if text.strip()]
    out = tmp_path / "shards"
    prepare_shards(LoadedRecipe(made, tmp_path), out, 1, plainly, lines=LINES)
    mine = task_data.prepare(made, tmp_path, None, Quiet())  # type: ignore[arg-type]
    there = made.model_copy(update={"data": made.data.model_copy(update={"shards": str(out)})})
    assert alike(batches(mine), batches(task_data.prepare(there, tmp_path, None, Quiet())))  # type: ignore[arg-type]


def test_a_large_vocabulary_has_larger_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "smallest_type", lambda size: "uint32")
    file = write_corpus(tmp_path)
    folder = prepared(file, tmp_path / "shards")
    assert Shards.open(folder).index.ids == "uint32"
    require_same(file, folder)


def test_training_on_prepared_text_gives_the_same_model(tmp_path: Path) -> None:
    file = write(tmp_path, lines=120)
    said = sublayer("data", "prepare", file, tmp_path / "shards")
    assert said.code == 0, said.err
    assert "--set data.shards=" in said.out
    assert sublayer("train", file, "--out", tmp_path / "a").code == 0
    outcome = sublayer("train", file, "--out", tmp_path / "b", "--set", f"data.shards={tmp_path / 'shards'}")
    assert outcome.code == 0, outcome.err
    weights = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in "ab"]
    assert weights[0] == weights[1]
    # From the run's own folder, wherever the shards are named from; and no longer.
    longer = ("--resume", "--set", "training.steps=30")
    assert sublayer("train", tmp_path / "b" / "recipe.toml", "--out", tmp_path / "b", *longer).code == 0


def test_what_is_held_out_by_surveys_sorted_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fates, "SORTED", 10)
    file = write_corpus(tmp_path, filter=ALL_CHECKS)
    require_same(file, prepared(file, tmp_path / "shards"))


# --- in windows ----------------------------------------------------------------------------------------------------


def windowed(tmp_path: Path, ids: int, task: str | None = None) -> tuple[Loader[Any], Windows[Any]]:
    file = write_corpus(tmp_path) if task is None else write_task(tmp_path, task)
    data, _ = read(
        file, prepared(file, tmp_path / "shards") if not (tmp_path / "shards").exists() else tmp_path / "shards"
    )
    assert isinstance(data.training, Windows)
    windows = Windows(data.training.shards, data.training.make, (ids, 1000))
    return Loader(windows, config.Batching(tokens=120), seed=5), windows


def epoch_of(loader: Loader[Any], epoch: int) -> list[tuple[Cursor, Any]]:
    found: list[tuple[Cursor, Any]] = []
    for cursor, batch in loader.batches(Cursor(epoch, 0)):
        found.append((cursor, batch))
        if cursor.epoch > epoch:
            return found
    raise AssertionError


def texts(batch: Any) -> list[tuple[int, ...]]:
    pairs = zip(batch.source.tolist(), batch.source_lengths.tolist(), batch.target_out.tolist(), strict=True)
    return [(*source[:length], -1, *[one for one in target if one >= 0]) for source, length, target in pairs]


def test_every_row_once_an_epoch(tmp_path: Path) -> None:
    loader, windows = windowed(tmp_path, 300)
    assert windows.count > 2
    whole, _ = read(tmp_path / "corpus.toml")
    wanted = sorted(
        text
        for _, batch in epoch_of(Loader(whole.training, config.Batching(tokens=120), 1), 0)
        for text in texts(batch)
    )
    orders = []
    for epoch in (0, 1, 7):
        found = [text for _, batch in epoch_of(loader, epoch) for text in texts(batch)]
        assert sorted(found) == wanted
        orders.append(found)
        placed = np.concatenate([windows.rows(5, epoch, window) for window in range(windows.count)])
        assert sorted(placed.tolist()) == list(range(len(windows)))
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("task", [None, "causal", "masked"])
def test_a_loader_goes_on_from_any_place(tmp_path: Path, task: str | None) -> None:
    loader, windows = windowed(tmp_path, 300, task)
    assert windows.count > 1
    whole = list(islice(loader.batches(), 70))
    assert whole[-1][0].epoch >= 1
    for place in range(0, len(whole) - 3, 5):
        fresh, _ = windowed(tmp_path, 300, task)
        for (after, batch), (wanted, other) in zip(
            fresh.batches(whole[place][0]), whole[place + 1 : place + 3], strict=False
        ):
            assert after == wanted
            tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
            assert all(torch.equal(value, getattr(other, name)) for name, value in tensors.items())


def test_a_place_past_the_end_is_refused(tmp_path: Path) -> None:
    loader, windows = windowed(tmp_path, 300)
    for step in (windows.count << 24, (1 << 24) + 1000):
        with pytest.raises(DataError, match="there is no batch"):
            next(loader.batches(Cursor(0, step)))


def mixed(file: Path, weights: tuple[int, ...]) -> LoadedRecipe:
    folder, plain = file.parent, load_recipe(str(file)).recipe.plain()
    some = rows()
    parts: list[dict[str, Any]] = []
    for place, weight in enumerate(weights):
        (folder / f"text{place}.jsonl").write_bytes(objects(some[place :: len(weights)][: 60 - 20 * place]))
        parts.append({"weight": weight, "source": {"type": "jsonl", "path": f"text{place}.jsonl"}})
    plain["data"]["source"] = {"type": "mixture", "parts": parts}
    return LoadedRecipe(config.Recipe.parse(plain, "mixed"), folder)


def test_a_mixture_has_the_shares_that_are_asked_for(tmp_path: Path) -> None:
    weights = (5, 2, 1)
    loaded = mixed(write_corpus(tmp_path), weights)
    with pytest.raises(ConfigError, match="sublayer data prepare"):
        task_data.prepare(loaded.recipe, tmp_path, None, Quiet())  # type: ignore[arg-type]
    out = tmp_path / "shards"
    for folder, workers in ((out, 1), (tmp_path / "again", 3)):
        prepare_shards(loaded, folder, workers, plainly, lines=LINES)
    assert contents(out) == contents(tmp_path / "again")
    data = loaded.recipe.data.model_copy(update={"shards": str(out)})
    made = loaded.recipe.model_copy(update={"data": data})
    found = task_data.prepare(made, tmp_path, None, Quiet()).training  # type: ignore[arg-type]
    assert isinstance(found, Windows)
    windows = Windows(found.shards, found.make, (150, 1000))
    assert windows.count > 2
    bounds = found.shards.firsts[np.cumsum([0, *(part.shards for part in found.shards.index.parts)])]
    read_so_far = np.zeros(3)
    for epoch in range(4):
        for window in range(windows.count):
            placed = windows.rows(5, epoch, window)
            read_so_far += np.histogram(placed, bounds)[0]
            assert (abs(read_so_far - read_so_far.sum() * np.array(weights) / 8) < 1).all()
    whole = list(islice(Loader(windows, config.Batching(tokens=120), seed=5).batches(), 40))
    for place in (3, 11, 20):
        fresh = Loader(windows, config.Batching(tokens=120), seed=5).batches(whole[place][0])
        after, batch = next(fresh)
        assert after == whole[place + 1][0]
        assert torch.equal(batch.source, whole[place + 1][1].source)


def test_a_mixture_that_cannot_be(tmp_path: Path) -> None:
    file = write_corpus(tmp_path)
    loaded = mixed(file, (1, 1))
    (tmp_path / "text1.jsonl").write_bytes(objects([("x", "y " * 30)]))
    with pytest.raises(DataError, match=r"nothing is left of data\.source\.parts\[1\]"):
        prepare_shards(loaded, tmp_path / "shards", 1, plainly, lines=LINES)
    plain = loaded.recipe.plain()
    plain["data"]["source"]["parts"][1]["source"] = {"type": "text", "path": "a.txt"}
    with pytest.raises(ConfigError, match=r"reads data\.source\.parts\[1\]\.source\.type = .*, not 'text'"):
        config.Recipe.parse(plain, "mixed")


# --- whoever prepares it, and whatever stops them --------------------------------------------------------------------


def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    file = write_corpus(tmp_path, as_tsv, filter=ALL_CHECKS)
    one = prepared(file, tmp_path / "one")
    three = prepared(file, tmp_path / "three", workers=3)
    assert contents(one) == contents(three)


def test_stopped_before_any_rename_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each moment when something is written and has not its name yet, once."""
    file = write_corpus(tmp_path, lambda folder, some: as_jsonl(folder, some[:30]), filter=ALL_CHECKS)
    whole = contents(prepared(file, tmp_path / "whole"))
    real, calls, stop_at = files._put, 0, 1

    def put(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise KeyboardInterrupt
        real(*arguments)

    while True:
        out, calls = tmp_path / f"stopped-{stop_at}", 0
        with monkeypatch.context() as patch:
            patch.setattr(files, "_put", put)
            try:
                prepared(file, out)
            except KeyboardInterrupt:
                stopped = True
            else:
                stopped = False
        if not stopped:
            break
        if not (out / "index.json").exists():
            prepared(file, out)
        assert contents(out) == whole
        stop_at += 1
    assert stop_at > 25


@pytest.mark.slow
def test_killed_with_its_workers_it_goes_on(tmp_path: Path) -> None:
    file = write_corpus(tmp_path, as_tsv, filter=ALL_CHECKS)
    whole = contents(prepared(file, tmp_path / "whole"))
    out, spawn = tmp_path / "killed", multiprocessing.get_context("spawn")
    for folder, wanted in ((out / "unfinished", "*.survey"), (out, "0*.safetensors")):
        process = spawn.Process(target=prepared, args=(file, out), kwargs={"workers": 3})
        process.start()
        while process.is_alive() and not any(folder.glob(wanted)):
            time.sleep(0.002)
        workers = psutil.Process(process.pid).children(recursive=True) if process.is_alive() else []
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert not alive, "workers outlive the process that started them"
    assert contents(prepared(file, out, workers=2)) == whole


def test_what_was_begun_otherwise_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_corpus(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "fates", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepared(file, tmp_path / "shards")
    with pytest.raises(ConfigError, match="another recipe or other text"):
        prepared(file, tmp_path / "shards", overrides=("data.max_length=11",))
    text = tmp_path / "a.jsonl"
    text.write_bytes(text.read_bytes() + b"\n")
    with pytest.raises(ConfigError, match="another recipe or other text"):
        prepared(file, tmp_path / "shards")


# --- what cannot be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_text_is_told_with_its_place(tmp_path: Path, workers: int) -> None:
    file = write_corpus(tmp_path)
    with (tmp_path / "a.jsonl").open("a") as handle:
        handle.write('{"source": 3}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 139: field 'source' is 3.*Write text in quotes"):
        prepared(file, tmp_path / "shards", workers=workers)


def spoil(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


def edited(**values: Any) -> Callable[[bytes], bytes]:
    return lambda held: json.dumps({**json.loads(held), **values}).encode()


DAMAGE: Mapping[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "cut": ("00000.safetensors", lambda held: held[:-2], "bytes, and .* were written"),
    "longer": ("00000.safetensors", lambda held: held + b"x", "bytes, and .* were written"),
    "turned": ("00001.safetensors", lambda held: held[:-1] + bytes([held[-1] ^ 1]), "SHA-256"),
    "held out": ("test.jsonl", lambda held: held.replace(b"a", b"o", 1), "SHA-256"),
    "no index": ("index.json", lambda held: b"", "not JSON"),
    "foreign": ("index.json", edited(format="megatron"), "format: cannot be 'megatron'"),
    "unknown key": ("index.json", edited(rows=5), "rows: unknown key"),
    "path": ("index.json", lambda held: held.replace(b"00000.s", b"../00.s"), "should match"),
    "other tokenizer": ("index.json", edited(tokenizer="0" * 64), "is not what made the ids"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_and_foreign_shards_are_refused(tmp_path: Path, damage: str) -> None:
    file = write_corpus(tmp_path)
    folder = prepared(file, tmp_path / "shards")
    name, change, says = DAMAGE[damage]
    spoil(folder, name, change)
    with pytest.raises(DataError, match=says):
        read(file, folder)


def test_ids_that_the_vocabulary_does_not_have(tmp_path: Path) -> None:
    """Somebody made the sums anew."""
    file = write_corpus(tmp_path)
    folder = prepared(file, tmp_path / "shards")
    spoil(folder, "00000.safetensors", lambda held: held[:-2] + b"\xff\xff")
    shards = Shards.open(folder)
    rows = np.arange(shards.index.shards[0].rows)
    with pytest.raises(DataError, match="ids over the"):
        shards.take(rows)

    def far(held: bytes) -> bytes:
        begin = 8 + int.from_bytes(held[:8], "little")
        return held[: begin + 8] + (1 << 40).to_bytes(8, "little") + held[begin + 16 :]

    spoil(folder, "00000.safetensors", far)
    with pytest.raises(DataError, match="reaches outside"):
        shards.take(rows)
    spoil(folder, "00000.safetensors", lambda held: b"x" * len(held))
    with pytest.raises(DataError, match="not the shard that its index speaks of"):
        shards.take(rows)


def test_shards_of_another_recipe(tmp_path: Path) -> None:
    file = write_corpus(tmp_path)
    folder = prepared(file, tmp_path / "shards")
    with pytest.raises(ConfigError, match=r"data\.filter\.markup was False, is True"):
        read(file, folder, ("data.filter.markup=true",))
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab_size was 300, is 301"):
        read(file, folder, ("tokenizer.vocab_size=301",))
    with pytest.raises(DataError, match="no prepared text"):
        read(file, tmp_path)


def test_where_nothing_can_be_prepared(tmp_path: Path) -> None:
    file = write_corpus(tmp_path)
    folder = prepared(file, tmp_path / "shards")
    refused: list[tuple[Path, Path, tuple[str, ...], str]] = [
        (file, folder, (), "already holds prepared text"),
        (file, tmp_path, (), "is not empty"),
        (file, tmp_path / "b", ("data.split.type=tail",), "one long text"),
        (file, tmp_path / "b", ("data.source.path=*.none",), "no file is called"),
        (file, tmp_path / "b", ("data.source.path=none.jsonl.gz",), "does not exist"),
        (file, tmp_path / "b", ("data.split.test=5000",), "too few to hold out"),
        (file, tmp_path / "b", ("data.max_length=1",), "none of"),
        (file, tmp_path / "c", ("data.filter.min_words=50",), "leaves none of"),
        (write_task(tmp_path / "d", "tagging"), tmp_path / "e", (), "reads no prepared text"),
    ]
    for recipe_file, out, overrides, says in refused:
        with pytest.raises(SublayerError, match=says):
            prepared(recipe_file, out, overrides=overrides)
        shutil.rmtree(tmp_path / "b", ignore_errors=True)


def test_a_large_text_trains_its_tokenizer_on_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = preparing.tokenizer_of

    def tokenizer(made: Any, folder: Path, training: Callable[[], Any]) -> Any:
        table = training()
        asked.append(len(table))
        return real(made, folder, lambda: table)

    monkeypatch.setattr(preparing, "tokenizer_of", tokenizer)
    for most, name in ((10**6, "a"), (40, "b")):
        monkeypatch.setattr(preparing, "SAMPLE", most)
        prepared(write_corpus(tmp_path), tmp_path / name)
    assert asked[0] > 100
    assert 20 <= asked[1] <= 60


def test_a_packed_file_that_ends_early(tmp_path: Path) -> None:
    file = write_corpus(tmp_path, as_zst)
    spoil(tmp_path, "a.jsonl.zst", lambda held: held[:-9])
    with pytest.raises(DataError, match=r"a\.jsonl\.zst is damaged"):
        prepared(file, tmp_path / "shards")
    spoil(tmp_path, "a.jsonl.zst", lambda held: b"plain text")
    with pytest.raises(DataError, match=r"a\.jsonl\.zst is damaged"):
        read(file)


def test_columns_of_parquet(tmp_path: Path) -> None:
    file = write_corpus(tmp_path, as_parquet)
    with pytest.raises(DataError, match=r"has no column 'fr'\. It has en, es"):
        read(file, overrides=("data.source.target_column=fr",))
    pyarrow.parquet.write_table(pyarrow.table({"en": ["a"], "es": [3]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="column 'es' is of int64"):
        read(file)
    (tmp_path / "a.parquet").write_bytes(b"no such thing")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(file)

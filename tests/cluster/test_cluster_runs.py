"""Whole runs, with the parts done in this process: what they make, how they go on, what they refuse. No Ray is needed.

What Ray has to do with it is tried in `test_cluster_ray.py`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.rows import FIXTURES, LONG, TRANSLATOR, Row, rows, write, written
from small_run import sublayer as command
from small_run import trained
from sublayer import cluster, config, load
from sublayer.cluster import connection, running
from sublayer.cluster.worker import Outcome, Worker
from sublayer.errors import ConfigError, DataError, SublayerError

Done = list[int]


@pytest.fixture(autouse=True)
def done(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Done:
    """The parts that were done, one after another in this process."""
    numbers: Done = []

    def outcomes(parts: Any, arguments: Any, address: Any, workers: Any, cpus: int, device: str) -> Iterator[Outcome]:
        worker = Worker(*arguments)
        for part in parts:
            numbers.append(part.number)
            yield worker.done(part)

    if "without_ray" not in request.fixturenames:
        monkeypatch.setattr(running, "_outcomes", outcomes)
        monkeypatch.setattr(running, "required", lambda name: None)
    return numbers


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ray", "ray.data", "ray.serve"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("sublayer.cluster.connection.find_spec", lambda name: None)


def spoiled(count: int = 60, first: int = 0) -> list[Row]:
    """Rows among which some fail: empty, too long, none."""
    some = rows(count, first)
    for place, text in ((3, ""), (7, LONG), (11, None)):
        some[place]["text"] = text
    return some


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_every_row_comes_out_once_as_the_model_translates_it(tmp_path: Path, suffix: str, done: Done) -> None:
    given = [spoiled(60), spoiled(60, 60)]
    for number, some in enumerate(given):
        write(tmp_path / f"in-{number}.{suffix}", some)
    summary = cluster.translate(TRANSLATOR, tmp_path / f"in-*.{suffix}", tmp_path / "out", beam=2, rows_per_part=25)
    assert done == [*range(6)]
    assert (summary.rows, summary.failed, summary.new, summary.parts) == (120, 6, 120, 6)
    assert summary.first is not None
    assert summary.first == f"{tmp_path / f'in-0.{suffix}'}, row 4: the text is empty"
    found, model = written(tmp_path / "out"), load(TRANSLATOR)
    assert [{name: row[name] for name in ("id", "text", "tags")} for row in found] == [*given[0], *given[1]]
    for row in found:
        if row["error"] is None:
            (alone,) = model.translate([row["text"]], beam=2)
            assert (row["translation"], row["complete"]) == (alone.text, alone.complete)
        else:
            assert (row["translation"], row["complete"]) == (None, None)
    errors = [row["error"] for row in found if row["error"] is not None]
    assert errors[:3] == errors[3:]
    assert errors[0] == "the text is empty"
    assert "has 101 tokens, but this model's positions end at 16" in errors[1]
    assert errors[2] == "there is no text"


def test_vectors_labels_and_texts(tmp_path: Path) -> None:
    file = write(tmp_path / "in.parquet", rows(20))
    texts = [row["text"] for row in rows(20)]
    cluster.embed(FIXTURES / "sentence-embedding", file, tmp_path / "vectors")
    model = load(FIXTURES / "sentence-embedding")
    assert [row["embedding"] for row in written(tmp_path / "vectors")] == model.embed(texts).tolist()
    cluster.classify(FIXTURES / "classification", file, tmp_path / "labels")
    labels = load(FIXTURES / "classification").classify(texts)
    found = written(tmp_path / "labels")
    assert [(row["label"], row["probability"]) for row in found] == [(one.label, one.probability) for one in labels]
    search = config.Sampling(temperature=0.9)
    for name in ("texts", "again"):
        cluster.generate(
            FIXTURES / "decoder-only", file, tmp_path / name, search=search, max_tokens=3, seed=1, rows_per_part=9
        )
    assert written(tmp_path / "texts") == written(tmp_path / "again")
    generator = load(FIXTURES / "decoder-only")
    begin = generator.generate(texts[:9], search=search, max_tokens=3, seed=1)
    assert [row["completion"] for row in written(tmp_path / "texts")][:9] == [one.text for one in begin]
    assert {row["ended"] for row in written(tmp_path / "texts")} <= {"end", "stop", "length"}


def test_translations_choose_among_a_shortlist(tmp_path: Path) -> None:
    run = shutil.copytree(trained(), tmp_path / "run")
    assert command("shortlist", run, "--candidates", 2, "--frequent", 3).code == 0
    write(tmp_path / "in.jsonl", rows(30))
    how = ("--cluster", "--in", tmp_path / "in.jsonl", "--out", tmp_path / "out")
    outcome = command("translate", run, "--shortlist", *how)
    assert outcome.code == 0, outcome.err
    plain = command("translate", run, "--shortlist", *(row["text"] for row in rows(30))).out.splitlines()
    assert [row["translation"] for row in written(tmp_path / "out")] == plain


def test_a_run_goes_on_with_what_is_missing(tmp_path: Path, done: Done) -> None:
    file, out = write(tmp_path / "in.parquet", spoiled()), tmp_path / "out"
    cluster.translate(TRANSLATOR, file, tmp_path / "whole", rows_per_part=10)
    done.clear()

    def killed(now: int, total: int) -> None:
        if now == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster.translate(TRANSLATOR, file, out, rows_per_part=10, progress=killed)
    (out / ".part-000004.parquet.1.abc").write_text("half of it")
    stood = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(stood) == 3
    summary = cluster.translate(TRANSLATOR, file, out, rows_per_part=10)
    assert done == [0, 1, 2, 3, 4, 5]
    assert (summary.rows, summary.failed, summary.new) == (60, 3, 30)
    assert {path: path.stat().st_mtime_ns for path in stood} == stood
    assert written(out) == written(tmp_path / "whole")
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert cluster.translate(TRANSLATOR, file, out, rows_per_part=10).new == 0
    assert len(done) == 6


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"beam": 3}, "beam was 2, and is 3"),
        ({"decoding": {"max_extra": 1}}, "decoding was None, and is {'max_extra': 1}"),
        ({"rows_per_part": 11}, "rows of a part was 10, and is 11"),
        ({"output_format": "jsonl"}, "format was parquet, and is jsonl"),
        ({"weights": "int8"}, "weights was None, and is int8"),
        ({"column": "other"}, "column was text, and is other"),
        ({"inputs": "*.parquet"}, "more.parquet was None, and is ["),
        ({"model": FIXTURES / "recurrent-encoder-decoder"}, "model.safetensors of the model was "),
    ],
)
def test_what_was_begun_otherwise_is_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"model": TRANSLATOR, "inputs": "in.parquet", "beam": 2, "rows_per_part": 10}
    write(tmp_path / "in.parquet", [{**row, "other": row["text"]} for row in rows(20)])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        cluster.translate(out=tmp_path / "out", **given)
        write(tmp_path / "more.parquet", [{**row, "other": row["text"]} for row in rows(5)])
        with pytest.raises(ConfigError, match="was begun otherwise") as error:
            cluster.translate(out=tmp_path / "out", **{**given, **changed})
    assert said in str(error.value)


def test_input_that_has_changed_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", rows(20))
    cluster.translate(TRANSLATOR, file, tmp_path / "out")
    write(file, rows(21))
    with pytest.raises(ConfigError, match=r"in\.jsonl was \["):
        cluster.translate(TRANSLATOR, file, tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", rows(2))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        cluster.translate(TRANSLATOR, file, tmp_path / "out")
    with pytest.raises(ConfigError, match="is not empty"):
        cluster.translate(TRANSLATOR, file, file)


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", rows(2))

    def beside(now: int, total: int) -> None:
        with pytest.raises(ConfigError, match="another process writes into"):
            cluster.translate(TRANSLATOR, file, tmp_path / "out")

    cluster.translate(TRANSLATOR, file, tmp_path / "out", progress=beside)


def test_a_part_that_cannot_be_read_is_told_of_and_done_later(tmp_path: Path, done: Done) -> None:
    files = [write(tmp_path / f"{number}.jsonl.gz", rows(10, 10 * number)) for number in range(3)]
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[:-20])
    kept = files[1].stat()
    summary = cluster.translate(TRANSLATOR, files, tmp_path / "out")
    assert (summary.rows, len(summary.faults)) == (20, 1)
    assert "1.jsonl.gz is damaged" in summary.faults[0]
    with pytest.raises(DataError, match="nothing became of 1 of 3 parts"):
        summary.require()
    assert sorted(path.name for path in (tmp_path / "out").glob("*part*")) == ["part-000000.jsonl", "part-000002.jsonl"]
    assert kept.st_size == len(whole) - 20


def test_a_part_in_which_workers_die_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = write(tmp_path / "in.jsonl", rows(20)), tmp_path / "out"

    def died(now: int, total: int) -> None:
        for number in range(3):
            (out / f".part-000001.jsonl.{number}.abc").write_text("")

    summary = cluster.translate(TRANSLATOR, file, out, rows_per_part=10, progress=lambda now, total: died(now, total))
    assert summary.rows == 10
    assert "3 workers have died in it" in summary.faults[0]
    assert cluster.translate(TRANSLATOR, file, out, rows_per_part=10).rows == 20


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        ("decoder-only", {}, "does not translate: it is a Generator"),
        ("nowhere", {}, "there is no folder"),
        ("encoder-decoder", {"decoding": {"beams": 2}}, "beams"),
        ("encoder-decoder", {"workers": 0}, "1 or more"),
        ("encoder-decoder", {"shortlist": True}, "has no shortlist"),
    ],
)
def test_what_the_model_cannot_do_is_said_once(tmp_path: Path, model: str, given: dict[str, Any], said: str) -> None:
    file = write(tmp_path / "in.jsonl", rows(20))
    with pytest.raises(SublayerError, match=said):
        cluster.translate(FIXTURES / model, file, tmp_path / "out", rows_per_part=5, **given)


def test_the_command(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", spoiled())
    words = ("translate", TRANSLATOR, "--cluster", "--in", tmp_path / "*.jsonl", "--out", tmp_path / "out", "--beam", 2)
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    assert outcome.out == ""
    assert f"{tmp_path / 'out'}: 60 rows in 1 parts, 60 of them now, " in outcome.err
    assert f"; 3 failed\nsuch as {tmp_path / 'in.jsonl'}, row 4: the text is empty\n" in outcome.err
    assert json.loads((tmp_path / "out" / "_manifest.json").read_text())["beam"] == 2
    # From the command line as from Python.
    cluster.translate(TRANSLATOR, tmp_path / "in.jsonl", tmp_path / "python", beam=2)
    assert written(tmp_path / "out") == written(tmp_path / "python")
    outcome = command(*words, "--every-row")
    assert outcome.code == 2
    assert outcome.complaints == ["sublayer: 3 of 60 rows failed"]


@pytest.mark.parametrize(
    ("words", "model", "columns"),
    [
        (("generate", "--temperature", 0.5, "--seed", 3, "--max-tokens", 2), "decoder-only", ["completion", "ended"]),
        (("generate", "--beam", 2, "--max-tokens", 2), "decoder-only", ["completion", "ended"]),
        (("embed", "--weights", "int8"), "sentence-embedding", ["embedding"]),
        (("classify",), "classification", ["label", "probability"]),
    ],
)
def test_the_other_commands(tmp_path: Path, words: tuple[Any, ...], model: str, columns: list[str]) -> None:
    write(tmp_path / "in.jsonl", rows(5))
    how = ("--cluster", "--in", tmp_path / "in.jsonl", "--out", tmp_path / "out", "--format", "parquet")
    outcome = command(words[0], FIXTURES / model, *words[1:], *how)
    assert outcome.code == 0, outcome.err
    found = written(tmp_path / "out")
    assert [*found[0]] == ["id", "text", "tags", *columns, "error"]
    assert all(row[columns[0]] is not None for row in found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--in", "a.jsonl"), "without it"),
        (("--cluster",), "needs --in FILES and --out FOLDER"),
        (("--cluster", "--in", "a.jsonl", "--out", "out", "--n-best", 2), "--cluster and --n-best were both given"),
        (("--cluster", "--in", "a.jsonl", "--out", "out", "--threads", 2), "--cluster and --threads were both given"),
        (("ba", "--cluster", "--in", "a.jsonl", "--out", "out"), "--cluster and a text were both given"),
        (("--cluster", "--in", "a.jsonl", "--out", "out", "--workers", 0), "--workers"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[Any, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", rows(1))
    outcome = command("translate", TRANSLATOR, *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert not (tmp_path / "out").exists()


def test_nothing_but_failed_rows_ends_with_an_error(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [{"text": ""}, {"text": LONG}])
    how = ("--cluster", "--in", tmp_path / "in.jsonl", "--out", tmp_path / "out")
    outcome = command("classify", FIXTURES / "classification", *how)
    assert outcome.code == 2
    assert f"2 of 2 rows failed: {tmp_path / 'in.jsonl'}, row 1: the text is empty" in outcome.complaints[0]
    assert len(written(tmp_path / "out")) == 2


@pytest.mark.usefixtures("without_ray")
def test_without_ray_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", rows(1))
    outcome = command("translate", TRANSLATOR, "--cluster", "--in", tmp_path / "in.jsonl", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.complaints == ["sublayer: Ray is not installed. pip install 'sublayer[cluster]'."]
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="Ray is not installed"):
        cluster.deployment(f"en-es={TRANSLATOR}")


def test_a_cluster_that_does_not_answer_is_not_waited_for() -> None:
    """Ray, which comes after it, would go on asking for minutes."""
    with pytest.raises(ConfigError, match="no Ray cluster answers at '127"):
        connection.begin(None, "127.0.0.1:1", None, 1)

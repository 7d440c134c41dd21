"""The log of a run: whole lines, cut back where a run goes on from an earlier moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sublayer.errors import StorageError
from sublayer.training.metrics import MetricsLog, read_metrics


def lines(*steps: int) -> list[dict[str, Any]]:
    return [{"step": step, "loss": step / 3} for step in steps]


def write(log: MetricsLog, *steps: int) -> None:
    for line in lines(*steps):
        log.write(line)


def test_what_came_after_the_checkpoint_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    log = MetricsLog(path)
    write(log, 1, 2)
    kept = log.bytes
    assert kept == path.stat().st_size
    write(log, 3, 4)
    log.close()
    for _ in range(2):
        again = MetricsLog(path, kept_bytes=kept)
        assert again.bytes == kept
        write(again, 3)
        assert again.bytes == path.stat().st_size
        again.close()
        assert read_metrics(path) == lines(1, 2, 3)


def test_a_new_run_starts_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 9}\n')
    log = MetricsLog(path)
    write(log, 1)
    log.close()
    assert read_metrics(path) == lines(1)


def test_a_log_that_lost_its_end_is_not_filled_up(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n')
    log = MetricsLog(path, kept_bytes=1000)
    write(log, 2)
    log.close()
    assert b"\0" not in path.read_bytes()
    assert [line["step"] for line in read_metrics(path)] == [1, 2]


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1}]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"could not write .*metrics\.jsonl"):
        MetricsLog(tmp_path / "file" / "metrics.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_told_once_and_closing_is_quiet(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log._file.close()
    log._file = Path("/dev/full").open("ab")  # noqa: SIM115
    with pytest.raises(StorageError, match=r"could not write .*metrics\.jsonl: No space left.*--resume"):
        write(log, 1)
    log.close()


def test_the_same_goes_to_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log = MetricsLog(tmp_path / "metrics.jsonl", tensorboard=True)
    log.write({"step": 3, "epoch": 0, "loss": 0.5})
    log.write({"step": 3, "valid/loss": 0.25})
    log.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["train/loss", "valid/loss"]
    [event] = events.Scalars("train/loss")
    assert (event.step, event.value) == (3, 0.5)

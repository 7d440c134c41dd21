"""A run goes on with another number of processes in another layout, and nothing of it is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from group import TESTS, Ended, free_port, groups
from safetensors.torch import load_file

from kills import Killing
from small_run import same, sublayer, write
from small_task import write_task
from sublayer.errors import TrainingError
from sublayer.training.checkpoint import listed
from sublayer.training.distributed import sharded
from sublayer.training.distributed.ranks import joined
from sublayer.training.metrics import read_metrics

TRAINING: dict[str, Any] = {
    "steps": 24,
    # Its learning rate does not depend on how many steps there will be.
    "schedule": {"type": "inverse-sqrt", "warmup": 5},
    "checkpoint_every": 6,
    "validate_every": 12,
    "keep_checkpoints": 20,
    "label_smoothing": 0.1,
}

STILL = {"encoder": {"block": {"dropout": 0.0}}, "decoder": {"block": {"dropout": 0.0}}}
"""Without dropout, which is other on each process."""


def train(size: int, file: Path, out: Path, *over: str, kill: tuple[int, float] | None = None) -> list[Ended]:
    """One attempt: from the start where there is no run yet."""
    settings = [word for each in over for word in ("--set", each)]
    again = ["--resume"] if (out / "recipe.toml").is_file() else []
    arguments = ["train", str(file), "--out", str(out), *settings, *again]
    return groups().run(size, "command", kill=kill, arguments=arguments)


def ended_well(ended: list[Ended]) -> None:
    assert [each.code for each in ended] == [0] * len(ended), "\n".join(each.err[-2000:] for each in ended)


def losses(out: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(out / "metrics.jsonl") if "loss" in line}


def test_four_two_one_four(tmp_path: Path) -> None:
    """From layout to layout, each of which reads what the one before wrote; against one process that did it all."""
    # With a large eps Adam makes no steps of gradients that are nothing but rounding, such as that of a bias of keys.
    calm = {"optimizer": {"type": "adamw", "learning_rate": 3e-3, "eps": 1e-5}}
    file = write(tmp_path, training={**TRAINING, **calm}, model=STILL)
    assert sublayer("train", file, "--out", tmp_path / "one").code == 0
    out = tmp_path / "run"
    shard, tensor = "training.parallel.data=shard", "training.parallel.tensor=2"
    for size, steps, over in ((4, 6, (shard, tensor)), (2, 12, ()), (1, 18, ()), (4, 24, (shard,))):
        ended = train(size, file, out, f"training.steps={steps}", *over)
        ended_well(ended)
        assert [each.err for each in ended[1:]] == [""] * (size - 1), "only the first process speaks"
        assert size == 1 or f"{size} processes" in ended[0].err
        assert (out / "checkpoints" / f"step-{steps:06d}").is_dir()
    one, many = losses(tmp_path / "one"), losses(out)
    assert list(one) == list(many) == list(range(1, 25))
    assert max(abs(one[step] - many[step]) / one[step] for step in one) < 1e-5
    left, right = (load_file(each / "model" / "model.safetensors") for each in (tmp_path / "one", out))
    assert max(float((left[name] - right[name]).norm() / left[name].norm()) for name in left) < 1e-3
    assert (out / "model" / "test.jsonl").read_bytes() == (tmp_path / "one" / "model" / "test.jsonl").read_bytes()


@pytest.mark.parametrize("over", [(), ("training.parallel.data=shard",), ("training.parallel.tensor=2",)])
def test_in_the_same_layout_to_the_bit(tmp_path: Path, over: tuple[str, ...]) -> None:
    """With dropout, whose numbers each process draws for itself."""
    file = write(tmp_path, training={**TRAINING, "steps": 12, "optimizer": {"type": "muon"}})
    ended_well(train(2, file, tmp_path / "whole", *over))
    ended_well(train(2, file, tmp_path / "halves", "training.steps=6", *over))
    ended_well(train(2, file, tmp_path / "halves", *over))
    assert losses(tmp_path / "whole") == losses(tmp_path / "halves")
    for step in (6, 12):
        one, other = (
            sharded.read(tmp_path / name / "checkpoints" / f"step-{step:06d}").tensors for name in ("whole", "halves")
        )
        assert one.keys() == other.keys()
        assert {part: same(one[part], other[part]) for part in one} == {part: [] for part in one}


def test_weights_travel_in_half_precision(tmp_path: Path) -> None:
    """The same steps as with whole weights and autocast, but for bfloat16's rounding."""
    file = write(tmp_path, training={**TRAINING, "steps": 6, "precision": "bfloat16"}, model=STILL)
    ended_well(train(1, file, tmp_path / "one"))
    ended_well(train(2, file, tmp_path / "shard", "training.parallel.data=shard"))
    one, many = losses(tmp_path / "one"), losses(tmp_path / "shard")
    assert abs(one[1] - many[1]) / one[1] < 1e-2
    assert one.keys() == many.keys()


def test_damaged_checkpoints_are_named(tmp_path: Path) -> None:
    file = write(tmp_path, training={**TRAINING, "steps": 6})
    ended_well(train(2, file, tmp_path / "run"))
    [last] = listed(tmp_path / "run" / "checkpoints")
    shard = sorted(last.glob("shard-*"))[0]
    os.truncate(shard, shard.stat().st_size - 1)
    outcome = sublayer("train", file, "--out", tmp_path / "run", "--set", "training.steps=8", "--resume")
    assert outcome.code == 2
    assert f"{shard.name} is damaged" in outcome.err
    shard.unlink()
    ended = train(2, file, tmp_path / "run", "training.steps=8")
    assert f"{shard.name} is missing" in ended[0].err
    assert "Traceback" not in ended[0].err


def assert_refused(ended: Sequence[Ended], says: str) -> None:
    """All find it; whoever is the last may be ended, as torchrun does it, before it has said so."""
    codes = {each.code for each in ended}
    assert 2 in codes, codes
    assert codes <= {2, 128 + signal.SIGTERM, -signal.SIGTERM}, codes
    assert any(says in each.err for each in ended if each.code == 2), [each.err for each in ended]


def test_what_cannot_be_is_refused_by_its_name(tmp_path: Path) -> None:
    file = write(tmp_path, training={"steps": 3})
    for size, over, says in (
        (1, ("training.parallel.tensor=2",), "training.parallel.tensor = 2, and this is one process"),
        (2, ("training.parallel.tensor=4",), "training.parallel.tensor = 4 does not divide the number of processes, 2"),
        (4, ("training.parallel.tensor=4",), "training.parallel.tensor = 4 does not divide"),
    ):
        ended = train(size, file, tmp_path / "run", *over)
        assert_refused(ended, says)
        assert not (tmp_path / "run").exists()
    similar = write_task(tmp_path / "similar", "embedding")
    ended = train(2, similar, tmp_path / "run")
    assert_refused(ended, "compares the pairs of a batch with each other")
    lstm = write(tmp_path / "lstm", training={"steps": 3})
    data = tomllib.loads(lstm.read_text())
    lstm.write_text(tomli_w.dumps({**data, "model": {"kind": "lstm", "dim": 16, "max_length": 24}}))
    ended = train(2, lstm, tmp_path / "run", "training.parallel.data=shard")
    assert_refused(ended, "the weights of a recurrent network are one piece")


def test_a_signal_to_one_process_stops_all(tmp_path: Path) -> None:
    file = write(tmp_path, training={**TRAINING, "steps": 5000, "checkpoint_every": 5000, "validate_every": 5000})
    ended = groups().run(2, "command_stopped", arguments=["train", str(file), "--out", str(tmp_path / "run")], rank=1)
    assert [each.code for each in ended] == [130, 130]
    assert "interrupted; the state is saved" in ended[0].err
    [saved] = listed(tmp_path / "run" / "checkpoints")
    assert sharded.read(saved).progress.step == max(losses(tmp_path / "run"))


def test_killed_before_all_have_met(tmp_path: Path) -> None:
    file = write(tmp_path, training={**TRAINING, "steps": 3})
    ended = groups().run(
        2, "command_killed_early", arguments=["train", str(file), "--out", str(tmp_path / "run")], rank=0
    )
    assert [each.code for each in ended] == [-signal.SIGKILL, 2]
    assert "rank 1 lost another process of the run" in ended[1].err
    assert "Traceback" not in ended[1].err


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        given = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(held.getsockname()[1])}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        with (
            pytest.raises(TrainingError, match=f"MASTER_PORT = {given['MASTER_PORT']} is taken"),
            joined(torch.device("cpu")),
        ):
            pass


def test_kills(tmp_path: Path) -> None:
    """A few; the program `kills.py` does many."""
    killing = Killing(0, tmp_path, 120)
    killing.go_on_until(2)
    assert killing.wrong == []
    assert killing.kills == 2


def test_torchrun_names_who_died_and_goes_on(tmp_path: Path) -> None:
    """With `--max-restarts` from the last checkpoint, by itself."""
    file = write(tmp_path, training={**TRAINING, "steps": 120, "validate_every": 120, "checkpoint_every": 10})
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    command += ["--master-port", str(free_port()), "-m", "sublayer", "train", str(file), "--out", str(tmp_path / "run")]
    with (tmp_path / "said").open("w") as said:
        running = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    try:
        until = time.monotonic() + 200
        while not listed(tmp_path / "run" / "checkpoints") and time.monotonic() < until and running.poll() is None:
            time.sleep(0.05)
        os.kill(member(running.pid, rank=1), signal.SIGKILL)
        code = running.wait(200)
    finally:
        running.kill()
    text = (tmp_path / "said").read_text()
    assert code == 0, text[-3000:]
    assert "exitcode: -9) local_rank: 1" in text
    assert "going on from step" in text
    assert sorted(losses(tmp_path / "run")) == list(range(1, 121))


def member(parent: int, rank: int) -> int:
    """The process of that rank that `torchrun` has started."""
    for each in Path("/proc").glob("[0-9]*"):
        try:
            own = (each / "stat").read_text().rpartition(")")[2].split()[1]
            known = (each / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if own == str(parent) and f"RANK={rank}".encode() in known:
            return int(each.name)
    raise AssertionError(f"no process of rank {rank}")

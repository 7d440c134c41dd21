"""Resumed = uninterrupted, to the bit: weights, averages, optimizers, random state, log, and the model that comes out.

The runs are killed with SIGKILL at random moments, and in the middle of writing each kind of file.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from machines import ONE_DNN_FASTER
from small_run import Outcome, processes, same, sublayer, write
from sublayer.config import Muon
from sublayer.config.load import load_recipe
from sublayer.fast.machine import machine_is
from sublayer.files import ASIDE
from sublayer.nn import product
from sublayer.training import run, runtime
from sublayer.training.checkpoint import PARTS, listed
from sublayer.training.metrics import read_metrics

KINDS: dict[str, dict[str, Any]] = {
    "adamw, moving average, accumulated": {
        "accumulate": 2,
        "optimizer": {"type": "adamw", "learning_rate": 5e-3, "weight_decay": 0.1},
        "averaging": {"type": "ema", "decay": 0.9},
    },
    "muon, last snapshots, early stopping": {
        "optimizer": {"type": "muon"},
        "averaging": {"type": "last", "count": 3, "every": 3},
        "early_stopping": {"metric": "loss", "patience": 50},
        "validate_every": 5,
    },
}


TIMES = ("seconds", "pace", "warm", "validating", "saving", "metrics_bytes")


def go(file: Path, out: Path, **how: Any) -> Outcome:
    """One attempt: from the start where there is no run yet."""
    there = (out / "recipe.toml").is_file()
    return processes().run("train", file, "--out", out, *(["--resume"] if there else []), **how)


def timeless(path: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in read_metrics(path)]


def differences(one: Path, other: Path) -> list[str]:
    """What two runs that have ended differ in, but for times."""
    found: list[str] = []
    left, right = listed(one / "checkpoints"), listed(other / "checkpoints")
    if [path.name for path in left] != [path.name for path in right]:
        return [f"checkpoints {left} {right}"]
    for a, b in zip(left, right, strict=True):
        for part in PARTS:
            name = f"{part}.safetensors"
            found += [f"{a.name}/{part}: {what}" for what in same(load_file(a / name), load_file(b / name))]
        before, after = (json.loads((path / "state.json").read_text())["progress"] for path in (a, b))
        found += [
            f"{a.name}: {key}"
            for key in before
            # The log's length counts the digits of its times.
            if key not in TIMES and before[key] != after[key]
        ]
    found += same(load_file(one / "model" / "model.safetensors"), load_file(other / "model" / "model.safetensors"))
    if timeless(one / "metrics.jsonl") != timeless(other / "metrics.jsonl"):
        found.append("metrics.jsonl")
    for name in ("tokenizer.json", "recipe.toml", "model/test.jsonl", "model/config.json"):
        if (one / name).read_bytes() != (other / name).read_bytes():
            found.append(name)
    leftovers = sorted(str(path) for path in other.rglob(f"{ASIDE}*"))
    return found + leftovers


def reached(out: Path) -> int:
    """The step of the last checkpoint."""
    return max((int(path.name.removeprefix("step-")) for path in listed(out / "checkpoints")), default=0)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, training={"steps": 30, "checkpoint_every": 2, **KINDS[kind]})
    whole = go(file, tmp_path / "whole")
    assert whole.code == 0, whole.err
    draw = random.Random(kind)
    out = tmp_path / "killed"
    # At some moment after the process was started …
    assert go(file, out, kill_after=draw.uniform(0.01, 0.1)).code == -9
    # … and soon after a step has begun: within it, within a validation, within the writing of a checkpoint.
    after_a_checkpoint = 0
    for _ in range(5):
        before = reached(out)
        fault = ["kill_after_step", before + draw.randint(3, 6), draw.uniform(0.0, 0.015)]
        outcome = go(file, out, fault=fault)
        assert outcome.code in (0, -9), outcome.err
        after_a_checkpoint += before > 0 and outcome.code == -9
    assert after_a_checkpoint >= 2
    last = go(file, out)
    assert last.code == 0, last.err
    assert differences(tmp_path / "whole", out) == []


def test_a_model_wide_enough_for_one_dnn(tmp_path: Path) -> None:
    """Where the products go through another library (`sublayer.nn.product`), which prepares itself for each size.

    The run goes on with it, though the process that goes on would choose by other facts.
    """
    stack = {"block": {"feed_forward": {"hidden": 256}}}
    model = {"dim": 64, "encoder": stack, "decoder": stack}
    file = write(tmp_path, model=model, training={"steps": 9, "batches": {"tokens": 400}, "checkpoint_every": 2})
    with machine_is(ONE_DNN_FASTER):
        by = product.products(torch.empty(150, 64), torch.empty(256, 64))
        assert product.ONE_DNN is None or by is product.ONE_DNN
    whole = go(file, tmp_path / "whole", fault=["one_dnn_is_faster"])
    assert whole.code == 0, whole.err
    out = tmp_path / "killed"
    assert go(file, out, fault=["one_dnn_is_faster", 5]).code == -9
    assert go(file, out).code == 0
    assert differences(tmp_path / "whole", out) == []


@pytest.mark.parametrize(
    "fault",
    [
        ["kill_before_recipe"],
        ["kill_before_tokenizer"],
        # Of the first checkpoint and of a later one: the weights, and the last file.
        ["kill_in_tensor_file", 1],
        ["kill_in_tensor_file", 4],
        ["kill_in_tensor_file", 7],
        ["kill_before_rename", 1],
        ["kill_before_rename", 3],
        ["kill_in_model"],
    ],
    ids=lambda fault: "-".join(map(str, fault)),
)
def test_killed_while_a_file_is_written(tmp_path: Path, whole: tuple[Path, Path], fault: list[Any]) -> None:
    file, expected = whole
    out = tmp_path / "killed"
    assert go(file, out, fault=fault).code == -9
    if fault[0] in ("kill_in_tensor_file", "kill_before_rename"):
        assert list((out / "checkpoints").glob(f"{ASIDE}*"))
    outcome = go(file, out)
    assert outcome.code == 0, outcome.err
    assert differences(expected, out) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe, and a run of it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    file = write(folder, training={"steps": 12})
    assert go(file, folder / "run").code == 0
    return file, folder / "run"


def test_differences_would_be_seen(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """The comparison itself: a run that differs in its seed alone differs in everything that is learnt."""
    file, expected = whole
    assert sublayer("train", file, "--out", tmp_path / "other", "--set", "seed=2").code == 0
    text = " ".join(differences(expected, tmp_path / "other"))
    for what in ("/model: ", "/optimizer: ", "/average: ", "/random: ", "metrics.jsonl", "recipe.toml"):
        assert what in text


def test_the_model_has_the_averaged_weights(whole: tuple[Path, Path]) -> None:
    _, run = whole
    last = listed(run / "checkpoints")[-1]
    model = load_file(run / "model" / "model.safetensors")
    assert same(model, load_file(last / "average.safetensors")) == []
    assert len(same(model, load_file(last / "model.safetensors"))) == len(model)


def test_resuming_what_has_ended_changes_nothing(whole: tuple[Path, Path], tmp_path: Path) -> None:
    file, _ = whole
    out = tmp_path / "run"
    assert sublayer("train", file, "--out", out).code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "curves.png"}
    outcome = sublayer("train", file, "--out", out, "--resume")
    assert (outcome.code, outcome.out) == (0, f"model: {out / 'model'}\ncurves: {out / 'curves.png'}\n")
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_goes_on_in_the_precision_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What "auto" finds depends on how busy the machine is at that moment."""
    used: list[torch.dtype] = []
    real = run.Trainer

    class Watched(real):
        def __init__(self, *arguments: Any, precision: torch.dtype, **named: Any) -> None:
            used.append(precision)
            super().__init__(*arguments, precision=precision, **named)

    monkeypatch.setattr(run, "Trainer", Watched)
    file = write(tmp_path, training={"steps": 3, "precision": "auto"})
    for gain, options in ((3.0, []), (1.0, ["--resume"]), (1.0, ["--overwrite"])):
        monkeypatch.setattr(runtime, "bfloat16_gain", lambda gain=gain: gain)
        assert sublayer("train", file, "--out", tmp_path / "run", *options).code == 0
    assert used == [torch.bfloat16, torch.bfloat16, torch.float32]
    refused = sublayer("train", file, "--out", tmp_path / "run", "--resume", "--set", "training.precision=bfloat16")
    assert refused.code == 2
    assert "training.precision was float32, is bfloat16" in refused.err


def test_muon_goes_on_in_the_precision_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever type the model's own products have: what "auto" found is in the run's recipe."""
    file = write(tmp_path, training={"steps": 3, "precision": "float32", "optimizer": {"type": "muon"}})
    for gain, options in ((3.0, []), (1.0, ["--resume"])):
        monkeypatch.setattr(runtime, "bfloat16_gain", lambda gain=gain: gain)
        assert sublayer("train", file, "--out", tmp_path / "run", *options).code == 0
        found = load_recipe(str(tmp_path / "run" / "recipe.toml")).recipe.training
        assert isinstance(found.optimizer, Muon)
        assert (found.precision, found.optimizer.precision) == ("float32", "bfloat16")


def test_the_recipe_in_the_run_can_be_trained_from_there(whole: tuple[Path, Path], tmp_path: Path) -> None:
    _, expected = whole
    assert sublayer("train", expected / "recipe.toml", "--out", tmp_path / "again").code == 0
    assert differences(expected, tmp_path / "again") == []

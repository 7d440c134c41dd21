"""Resumed = uninterrupted, to the bit: weights, averages, optimizers, random state, log, and the model that comes out.

The runs are killed with SIGKILL at random moments, and in the middle of writing each kind of file.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from machines import ONE_DNN_FASTER
from small_run import Outcome, processes, same, sublayer, write
from sublayer.fast import onednn_linear
from sublayer.fast.machine import machine_is
from sublayer.files import ASIDE
from sublayer.generation.translator import Translator
from sublayer.hub.folder import load
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
    """Where the products go through another library (`fast/onednn_linear.py`), which prepares itself for each size.

    The run goes on with it, though the process that goes on would choose by other facts.
    """
    stack = {"block": {"feed_forward": {"hidden": 256}}}
    model = {"dim": 64, "encoder": stack, "decoder": stack}
    file = write(tmp_path, model=model, training={"steps": 9, "batches": {"tokens": 400}, "checkpoint_every": 2})
    with machine_is(ONE_DNN_FASTER):
        by = onednn_linear.fastest_products(torch.empty(150, 64), torch.empty(256, 64))
        assert onednn_linear.ONE_DNN is None or by is onednn_linear.ONE_DNN
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
    # The engine's file notes when the weights that it belongs to were written.
    left = ("curves.png", "engine.bin")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name not in left}
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


def test_the_recipe_in_the_run_can_be_trained_from_there(whole: tuple[Path, Path], tmp_path: Path) -> None:
    _, expected = whole
    assert sublayer("train", expected / "recipe.toml", "--out", tmp_path / "again").code == 0
    assert differences(expected, tmp_path / "again") == []


# --- a run that is made longer, and one that is used before its end ----------------------------------------------


def test_a_run_made_longer_is_the_long_run(tmp_path: Path) -> None:
    """To the bit, where the learning rate does not depend on the end; and what may not change is refused as ever."""
    settings = {"schedule": {"type": "inverse-sqrt", "warmup": 5}, "validate_every": 4}
    file = write(tmp_path, training={"steps": 24, **settings})
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    assert sublayer("train", file, "--out", whole).code == 0
    assert sublayer("train", file, "--out", longer, "--set", "training.steps=12").code == 0
    refused = sublayer("train", file, "--out", longer, "--resume", "--set", "training.clip_norm=0.3")
    assert refused.code == 2
    assert "training.clip_norm was 1.0, is 0.3" in refused.err
    again = sublayer("train", file, "--out", longer, "--resume")
    assert again.code == 0, again.err
    assert "changed: training.steps was 12, is 24" in again.err
    assert "going on from step 12 of 24; the learning rate is at " in again.err
    assert [each for each in differences(whole, longer) if each != "metrics.jsonl"] == []
    # The log differs in nothing but which part of its run a step was the end of.
    logs = [[{**line, "place": None} for line in timeless(out / "metrics.jsonl")] for out in (whole, longer)]
    assert logs[0] == logs[1]


def test_a_finished_run_in_minutes_goes_on_by_the_clock(tmp_path: Path) -> None:
    file = write(tmp_path, training={"steps": "none", "minutes": 0.02, "validate_every": 1000})
    out = tmp_path / "run"
    begun = sublayer("train", file, "--out", out)
    assert begun.code == 0, begun.err
    assert "0.02 minutes of training, 0.0 at most with validations" in begun.err
    first = [line for line in read_metrics(out / "metrics.jsonl") if "loss" in line]
    again = sublayer("train", file, "--out", out, "--resume", "--set", "training.minutes=0.04")
    assert again.code == 0, again.err
    assert f"going on from step {len(first)}, 0.0 of 0.04 minutes; the learning rate is at " in again.err
    lines = [line for line in read_metrics(out / "metrics.jsonl") if "loss" in line]
    assert lines[: len(first)] == first
    assert lines[len(first)]["learning_rate"] > first[-1]["learning_rate"]
    assert lines[-1]["learning_rate"] < lines[len(first)]["learning_rate"] / 3
    assert lines[-1]["seconds"] == pytest.approx(2.4, abs=0.3)
    nothing = sublayer("train", file, "--out", out, "--resume", "--set", "training.minutes=0.04")
    assert nothing.code == 0, nothing.err
    assert "that was all; give it more with --set training.minutes=…" in nothing.err


def test_an_interrupted_run_is_used_as_of_its_last_checkpoint(tmp_path: Path) -> None:
    file, out = write(tmp_path), tmp_path / "run"
    stopped = processes().run("train", file, "--out", out, signal_at_step={"step": 10, "signal": 2})
    assert stopped.code == 130
    found = load(out)
    assert isinstance(found, Translator)
    averages = load_file(listed(out / "checkpoints")[-1] / "average.safetensors")
    assert same(dict(found.model.named_parameters()), averages) == []
    used = processes().run("evaluate", out)
    assert used.code == 0, used.err
    assert f"{out}: from the checkpoint of step 10; the training has not finished" in used.err
    assert used.err.count("has not finished") == 1
    assert sublayer("describe", out, "--length", 16).code == 0
    assert sublayer("train", file, "--out", out, "--resume").code == 0
    assert not (out / "unfinished").exists()
    ended = processes().run("evaluate", out)
    assert "has not finished" not in ended.err


def test_a_checkpoint_from_before_the_clock_goes_on(tmp_path: Path) -> None:
    """Its progress had the number of the last step, and no clock."""
    file, out = write(tmp_path), tmp_path / "run"
    assert processes().run("train", file, "--out", out, signal_at_step={"step": 10, "signal": 2}).code == 130
    state = listed(out / "checkpoints")[-1] / "state.json"
    written = json.loads(state.read_text())
    for name in ("pace", "warm", "place", "validating", "saving"):
        del written["progress"][name]
    written["progress"]["last_step"] = 24
    written["sha256"]["progress"] = hashlib.sha256(json.dumps(written["progress"], sort_keys=True).encode()).hexdigest()
    state.write_text(json.dumps(written))
    again = sublayer("train", file, "--out", out, "--resume")
    assert again.code == 0, again.err
    assert reached(out) == 24


def test_a_run_that_ends_in_nonsense_says_so(tmp_path: Path) -> None:
    """Short texts have a BLEU of 0.0 even where they are right; what is said goes by the loss as well."""
    for steps, said in ((2, True), (400, False)):
        training = {"steps": steps, "validate_every": 1000, "checkpoint_every": 1000, "batches": {"tokens": 300}}
        outcome = sublayer(
            "train", write(tmp_path / str(steps), longest=2, training=training), "--out", tmp_path / f"run{steps}"
        )
        assert outcome.code == 0, outcome.err
        assert "BLEU 0.0" in outcome.err
        assert ("the model has not learned to translate yet: " in outcome.err) == said


def test_a_model_that_its_run_has_left_behind_says_so(tmp_path: Path) -> None:
    """A run that had ended goes on with more steps, and is interrupted: its model is still that of the first end."""
    file, out = write(tmp_path, training={"steps": 12}), tmp_path / "run"
    assert sublayer("train", file, "--out", out).code == 0
    before = (out / "model" / "model.safetensors").read_bytes()
    more = ("train", file, "--out", out, "--resume", "--set", "training.steps=24")
    for step in (16, 20):
        assert processes().run(*more, signal_at_step={"step": step, "signal": 2}).code == 130
    assert (out / "model" / "model.safetensors").read_bytes() == before
    said = f"{out / 'model'}: the model of step 12; its training has gone on since, and has not finished"
    for path in (out, out / "model"):
        assert said in processes().run("evaluate", path).err
    assert processes().run(*more).code == 0
    ended = processes().run("evaluate", out)
    assert ended.code == 0
    assert "has not finished" not in ended.err

"""Every task through the real command: it trains, learns, is evaluated, resumes to the bit, and can be begun from."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from small_run import processes, same, sublayer
from small_task import TASKS, write_task
from sublayer.hub.folder import read
from sublayer.training.checkpoint import listed
from sublayer.training.metrics import read_metrics


@pytest.mark.parametrize("name", TASKS)
def test_a_task_trains_to_a_model_folder(tmp_path: Path, name: str) -> None:
    metric = TASKS[name][3]
    file = write_task(
        tmp_path,
        name,
        training={"steps": 40, "early_stopping": {"metric": metric, "patience": 50}, "validate_every": 10},
    )
    outcome = sublayer("train", file, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    checks = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "valid/loss" in line]
    assert len(checks) == 4
    assert f"valid/{metric}" in checks[0]
    assert checks[-1]["valid/loss"] < checks[0]["valid/loss"]
    found = read(tmp_path / "run")
    assert found.model.config.plain()["kind"] == TASKS[name][1]["kind"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "model" / "test.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert f'for the task "{name}"' in card
    assert "6 held out" in card
    assert (tmp_path / "run" / "confusion.png").is_file() == (name == "classification")
    if name in ("classification", "tagging"):
        wanted = ["little", "much"] if name == "classification" else ["B-X", "O"]
        assert found.model.config.plain()["head"]["labels"] == wanted


@pytest.mark.parametrize("name", TASKS)
def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path, name: str) -> None:
    """Noise, cuts and rows too: the tensors and the log are the same to the bit."""
    file = write_task(tmp_path, name, training={"accumulate": 2, "steps": 10, "checkpoint_every": 50})
    stop = {"step": 4, "signal": int(signal.SIGTERM)}
    assert processes().run("train", file, "--out", tmp_path / "stopped", signal_at_step=stop).code == 130
    resumed = processes().run("train", file, "--out", tmp_path / "stopped", "--resume")
    assert resumed.code == 0, resumed.err
    assert processes().run("train", file, "--out", tmp_path / "whole").code == 0
    ends = [listed(tmp_path / run / "checkpoints")[-1] for run in ("whole", "stopped")]
    for part in ("model", "optimizer", "average"):
        one, other = (load_file(end / f"{part}.safetensors") for end in ends)
        assert same(one, other) == []
    logs = [
        [
            {key: value for key, value in line.items() if key != "seconds"}
            for line in read_metrics(end.parents[1] / "metrics.jsonl")
        ]
        for end in ends
    ]
    assert logs[0] == logs[1]
    again = sublayer("train", tmp_path / "whole" / "recipe.toml", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    weights = [load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "again")]
    assert same(*weights) == []


def test_fine_tuning_begins_with_the_weights_the_tree_and_the_tokenizer_of_another_model(tmp_path: Path) -> None:
    base = write_task(tmp_path, "masked")
    assert sublayer("train", base, "--out", tmp_path / "base").code == 0
    file = write_task(tmp_path, "classification", training={"steps": 1, "optimizer": {"learning_rate": 1e-9}})
    text = file.read_text()
    model = text.index("[model]"), text.index("[training]")
    head = '[model.head]\ntype = "classification"\npooling = "mean"\n\n'
    start = f'[start]\npath = "base"\n\n{head}'
    file.write_text(
        (text[: model[0]] + start + text[model[1] :]).replace('[tokenizer]\ntype = "bpe"\nvocab_size = 300\n', "")
    )
    outcome = sublayer("train", file, "--out", tmp_path / "run", "--set", "training.averaging={type='none'}")
    assert outcome.code == 0, outcome.err
    # Not the weights of the other head, though one has the same name and shape.
    assert (
        "; new: head.transform.map.weight, head.transform.map.bias, head.labels.weight, head.labels.bias\n"
        in outcome.err
    )
    one, other = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("base", "run"))
    body = [name for name in one if name.startswith("encoder.")]
    assert body
    assert all((one[name] - other[name]).abs().max() < 1e-6 for name in body)
    assert read(tmp_path / "run").tokenizer.fingerprint == read(tmp_path / "base").tokenizer.fingerprint
    # The recipe of the run stands by itself, and goes on.
    again = sublayer("train", file, "--out", tmp_path / "run", "--resume", "--set", "training.averaging={type='none'}")
    assert again.code == 0, again.err


def test_a_model_may_begin_with_parts_of_another_of_another_shape(tmp_path: Path) -> None:
    assert sublayer("train", write_task(tmp_path, "masked"), "--out", tmp_path / "base").code == 0
    wider = {"encoder": {"block": {"feed_forward": {"hidden": 48}}}}
    file = write_task(tmp_path, "masked", model=wider, training={"steps": 1, "optimizer": {"learning_rate": 1e-9}})
    start = '[start]\npath = "base"\nonly = ["*.tokens.weight", "*.self_attention.*"]\n'
    file.write_text(file.read_text().replace('[tokenizer]\ntype = "bpe"\nvocab_size = 300\n', start))
    outcome = sublayer("train", file, "--out", tmp_path / "run", "--set", "training.averaging={type='none'}")
    assert outcome.code == 0, outcome.err
    one, other = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("base", "run"))
    taken = [name for name in one if name.endswith(".tokens.weight") or ".self_attention." in name]
    assert len(taken) > 2
    assert all((one[name] - other[name]).abs().max() < 1e-6 for name in taken)
    # The rest was drawn anew, also where its shape is the same.
    matrices = [name for name in other if name not in taken and other[name].dim() == 2]
    assert matrices
    for name in matrices:
        assert one[name].shape != other[name].shape or (one[name] - other[name]).abs().max() > 1e-3, name


def test_a_start_that_cannot_be(tmp_path: Path) -> None:
    base = write_task(tmp_path, "masked")
    assert sublayer("train", base, "--out", tmp_path / "base", "--set", "training.steps=1").code == 0
    for settings, says in (
        (["start.path=nowhere"], "start.path = 'nowhere' holds no model"),
        (["start.path=base", "tokenizer.type=unigram"], "start.path brings a tokenizer of its own"),
        (["start.path=base"], "is not the one that the recipe describes: encoder.layers.0."),
        (["start.path=base", 'start.only=["*.nowhere"]'], "start.only: '*.nowhere' names no parameter"),
        (["start.path=base", 'start.only=["*.feed_forward.*"]'], "is not the one that the recipe describes: encoder."),
    ):
        over = [word for setting in settings for word in ("--set", setting)]
        file = write_task(tmp_path, "masked", model={"encoder": {"block": {"feed_forward": {"hidden": 48}}}})
        if "tokenizer" not in says:
            file.write_text(file.read_text().replace('[tokenizer]\ntype = "bpe"\nvocab_size = 300\n', ""))
        if "nowhere" in settings[0]:
            file.write_text(file.read_text().replace('kind = "encoder-only"\n', ""))
        outcome = sublayer("train", file, "--out", tmp_path / "run", *over)
        assert outcome.code == 2
        assert says in outcome.err, outcome.err
        assert not (tmp_path / "run").exists()


def test_only_what_learns_is_trained_averaged_and_kept(tmp_path: Path) -> None:
    """The seam for adapters: what wants no gradient stays as it is, and out of the checkpoints."""
    import torch
    from rich.console import Console

    from small_task import parsed, write_text
    from sublayer.data.loader import Loader
    from sublayer.models import build_model
    from sublayer.training import task_data
    from sublayer.training.metrics import MetricsLog
    from sublayer.training.progress import Lines
    from sublayer.training.trainer import Trainer, TrainerContext

    write_text(tmp_path)
    quiet = Lines(Console(quiet=True))
    made = task_data.prepare(parsed("causal"), tmp_path, None, quiet)
    model = build_model(made.recipe.model).requires_grad_(False)
    model.decoder.layers[0].feed_forward.requires_grad_(True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    training = made.recipe.training.model_copy(update={"steps": 3})
    context = TrainerContext(MetricsLog(tmp_path / "m.jsonl"), quiet, tmp_path / "checkpoints", lambda: None)
    loader = Loader(made.training, training.batches, 1)
    trainer = Trainer(model, loader, task_data.objective(made), training, precision=torch.float32, context=context)
    trainer.train()
    context.log.close()
    changed = same(before, dict(model.named_parameters()))
    assert changed
    assert all(name.startswith("decoder.layers.0.feed_forward.") for name in changed)
    last = listed(tmp_path / "checkpoints")[-1]
    assert (
        sorted(load_file(last / "model.safetensors"))
        == sorted(load_file(last / "average.safetensors"))
        == sorted(changed)
    )


@pytest.mark.parametrize("name", TASKS)
def test_what_was_held_out_is_scored_in_the_card_and_by_evaluate(tmp_path: Path, name: str) -> None:
    """Once at the end of the training, and the same by the command, which has nothing but the folder."""
    file = write_task(tmp_path, name, training={"steps": 3})
    outcome = sublayer("train", file, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "run" / "model" / "scores.json").read_text())
    assert set(found["held_out"]) >= {"loss"}
    [said] = [line for line in outcome.err.splitlines() if line.startswith("held out: ")]
    assert said.removeprefix("held out: ") in (tmp_path / "run" / "model" / "README.md").read_text()
    if name == "instructions":
        return  # asked by search: tests of adapters
    outcome = sublayer("evaluate", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert f"loss {found['held_out']['loss']:.3f}" in " ".join(outcome.out.split()), outcome.out


@pytest.mark.parametrize("name", ["classification", "tagging", "embedding"])
def test_held_out_rows_that_are_too_long_are_scored_and_counted(tmp_path: Path, name: str) -> None:
    """They are left out of the training alone; the run, its card and the command say how many were cut."""
    room = {"data": {"max_length": 16}, "model": {"max_length": 16}}
    file = write_task(tmp_path, name, training={"steps": 2}, **room)
    file.write_text(file.read_text().replace('type = "bpe"\nvocab_size = 300\n', 'type = "characters"\n'))
    outcome = sublayer("train", file, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    [said] = [line for line in outcome.err.splitlines() if line.startswith("held out: ")]
    assert re.search(r"\(6 (texts|sentences|pairs); [1-6] over 16 tokens( a side)?, cut there to be scored", said), said
    assert re.search(r"training: \d+ of \d+ .*over 16 tokens", outcome.err)
    assert re.search(r"validation: 8 (texts|sentences|pairs); among them \d over 16 tokens", outcome.err)
    assert said.removeprefix("held out: ") in (tmp_path / "run" / "model" / "README.md").read_text()
    scored = sublayer("evaluate", tmp_path / "run")
    assert scored.code == 0, scored.err
    assert re.match(r"(texts|sentences|pairs) +6 ", scored.out)
    assert re.match(r"[1-6] over 16 tokens( a side)?, cut there to be scored", scored.err)


def test_a_conversation_that_is_too_long_is_asked_without_its_beginning(tmp_path: Path) -> None:
    file = write_task(tmp_path, "instructions", training={"steps": 2})
    assert sublayer("train", file, "--out", tmp_path / "run").code == 0
    asked = [{"role": "user", "content": "ba " * 60}, {"role": "assistant", "content": "co"}]
    short = [{"role": "user", "content": "ba"}, {"role": "assistant", "content": "co"}]
    rows = "".join(json.dumps({"messages": messages}) + "\n" for messages in (asked, short))
    (tmp_path / "talk.jsonl").write_text(rows)
    scored = sublayer("evaluate", tmp_path / "run", "--data", tmp_path / "talk.jsonl")
    assert scored.code == 0, scored.err
    assert scored.out.startswith("conversations  2 ")
    assert "1 conversations are longer than the model's context: they lost their beginnings" in scored.err


def test_evaluate_refuses_what_says_nothing(tmp_path: Path) -> None:
    assert (
        sublayer("train", write_task(tmp_path, "tagging", training={"steps": 1}), "--out", tmp_path / "run").code == 0
    )
    for options, says in (
        (("--beam", 2), "--beam says nothing about what this model does"),
        (("--out", tmp_path / "x.jsonl"), "--out says nothing about what this model does"),
        (("--task", "causal"), "was trained for 'tagging'"),
        (("--data", tmp_path / "text.txt"), "is not what a model for the task 'tagging' is evaluated on"),
    ):
        outcome = sublayer("evaluate", tmp_path / "run", *options)
        assert outcome.code == 2
        assert says in outcome.err
    (tmp_path / "run" / "model" / "recipe.toml").write_text("# from elsewhere\n")
    outcome = sublayer("evaluate", tmp_path / "run", "--task", "taging")
    assert (outcome.code, "there is no task 'taging'. Did you mean 'tagging'?" in outcome.err) == (2, True)
    scored = sublayer("evaluate", tmp_path / "run")
    assert "F1 of spans" in scored.out, "its head says what it is for"

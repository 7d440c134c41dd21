"""Adapters through the real command: what learns, what stays, resumed = uninterrupted, and what cannot be."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from safetensors.torch import load_file, save_file

import small_run
from small_run import processes, same, sublayer, trained
from small_task import plain, write_task, write_text
from sublayer.config.presets import merge
from sublayer.hub.folder import read
from sublayer.nn.adapter import adapters
from sublayer.training.checkpoint import listed
from sublayer.training.metrics import read_metrics

ADAPTER = {"rank": 2, "alpha": 4.0}
# By name: the task that made the base, and the head that is new.
BASES = {
    "instructions": ("causal", None),
    "classification": ("masked", {"type": "classification", "pooling": "mean"}),
    "embedding": ("masked", {"type": "sentence-embedding"}),
}
KEPT = ("adapter.safetensors", "config.json", "tokenizer.json", "test.jsonl", "README.md", "recipe.toml")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of models to begin with: "causal", "masked", "translation"."""
    folder = tmp_path_factory.mktemp("bases")
    for name in ("causal", "masked"):
        file = write_task(folder, name, training={"steps": 4, "validate_every": 4})
        assert sublayer("train", file, "--out", folder / name).code == 0
    return folder


def recipe(folder: Path, bases: Path, name: str, **over: Any) -> Path:
    """A recipe with adapters in `folder`, beside its text; "translation" begins with the run that others share."""
    if name == "translation":
        small_run.write(folder)
        data, base, head = small_run.recipe(), trained(), None
    else:
        write_text(folder)
        (base_name, head), data = BASES[name], plain(name)
        base = bases / base_name
    data["training"] |= {"steps": 12, "validate_every": 4, "checkpoint_every": 4}
    data |= {"start": {"path": str(base)}, "adapter": ADAPTER}
    del data["tokenizer"], data["model"]
    if head is not None:
        data["model"] = {"head": head}
    path = folder / "adapter.toml"
    path.write_text(tomli_w.dumps(merge(data, over)))
    return path


@pytest.mark.parametrize("name", [*BASES, "translation"])
def test_only_adapters_and_what_is_new_learn(tmp_path: Path, bases: Path, name: str) -> None:
    file = recipe(tmp_path, bases, name)
    base = (trained() if name == "translation" else bases / BASES[name][0]) / "model"
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    outcome = sublayer("train", file, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    model = tmp_path / "run" / "model"
    assert all((model / each).is_file() for each in KEPT)
    assert not (model / "model.safetensors").exists()
    found = read(model, merged=False)
    fresh = {each for each in dict(found.model.named_parameters()) if each.startswith("head.")}
    assert bool(fresh) == (name == "classification")
    learned = {*adapters(found.model), *fresh}
    held = load_file(model / "adapter.safetensors")
    assert held.keys() == learned
    # The memory is that of the adapters: nothing is remembered of what does not learn.
    last = listed(tmp_path / "run" / "checkpoints")[-1]
    parts = {part: load_file(last / f"{part}.safetensors") for part in ("model", "average", "optimizer")}
    assert parts["model"].keys() == parts["average"].keys() == learned
    assert {key.rpartition("/")[0] for key in parts["optimizer"]} == learned
    # Averaged, as the recipe asks; and every one of them has moved.
    assert same(held, parts["average"]) == []
    assert all(parts["model"][each].abs().sum() > 0 for each in learned)
    # What does not learn is the base's, to the bit.
    own, theirs = dict(found.model.named_parameters()), load_file(base / "model.safetensors")
    rest = own.keys() - learned
    assert rest
    assert same({each: own[each] for each in rest}, {each: theirs[each] for each in rest}) == []
    count, every = sum(t.numel() for t in held.values()), sum(p.numel() for p in own.values())
    assert f"\n{count:,} of {every:,} parameters learn, on cpu" in outcome.err
    checks = [line["valid/loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "valid/loss" in line]
    assert checks[-1] < checks[0]
    said = json.loads((model / "config.json").read_text())
    assert said["base"] == {
        "path": str(base.resolve()),
        "sha256": hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest(),
    }
    assert "Low-rank adapters" in (model / "README.md").read_text()


@pytest.mark.parametrize("name", ["instructions", "classification", "translation"])
def test_resumed_is_uninterrupted(tmp_path: Path, bases: Path, name: str) -> None:
    over = {"adapter": {"dropout": 0.2}, "training": {"steps": 9, "accumulate": 2, "checkpoint_every": 50}}
    file = recipe(tmp_path, bases, name, **over)
    stop = {"step": 4, "signal": int(signal.SIGTERM)}
    assert processes().run("train", file, "--out", tmp_path / "stopped", signal_at_step=stop).code == 130
    resumed = processes().run("train", file, "--out", tmp_path / "stopped", "--resume")
    assert resumed.code == 0, resumed.err
    assert processes().run("train", file, "--out", tmp_path / "whole").code == 0
    ends = [listed(tmp_path / run / "checkpoints")[-1] for run in ("whole", "stopped")]
    for part in ("model", "optimizer", "average", "random"):
        assert same(*(load_file(end / f"{part}.safetensors") for end in ends)) == []
    models = [tmp_path / run / "model" for run in ("whole", "stopped")]
    assert same(*(load_file(model / "adapter.safetensors") for model in models)) == []
    assert models[0].joinpath("config.json").read_bytes() == models[1].joinpath("config.json").read_bytes()
    logs = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(model.parent / "metrics.jsonl")]
        for model in models
    ]
    assert logs[0] == logs[1]
    # The recipe that the run wrote down stands by itself.
    again = sublayer("train", tmp_path / "whole" / "recipe.toml", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    assert same(*(load_file(m / "adapter.safetensors") for m in (models[0], tmp_path / "again" / "model"))) == []


def test_adapted_as_trained_is_what_is_loaded(tmp_path: Path, bases: Path) -> None:
    """The number that the last validation logged is that of the folder, merged or not."""
    from sublayer.config.load import load_recipe
    from sublayer.training import work
    from sublayer.training.progress import reporter

    file = recipe(tmp_path, bases, "classification", training={"optimizer": {"learning_rate": 5e-2}})
    assert sublayer("train", file, "--out", tmp_path / "run").code == 0
    logged = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "valid/loss" in line][-1]
    loaded = load_recipe(str(tmp_path / "run" / "recipe.toml"))
    objective = work.objective(work.prepare(loaded.recipe, loaded.folder, None, reporter()))
    for merged in (True, False):
        found = objective.evaluate(read(tmp_path / "run", merged=merged).model)
        assert found["loss"] == pytest.approx(logged["valid/loss"], rel=1e-5)
        assert found["accuracy"] == logged["valid/accuracy"]


@pytest.mark.parametrize("optimizer", [{"type": "muon"}, {"type": "adam", "learning_rate": 1e-3}])
def test_every_optimizer_takes_adapters(tmp_path: Path, bases: Path, optimizer: dict[str, Any]) -> None:
    file = recipe(tmp_path, bases, "instructions")
    over = ["--set", "training.steps=2", "--set", f"training.optimizer={{{', '.join(_toml(optimizer))}}}"]
    outcome = sublayer("train", file, "--out", tmp_path / "run", *over)
    assert outcome.code == 0, outcome.err
    last = listed(tmp_path / "run" / "checkpoints")[-1]
    remembered = {key.rpartition("/")[2] for key in load_file(last / "optimizer.safetensors")}
    assert remembered == ({"momentum_buffer"} if optimizer["type"] == "muon" else {"step", "exp_avg", "exp_avg_sq"})


def _toml(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {value!r}" for key, value in table.items()]


def test_what_is_new_is_never_adapted(tmp_path: Path, bases: Path) -> None:
    """A map that was just drawn has nothing worth keeping beside which something could be learned."""
    file = recipe(tmp_path, bases, "classification", adapter={"targets": ["*"]})
    outcome = sublayer("train", file, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    names = load_file(tmp_path / "run" / "model" / "adapter.safetensors")
    assert {name for name in names if name.startswith("head.")} == {
        name for name in dict(read(tmp_path / "run").model.named_parameters()) if name.startswith("head.")
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"start": None}, "adapter is set, but start is not: name the model to adapt, start.path = '...'"),
        ({"start": {"path": "nowhere"}}, "start.path = 'nowhere' holds no model"),
        ({"start": {"sha256": "0" * 64}}, "and start.sha256 is 000000000000…. Put back the model that was there"),
        ({"start": {"sha256": "0"}}, "start.sha256"),
        (
            {"adapter": {"targets": ["*.nothing"]}},
            "adapter.targets: '*.nothing' names no linear map. There are decoder.",
        ),
        ({"adapter": {"targets": []}}, "adapter.targets: the patterns name no linear map"),
        ({"adapter": {"targets": ["output"]}}, "adapter.targets: 'output' is tied to an embedding"),
        ({"adapter": {"rank": 0}}, "adapter.rank"),
        ({"adapter": {"rnk": 4}}, "adapter.rnk: unknown key; did you mean 'rank'?"),
    ],
)
def test_recipes_that_cannot_be(tmp_path: Path, bases: Path, change: dict[str, Any], says: str) -> None:
    file = recipe(tmp_path, bases, "instructions")
    data = merge(tomllib.loads(file.read_text()), {k: v for k, v in change.items() if v is not None})
    for key in [key for key, value in change.items() if value is None]:
        del data[key]
        data |= {"model": plain("instructions")["model"]}
    file.write_text(tomli_w.dumps(data))
    outcome = sublayer("train", file, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert says in outcome.err, outcome.err
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_the_base_that_it_began_with(tmp_path: Path, bases: Path) -> None:
    shutil.copytree(bases / "causal" / "model", tmp_path / "base")
    file = recipe(tmp_path, bases, "instructions", start={"path": "base"})
    stop = {"step": 4, "signal": int(signal.SIGTERM)}
    assert processes().run("train", file, "--out", tmp_path / "run", signal_at_step=stop).code == 130
    weights = load_file(tmp_path / "base" / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, tmp_path / "base" / "model.safetensors")
    refused = sublayer("train", file, "--out", tmp_path / "run", "--resume")
    assert refused.code == 2
    assert "start.sha256 was " in refused.err
    refused = sublayer("train", tmp_path / "run" / "recipe.toml", "--out", tmp_path / "run", "--resume")
    assert refused.code == 2
    assert f"the weights in {tmp_path / 'base'} have the SHA-256 " in refused.err


def test_a_run_does_not_replace_what_it_begins_with(tmp_path: Path, bases: Path) -> None:
    shutil.copytree(bases / "causal", tmp_path / "run")
    file = recipe(tmp_path, bases, "instructions", start={"path": "run"})
    outcome = sublayer("train", file, "--out", tmp_path / "run", "--overwrite")
    assert outcome.code == 2
    assert f"start.path = '{tmp_path / 'run'}' stands in {tmp_path / 'run'} itself" in outcome.err
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()

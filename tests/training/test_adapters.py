"""Adapters through the real command: what learns, what stays, resumed = uninterrupted, and what cannot be."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from safetensors.torch import load_file, save_file

import small_run
import twins
from adapted import write_base
from readers import encoder, word_tokenizer
from small_run import WORDS, processes, same, sublayer, trained
from small_task import plain, write_task, write_text
from sublayer import config
from sublayer.config.load import load_recipe
from sublayer.config.presets import merge
from sublayer.generation.generator import Generator
from sublayer.hub import folder as model_folder
from sublayer.hub.exporting import export
from sublayer.hub.folder import ModelBundle, read
from sublayer.models import build_model
from sublayer.nn.adapter import adapters
from sublayer.reading import Classifier
from sublayer.tasks.answers import answers, score_answers
from sublayer.tasks.classification import scores
from sublayer.text import Tokenizer
from sublayer.training import task_data
from sublayer.training.checkpoint import listed
from sublayer.training.metrics import read_metrics
from sublayer.training.progress import reporter

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
    if name != "instructions":
        return
    # The recipe that the run wrote down stands by itself.
    again = sublayer("train", tmp_path / "whole" / "recipe.toml", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    assert same(*(load_file(m / "adapter.safetensors") for m in (models[0], tmp_path / "again" / "model"))) == []


def test_adapted_as_trained_is_what_is_loaded(tmp_path: Path, bases: Path) -> None:
    """The number that the last validation logged is that of the folder, merged or not."""
    file = recipe(tmp_path, bases, "classification", training={"optimizer": {"learning_rate": 5e-2}})
    assert sublayer("train", file, "--out", tmp_path / "run").code == 0
    logged = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "valid/loss" in line][-1]
    loaded = load_recipe(str(tmp_path / "run" / "recipe.toml"))
    objective = task_data.objective(task_data.prepare(loaded.recipe, loaded.folder, None, reporter()))
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
        ({"start": None}, "adapter is set, but start names no model: name the one to adapt, start.path = '...'"),
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


def test_a_tree_that_is_not_the_bases_is_said(tmp_path: Path, bases: Path) -> None:
    """Weights of one number of heads fit a model of another, and mean something else."""
    file = recipe(tmp_path, bases, "instructions", training={"steps": 1})
    assert "is not quite that one" not in sublayer("train", file, "--out", tmp_path / "run").err
    change = "model.decoder.block.attention.heads=4"
    outcome = sublayer("train", file, "--out", tmp_path / "other", "--set", change)
    assert outcome.code == 0, outcome.err
    assert "is not quite that one: decoder.blocks.attention.heads = 2 would become 4" in outcome.err


def test_a_run_does_not_replace_what_it_begins_with(tmp_path: Path, bases: Path) -> None:
    shutil.copytree(bases / "causal", tmp_path / "run")
    file = recipe(tmp_path, bases, "instructions", start={"path": "run"})
    outcome = sublayer("train", file, "--out", tmp_path / "run", "--overwrite")
    assert outcome.code == 2
    assert f"start.path = '{tmp_path / 'run'}' stands in {tmp_path / 'run'} itself" in outcome.err
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


# --- from elsewhere ----------------------------------------------------------------------------------------------


def labelled(folder: Path) -> None:
    """Texts of the words that `readers.word_tokenizer` knows."""
    words = ("the", "cat", "sat", "on", "a", "mat", "dog")
    draw = random.Random(2)
    texts = {" ".join(draw.choices(words, k=draw.randint(2, 6))): None for _ in range(120)}
    (folder / "labelled.tsv").write_text("".join(f"{t}\t{'cat' if 'cat' in t.split() else 'none'}\n" for t in texts))


@pytest.mark.parametrize("start", [True, False])
def test_a_classifier_reads_a_text_as_it_was_trained_to(tmp_path: Path, start: bool) -> None:
    """[CLS] and [SEP] of a tokenizer from elsewhere, the markers of one that was trained here: what the model was shown
    in training is what it is asked about."""
    labelled(tmp_path)
    data = plain("classification", task={"weights": {"type": "equal"}}, model={"head": {"pooling": "class"}})
    if start:
        bert = ModelBundle(encoder(config.MaskedLanguage()).float(), word_tokenizer())
        model_folder.write(tmp_path / "bert", bert, model_folder.ModelCard("", ""))
        del data["tokenizer"]
        data["model"] = {"head": {"type": "classification"}}
        data |= {"start": {"path": "bert"}, "adapter": ADAPTER}
        data["data"]["max_length"] = 12
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(data))
    outcome = sublayer("train", tmp_path / "recipe.toml", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    loaded = load_recipe(str(tmp_path / "run" / "recipe.toml"))
    made = task_data.prepare(loaded.recipe, loaded.folder, None, reporter())
    evaluated = sublayer("evaluate", tmp_path / "run", "--out", tmp_path / "found.jsonl")
    assert evaluated.code == 0, evaluated.err
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    right = sum(line["found"] == line["label"] for line in lines)
    assert f"\naccuracy  {right / len(lines):.4f}\n" in evaluated.out
    classifier = model_folder.load(tmp_path / "run")
    assert isinstance(classifier, Classifier)
    texts = [row.text for row in made.splits.validation]
    found = [one.probabilities for one in classifier.classify(texts)]
    whole = made.validation.fixed().collate(np.arange(len(texts)))
    with torch.no_grad():
        expected = scores(classifier.model, whole).softmax(dim=-1)
    assert classifier.model.config.head.labels == ("cat", "none")
    for one, other in zip(found, expected, strict=True):
        assert [one["cat"], one["none"]] == pytest.approx(other.tolist(), rel=1e-5)


def test_a_translator_from_elsewhere_learns_to_translate(tmp_path: Path) -> None:
    """Marian and T5 have no token that begins a text: their padding is what a decoder is fed first."""
    own = read(trained())
    specials = replace(own.tokenizer.specials, start=None)
    export(
        tmp_path / "marian",
        build_model(twins.tree(vocab_size=own.model.config.vocab_size, layers=1)),
        tokenizer=Tokenizer(own.tokenizer.backend, specials),
        tokens={"decoder_start_token_id": 0, "eos_token_id": 2, "pad_token_id": 0},
    )
    outcome = sublayer("pull", tmp_path / "marian", tmp_path / "base")
    assert outcome.code == 0, outcome.err
    assert read(tmp_path / "base").decoding["start"] == 0
    small_run.write(tmp_path)
    data = small_run.recipe()
    del data["tokenizer"], data["model"]
    data |= {"start": {"path": "base"}, "adapter": ADAPTER}
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(data))
    outcome = sublayer("train", tmp_path / "recipe.toml", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    checks = [line["valid/loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "valid/loss" in line]
    assert checks[-1] < checks[0]
    for command in (("evaluate", tmp_path / "run"), ("translate", tmp_path / "run", "ba co")):
        outcome = sublayer(*command)
        assert outcome.code == 0, outcome.err


# --- conversations -----------------------------------------------------------------------------------------------


def test_exact_match_is_what_greedy_search_answers(tmp_path: Path) -> None:
    """Found without a search, by the law that a token which is preferred after each of those before it is said."""
    base = write_base(tmp_path / "base", fresh=True)
    model = read(base)
    asked = [f"{one} {other}" for one in WORDS[:6] for other in WORDS[6:10]]
    (tmp_path / "labelled.tsv").write_text("".join(f"{t}\t{'yes' if 'ba' in t else 'no'}\n" for t in asked))
    data = plain("instructions", task={"messages": {"user": "{text}?", "assistant": "{label}"}})
    data["data"]["source"] = {"type": "labelled-tsv", "path": "labelled.tsv"}
    del data["tokenizer"], data["model"]
    data["data"]["max_length"] = 48
    data["data"]["split"] = {"type": "random", "validation": 12, "test": 6}
    data |= {"start": {"path": str(base)}, "adapter": {"rank": 8}}
    data["training"] |= {"steps": 60, "validate_every": 60, "optimizer": {"type": "adamw", "learning_rate": 1e-2}}
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(data))
    outcome = sublayer("train", tmp_path / "recipe.toml", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    loaded = load_recipe(str(tmp_path / "run" / "recipe.toml"))
    made = task_data.prepare(loaded.recipe, loaded.folder, None, reporter())
    # Several models, so that there are answers of both kinds.
    seen: set[float] = set()
    for bundle in (model, read(tmp_path / "run")):
        generator = Generator(bundle.model, bundle.tokenizer, config.Generation())
        found = task_data.objective(made).evaluate(bundle.model)["exact_match"]
        answered = answers(generator, made.splits.validation.rows)
        scores = score_answers([one.answer for one in answered], [one.expected for one in answered])
        assert scores.count == 12
        assert found == scores.exact
        seen.add(found)
    assert len(seen) == 2
    assert max(seen) > 0.3
    held = json.loads((tmp_path / "run" / "model" / "test.jsonl").read_text().splitlines()[0])
    assert [message["role"] for message in held["messages"]] == ["user", "assistant"]
    # Through the commands, on the adapters and on the base alike.
    for folder in (tmp_path / "run", base):
        options = ("--task", "instructions", "--data", tmp_path / "run" / "model" / "test.jsonl")
        outcome = sublayer("evaluate", folder, *options, "--out", tmp_path / "answers.jsonl")
        assert outcome.code == 0, outcome.err
        lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
        exact = sum(line["expected"] == line["answer"] for line in lines) / len(lines)
        assert f"\nexact          {exact:.4f} " in outcome.out
    spoken = sublayer("chat", tmp_path / "run", stdin=b"ba ba?\n")
    assert spoken.code == 0, spoken.err
    asked = [{"role": "user", "content": "ba ba?"}]
    assert spoken.out.rstrip("\n") == generator.generate([generator.encode_chat(asked)], max_tokens=7)[0].text


def test_judging() -> None:
    scores = score_answers(["yes", "Yes.", "yes and no", ""], ["yes", "yes", "yes", "no"])
    assert (scores.exact, scores.folded, scores.count) == (0.25, 0.5, 4)

"""A run: from a recipe to a trained model, in one folder.

    recipe.toml       the recipe as resolved, paths made absolute
    tokenizer.json    metrics.jsonl    curves.png
    checkpoints/      to go on from (`training/checkpoint.py`)
    model/            the result (`hub/folder.py`), with the held-out sentences beside it in test.jsonl
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from sublayer import config
from sublayer.config.load import LoadedRecipe, dump_toml, load_recipe
from sublayer.data.encoding import EncodedPairs, encode
from sublayer.data.loader import Loader
from sublayer.data.sources import Pairs, read
from sublayer.data.split import Splits, grouped, split
from sublayer.errors import CheckpointError, ConfigError
from sublayer.files import write_text
from sublayer.generation.translator import Translator
from sublayer.hub import folder as model_folder
from sublayer.models import EncoderDecoder
from sublayer.text import Tokenizer
from sublayer.training import checkpoint
from sublayer.training.card import model_card
from sublayer.training.curves import draw_curves
from sublayer.training.evaluation import score, validation_loss
from sublayer.training.metrics import MetricsLog
from sublayer.training.progress import Reporter
from sublayer.training.runtime import keep_freed_memory, resolve_precision
from sublayer.training.trainer import Surroundings, Trainer, Validation


@dataclass(frozen=True)
class Text:
    """The text of a run, read, split and encoded."""

    splits: Splits
    tokenizer: Tokenizer
    training: EncodedPairs
    validation: EncodedPairs


def train(
    loaded: LoadedRecipe, out: Path, *, resume: bool, overwrite: bool, device: torch.device, reporter: Reporter
) -> bool:
    """Train what the recipe says into the folder `out`; False where the user interrupted.

    Raises:
        SublayerError: anything that the user can mend, before or during the training.
    """
    keep_freed_memory()
    recipe = loaded.recipe
    begin(out, resume=resume, overwrite=overwrite)
    text = prepare(recipe, loaded.folder, out, reporter)
    recipe = _with_vocabulary(recipe, text.tokenizer)
    precision = resolve_precision(recipe.training.precision, device)
    recipe = _with_precision(recipe, precision)
    recipe = _settle(recipe, out, resume=resume)
    torch.manual_seed(recipe.seed)
    model = EncoderDecoder(recipe.model).to(device)
    reporter.say(
        f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}, "
        f"products in {str(precision).removeprefix('torch.')}, {len(text.training):,} pairs"
    )
    last = checkpoint.listed(out / "checkpoints")
    saved = checkpoint.read(last[-1]) if resume and last else None
    log = MetricsLog(
        out / "metrics.jsonl",
        kept_bytes=saved.progress.metrics_bytes if saved else 0,
        tensorboard=recipe.training.tensorboard,
    )
    translator = Translator(model, text.tokenizer, recipe.decoding)

    def write_model() -> None:
        papers = model_folder.Papers(dump_toml(recipe), model_card(recipe, text.splits, model, out))
        model_folder.save(out / "model", translator, papers)
        _write_held_out(out / "model" / "test.jsonl", text.splits.test)
        model.train()

    around = Surroundings(
        log=log,
        reporter=reporter,
        checkpoints=out / "checkpoints",
        validate=lambda: _validate(translator, text, recipe),
        improved=write_model,
    )
    loader = Loader(text.training, recipe.training.batches, recipe.seed)
    trainer = Trainer(
        model, loader, recipe.training, pad_id=text.tokenizer.pad_id, precision=precision, around=around
    )
    if saved is not None:
        trainer.restore(saved)
        reporter.say(f"going on from step {saved.progress.step}")
    try:
        with reporter:
            finished = trainer.train()
    finally:
        log.close()
        draw_curves(out / "metrics.jsonl", out / "curves.png", recipe.name)
    if finished and (recipe.training.early_stopping is None or not (out / "model").is_dir()):
        with trainer.average.applied():
            write_model()
    return finished


def begin(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Check that `out` is what the caller thinks it is.

    Raises:
        ConfigError, CheckpointError: a run stands there and neither `resume` nor `overwrite` says what to do with it,
            or there is nothing to resume.
    """
    there = (out / "recipe.toml").is_file()
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite contradict each other", "Give one of them.")
    if resume and not there:
        raise CheckpointError(f"there is no run in {out} to resume", "Leave --resume out to start one.")
    if there and not resume:
        if not overwrite:
            raise ConfigError(
                f"{out} already holds a run", "Go on with --resume, start anew with --overwrite, or choose another --out."
            )
        for part in ("checkpoints", "model"):
            shutil.rmtree(out / part, ignore_errors=True)
        for part in ("recipe.toml", "tokenizer.json", "metrics.jsonl", "curves.png"):
            (out / part).unlink(missing_ok=True)
    elif out.is_dir() and any(out.iterdir()) and not there:
        raise ConfigError(f"{out} is not empty and not a run", "Choose another --out.")


def prepare(recipe: config.Recipe, folder: Path, out: Path, reporter: Reporter) -> Text:
    """Read, split and encode the text; train the tokenizer, or take the one that the run already has."""
    pairs = read(recipe.data.source, folder)
    splits = split(pairs, recipe.data.split, folder)
    for name, part in (("text", pairs), ("training", splits.train)):
        if part.report.dropped:
            reporter.say(f"{name}: {part.report}")
    reporter.say(
        f"{len(splits.train):,} training pairs, {len(splits.validation):,} for validation, {len(splits.test):,} held out"
    )
    path = out / "tokenizer.json"
    if path.is_file():
        tokenizer = Tokenizer.load(path)
    else:
        tokenizer = Tokenizer.train(_lines(splits.train), recipe.tokenizer)
        tokenizer.save(path)
    training = encode(splits.train, tokenizer, recipe.data.max_length)
    checked = encode(splits.validation, tokenizer, recipe.data.max_length)
    for name, encoded in (("training", training), ("validation", checked)):
        if len(encoded.rows) < len(splits.train if name == "training" else splits.validation):
            reporter.say(f"{name}: {encoded.report}")
    return Text(splits, tokenizer, training, checked)


def _lines(pairs: Pairs):  # noqa: ANN202
    yield from pairs.sources
    yield from pairs.targets


def _with_vocabulary(recipe: config.Recipe, tokenizer: Tokenizer) -> config.Recipe:
    """The vocabulary's size is the tokenizer's: text may be too small to fill the size that was asked for."""
    model = recipe.model.model_copy(update={"vocab_size": tokenizer.vocab_size})
    return recipe.model_copy(update={"model": model})


def _with_precision(recipe: config.Recipe, precision: torch.dtype) -> config.Recipe:
    """What "auto" found is written down: a run that goes on elsewhere goes on the same way."""
    training = recipe.training.model_copy(update={"precision": str(precision).removeprefix("torch.")})
    return recipe.model_copy(update={"training": training})


def _settle(recipe: config.Recipe, out: Path, *, resume: bool) -> config.Recipe:
    """Write the resolved recipe, or when resuming compare with the one that the run began with.

    Raises:
        ConfigError: they differ; the settings are named.
    """
    path = out / "recipe.toml"
    if not resume:
        write_text(path, dump_toml(recipe))
        return recipe
    before = load_recipe(str(path)).recipe
    wanted = recipe.model_copy(
        update={"training": recipe.training.model_copy(update={"precision": before.training.precision})}
    )
    different = [key for key, old, new in _differences(before.plain(), wanted.plain(), "")]
    if different:
        raise ConfigError(
            f"the recipe is not the one that {out} began with: {', '.join(different)}",
            "Resume with the same recipe and overrides, or start another run.",
        )
    return before


def _differences(old: object, new: object, where: str) -> list[tuple[str, object, object]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[tuple[str, object, object]] = []
        for key in sorted({*old, *new}):  # pyright: ignore
            found += _differences(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))  # pyright: ignore
        return found
    return [] if old == new else [(f"{where} was {old}, is {new}", old, new)]


def _validate(translator: Translator, text: Text, recipe: config.Recipe) -> Validation:
    """Loss on all validation pairs, BLEU of greedy translations of the validation sentences."""
    model = translator.model
    model.eval()
    loss = validation_loss(model, text.validation, recipe.training.batches)
    sources, references = grouped(text.splits.validation)
    fitting = [i for i, ids in enumerate(text.tokenizer.encode(sources)) if len(ids) < model.config.max_length]
    translations = translator.translate([sources[i] for i in fitting], beam=1)
    found = score([one.text for one in translations], [references[i] for i in fitting])
    model.train()
    return Validation(loss, found.bleu)


def _write_held_out(path: Path, test: Pairs) -> None:
    sources, references = grouped(test)
    lines = [
        json.dumps({"source": source, "references": several}, ensure_ascii=False)
        for source, several in zip(sources, references, strict=True)
    ]
    write_text(path, "\n".join(lines) + "\n")

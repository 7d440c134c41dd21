"""A run: from a recipe to a trained model, in one folder.

recipe.toml       the recipe as resolved, paths made absolute
tokenizer.json    metrics.jsonl    curves.png
checkpoints/      to go on from (`training/checkpoint.py`)
model/            the result (`hub/folder.py`), with the held-out sentences beside it in test.jsonl
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from sublayer import config
from sublayer.config.load import LoadedRecipe, dump_toml, load_recipe
from sublayer.data.encoding import EncodedPairs, encode
from sublayer.data.loader import Loader
from sublayer.data.sources import Pairs, read
from sublayer.data.split import Splits, grouped, split
from sublayer.errors import CheckpointError, ConfigError, DataError
from sublayer.files import remove_leftovers, write_text
from sublayer.generation.translator import Translator
from sublayer.hub import folder as model_folder
from sublayer.models import EncoderDecoder
from sublayer.text import Tokenizer
from sublayer.training import checkpoint
from sublayer.training.card import model_card
from sublayer.training.curves import draw_curves
from sublayer.training.evaluation import score, validation_loss
from sublayer.training.metrics import MetricsLog, require_tensorboard
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
    check_folder(out, loaded.folder, resume=resume, overwrite=overwrite)
    text = prepare(recipe, loaded.folder, out / "tokenizer.json" if resume else None, reporter)
    recipe = _with_vocabulary(_with_paths(recipe, loaded.folder), text.tokenizer)
    torch.manual_seed(recipe.seed)
    model = EncoderDecoder(_pairs_model(recipe)).to(device)
    loader = Loader(text.training, recipe.training.batches, recipe.seed)
    if recipe.training.tensorboard:
        require_tensorboard()
    # Nothing in the folder is touched before this line: what cannot be trained must not cost an earlier run.
    recipe = _resumed(recipe, out) if resume else _begun(recipe, out, device)
    for written in (out, out / "checkpoints"):
        remove_leftovers(written)
    text.tokenizer.save(out / "tokenizer.json")
    precision = resolve_precision(recipe.training.precision, device)
    reporter.say(
        f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}, "
        f"products in {str(precision).removeprefix('torch.')}, {len(text.training):,} pairs"
    )
    last = checkpoint.listed(out / "checkpoints")
    saved = checkpoint.read(last[-1]) if resume and last else None
    digest = _digest(text)
    if saved is not None and saved.progress.text != digest:
        raise DataError(
            f"the training text or the tokenizer is not what {out} began with",
            "Put back the text and tokenizer.json as they were, or start another run.",
        )
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
    trainer = Trainer(model, loader, recipe.training, pad_id=text.tokenizer.pad_id, precision=precision, around=around)
    trainer.progress = replace(trainer.progress, text=digest)
    try:
        if saved is not None:
            trainer.restore(saved)
            reporter.say(f"going on from step {saved.progress.step}")
        with reporter:
            finished = trainer.train()
    except BaseException:
        with suppress(Exception):  # the picture must not hide what happened
            draw_curves(out / "metrics.jsonl", out / "curves.png", recipe.name)
        raise
    finally:
        log.close()
    draw_curves(out / "metrics.jsonl", out / "curves.png", recipe.name)
    if finished and (recipe.training.early_stopping is None or not (out / "model").is_dir()):
        with trainer.average.applied():
            write_model()
    return finished


def check_folder(out: Path, folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Check that `out` is what the caller thinks it is; nothing is changed. folder: where the recipe stands.

    Raises:
        ConfigError, CheckpointError: a run stands there and neither `resume` nor `overwrite` says what to do with it,
            or there is nothing to resume.
    """
    there = (out / "recipe.toml").is_file()
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite contradict each other", "Give one of them.")
    if resume and not there:
        raise CheckpointError(f"there is no run in {out} to resume", "Leave --resume out to start one.")
    if there and not resume and out.resolve() == folder and not (out / "metrics.jsonl").is_file():
        raise ConfigError(f"{out} is the folder of the recipe, not of a run", "Choose another --out.")
    if there and not resume and not overwrite:
        raise ConfigError(
            f"{out} already holds a run",
            "Go on with --resume, start anew with --overwrite, or choose another --out.",
        )
    # Hidden files are what a run that was killed in its first moment leaves: a recipe.toml not yet renamed.
    if not there and out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise ConfigError(f"{out} is not empty and not a run", "Choose another --out.")


def prepare(recipe: config.Recipe, folder: Path, kept: Path | None, reporter: Reporter) -> Text:
    """Read, split and encode the text.

    Args:
        kept: the tokenizer of a run that goes on; where it is not there, one is trained.
    """
    pairs = read(recipe.data.source, folder)
    splits = split(pairs, recipe.data.split, folder)
    for name, part in (("text", pairs), ("training", splits.train)):
        if part.report.dropped:
            reporter.say(f"{name}: {part.report}")
    sizes = [f"{len(part):,}" for part in (splits.train, splits.validation, splits.test)]
    reporter.say(f"{sizes[0]} training pairs, {sizes[1]} for validation, {sizes[2]} held out")
    if kept is not None and kept.is_file():
        tokenizer = Tokenizer.load(kept)
    else:
        tokenizer = Tokenizer.train(_lines(splits.train), recipe.tokenizer)
    training = encode(splits.train, tokenizer, recipe.data.max_length)
    checked = encode(splits.validation, tokenizer, recipe.data.max_length)
    for name, encoded in (("training", training), ("validation", checked)):
        if len(encoded.rows) < len(splits.train if name == "training" else splits.validation):
            reporter.say(f"{name}: {encoded.report}")
    return Text(splits, tokenizer, training, checked)


def _lines(pairs: Pairs) -> Iterator[str]:
    yield from pairs.sources
    yield from pairs.targets


def _with_vocabulary(recipe: config.Recipe, tokenizer: Tokenizer) -> config.Recipe:
    """The vocabulary's size is the tokenizer's: text may be too small to fill the size that was asked for."""
    model = recipe.model.model_copy(update={"vocab_size": tokenizer.vocab_size})
    return recipe.model_copy(update={"model": model})


def _pairs_model(recipe: config.Recipe) -> config.EncoderDecoder:
    if not isinstance(recipe.model, config.EncoderDecoder):
        raise ConfigError(
            f"model.kind = '{recipe.model.kind}' does not learn from pairs of texts",
            "Take a preset of kind 'encoder-decoder'.",
        )
    return recipe.model


def _with_paths(recipe: config.Recipe, folder: Path) -> config.Recipe:
    """The paths of the text made absolute, so that the recipe in the run's folder can be trained from there."""

    def placed(text: config.ParallelText) -> config.ParallelText:
        paths = [name for name in ("source", "target", "path") if name in type(text).model_fields]
        return text.model_copy(update={name: str(folder / getattr(text, name)) for name in paths})

    data = recipe.data
    how = data.split
    if isinstance(how, config.GivenSplit):
        how = how.model_copy(update={"validation": placed(how.validation), "test": placed(how.test)})
    return recipe.model_copy(update={"data": data.model_copy(update={"source": placed(data.source), "split": how})})


def _with_precision(recipe: config.Recipe, precision: str) -> config.Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"precision": precision})})


def _begun(recipe: config.Recipe, out: Path, device: torch.device) -> config.Recipe:
    """Make `out` the folder of a new run: the resolved recipe is written, and an earlier run removed.

    What "auto" found is written down, so that a run that goes on elsewhere, or on a busier day, goes on the same way.
    """
    for part in ("checkpoints", "model", "tensorboard"):
        shutil.rmtree(out / part, ignore_errors=True)
    for part in ("tokenizer.json", "metrics.jsonl", "curves.png"):
        with suppress(OSError):  # what cannot be removed here cannot be written below, which says so
            (out / part).unlink()
    precision = resolve_precision(recipe.training.precision, device)
    recipe = _with_precision(recipe, str(precision).removeprefix("torch."))
    write_text(out / "recipe.toml", dump_toml(recipe))
    return recipe


def _resumed(recipe: config.Recipe, out: Path) -> config.Recipe:
    """The resolved recipe that the run in `out` began with.

    Raises:
        ConfigError: it is not `recipe`; the settings that differ are named.
    """
    path = out / "recipe.toml"
    before = load_recipe(str(path)).recipe
    if recipe.training.precision == "auto":
        recipe = _with_precision(recipe, before.training.precision)
    different = _differences(before.plain(), recipe.plain(), "")
    if different:
        raise ConfigError(
            f"the recipe is not the one that {out} began with: {', '.join(different)}",
            f"Resume with the same recipe and overrides (where text was moved, correct its path in {path}), "
            "or start another run.",
        )
    return before


def _digest(text: Text) -> str:
    """Of the tokenizer and the training text as ids: what makes the batches, and the model, the same ones."""
    digest = hashlib.blake2b(text.tokenizer.fingerprint.encode(), digest_size=16)
    for side in (text.training.sources, text.training.targets):
        digest.update(side.starts.tobytes())
        digest.update(side.tokens.tobytes())
    return digest.hexdigest()


def _differences(old: Any, new: Any, where: str) -> list[str]:
    """The settings that differ, by dotted path."""
    if isinstance(old, dict) and isinstance(new, dict):
        before, after = cast("dict[str, Any]", old), cast("dict[str, Any]", new)
        return [
            difference
            for key in sorted({*before, *after})
            for difference in _differences(before.get(key), after.get(key), f"{where}.{key}".lstrip("."))
        ]
    return [] if old == new else [f"{where} was {old}, is {new}"]


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

"""Small text and small models for every task, as plain data of a recipe."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import tomli_w

from small_run import WORDS, recipe, tree
from sublayer import config
from sublayer.config.presets import merge

BLOCK: dict[str, Any] = {
    "attention": {"heads": 2},
    "feed_forward": {"type": "position-wise", "hidden": 32},
    "norm_placement": "pre",
    "dropout": 0.1,
}
DECODER_ONLY: dict[str, Any] = {
    "kind": "decoder-only",
    "dim": 16,
    "max_length": 32,
    "decoder": {"layers": 1, "block": BLOCK, "position": {"type": "rotary"}},
}
ENCODER_ONLY: dict[str, Any] = {
    "kind": "encoder-only",
    "dim": 16,
    "max_length": 32,
    "encoder": {"layers": 1, "block": BLOCK, "position": {"type": "rotary"}},
}
ENCODER_DECODER = {**tree(300, dropout=0.1).model_dump(mode="json", exclude_none=True), "max_length": 32}


def headed(type_: str, **over: Any) -> dict[str, Any]:
    return {**ENCODER_ONLY, "head": {"type": type_, **over}}


# By name: the task, the model, the source, and the metric that early stopping would look at.
TASKS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "causal": ({"type": "causal", "stride": 24}, DECODER_ONLY, {"type": "text", "path": "text.txt"}, "word_perplexity"),
    "masked": (
        {"type": "masked", "whole_words": True},
        headed("masked-language"),
        {"type": "text", "path": "text.txt"},
        "accuracy",
    ),
    "span-corruption": (
        {"type": "span-corruption", "sentinels": 9},
        ENCODER_DECODER,
        {"type": "text", "path": "text.txt", "document": "blank-lines"},
        "perplexity",
    ),
    "denoising": ({"type": "denoising"}, ENCODER_DECODER, {"type": "text", "path": "text.txt"}, "loss"),
    "classification": (
        {"type": "classification", "weights": {"type": "balanced"}},
        headed("classification", pooling="mean"),
        {"type": "labelled-tsv", "path": "labelled.tsv"},
        "macro_f1",
    ),
    "regression": (
        {"type": "regression"},
        headed("classification", pooling="mean", problem="regression"),
        {"type": "labelled-tsv", "path": "rated.tsv"},
        "spearman",
    ),
    "tagging": ({"type": "tagging"}, headed("tagging"), {"type": "conll", "path": "tagged.conll"}, "span_f1"),
    "embedding": (
        {"type": "embedding"},
        headed("sentence-embedding"),
        {"type": "tsv", "path": "similar.tsv"},
        "recall_at_1",
    ),
    "instructions": ({"type": "instructions"}, DECODER_ONLY, {"type": "chat", "path": "chat.jsonl"}, "perplexity"),
}


def write_text(folder: Path, count: int = 90) -> None:
    """Every kind of source, of one made-up language."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(1)
    sentences: dict[str, None] = {}
    while len(sentences) < count:
        sentences[" ".join(draw.choices(WORDS, k=draw.randint(3, 6)))] = None
    lines = list(sentences)
    reverse = [" ".join(reversed(line.split())) for line in lines]
    (folder / "text.txt").write_text("".join(f"{line} .\n{other} .\n\n" for line, other in zip(lines, reverse)))
    (folder / "labelled.tsv").write_text("".join(f"{line}\t{'much' if 'ba' in line else 'little'}\n" for line in lines))
    (folder / "rated.tsv").write_text("".join(f"{line}\t{line.count('a') / 4}\n" for line in lines))
    tagged = "\n\n".join(
        "\n".join(f"{word} {'B-X' if word in ('ba', 'co') else 'O'}" for word in line.split()) for line in lines
    )
    (folder / "tagged.conll").write_text(tagged + "\n")
    (folder / "similar.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in zip(lines, reverse)))
    talks = [
        {"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]}
        for a, b in zip(lines, reverse)
    ]
    (folder / "chat.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))


def plain(name: str, **over: Any) -> dict[str, Any]:
    """A whole recipe of a task as plain data, with tables of `over` laid on it."""
    task, model, source, _ = TASKS[name]
    base = recipe()
    base |= {"name": name, "task": task, "model": {key: value for key, value in model.items() if key != "vocab_size"}}
    base["data"] = {"source": source, "split": {"type": "random", "validation": 8, "test": 6}, "max_length": 32}
    base["training"] |= {"steps": 12, "batches": {"tokens": 160}, "validate_every": 6}
    del base["decoding"]
    return merge(base, over)


def write_task(folder: Path, name: str, **over: Any) -> Path:
    """Text and recipe in `folder`; the path of the recipe."""
    write_text(folder)
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps(plain(name, **over)), encoding="utf-8")
    return path


def parsed(name: str, **over: Any) -> config.Recipe:
    return config.Recipe.parse(plain(name, **over), name)

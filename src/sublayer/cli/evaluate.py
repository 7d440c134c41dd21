"""`sublayer evaluate`: how good a model is on text that was held out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli import terminal
from sublayer.cli.arguments import Device, ModelFolder, Threads, WeightFormat
from sublayer.cli.decoding import device_for
from sublayer.cli.options import Told, fields, from_tree
from sublayer.cli.terminal import say
from sublayer.config.decoding import Decoding
from sublayer.untrusted import to_json


@from_tree(decoding=fields(Decoding, ("beam", "length_penalty")))
def evaluate(
    model: ModelFolder,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            help="File to score on: the format of the training data, or JSON lines as in test.jsonl.",
            show_default="the held-out text",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task of a model without a recipe: causal, instructions, …",
            show_default="by its shape and head",
        ),
    ] = None,
    decoding: Told,
    out: Annotated[
        Path | None, typer.Option(help="Write inputs, references and outputs to this file, as JSON lines.")
    ] = None,
    tokenize: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer of sacreBLEU: 13a, zh, ja-mecab, ko-mecab, intl, char, spm, flores200, …",
            show_default="the recipe's, or by the target language",
        ),
    ] = None,
    weights: WeightFormat = None,
    threads: Threads = None,
    device: Device = "auto",
) -> None:
    """Score a model on its held-out text, or on a file.

    The task in the model's recipe decides how. Translation: BLEU by sacreBLEU, with its signature, and chrF. Chats: the
    share of last answers, by greedy search, that match the reference word for word. Language model: perplexity (--data:
    a .txt file, one document). Classifier: accuracy. Tagger: F1.

    Example: sublayer evaluate runs/demo --beam 4

    Example: sublayer evaluate models/my-llama --data english.txt

    Example: sublayer evaluate runs/smollm2-trec --task instructions --out answers.jsonl
    """
    from rich.progress import Progress

    from sublayer.files import write_text
    from sublayer.tasks.task import Scoring
    from sublayer.training import evaluation

    Decoding.parse(decoding, "evaluate")
    evaluated = evaluation.read_model(model, device_for(device, weights), task, weights)
    with ExitStack() as running:

        def progress(count: int) -> Callable[[int], None]:
            bar = running.enter_context(Progress(console=terminal.console(stderr=True), transient=True))
            shown = bar.add_task("answering", total=count)
            return lambda done: bar.advance(shown, done)

        how = Scoring(
            beam=decoding.get("beam"),
            length_penalty=decoding.get("length_penalty"),
            tokenize=tokenize,
            write=out is not None,
            progress=progress,
        )
        found = evaluation.evaluate(evaluated, data, how)
    width = max(map(len, found.lines))
    for name, value in found.lines.items():
        say(f"{name:{width}}  {value}")
    for remark in found.remarks:
        say(remark)
    for warning in found.warnings:
        say(warning, err=True)
    if out is not None:
        write_text(out, "".join(to_json(row) + "\n" for row in found.rows))

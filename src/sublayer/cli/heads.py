"""`sublayer heads`: what each attention head does, and what is lost without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sublayer.cli import terminal
from sublayer.cli.arguments import Device, ModelFolder
from sublayer.cli.inspecting import examples_of, opened, translator_of, wide_console
from sublayer.cli.terminal import say
from sublayer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from sublayer.hub.folder import TransformerBundle
    from sublayer.inspection.ablation import Ablation, Importance
    from sublayer.inspection.examples import Example
    from sublayer.inspection.heads import HeadScores


def heads(
    model: ModelFolder,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts to score on; a translation model translates them first. Default: --data.",
            metavar="[TEXT]...",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines with source and target, or text (and label), or words and tags.",
            metavar="PATH",
            show_default="the held-out rows",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Maximum number of rows, spread evenly over the file.", metavar="N")
    ] = 200,
    longest: Annotated[
        int,
        typer.Option(
            min=2, help="Maximum tokens per row; longer texts are cut, longer pairs are skipped.", metavar="N"
        ),
    ] = 256,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Ablate each head in turn, and print the increase in loss.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Picture of the scores to write: .png or .svg.", metavar="PATH")
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="JSON file to write all scores to.", metavar="PATH")] = None,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens in a batch.", metavar="N")] = 1024,
    device: Device = "auto",
) -> None:
    """Score every attention head as a previous-token, next-token, first-token, same-token, induction or diagonal head;
    with --ablate, also measure the loss without it.

    A score is the share of the head's attention weight, averaged over tokens ("tokens" says how many). "even" is the
    score of uniform attention. The loss is that of the model's own task, in nats per token (or label).

    Example: sublayer heads runs/en-es --limit 20 --ablate --out heads.png

    Example: sublayer heads models/bert "the cat sat on a mat"
    """
    from sublayer.inspection.ablation import ablate as measure
    from sublayer.inspection.ablation import runs
    from sublayer.inspection.canvas import require_picture_path
    from sublayer.inspection.head_picture import draw_heads
    from sublayer.inspection.heads import head_scores

    if out is not None:
        require_picture_path(out)
    found = opened(model, device)
    examples, what = _material(found, model, texts or [], data, limit, longest)
    asked = _asked(found, examples) if ablate else []
    with _progress() as bar:
        task = bar.add_task("reading", total=len(examples))
        scores = head_scores(
            found.model,
            examples,
            found.tokenizer.special_ids,
            tokens=batch_tokens,
            progress=lambda count: bar.advance(task, count),
        )
        ablation: Ablation | None = None
        if ablate:
            off = bar.add_task("switching heads off", total=runs(found.model))
            ablation = measure(found.model, asked, tokens=batch_tokens, progress=lambda: bar.advance(off))
    console = wide_console()
    for place, one in enumerate(scores):
        console.print(_table(one, None if ablation is None else ablation.importance[place]))
    if ablation is not None:
        say(f"loss {ablation.loss:.4f} nats over {ablation.targets:,} targets, with all heads")
    say(f"read: {what}")
    if figures is not None:
        from sublayer.files import write_json

        write_json(figures, _plain(scores, ablation, what))
        say(f"The figures are {figures}")
    if out is not None:
        draw_heads(scores, out, ablation=ablation, title=f"What the heads of {model.name or model} do, on {what}")
        say(f"The picture is {out}")


def _material(
    found: TransformerBundle, path: Path, texts: Sequence[str], data: Path | None, limit: int, longest: int
) -> tuple[list[Example], str]:
    """What is to be read, and what to call it."""
    from sublayer.hub.folder import find
    from sublayer.inspection.material import from_file
    from sublayer.models import EncoderDecoder

    if texts and data is not None:
        raise InputError("both texts and --data were given", "Give one of them.")
    if texts:
        return examples_of(found, path, texts), "1 text" if len(texts) == 1 else f"{len(texts)} texts"
    file = find(path) / "test.jsonl" if data is None else data
    if data is None and not file.is_file():
        raise InputError(f"{path} has no held-out rows (test.jsonl)", "Give texts, or a file with --data.")
    affixes = translator_of(found, path).affixes if isinstance(found.model, EncoderDecoder) else None
    rows = from_file(found.model, found.tokenizer, file, limit=limit, most=longest, affixes=affixes)
    return rows, f"{len(rows)} {'rows' if len(rows) > 1 else 'row'} of {file.name}"


def _asked(found: TransformerBundle, examples: Sequence[Example]) -> list[Example]:
    """The examples with something to be said of each: by a masked-language model what is hidden from it.

    Raises:
        InputError: the model has no loss on them.
    """
    from sublayer import config
    from sublayer.inspection.examples import hidden_behind_masks
    from sublayer.models import EncoderOnly

    head = found.model.config.head if isinstance(found.model, EncoderOnly) else None
    if isinstance(head, config.MaskedLanguage):
        examples = hidden_behind_masks(examples, found.tokenizer)
    silent = sum(not example.targets for example in examples)
    if silent == len(examples):
        what = f"a {head.type} model has no loss on text" if head else "a single token leaves nothing to predict"
        raise InputError(what, "Give --data with labels or tags, or leave --ablate out." if head else "Give more text.")
    return [example for example in examples if example.targets]


def _progress() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=terminal.console(stderr=True), transient=True)


def _table(one: HeadScores, importance: Importance | None) -> Table:
    from rich.table import Table

    names = list(one.values)
    table = Table("layer", "head", "does", title=one.group.title, title_justify="left")
    for name in (*names, *(["loss when off"] if importance else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in range(len(one.group.attentions)):
        for head in range(one.group.heads):
            cells = [f"{one.values[name][layer, head]:.2f}" for name in names]
            if importance is not None:
                change, error = (float(values[layer, head]) for values in (importance.change, importance.error))
                cells.append(f"{change:+.4f}" + ("" if error != error else f" ± {error:.4f}"))
            table.add_row(str(layer), str(head), one.role(layer, head), *cells)
        table.add_section()
    rest = [""] if importance else []
    table.add_row("even", "", "", *(f"{one.chance[name]:.2f}" for name in names), *rest)
    # Without these a score of a handful of tokens would look like one of thousands.
    table.add_row("tokens", "", "", *(f"{one.counts[name]:,}" for name in names), *rest)
    return table


def _plain(scores: Sequence[HeadScores], ablation: Ablation | None, what: str) -> dict[str, Any]:
    """All figures as plain data: tables of layers and heads."""
    found: dict[str, Any] = {"read": what, "attention": {}}
    for place, one in enumerate(scores):
        table: dict[str, Any] = {
            name: {"heads": values.tolist(), "even": one.chance[name], "queries": one.counts[name]}
            for name, values in one.values.items()
        }
        if ablation is not None:
            importance = ablation.importance[place]
            table["loss when off"] = {"heads": importance.change.tolist()}
            if not importance.error.isnan().any():
                table["loss when off"]["standard error"] = importance.error.tolist()
        found["attention"][one.group.name] = table
    if ablation is not None:
        found |= {"loss": ablation.loss, "targets": ablation.targets}
    return found

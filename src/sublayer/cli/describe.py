"""`sublayer describe`: what a model consists of and what it costs, before any tensor exists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table
    from rich.tree import Tree

    from sublayer.cli.subject import Subject
    from sublayer.config.part import Part


def describe(
    what: Annotated[str, typer.Argument(help="A preset, a recipe (name or file), or a model folder.", metavar="WHAT")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a value, as model.encoder.layers=2.", metavar="KEY=VALUE"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sentences translated at once.")] = 32,
    length: Annotated[int, typer.Option(min=1, help="Tokens a sentence, on either side.")] = 32,
    beam: Annotated[int | None, typer.Option(min=1, help="Hypotheses a sentence; unset: the recipe's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Describe a model: its tree, parameters by part, FLOPs per token, and memory to train it and to translate.

    Everything is counted from the configuration: nothing is loaded or fetched.

    Example: sublayer describe base --set model.encoder.position.type=rotary
    """
    from sublayer.cli.subject import find_subject
    from sublayer.errors import ConfigError

    subject = find_subject(what, overrides or [])
    if length > subject.model.max_length:
        raise ConfigError(
            f"--length {length} is more than model.max_length = {subject.model.max_length}",
            "Choose a smaller length, or add --set model.max_length=...",
        )
    costs = _costs(subject, batch, length, subject.decoding.beam if beam is None else beam)
    if as_json:
        import json

        typer.echo(json.dumps({"name": subject.name, "tree": subject.tree.plain(), **costs}, indent=2))
    else:
        _print(subject, costs)


def _costs(subject: Subject, batch: int, length: int, beam: int) -> dict[str, Any]:
    from sublayer.config import cost

    parts = cost.parameters(subject.model)
    operations = cost.flops(subject.model, length, length)
    training = cost.training_memory(subject.model, subject.training)
    decoding = cost.decoding_memory(subject.model, batch, beam, length)
    return {
        "parameters": {"parts": parts, "total": sum(parts.values())},
        "flops": {
            "source_length": length,
            "target_length": length,
            "training_per_target_token": operations.training,
            "encoding_per_sentence": operations.encoding,
            "decoding_per_token": operations.decoding,
        },
        "training_memory": {
            "batch_tokens": subject.training.batches.tokens,
            "bytes": training,
            "total": sum(training.values()),
        },
        "decoding_memory": {
            "batch": batch,
            "beam": beam,
            "length": length,
            "bytes": decoding,
            "total": sum(decoding.values()),
        },
    }


def _print(subject: Subject, costs: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console()
    console.print(_tree(subject.name, subject.tree))
    counted, training, decoding = costs["flops"], costs["training_memory"], costs["decoding_memory"]
    sentences = f"{decoding['batch']} sentences, beam {decoding['beam']}, {decoding['length']} tokens a side"
    for title, table in [
        (f"Parameters{subject.note}", _parameters(costs["parameters"])),
        (f"Floating-point operations ({counted['target_length']} tokens a side)", _flops(counted)),
        (f"Memory to train (a batch of {training['batch_tokens']:,} tokens; an estimate)", _memory(training)),
        (f"Memory to translate ({sentences})", _memory(decoding)),
    ]:
        # Not the table's own title, which would be wrapped to the table's width.
        console.print(f"\n[bold]{title}[/]", highlight=False)
        console.print(table)


def _tree(name: str, part: Part) -> Tree:
    """The configuration as a tree: a part by its type, a value by its name."""
    from rich.text import Text
    from rich.tree import Tree

    from sublayer.config.part import Part as Node
    from sublayer.config.shape import field_shape

    # Text, not markup: a value may hold square brackets.
    tree = Tree(Text.assemble((name, "bold"), " ", (type(part).__name__, "cyan")))
    for field in type(part).model_fields:
        value = getattr(part, field)
        if isinstance(value, Node):
            tree.children.append(_tree(field, value))
        # A field that can be only one word is what chose the class, whose name stands there.
        elif len(field_shape(type(part), field).words) != 1:
            tree.add(Text.assemble(f"{field} = ", ("unset", "dim") if value is None else f"{value}"))
    return tree


def _parameters(costs: dict[str, Any]) -> Table:
    table = _table("part", "number", "share")
    total = costs["total"]
    for part, count in costs["parts"].items():
        tied = part == "output" and count == 0
        table.add_row(part, "tied" if tied else f"{count:,}", "" if tied else f"{count / total:.1%}")
    table.add_section()
    table.add_row("total", f"{total:,}", "100%")
    return table


def _flops(costs: dict[str, Any]) -> Table:
    table = _table("of", "number")
    table.add_row("training, a target token", _scaled(costs["training_per_target_token"], 1000, "FLOPs"))
    table.add_row("translating, the source once", _scaled(costs["encoding_per_sentence"], 1000, "FLOPs"))
    last = f"translating, token {costs['target_length']}, with a cache"
    table.add_row(last, _scaled(costs["decoding_per_token"], 1000, "FLOPs"))
    return table


def _memory(costs: dict[str, Any]) -> Table:
    table = _table("what", "size")
    for what, size in costs["bytes"].items():
        table.add_row(what.replace("_", " "), _scaled(size, 1024, "B"))
    table.add_section()
    table.add_row("total", _scaled(costs["total"], 1024, "B"))
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table()
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _scaled(value: float, step: int, unit: str) -> str:
    """1500 -> "1.5 kFLOPs"; with steps of 1024, 1536 -> "1.5 KiB"."""
    size, power = float(value), 0
    while size >= step and power < 4:
        size, power = size / step, power + 1
    prefix = ["", "k", "M", "G", "T"][power] if step == 1000 else ["", "Ki", "Mi", "Gi", "Ti"][power]
    return f"{size:,.1f} {prefix}{unit}" if power else f"{size:,.0f} {unit}"

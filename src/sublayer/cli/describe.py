"""`sublayer describe`: what a model consists of and what it costs, before any tensor exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sublayer.cli import terminal
from sublayer.cli.arguments import Overrides
from sublayer.cli.tables import show, table_of
from sublayer.cli.terminal import say
from sublayer.errors import ConfigError
from sublayer.untrusted import to_json

if TYPE_CHECKING:
    from rich.table import Table
    from rich.tree import Tree

    from sublayer.cli.described_model import DescribedModel
    from sublayer.config.part import Part


@dataclass(frozen=True)
class Use:
    """What using a model of a kind is called.

    use: the verb. texts, tokens: what it is used on. trained: what training is counted by. read_once, one_more: of what
    the operations are; one_more is empty where nothing is made token by token.
    """

    use: str
    texts: str
    tokens: str
    trained: str
    read_once: str
    one_more: str


USES: Mapping[str, Use] = {
    "encoder-decoder": Use(
        use="translate",
        texts="sentences",
        tokens="tokens a side",
        trained="a target token",
        read_once="translating, the source once",
        one_more="translating, token {}",
    ),
    "decoder-only": Use(
        use="generate",
        texts="texts",
        tokens="tokens of prompt and as many more",
        trained="a token",
        read_once="generating, the prompt once",
        one_more="generating, token {} after the prompt",
    ),
    "encoder-only": Use(
        use="read",
        texts="texts",
        tokens="tokens each",
        trained="a token",
        read_once="reading, a text",
        one_more="",
    ),
}
"""By kind, of a Transformer or a recurrent model."""


def describe(
    what: Annotated[
        str | None,
        typer.Argument(help="A preset, a recipe, or the folder of a model or run.", metavar="WHAT", show_default=False),
    ] = None,
    overrides: Overrides = None,
    batch: Annotated[int, typer.Option(min=1, help="Batch size at inference.")] = 32,
    length: Annotated[int, typer.Option(min=1, help="Input length and output length at inference, in tokens.")] = 32,
    beam: Annotated[
        int | None, typer.Option(min=1, help="Number of beams at inference. Default: the recipe's.")
    ] = None,
    machine: Annotated[
        bool,
        typer.Option(
            "--machine", help="Describe this machine instead: measured speeds, and the choices made from them."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe a model: its configuration, parameters per part, FLOPs per token, and memory for training and inference.

    Everything is computed from the configuration; no weights are loaded. Of a model folder also: what runs it on this
    CPU, and how many bytes of weights a token costs in each weight format.

    Example: sublayer describe base --set model.encoder.position.type=rotary
    """
    if machine:
        _describe_machine(what, as_json)
        return
    from sublayer.cli.described_model import find_model

    if what is None:
        raise ConfigError("WHAT is missing", "Name a preset, a recipe or a model folder, or add --machine.")
    described = find_model(what, overrides or [])
    longest, half = described.model.max_length, ""
    if described.model.kind.endswith("decoder-only"):
        # What it makes takes the positions after what it reads.
        longest, half = longest // 2, ", which a prompt and its continuation share"
    if length > longest:
        raise ConfigError(
            f"--length {length} is more than model.max_length = {described.model.max_length}{half}",
            "Choose a smaller length, or add --set model.max_length=...",
        )
    costs = _costs(described, batch, length, described.decoding.beam if beam is None else beam)
    if described.folder is not None:
        from sublayer.cli.described_cpu import on_cpu

        costs["cpu"] = on_cpu(described.model, described.folder)
    if as_json:
        say(to_json({"name": described.name, "tree": described.tree.plain(), **costs}, indent=2))
    else:
        _print(described, costs)


def _describe_machine(what: str | None, as_json: bool) -> None:

    if what is not None:
        raise ConfigError(f"--machine describes this machine, not '{what}'", "Leave one of the two out.")
    if as_json:
        from sublayer.fast.machine import machine

        say(machine().model_dump_json(indent=2))
    else:
        from sublayer.cli.machine import print_machine

        print_machine()


def _costs(described: DescribedModel, batch: int, length: int, beam: int) -> dict[str, Any]:
    from sublayer.config import cost

    parts = described.model.parameters()
    operations = described.model.flops(length, length)
    training = cost.training_memory(described.model, described.training)
    decoding = cost.decoding_memory(described.model, batch, beam, length)
    return {
        "parameters": {
            "parts": parts,
            "total": sum(parts.values()),
            "active": cost.active_parameters(described.model),
        },
        "flops": {
            "source_length": length,
            "target_length": length,
            "training_per_target_token": operations.training,
            "encoding_per_sentence": operations.encoding,
            "decoding_per_token": operations.decoding,
        },
        "training_memory": {
            "batch_tokens": described.training.batches.tokens,
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


def _print(described: DescribedModel, costs: dict[str, Any]) -> None:

    terminal.console().print(_tree(described.name, described.tree))
    words = USES[described.model.kind.removeprefix("recurrent-")]
    cached = "" if described.model.kind.startswith("recurrent-") else ", with a cache"
    counted, training, decoding = costs["flops"], costs["training_memory"], costs["decoding_memory"]
    beam = f", beam {decoding['beam']}" if words.one_more else ""
    texts = f"{decoding['batch']} {words.texts}{beam}, {decoding['length']} {words.tokens}"
    for title, table in [
        (f"Parameters{described.note}", _parameters(costs["parameters"])),
        (f"Floating-point operations ({counted['target_length']} {words.tokens})", _flops(counted, words, cached)),
        (f"Memory to train (a batch of {training['batch_tokens']:,} tokens; an estimate)", _memory(training)),
        (f"Memory to {words.use} ({texts})", _memory(decoding)),
    ]:
        show(title, table)
    if "cpu" in costs:
        _print_cpu(costs["cpu"], words)


def _print_cpu(cpu: dict[str, Any], words: Use) -> None:
    """Who runs the model on this processor, and what it reads of the weights."""
    console = terminal.console()
    who = f"the engine, with {cpu['instruction_set']}" if cpu["runs"] == "engine" else "its modules"
    console.print(f"\n[bold]On this CPU[/] it is run by {who}", highlight=False)
    if "why" in cpu:
        console.print(f"(not by the engine: {cpu['why']})", highlight=False, markup=False)
    once = "for one more token" if words.one_more else "for a batch of texts"
    table = table_of("weights in", f"bytes of matrices read {once}")
    for weights, size in cpu["bytes_read"].items():
        table.add_row(weights, _scaled(size, 1024, "B"))
    if cpu["bytes_read"]:
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
        elif isinstance(value, tuple) and any(isinstance(item, Node) for item in cast("tuple[Any, ...]", value)):
            branch = tree.add(field)
            branch.children += [_tree(str(place), item) for place, item in enumerate(cast("tuple[Part, ...]", value))]
        # A field that can be only one word is what chose the class, whose name stands there.
        elif len(field_shape(type(part), field).words) != 1:
            tree.add(Text.assemble(f"{field} = ", ("unset", "dim") if value is None else f"{value}"))
    return tree


def _parameters(costs: dict[str, Any]) -> Table:
    table = table_of("part", "number", "share")
    total = costs["total"]
    for part, count in costs["parts"].items():
        tied = part == "output" and count == 0
        table.add_row(part, "tied" if tied else f"{count:,}", "" if tied else f"{count / total:.1%}")
    table.add_section()
    table.add_row("total", f"{total:,}", "100%")
    if costs["active"] != total:
        table.add_row("for one token", f"{costs['active']:,}", f"{costs['active'] / total:.1%}")
    return table


def _flops(costs: dict[str, Any], words: Use, cached: str) -> Table:
    table = table_of("of", "number")
    table.add_row(f"training, {words.trained}", _scaled(costs["training_per_target_token"], 1000, "FLOPs"))
    table.add_row(words.read_once, _scaled(costs["encoding_per_sentence"], 1000, "FLOPs"))
    if words.one_more:
        last = words.one_more.format(costs["target_length"]) + cached
        table.add_row(last, _scaled(costs["decoding_per_token"], 1000, "FLOPs"))
    return table


def _memory(costs: dict[str, Any]) -> Table:
    table = table_of("what", "size")
    for what, size in costs["bytes"].items():
        table.add_row(what.replace("_", " "), _scaled(size, 1024, "B"))
    table.add_section()
    table.add_row("total", _scaled(costs["total"], 1024, "B"))
    return table


def _scaled(value: float, step: int, unit: str) -> str:
    """1500 -> "1.5 kFLOPs"; with steps of 1024, 1536 -> "1.5 KiB"."""
    size, power = float(value), 0
    while size >= step and power < 4:
        size, power = size / step, power + 1
    prefix = ["", "k", "M", "G", "T"][power] if step == 1000 else ["", "Ki", "Mi", "Gi", "Ti"][power]
    return f"{size:,.1f} {prefix}{unit}" if power else f"{size:,.0f} {unit}"
